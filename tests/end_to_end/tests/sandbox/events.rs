//! Event Streams: Twilio's library sets them up, and what sinks are sent is complete and signed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use end_to_end::client::library::run_python;
use end_to_end::client::request::Request;
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::signer::accepted_by_python;
use end_to_end::server::database::{ACCOUNT_SID, AUTH_TOKEN, PUBLIC_URL};
use end_to_end::wait::wait_until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const QUICK: [&str; 6] = [
    "--callback-delay",
    "5",
    "--late-delay",
    "20",
    "--sink-speed",
    "1000",
];

#[test]
fn the_library_sets_up_sinks_and_subscriptions() {
    let recorder = Recorder::start();
    let sandbox = Sandbox::start(recorder.port(), &QUICK);
    let found = run_python(
        "twilio_events.py",
        &json!({
            "url": sandbox.url(),
            "account_sid": ACCOUNT_SID,
            "auth_token": AUTH_TOKEN,
            "destination": format!("{PUBLIC_URL}/twilio/events"),
        }),
    );
    let expected = json!({
        "sink": ["DG", "active", "webhook", "first", false, "datetime", ["sink_test", "sink_validate"]],
        "kinesis": [400, 20001, "SinkType kinesis is not known"],
        "no_destination": [400, 20001, "Invalid SinkConfiguration: destination"],
        "tested": ["submitted", "validating"],
        "wrong_proof": [400, 20001, "Invalid TestId"],
        "validated": ["com.twilio.eventstreams.test-event", "valid", "active"],
        "renamed": "renamed",
        "subscription": ["DF", true, true, "datetime", ["subscribed_events"]],
        "second": [400, 20001],
        "no_sink": [400, 20001],
        "bad_type": [400, 20001],
        "added": 6,
        "types": [
            ["com.twilio.messaging.message.sent", 7],
            ["com.twilio.messaging.message.delivered", 8],
            ["com.twilio.messaging.inbound-message.received", 6],
        ],
        "removed": [true, 2],
        "listed": [5, 5, 3],
        "pages": [2, 2],
        "in_use": [1, 4, 5],
        "of_sink": [1, 0],
        "delete_in_use": [400, 20001],
        "deleted": [true, true, [404, 20404]],
        "stranger": [401, 20003],
    });
    assert_eq!(found, expected);
    assert!(accepted_by_python(&recorder.take()).iter().all(|is| *is));
}

#[test]
fn a_sink_that_comes_back_gets_every_event() {
    for is_batched in [false, true] {
        let tries = AtomicUsize::new(0);
        let recorder = Recorder::answering(move |_| {
            let status = match tries.fetch_add(1, Ordering::Relaxed) {
                0..3 => "503 Service Unavailable",
                _ => "200 OK",
            };
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
        });
        let sandbox = Sandbox::start(recorder.port(), &QUICK);
        sandbox.add_sink("/twilio/events", is_batched);
        let all = [
            ("on", "callback"),
            ("outcome", "drop"),
            ("count", "unlimited"),
        ];
        assert_eq!(sandbox.send(&Request::form("/_faults", &all)).status, 201);
        let expected: BTreeSet<(String, String)> = CASES
            .iter()
            .flat_map(|(to, statuses)| {
                let message = sandbox.create(sender(to), to, "/twilio/status");
                let sid = message["sid"].as_str().unwrap().to_owned();
                statuses.iter().map(move |s| (sid.clone(), (*s).to_owned()))
            })
            .collect();
        let total = expected.len() as u64;
        wait_until(PATIENCE, "the events", || {
            let sink = &sandbox.sinks()[0];
            (sink["pending"].as_u64(), sink["delivered"].as_u64()) == (Some(0), Some(total))
        });
        let requests = recorder.take();
        assert!(accepted_by_python(&requests).iter().all(|is| *is));
        let altered = requests[0].clone();
        let altered = Request {
            body: b"[]".to_vec(),
            ..altered
        };
        assert_eq!(accepted_by_python(&[altered]), [false]);
        let mut ids = BTreeSet::new();
        let mut reported = BTreeSet::new();
        for event in requests.iter().flat_map(events) {
            ids.insert(event["id"].as_str().unwrap().to_owned());
            let text = |name: &str| event["data"][name].as_str().unwrap().to_owned();
            reported.insert((text("messageSid"), text("messageStatus")));
        }
        assert_eq!(reported, expected, "batched: {is_batched}");
        assert_eq!(ids.len() as u64, total, "batched: {is_batched}");
        assert!(
            sandbox
                .callbacks()
                .iter()
                .all(|c| c["refused"] == "dropped")
        );
    }
}

#[test]
fn a_sink_that_refuses_an_event_is_not_sent_it_again() {
    let recorder =
        Recorder::answering(|_| "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned());
    let sandbox = Sandbox::start(recorder.port(), &QUICK);
    sandbox.add_sink("/twilio/events", false);
    sandbox.create("+12025550100", "+150000000000004", "/twilio/status");
    wait_until(PATIENCE, "the refusal", || {
        sandbox.sinks()[0]["discarded"] == 1
    });
    let mut requests = recorder.take();
    requests.retain(|request| request.target.starts_with("/twilio/events"));
    assert_eq!(requests.len(), 1);
    assert_eq!(sandbox.sinks()[0]["pending"], 0);
}

/// A recipient, and the statuses that are events.
const CASES: [(&str, &[&str]); 6] = [
    ("+12025550123", &["SENT", "DELIVERED"]),
    ("whatsapp:+150000000000001", &["SENT", "DELIVERED", "READ"]),
    ("+150000000230008", &["FAILED"]),
    ("+150000000130003", &["SENT", "UNDELIVERED"]),
    ("+150000000000006", &["SENT", "DELIVERED"]),
    ("+150000000000002", &["SENT", "DELIVERED"]),
];

fn sender(to: &str) -> &'static str {
    match to.starts_with("whatsapp:") {
        true => "whatsapp:+12025550100",
        false => "+12025550100",
    }
}

/// The events of a delivery: one or an array.
fn events(request: &Request) -> Vec<Value> {
    match serde_json::from_slice(&request.body).unwrap() {
        Value::Array(events) => events,
        event => vec![event],
    }
}
