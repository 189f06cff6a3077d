//! A message that is created at the sandbox leads to its callbacks, and they to its rows.

use std::collections::BTreeSet;
use std::time::Duration;

use end_to_end::client::callback::{INBOUND_PATH, STATUS_PATH};
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{Database, PUBLIC_URL, SHARED_KEY_ID, SHARED_KEY_SECRET};
use end_to_end::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const QUICK: [&str; 4] = ["--callback-delay", "5", "--late-delay", "20"];

/// Recipient; final status, error code and is_corrected; the events as "status error_code".
type Case = (
    &'static str,
    (&'static str, Option<i32>, bool),
    &'static [&'static str],
);

const CASES: [Case; 11] = [
    (
        "+12025550123",
        ("delivered", None, false),
        &["sent", "delivered"],
    ),
    (
        "whatsapp:+150000000000001",
        ("read", None, false),
        &["sent", "delivered", "read"],
    ),
    (
        "whatsapp:+150000000163049",
        ("undelivered", Some(63049), false),
        &["sent", "undelivered 63049"],
    ),
    (
        "+150000000230008",
        ("failed", Some(30008), false),
        &["failed 30008"],
    ),
    (
        "+150000000000002",
        ("delivered", None, false),
        &["sent", "delivered"],
    ),
    (
        "+150000000000003",
        ("delivered", None, false),
        &["sent", "delivered"],
    ),
    ("+150000000000004", ("sent", None, false), &["sent"]),
    (
        "+150000000000007",
        ("delivered", None, false),
        &["sent", "delivered"],
    ),
    ("+150000000000020", ("delivered", None, false), &[]),
    (
        "+150000000000060",
        ("failed", Some(30003), false),
        &["sent", "undelivered 30003", "failed 30003"],
    ),
    (
        "+150000000000061",
        ("delivered", None, true),
        &["sent", "undelivered 30003", "delivered"],
    ),
];

#[test]
fn every_outcome_becomes_a_state() {
    let cluster = Cluster::start(&Options::default());
    for (round, signing) in [
        &[][..],
        &[
            "--shared-key",
            &format!("{SHARED_KEY_ID}:{SHARED_KEY_SECRET}"),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let database = cluster.database();
        let (_shim, sandbox) = Sandbox::with_shim(&database, &[&QUICK, signing].concat());
        let sids: Vec<String> = CASES.iter().map(|(to, ..)| create(&sandbox, to)).collect();
        for (sid, (to, expected, events)) in sids.iter().zip(&CASES) {
            let state = || read_state(&database, sid);
            let expected = (expected.0.to_owned(), expected.1, expected.2);
            wait_until(PATIENCE, &format!("{to} to become {expected:?}"), || {
                state().as_ref() == Some(&expected)
            });
            // The sandbox chooses the name of an unknown status.
            if !events.is_empty() {
                let events: BTreeSet<_> = events.iter().map(|event| (*event).to_owned()).collect();
                wait_until(PATIENCE, &format!("the events of {to}"), || {
                    read_events(&database, sid) == events
                });
            }
        }
        let callbacks = sandbox.callbacks();
        assert!(callbacks.len() > CASES.len(), "round {round}");
        for callback in callbacks {
            assert_eq!(callback["answer"], 204, "round {round}: {callback}");
        }
    }
    cluster.assert_no_errors();
}

#[test]
fn an_inbound_message_is_stored_and_answered() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &QUICK);
    for (method, body) in [("POST", "Grüße, by POST"), ("GET", "Grüße, by GET & more")] {
        let url = format!("{PUBLIC_URL}{INBOUND_PATH}");
        let form = [
            ("From", "+12025550123"),
            ("To", "+12025550100"),
            ("Body", body),
            ("url", &url),
            ("method", method),
        ];
        let answer = sandbox.send(&Request::form("/_inbound", &form));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sql = "select count(*) from twilio.message_status \
            where direction = 'inbound' and status = 'received' and body = $1";
        assert_eq!(database.value::<i64>(sql, &[&body]), 1, "{body}");
    }
    cluster.assert_no_errors();
}

fn create(sandbox: &Sandbox, to: &str) -> String {
    let from = if to.starts_with("whatsapp:") {
        "whatsapp:+12025550100"
    } else {
        "+12025550100"
    };
    let path = format!("{STATUS_PATH}?attempt=0f8fad5b-d9cb-469f-a165-70867728950e");
    let message = sandbox.create(from, to, &path);
    message["sid"].as_str().unwrap().to_owned()
}

fn read_state(database: &Database<'_>, sid: &str) -> Option<(String, Option<i32>, bool)> {
    let sql =
        "select status, error_code, is_corrected from twilio.message_status where message_sid = $1";
    let row = database.connect().query_opt(sql, &[&sid]).unwrap()?;
    Some((row.get(0), row.get(1), row.get(2)))
}

fn read_events(database: &Database<'_>, sid: &str) -> BTreeSet<String> {
    let sql = "select concat_ws(' ', status, error_code) from twilio.message_timeline where message_sid = $1";
    let rows = database.connect().query(sql, &[&sid]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
