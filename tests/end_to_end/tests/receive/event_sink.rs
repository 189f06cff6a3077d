//! Sinks of Event Streams: made, tried, checked and removed by the worker; what they deliver after an outage; alerts.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::client::callback::STATUS_PATH;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use end_to_end::server::outbox::{set_up, start_worker};
use end_to_end::wait::{holds_within, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_sink_is_made_tried_checked_and_removed() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--sink-speed", "100"]);
    set_up(&database, &sandbox);
    start_worker(&database);
    let add = "select twilio.add_event_sink()";
    let first: i64 = database.value(add, &[]);
    wait_until_active(&database);
    assert_eq!(types_at(&sandbox), [wanted_types(&database)]);
    wait_until(PATIENCE, "doctor to be content", || {
        doctor(&database).starts_with("ok: 1 active")
    });

    // A second call confirms what is there.
    assert_eq!(database.value::<i64>(add, &[]), first);
    wait_until_active(&database);
    assert_eq!(types_at(&sandbox).len(), 1);

    // What somebody removes at Twilio is noticed at the next check, and made anew on request.
    let subscription = &list(&sandbox, "/v1/Subscriptions", "subscriptions")[0];
    let path = format!(
        "/v1/Subscriptions/{}",
        subscription["sid"].as_str().unwrap()
    );
    let answer = sandbox.send(&sandbox.authorized(Request::new("DELETE", &path)));
    assert_eq!(answer.status, 204);
    run(
        &database,
        "update twilio.event_sink set due_at = now(); select twilio_internal.wake_worker()",
    );
    wait_until(PATIENCE, "doctor to warn", || {
        doctor(&database).contains("Twilio does not have the subscription any more")
    });
    database.value::<i64>(add, &[]);
    wait_until_active(&database);
    assert_eq!(types_at(&sandbox), [wanted_types(&database)]);

    assert_eq!(
        database.value::<i32>("select twilio.remove_event_sink()", &[]),
        1
    );
    wait_until(PATIENCE, "the sink to be gone", || {
        database.value::<i64>("select count(*) from twilio.event_sink", &[]) == 0
    });
    assert!(list(&sandbox, "/v1/Sinks", "sinks").is_empty());
    assert!(list(&sandbox, "/v1/Subscriptions", "subscriptions").is_empty());
    cluster.assert_no_errors();
}

/// The database is away for two hours of the sink's time. Callbacks of that time are lost, events are not.
#[test]
fn every_state_is_right_after_an_outage_of_two_hours() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let speed: u64 = sized(900, 100);
    let flags = ["--sink-speed", &speed.to_string(), "--callback-delay", "20"];
    let (_shim, sandbox) = Sandbox::with_shim(&database, &flags);
    set_up(&database, &sandbox);
    start_worker(&database);
    database.value::<i64>("select twilio.add_event_sink()", &[]);
    wait_until_active(&database);

    cluster.stop("fast");
    let began = Instant::now();
    let count = sized(500, 50_000);
    thread::scope(|scope| {
        for worker in 0..4 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for number in (worker..count).step_by(4) {
                    sandbox.create("+12025550100", &recipient(number), STATUS_PATH);
                }
            });
        }
    });
    let two_hours = Duration::from_secs(2 * 3600 / speed);
    eprintln!("{count} messages in {:.1?}", began.elapsed());
    thread::sleep(two_hours.saturating_sub(began.elapsed()));
    cluster.start_again();

    wait_until(
        Duration::from_secs(4 * 3600 / speed + 60),
        "each event",
        || sandbox.sinks().iter().all(|sink| sink["pending"] == 0),
    );
    let sink = &sandbox.sinks()[0];
    eprintln!("{sink}, {:.1?} after the outage began", began.elapsed());
    assert_eq!(
        (&sink["discarded"], &sink["given_up"]),
        (&0.into(), &0.into())
    );
    let mut stored = BTreeMap::new();
    let sql = "select message_sid, status from twilio.message";
    for row in database.connect().query(sql, &[]).unwrap() {
        stored.insert(row.get::<_, String>(0), row.get::<_, String>(1));
    }
    assert_eq!(stored.len(), count);
    assert_eq!(stored, states_at(&sandbox));
    cluster.assert_no_errors_but(&["terminating connection", "the database system is"]);
}

