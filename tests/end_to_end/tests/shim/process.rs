//! The shim as a process: bad configurations, a graceful stop, and a database that goes away.

use std::process::Output;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::load::send_until;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::FRONT_ROLE;
use end_to_end::server::environment::fresh_directory;
use end_to_end::server::process::Process;
use end_to_end::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
/// Gives up soon, so that a test of failures does not take long.
const SHORT: &[&str] = &["--deadline", "2s", "--statement-timeout", "1s"];

#[test]
fn a_configuration_that_cannot_work_is_a_clear_error() {
    let with_extension = cluster().database();
    let bare = cluster().bare_database();
    let other_version = cluster().database();
    let sql = "create or replace function twilio.version() returns text language sql as $$ select '999.0.0' $$";
    other_version.connect().batch_execute(sql).unwrap();
    let unprivileged = "create role unprivileged login";
    with_extension
        .connect()
        .batch_execute(unprivileged)
        .unwrap();
    let missing = with_extension.url(FRONT_ROLE) + "_missing";
    for (name, url, expected) in [
        ("no such database", missing, "does not exist"),
        (
            "no such role",
            with_extension.url("nobody"),
            "does not exist",
        ),
        (
            "no extension",
            bare.url("postgres"),
            "create extension twilio_callback",
        ),
        ("another version", other_version.url(FRONT_ROLE), "999.0.0"),
        (
            "no privilege",
            with_extension.url("unprivileged"),
            "grant_front",
        ),
        ("no URL", "complete nonsense".to_owned(), "cannot be read"),
    ] {
        let output = run(&["--database-url", &url]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.contains("hint: "), "{name}: {text}");
    }
    let nobody_there = "host=/nonexistent user=front dbname=x";
    let output = run(&["--database-url", nobody_there, "--startup-timeout", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("within 1 s"));
}

#[test]
fn two_shims_do_not_take_one_address() {
    let database = cluster().database();
    let first = Shim::start(&database, &[]);
    let taken = format!("unix:{}", first.socket().display());
    let url = database.url(FRONT_ROLE);
    let output = run(&[
        "--database-url",
        &url,
        "--listen",
        &taken,
        "--ops-listen",
        "none",
    ]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot listen on"), "{text}");
    assert_eq!(
        first
            .send(&callback::signed_status(&sid(1), "sent", None))
            .status,
        204
    );
}

#[test]
fn a_stop_finishes_the_requests_in_hand() {
    let database = cluster().database();
    let mut shim = Shim::start(&database, &[]);
    let mut blocker = database.connect();
    let mut lock = blocker.transaction().unwrap();
    lock.batch_execute("lock table twilio.message in exclusive mode")
        .unwrap();
    let address = shim.address();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| address.send(&callback::signed_status(&sid(1), "sent", None)));
        let sql = "select 1 from pg_stat_activity \
            where application_name = 'twilio-callback-shim' and wait_event_type = 'Lock' and datname = $1";
        let mut watcher = database.connect();
        wait_until(PATIENCE, "the callback to wait in the database", || {
            !watcher.query(sql, &[&database.name()]).unwrap().is_empty()
        });
        shim.ask_to_stop();
        wait_until(PATIENCE, "the listener to close", || {
            !shim.address().is_open()
        });
        lock.commit().unwrap();
        let answer = waiting.join().unwrap();
        assert_eq!(answer.status, 204);
    });
    assert!(shim.wait().success());
    assert_eq!(database.counts(), (1, 1));
}

#[test]
fn a_database_that_is_away_is_503_until_it_is_back() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut shim = Shim::start(&database, SHORT);
    let request = |number: usize| callback::signed_status(&sid(number), "sent", None);
    assert_eq!(shim.send(&request(1)).status, 204);

    cluster.stop("fast");
    let answer = shim.send(&request(2));
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    wait_until(PATIENCE, "the shim to say that it is not ready", || {
        !shim.is_ready()
    });
    assert_eq!(shim.ask("/live").status, 200);

    cluster.start_again();
    shim.wait_until_ready();
    for number in [2, 3] {
        assert_eq!(shim.send(&request(number)).status, 204);
    }
    assert_eq!(database.counts(), (3, 3));
}

#[test]
fn nothing_that_was_answered_is_lost_when_the_database_is_killed() {
    let cluster = Cluster::start(&Options {
        fsync: true,
        ..Options::default()
    });
    let database = cluster.database();
    let shim = Shim::start(&database, &[SHORT, &["--log-callbacks", "off"]].concat());
    let address = shim.address();
    let stop = AtomicBool::new(false);
    let make = |number| callback::signed_status(&sid(number), "delivered", None);
    let answers = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_until(&stop, &address, 8, make));
        for _ in 0..3 {
            let before = database.counts().0;
            wait_until(PATIENCE, "callbacks to be stored", || {
                database.counts().0 > before + 200
            });
            cluster.kill();
            cluster.start_again();
        }
        wait_until(PATIENCE, "the shim to recover", || shim.is_ready());
        stop.store(true, Ordering::Release);
        sending.join().unwrap()
    });
    let mut taken = Vec::new();
    for (number, answer) in answers {
        match answer.unwrap().status {
            204 => taken.push(sid(number)),
            status => assert_eq!(status, 503),
        }
    }
    let sql = "select s from unnest($1::text[]) s \
        where not exists (select from twilio.message_timeline t where t.message_sid = s)";
    let missing = database.connect().query(sql, &[&taken]).unwrap();
    assert!(
        missing.is_empty(),
        "{} of {} were lost",
        missing.len(),
        taken.len()
    );
    assert!(
        taken.len() > 500,
        "only {} callbacks were taken",
        taken.len()
    );
}

#[test]
fn a_callback_leaves_one_log_line_and_no_secret() {
    let database = cluster().database();
    let shim = Shim::start(&database, &[]);
    let mut pairs = callback::status(&sid(7), "delivered", None);
    callback::set(&mut pairs, "Body", "between you and me");
    let request = Request::form(STATUS_PATH, &pairs).signed();
    assert_eq!(shim.send(&request).status, 204);
    wait_until(PATIENCE, "the line", || shim.read_log().contains(&sid(7)));
    let log = shim.read_log();
    assert_eq!(log.matches(&sid(7)).count(), 1, "{log}");
    let signature = request.value_of("X-Twilio-Signature").unwrap();
    for secret in [
        "between",
        signature,
        end_to_end::server::database::AUTH_TOKEN,
    ] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn operations_answer_on_their_own_listener_only() {
    let database = cluster().database();
    let shim = Shim::start(&database, &[]);
    assert_eq!(
        shim.send(&callback::signed_status(&sid(1), "sent", None))
            .status,
        204
    );
    assert_eq!(shim.ask("/live").status, 200);
    assert_eq!(shim.ask("/ready").status, 200);
    let metrics = shim.ask("/metrics").text();
    assert!(metrics.contains("204"), "{metrics}");
    assert_eq!(shim.ask(STATUS_PATH).status, 404);
    assert_eq!(shim.send(&Request::new("GET", "/ready")).status, 404);
}

/// Runs a shim that is expected to end by itself.
fn run(flags: &[&str]) -> Output {
    let directory = fresh_directory();
    let log = directory.join("log");
    let mut shim = Process::start("the shim", Shim::command(flags), &log);
    let status = shim.wait(PATIENCE);
    let stderr = std::fs::read(&log).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    Output {
        status,
        stdout: Vec::new(),
        stderr,
    }
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
