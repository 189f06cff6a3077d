//! The worker beside roles that have no rights on it, and beside commands that need the database for themselves.

use std::time::{Duration, Instant};

use end_to_end::peer::recorder::Recorder;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::outbox::{is_worker_running, set_up_at, start_worker, worker_pid};
use end_to_end::wait::{holds_within, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn an_ordinary_user_cannot_take_the_lock_that_the_worker_needs() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut client = database.connect();
    client.batch_execute("create role stranger login").unwrap();
    start_worker(&database);
    let locks = "select format('%s, %s', classid, objid), ((classid::bigint << 32) | objid::bigint)::text \
        from pg_locks where pid = (select pid from twilio_internal.worker) and locktype = 'advisory'";
    let keys = client.query(locks, &[]).unwrap();
    assert_eq!(keys.len(), 1);
    client.batch_execute("select twilio.stop_worker()").unwrap();
    wait_until(PATIENCE, "the worker to end", || {
        !is_worker_running(&database)
    });
    // Advisory locks with the numbers of this version and of earlier ones.
    let mut stranger = cluster.connect_as("stranger", database.name());
    let (pair, number): (&str, &str) = (keys[0].get(0), keys[0].get(1));
    for key in [pair, number, "1953851500, 1"] {
        let lock = format!("select pg_advisory_lock({key})");
        stranger.batch_execute(&lock).unwrap();
    }
    client
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    wait_until(PATIENCE, "the worker to run", || {
        is_worker_running(&database)
    });
}

#[test]
fn the_doctor_says_that_the_worker_runs_only_if_it_does() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let verdict = "select verdict from twilio.doctor() where \"check\" = 'worker'";
    let mut client = database.connect();
    client
        .batch_execute("select twilio.add_sender('+12025550100')")
        .unwrap();
    // Another session holds the table that a worker writes first, so the process is there and not at work.
    let mut other = database.connect();
    other
        .batch_execute("begin; lock table twilio_internal.worker in share row exclusive mode")
        .unwrap();
    client
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    let process = "select count(*) from pg_stat_activity \
        where datname = current_database() and backend_type = 'twilio_callback worker'";
    wait_until(PATIENCE, "the process to wait", || {
        database.value::<i64>(process, &[]) == 1
    });
    // It holds the worker's lock already, and is not yet the worker.
    let is_error = || database.value::<String>(verdict, &[]) == "error";
    assert!(holds_within(PATIENCE, is_error));
    assert!(!is_worker_running(&database));
    other.batch_execute("commit").unwrap();
    wait_until(PATIENCE, "the worker to run", || {
        is_worker_running(&database)
    });
    assert_eq!(database.value::<String>(verdict, &[]), "ok");
}

#[test]
fn a_renamed_schema_is_reported_clearly_and_once() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    start_worker(&database);
    let mut client = database.connect();
    client
        .batch_execute("alter schema twilio rename to other")
        .unwrap();
    let said = || {
        cluster
            .read_log()
            .matches("the schema is named \"other\"")
            .count()
    };
    wait_until(PATIENCE, "the worker to say it", || said() > 0);
    // It looks every half second where something failed.
    assert!(!holds_within(Duration::from_secs(3), || said() > 1));
    let log = cluster.read_log();
    assert!(
        log.contains("alter schema \"other\" rename to twilio"),
        "{log}"
    );
    client
        .batch_execute("alter schema other rename to twilio")
        .unwrap();
    let recorder = Recorder::start();
    set_up_at(&database, &recorder.url());
    let send = "select twilio.send_message('+12025550101', 'hello')";
    client.batch_execute(send).unwrap();
    wait_until(PATIENCE, "the worker to work on", || {
        !recorder.take().is_empty()
    });
    // At most the look that was under way failed for it.
    let failed = cluster.read_log().matches("failed and retries").count();
    assert!(failed <= 1, "it failed {failed} times");
}

#[test]
fn a_database_is_renamed_copied_and_dropped_beside_its_worker() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.bare_database();
    database
        .connect()
        .batch_execute("create extension twilio_callback")
        .unwrap();
    start_worker(&database);
    let first = worker_pid(&database);
    let mut client = cluster.connect("postgres");
    let name = database.name().to_owned();
    client
        .batch_execute(&format!("create database copied template {name}"))
        .unwrap();
    wait_until(PATIENCE, "another worker to run", || {
        is_worker_running(&database) && worker_pid(&database) != first
    });
    client.batch_execute("drop database copied").unwrap();
    // A command that is refused does not make it leave.
    let second = worker_pid(&database);
    client.batch_execute("create role stranger login").unwrap();
    let mut stranger = cluster.connect_as("stranger", "postgres");
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let refused = stranger.batch_execute(&format!("drop database {name}"));
        assert!(refused.is_err());
    }
    assert_eq!(worker_pid(&database), second);
    assert!(is_worker_running(&database));
    client
        .batch_execute(&format!("drop database {name}"))
        .unwrap();
    // The process that was to start the next worker finds no database, once.
    let missing = || cluster.read_log().matches("FATAL:").count();
    wait_until(PATIENCE, "the end of the last process", || missing() > 0);
    assert!(!holds_within(Duration::from_secs(3), || missing() > 1));
}
