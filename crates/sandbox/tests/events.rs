//! Event Streams: sinks, subscriptions, and what sinks are sent.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use protocol::signature::{Algorithm, Key, Payload, verify};
use protocol::url::SignedUrl;
use serde_json::{Value, json};
use support::{Hook, PUBLIC, Request, Sandbox, TOKEN, twilio_user, until};

const DESTINATION: &str = "https://hooks.example.com/twilio/events?a=1";
const SENT: &str = "com.twilio.messaging.message.sent";
const DELIVERED: &str = "com.twilio.messaging.message.delivered";
/// Four hours pass in less than a second.
const FAST: [&str; 2] = ["--sink-speed", "20000"];

/// A sink with a subscription of these types; its SID.
fn subscribe(sandbox: &Sandbox, is_batched: bool, types: &[&str]) -> String {
    let configuration = json!({
        "destination": DESTINATION, "method": "POST", "batch_events": is_batched,
    });
    let configuration = configuration.to_string();
    let fields = [
        ("Description", "events"),
        ("SinkType", "webhook"),
        ("SinkConfiguration", configuration.as_str()),
    ];
    let sink = sandbox.post("/v1/Sinks", &twilio_user(), &fields).unwrap();
    assert_eq!(sink.status, 201, "{sink:?}");
    let sid = sink.json()["sid"].as_str().unwrap().to_owned();
    let types = types.iter().map(|name| json!({ "type": name }).to_string());
    let types: Vec<String> = types.collect();
    let mut fields = vec![("Description", "events"), ("SinkSid", sid.as_str())];
    fields.extend(types.iter().map(|text| ("Types", text.as_str())));
    let path = "/v1/Subscriptions";
    let subscription = sandbox.post(path, &twilio_user(), &fields).unwrap();
    assert_eq!(subscription.status, 201, "{subscription:?}");
    sid
}

fn counts(sandbox: &Sandbox) -> [Option<u64>; 4] {
    let sinks = sandbox.control("/_sinks");
    let sink = &sinks["sinks"][0];
    ["pending", "delivered", "discarded", "given_up"].map(|name| sink[name].as_u64())
}

fn wait_for_counts(sandbox: &Sandbox, expected: [u64; 4]) {
    until(&format!("{expected:?}"), || {
        counts(sandbox) == expected.map(Some)
    });
}

fn is_signed(request: &Request) -> bool {
    let key = Key::new(Algorithm::HmacSha1, TOKEN.as_bytes());
    let url = format!("{PUBLIC}{}", request.target);
    let signature = request.header("x-twilio-signature").unwrap_or_default();
    let urls: Vec<_> = SignedUrl::parse(&url).into_iter().collect();
    verify(&[key], &urls, &Payload::Body(&request.body), signature).is_some()
}

#[test]
fn a_sink_is_sent_each_status_although_there_is_no_callback() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    subscribe(&sandbox, false, &[SENT, DELIVERED]);
    let fields = [
        ("To", "+12025550123"),
        ("From", "+12025550100"),
        ("Body", "hello"),
    ];
    let message = sandbox.create(&fields).unwrap().json();
    let sid = message["sid"].as_str().unwrap();
    let requests = hook.about(sid, 2);
    assert!(requests.iter().all(is_signed), "{requests:?}");
    let request = &requests[0];
    assert!(
        request.target.starts_with("/twilio/events?a=1&bodySHA256="),
        "{}",
        request.target
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    let events: Vec<Value> = requests.iter().map(Request::json).collect();
    let delivered = events.iter().find(|event| event["type"] == DELIVERED);
    let delivered = delivered.unwrap();
    assert_eq!(delivered["specversion"], "1.0");
    assert_eq!(delivered["datacontenttype"], "application/json");
    assert_eq!(
        delivered["dataschema"],
        "https://events-schemas.twilio.com/Messaging.MessageStatus/8"
    );
    assert!(delivered["id"].as_str().unwrap().starts_with("EZ"));
    assert_eq!(delivered["source"], message["uri"]);
    let data = &delivered["data"];
    assert_eq!(data["messageSid"], sid);
    assert_eq!(data["eventName"], DELIVERED);
    assert_eq!(data["messageStatus"], "DELIVERED");
    assert_eq!(data["numberOfSegments"], 1);
    assert_eq!(data["tags"], json!({}));
    assert_eq!(data["rawDlrDoneDate"].as_str().map(str::len), Some(10));
    assert!(data.get("errorCode").is_none() && data.get("messagingServiceSid").is_none());
    wait_for_counts(&sandbox, [0, 2, 0, 0]);
    let listed = sandbox.control(&format!("/_events?id={sid}"));
    assert_eq!(listed["count"], 2);
    assert_eq!(listed["events"][0]["outcome"], "delivered");
    assert_eq!(listed["events"][0]["answer"], 204);
}

