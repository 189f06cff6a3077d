//! The worker's settings bound how much it does at once, how long it waits, and how long it takes to end.

use std::time::{Duration, Instant};

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{is_worker_running, send, set_up, start_worker, status};
use end_to_end::wait::wait_until;
use postgres::error::SqlState;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn errors_carry_no_stack_trace() {
    let cluster = Cluster::start(&Options::default());
    cluster.stop("fast");
    cluster.start_with(&[("RUST_BACKTRACE", "1")]);
    let database = cluster.database();
    // An error of PostgreSQL's own that passes through Rust, and one that is raised there.
    for (sql, code) in [
        (
            "select twilio_internal.call_function('nowhere.none', '{}', 'postgres', '')",
            SqlState::INVALID_SCHEMA_NAME,
        ),
        (
            "select twilio.compute_signature('https://a.example', '', 'x', algorithm => 'MD5')",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
    ] {
        let error = database.connect().query(sql, &[]).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &code);
        assert_eq!(error.detail(), None);
    }
}

#[test]
fn no_more_requests_than_allowed_are_under_way_and_none_for_longer() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        lines: &[
            "twilio_callback.max_in_flight = 5",
            "twilio_callback.request_timeout = '1s'",
        ],
    });
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    for n in 0..12 {
        send(&database, &format!("+1500{n:05}000013"), "hangs");
    }
    wait_until(PATIENCE, "12 requests to be given up", || {
        let sql = "select count(*) from twilio_internal.attempt where outcome = 'unknown'";
        database.value::<i64>(sql, &[]) == 12
    });
    let most: i64 = database.value(
        "select max(n) from (select count(*) as n from twilio_internal.attempt a join twilio_internal.attempt b \
         on b.started_at <= a.started_at and b.finished_at > a.started_at group by a.attempt_id) o",
        &[],
    );
    assert_eq!(most, 5);
    let in_time: bool = database.value(
        "select bool_and(finished_at - started_at between interval '0.9 s' and interval '5 s') from twilio_internal.attempt",
        &[],
    );
    assert!(in_time, "requests took as long as the timeout allows");
    cluster.assert_no_errors();
}

#[test]
fn a_worker_that_ends_waits_for_answers_as_long_as_it_may() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        lines: &["twilio_callback.stop_grace = '20s'"],
    });
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &["--latency", "1500"]);
    set_up(&database, &sandbox);
    let answered = send(&database, "+12025550123", "answered in time");
    stop_while_it_sends(&database, &sandbox, "+12025550123");
    assert_eq!(status(&database, answered), "queued");

    // A running worker takes over what a reload changes.
    start_worker(&database);
    let mut client = database.connect();
    for sql in [
        "load 'twilio_callback'",
        "alter system set twilio_callback.stop_grace = '300ms'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let left = send(&database, "+150000001000009", "hangs");
    let took = stop_while_it_sends(&database, &sandbox, "+150000001000009");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(status(&database, left), "waiting");
    start_worker(&database);
    wait_until(PATIENCE, "what was left open to be unknown", || {
        let sql = "select outcome from twilio_internal.attempt where message_id = $1";
        database.value::<Option<String>>(sql, &[&left]).as_deref() == Some("unknown")
    });
    assert_eq!(sandbox.counts()["+150000001000009"].0, 1);
    cluster.assert_no_errors();
}

/// Stops the worker once the provider has the request; gives how long that took.
fn stop_while_it_sends(database: &Database<'_>, sandbox: &Sandbox, to: &str) -> Duration {
    wait_until(PATIENCE, "the request to arrive", || {
        sandbox.counts().contains_key(to)
    });
    let begun = Instant::now();
    database
        .connect()
        .execute("select twilio.stop_worker()", &[])
        .unwrap();
    wait_until(PATIENCE, "the worker to end", || {
        !is_worker_running(database)
    });
    begun.elapsed()
}
