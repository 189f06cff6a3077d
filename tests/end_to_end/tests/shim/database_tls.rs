//! The shim's connection to PostgreSQL: over TLS the server must prove its identity, and no host is waited for without
//! a limit.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use end_to_end::client::callback::{sid, signed_inbound};
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::FRONT_ROLE;
use end_to_end::server::environment::fresh_directory;
use end_to_end::server::tls::Certificate;
use end_to_end::wait::wait_until;

#[test]
fn the_shim_connects_to_a_verified_server_alone() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let directory = fresh_directory();
    let authority = Certificate::authority(&directory, "authority");
    let stranger = Certificate::authority(&directory, "stranger");
    let file = |of: &Certificate| of.certificate.to_str().unwrap().to_owned();
    let (right, wrong) = (file(&authority), file(&stranger));

    let over_socket = format!("{} sslmode=require", database.url(FRONT_ROLE));
    refuse(&over_socket, &[], "asks for TLS on a Unix socket");
    let address = cluster.serve_tls(&authority.sign(&directory, "db.example.com"));
    let at = |host: &str, mode: &str| {
        let name = database.name();
        format!("host={host} {address} user={FRONT_ROLE} dbname={name} sslmode={mode}")
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

#[test]
fn a_server_that_accepts_and_stays_silent_is_given_up_and_the_database_found_again() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let directory = fresh_directory();
    let name = ".s.PGSQL.5432";
    let (real, way) = (cluster.socket_directory().join(name), directory.join(name));
    std::os::unix::fs::symlink(&real, &way).unwrap();
    let url = database.url(FRONT_ROLE).replace(
        cluster.socket_directory().to_str().unwrap(),
        directory.to_str().unwrap(),
    );
    let shim = Shim::start_at(format!("{url} connect_timeout=1"), &[]);

    std::fs::remove_file(&way).unwrap();
    // The kernel accepts, and no program ever answers.
    let silent = UnixListener::bind(&way).unwrap();
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1";
    assert_eq!(database.value::<i64>(end, &[&FRONT_ROLE]), 2);
    wait_until(Duration::from_secs(30), "the shim to give up", || {
        shim.read_log().contains("not logged in within 2 s")
    });
    assert!(!shim.is_ready());

    std::fs::remove_file(&way).unwrap();
    std::os::unix::fs::symlink(&real, &way).unwrap();
    wait_until(Duration::from_secs(30), "the shim to be ready", || {
        shim.is_ready()
    });
    let answer = shim.send(&signed_inbound(&sid(1), "hello"));
    assert_eq!(answer.status, 200);
    assert_eq!(database.counts(), (1, 1));
    drop(silent);
}

#[test]
fn after_a_silent_host_the_next_is_tried() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let directory = fresh_directory();
    let silent = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    let hosts = format!("host={},", directory.display());
    let url = database.url(FRONT_ROLE).replace("host=", &hosts);
    let shim = Shim::start_at(format!("{url} connect_timeout=1"), &[]);
    let answer = shim.send(&signed_inbound(&sid(1), "hello"));
    assert_eq!(answer.status, 200);
    assert_eq!(database.counts(), (1, 1));
    drop(silent);
}

#[test]
fn a_url_lists_hosts_as_for_psql() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (nobody, server) = (fresh_directory(), cluster.socket_directory());
    let (nobody, server) = (nobody.display(), server.display());
    let name = database.name();
    let url =
        |ports: &str| format!("postgresql://{FRONT_ROLE}@/{name}?host={nobody},{server}{ports}");
    for ports in ["", "&port=5432", "&port=1,5432"] {
        let shim = Shim::start_at(url(ports), &[]);
        let answer = shim.send(&signed_inbound(&sid(1), "hello"));
        assert_eq!(answer.status, 200, "{ports}");
    }
    refuse(
        &url("&port=1,2,3"),
        &[],
        "the database URL has 2 hosts and 3 ports",
    );
}

/// The shim ends at once and says why.
fn refuse(url: &str, flags: &[&str], expected: &str) {
    let output = Shim::command(flags).env("DATABASE_URL", url).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(expected), "{url}: {text}");
}