#[test]
fn batches_are_arrays_and_come_again_until_they_are_taken() {
    let hook = Hook::answering(&[503, 429, 500]);
    let sandbox = Sandbox::with_hook(&hook, &FAST);
    let failed = "com.twilio.messaging.message.failed";
    subscribe(&sandbox, true, &[failed]);
    let message = sandbox.accepted("+150000001230008", "https://example.com/nobody");
    let sid = message["sid"].as_str().unwrap();
    wait_for_counts(&sandbox, [0, 1, 0, 0]);
    let requests = hook.about(sid, 4);
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert!(is_signed(request), "{request:?}");
        assert_eq!(request.body, requests[0].body);
        let batch = request.json();
        assert_eq!(batch.as_array().map(Vec::len), Some(1));
        assert_eq!(batch[0]["data"]["errorCode"], 30008);
    }
}

#[test]
fn a_sink_that_refuses_loses_the_event_and_one_that_is_away_too_long_as_well() {
    let hook = Hook::answering(&[400]);
    let sandbox = Sandbox::with_hook(&hook, &FAST);
    subscribe(&sandbox, false, &[SENT]);
    sandbox.accepted("+150000001000004", "https://example.com/nobody");
    wait_for_counts(&sandbox, [0, 0, 1, 0]);

    let hook = Hook::answering(&[503; 200]);
    let sandbox = Sandbox::with_hook(&hook, &FAST);
    subscribe(&sandbox, false, &[SENT]);
    sandbox.accepted("+150000001000004", "https://example.com/nobody");
    wait_for_counts(&sandbox, [0, 0, 0, 1]);
    let delivery = &sandbox.control("/_events")["events"][0];
    assert_eq!(delivery["outcome"], "given up");
    let tries = delivery["attempts"].as_array().map_or(0, Vec::len);
    assert!((20..100).contains(&tries), "{tries}");
}

#[test]
fn a_fault_drops_delays_or_repeats_events() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let sink = subscribe(&sandbox, false, &[SENT]);
    for outcome in ["drop", "late", "repeated"] {
        let fields = [("on", "event"), ("outcome", outcome)];
        assert_eq!(sandbox.post("/_faults", "", &fields).unwrap().status, 201);
        sandbox.accepted("+150000001000004", "https://example.com/nobody");
        let path = "/_faults";
        until(outcome, || {
            let faults = sandbox.control(path);
            let faults = faults["faults"].as_array().unwrap().clone();
            faults.iter().all(|fault| fault["hits"] == 1)
        });
    }
    wait_for_counts(&sandbox, [0, 4, 0, 0]);
    assert_eq!(hook.requests().len(), 4);
    let listed = sandbox.control(&format!("/_events?id={sink}"));
    assert_eq!(listed["count"], 5);
    assert_eq!(listed["events"][0]["outcome"], "dropped");
}

#[test]
fn inbound_messages_are_events_without_their_files() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    subscribe(
        &sandbox,
        true,
        &["com.twilio.messaging.inbound-message.received"],
    );
    let fields = [
        ("url", "https://hooks.example.com/twilio/inbound"),
        ("From", "+12025550123"),
        ("To", "+12025550100"),
        ("Body", "Stop"),
        ("MediaUrl", "https://media.example.com/1.png"),
        ("recipient", "+12025550100"),
        ("recipient", "+12025550124"),
        ("OptOutType", "STOP"),
    ];
    assert_eq!(sandbox.post("/_inbound", "", &fields).unwrap().status, 200);
    wait_for_counts(&sandbox, [0, 1, 0, 0]);
    let requests = hook.requests();
    let batch = requests.last().unwrap().json();
    let data = &batch[0]["data"];
    assert_eq!(data["numMedia"], 1);
    assert_eq!(data["recipients"], json!(["+12025550100", "+12025550124"]));
    assert_eq!(data["optOutType"], "STOP");
    assert!(!batch.to_string().contains("Media/"), "{batch}");
    assert!(requests[0].parameter("recipient").is_none());
}

#[test]
fn nothing_is_created_of_bad_parameters_or_for_strangers() {
    let sandbox = Sandbox::start(&[]);
    let webhook = r#"{"destination": "https://hooks.example.com/x"}"#;
    for (fields, text) in [
        (
            vec![("SinkType", "webhook"), ("SinkConfiguration", webhook)],
            "Missing required parameter Description",
        ),
        (
            vec![
                ("Description", "x"),
                ("SinkType", "webhook"),
                ("SinkConfiguration", "{}"),
            ],
            "Invalid SinkConfiguration: destination",
        ),
        (
            vec![
                ("Description", "x"),
                ("SinkType", "kinesis"),
                ("SinkConfiguration", webhook),
            ],
            "SinkType kinesis is not known",
        ),
    ] {
        let response = sandbox.post("/v1/Sinks", &twilio_user(), &fields).unwrap();
        assert_eq!(response.status, 400, "{response:?}");
        assert_eq!(response.json()["message"], text);
    }
    let response = sandbox.post("/v1/Sinks", "", &[]).unwrap();
    assert_eq!((response.status, response.code()), (401, 20003));
    for path in [
        "/v1/Sinks/DG0",
        "/v1/Subscriptions/DF0",
        "/v1/Messages.json",
    ] {
        assert_eq!(sandbox.get(path, &twilio_user()).status, 404, "{path}");
    }
    let sinks = sandbox.get("/v1/Sinks", &twilio_user()).json();
    assert_eq!(sinks["sinks"], json!([]));
    assert_eq!(sinks["meta"]["key"], "sinks");
}
