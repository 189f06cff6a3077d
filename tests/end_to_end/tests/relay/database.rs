//! The relay's way to PostgreSQL.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use end_to_end::peer::broker::Shared;
use end_to_end::peer::relay::{self, ROLE, Relay};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::environment::fresh_directory;
use end_to_end::server::tls::Certificate;

/// It takes longer than any step of the relay's own may, but no longer than the URL allows.
#[test]
fn a_silent_host_is_given_up_when_the_url_says_and_the_next_is_tried() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    relay::set_up(&database);
    let directory = fresh_directory();
    let silent = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    let hosts = format!("host={},", directory.display());
    let url = database.url(ROLE).replace("host=", &hosts);
    let mut command = Relay::command(&database, &broker);
    command.env("DATABASE_URL", format!("{url} connect_timeout=3"));
    let mut relay = Relay::launch(command);
    relay.wait_until_ready();
    assert_eq!(relay.metric("disconnects_total"), 0, "{}", relay.read_log());
    assert!(relay.stop().success(), "{}", relay.read_log());
    drop(silent);
}

/// The check at the start could not find that.
#[test]
fn a_database_that_comes_late_without_the_extension_ends_the_relay() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    relay::set_up(&database);
    let directory = fresh_directory();
    let mut command = Relay::command(&database, &broker);
    let url = format!("host={} user={ROLE} dbname=postgres", directory.display());
    command.env("DATABASE_URL", url);
    let mut relay = Relay::launch(command);
    relay.wait_for_problem("no connection to the database");
    let socket = ".s.PGSQL.5432";
    symlink(
        cluster.socket_directory().join(socket),
        directory.join(socket),
    )
    .unwrap();
    assert_eq!(relay.wait().code(), Some(2), "{}", relay.read_log());
    let text = "does not have the extension";
    assert!(relay.read_log().contains(text), "{}", relay.read_log());
}

/// The database may change after the check at the start.
#[test]
fn each_connection_is_checked() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    relay::set_up(&database);
    let mut relay = Relay::start(&database, &broker, &[]);
    let version = |of: &str| {
        let sql = format!(
            "create or replace function twilio.version() returns text language sql return '{of}'"
        );
        database.connect().batch_execute(&sql).unwrap();
    };
    let right: String = database.value("select twilio.version()", &[]);
    version("9.9.9");
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1";
    assert_eq!(database.value::<i64>(end, &[&ROLE]), 3);
    relay.wait_for_problem("the database has twilio_callback 9.9.9");
    version(&right);
    relay.wait_until_ready();
    assert!(relay.stop().success(), "{}", relay.read_log());
}

#[test]
fn only_the_right_database_is_connected_to() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    relay::set_up(&database);
    let directory = fresh_directory();
    let authority = Certificate::authority(&directory, "authority");
    let stranger = Certificate::authority(&directory, "stranger");
    let address = cluster.serve_tls(&authority.sign(&directory, "db.example.com"));
    let over_tls = |trusted: &Certificate| {
        let name = database.name();
        let at = format!("host=db.example.com {address} user={ROLE} dbname={name}");
        let mut command = Relay::command(&database, &broker);
        command
            .env("DATABASE_URL", format!("{at} sslmode=require"))
            .arg("--database-ca-file")
            .arg(&trusted.certificate);
        command
    };
    let output = over_tls(&stranger).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("signed by no authority that is trusted here"));
    let mut relay = Relay::launch(over_tls(&authority));
    relay.wait_until_ready();
    let sql = "select bool_and(s.ssl) from pg_stat_ssl s join pg_stat_activity a using (pid) \
        where a.usename = $1";
    assert!(database.value::<bool>(sql, &[&ROLE]));
    assert!(relay.stop().success(), "{}", relay.read_log());
}
