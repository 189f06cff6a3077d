//! The way to PostgreSQL over TLS: the server must show that it is the right one.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use end_to_end::callback::{sid, signed_inbound};
use end_to_end::cluster::{Cluster, Options};
use end_to_end::database::FRONT_ROLE;
use end_to_end::environment::fresh_directory;
use end_to_end::shim::Shim;
use end_to_end::tls::Certificate;

#[test]
fn the_shim_speaks_to_the_right_server_alone() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let directory = fresh_directory();
    let authority = Certificate::authority(&directory, "authority");
    let stranger = Certificate::authority(&directory, "stranger");
    let file = |of: &Certificate| of.certificate.to_str().unwrap().to_owned();
    let (right, wrong) = (file(&authority), file(&stranger));

    let over_socket = format!("{} sslmode=require", database.url(FRONT_ROLE));
    refuse(&over_socket, &[], "server does not support TLS");
    let address = cluster.serve_tls(&authority.sign(&directory, "db.example.com"));
    let at = |host: &str, mode: &str| {
        let name = database.name();
        format!("host={host} hostaddr={address} user={FRONT_ROLE} dbname={name} sslmode={mode}")
    };
    let untrusted = "signed by no authority that is trusted here";
    refuse(&at("db.example.com", "require"), &[], untrusted);
    let by_stranger = ["--database-ca-file", &wrong];
    refuse(&at("db.example.com", "require"), &by_stranger, untrusted);
    let trusting = ["--database-ca-file", right.as_str()];
    let other_host = "not valid for name";
    refuse(&at("other.example.com", "verify-ca"), &trusting, other_host);

    for (number, mode) in [(1, "require"), (2, "verify-full")] {
        let shim = Shim::start_at(at("db.example.com", mode), &trusting);
        let answer = shim.send(&signed_inbound(&sid(number), "hello"));
        assert_eq!(answer.status, 200);
        let sql = "select bool_and(s.ssl) from pg_stat_ssl s join pg_stat_activity a using (pid) \
            where a.usename = $1";
        assert!(database.value::<bool>(sql, &[&FRONT_ROLE]));
    }
    assert_eq!(database.counts(), (2, 2));
}

/// The shim ends at once and says why.
fn refuse(url: &str, flags: &[&str], expected: &str) {
    let output = Shim::command(flags).env("DATABASE_URL", url).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(expected), "{url}: {text}");
}