#[test]
fn thirty_alerts_are_one_line_and_no_loop() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let debugger = format!("{PUBLIC_URL}/twilio/debugger");
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--debugger", &debugger]);
    let form = [
        ("code", "11200"),
        ("count", "30"),
        ("webhook", &format!("{PUBLIC_URL}/twilio/status")),
    ];
    assert_eq!(
        sandbox.send(&Request::form("/_debugger", &form)).status,
        200
    );
    let count = || database.value::<i64>("select count(*) from twilio.provider_alert", &[]);
    wait_until(PATIENCE, "the alerts", || count() == 30);
    assert!(!holds_within(Duration::from_secs(1), || count() != 30));
    let sql = "select string_agg(detail, E'\\n') from twilio.doctor() where \"check\" = 'alerts'";
    let line: String = database.value(sql, &[]);
    assert_eq!(
        line,
        format!(
            "Twilio could not reach us 30 times in the last hour: 11200 at {PUBLIC_URL}/twilio/status"
        )
    );
    cluster.assert_no_errors();
}

/// Numbers of the sandbox: delivered, undelivered, failed, sent and nothing after.
fn recipient(number: usize) -> String {
    let fate = ["000000", "000050", "000058", "000004"][number % 4];
    format!("+1500{:05}{fate}", number % 100_000)
}

fn wait_until_active(database: &Database<'_>) {
    wait_until(PATIENCE, "the sink to be active", || {
        let sql = "select count(*) from twilio.event_sink where active_at is not null and checked_at is not null and problem is null";
        database.value::<i64>(sql, &[]) == 1
    });
}

fn doctor(database: &Database<'_>) -> String {
    let sql =
        "select verdict || ': ' || detail from twilio.doctor() where \"check\" = 'event sinks'";
    database.value(sql, &[])
}

fn run(database: &Database<'_>, sql: &str) {
    database.connect().batch_execute(sql).unwrap();
}

fn list(sandbox: &Sandbox, path: &str, name: &str) -> Vec<Value> {
    let answer = sandbox.send(&sandbox.authorized(Request::new("GET", path)));
    let value: Value = serde_json::from_slice(&answer.body).unwrap();
    value[name].as_array().unwrap().clone()
}

/// The types of each subscription at the sandbox, with the versions of their schemas.
fn types_at(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let subscriptions = list(sandbox, "/v1/Subscriptions", "subscriptions");
    let types = subscriptions.iter().map(|subscription| {
        let sid = subscription["sid"].as_str().unwrap();
        let path = format!("/v1/Subscriptions/{sid}/SubscribedEvents?PageSize=100");
        let types = list(sandbox, &path, "types").into_iter().map(|found| {
            format!(
                "{}/{}",
                found["type"].as_str().unwrap(),
                found["schema_version"]
            )
        });
        let mut types: Vec<_> = types.collect();
        types.sort();
        types
    });
    types.collect()
}

fn wanted_types(database: &Database<'_>) -> Vec<String> {
    database.value(
        "select array_agg(t order by t collate \"C\") from unnest(twilio_internal.default_event_types()) t",
        &[],
    )
}

/// The state of each message at the sandbox, page by page.
fn states_at(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    let mut path = format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json?PageSize=1000");
    loop {
        let answer = sandbox.send(&sandbox.authorized(Request::new("GET", &path)));
        let page: Value = serde_json::from_slice(&answer.body).unwrap();
        for message in page["messages"].as_array().unwrap() {
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            states.insert(text("sid"), text("status"));
        }
        match page["next_page_uri"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return states,
        }
    }
}
