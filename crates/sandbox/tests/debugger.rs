//! The debugger: alerts about webhooks that cannot be reached.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use std::net::TcpStream;

use protocol::form::Form;
use protocol::signature::{Algorithm, Key, Payload, verify};
use protocol::url::SignedUrl;
use serde_json::{Value, json};
use support::{ACCOUNT, Hook, Request, Sandbox, TOKEN, twilio_user, until};

const STATUS: &str = "https://hooks.example.com/twilio/status";
const DEBUGGER: &str = "https://hooks.example.com/twilio/debugger";

fn alerts(hook: &Hook) -> Vec<Request> {
    let mut requests = hook.requests();
    requests.retain(|request| request.target == "/twilio/debugger");
    requests
}

fn is_signed(request: &Request) -> bool {
    let key = Key::new(Algorithm::HmacSha1, TOKEN.as_bytes());
    let payload = Payload::Form(Form::parse(&request.body));
    let signature = request.header("x-twilio-signature").unwrap_or_default();
    let urls: Vec<_> = SignedUrl::parse(DEBUGGER).into_iter().collect();
    verify(&[key], &urls, &payload, signature).is_some()
}

fn payload(request: &Request) -> Value {
    serde_json::from_str(&request.parameter("Payload").unwrap()).unwrap()
}

#[test]
fn a_callback_in_vain_raises_one_alert_although_its_call_fails_too() {
    let hook = Hook::answering(&[500, 500]);
    let sandbox = Sandbox::with_hook(&hook, &["--debugger", DEBUGGER]);
    let message = sandbox.accepted("+150000001000004", STATUS);
    until("the alert", || alerts(&hook).len() == 1);
    let alert = &alerts(&hook)[0];
    assert_eq!(alert.parameter("AccountSid").as_deref(), Some(ACCOUNT));
    assert_eq!(alert.parameter("Level").as_deref(), Some("ERROR"));
    assert!(alert.parameter("Sid").unwrap().starts_with("NO"));
    assert!(is_signed(alert), "{alert:?}");
    let payload = payload(alert);
    assert_eq!(payload["error_code"], "11200");
    assert_eq!(payload["resource_sid"], message["sid"]);
    assert_eq!(payload["webhook"]["request"]["url"], STATUS);
    assert_eq!(payload["webhook"]["request"]["method"], "POST");
    assert_eq!(
        payload["webhook"]["request"]["parameters"]["MessageStatus"],
        "sent"
    );
    assert_eq!(payload["webhook"]["response"]["status_code"], 500);

    let marker = sandbox.accepted("+150000001000004", STATUS);
    hook.about(marker["sid"].as_str().unwrap(), 1);
    assert_eq!(alerts(&hook).len(), 1);
    assert_eq!(sandbox.control("/_debugger")["alerts"], 1);
}

#[test]
fn a_webhook_that_cannot_be_connected_to_has_a_code_of_its_own() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &["--debugger", DEBUGGER]);
    // A port that a connection has for its own cannot be listened on meanwhile.
    let client = TcpStream::connect(("127.0.0.1", hook.port)).unwrap();
    let nobody = format!("http://{}/nobody", client.local_addr().unwrap());
    let fields = [
        ("url", nobody.as_str()),
        ("From", "+12025550123"),
        ("To", "+12025550100"),
        ("Body", "hi"),
    ];
    let answer = sandbox.post("/_inbound", "", &fields).unwrap().json();
    assert_eq!(answer["problem"], "11205 HTTP connection failure");
    until("the alert", || alerts(&hook).len() == 1);
    let payload = payload(&alerts(&hook)[0]);
    assert_eq!(payload["error_code"], "11205");
    assert_eq!(payload["webhook"]["response"]["status_code"], Value::Null);
}

#[test]
fn alerts_are_raised_by_hand_and_go_to_sinks_too() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let configuration = json!({ "destination": "https://hooks.example.com/sink" }).to_string();
    let fields = [
        ("Description", "errors"),
        ("SinkType", "webhook"),
        ("SinkConfiguration", configuration.as_str()),
    ];
    let sink = sandbox.post("/v1/Sinks", &twilio_user(), &fields).unwrap();
    let sink = sink.json()["sid"].as_str().unwrap().to_owned();
    let fields = [
        ("Description", "errors"),
        ("SinkSid", sink.as_str()),
        ("Types", r#"{"type": "com.twilio.error-logs.error.logged"}"#),
    ];
    let subscription = sandbox.post("/v1/Subscriptions", &twilio_user(), &fields);
    assert_eq!(subscription.unwrap().status, 201);

    let fields = [
        ("url", DEBUGGER),
        ("code", "11200"),
        ("count", "30"),
        ("webhook", STATUS),
        ("level", "WARNING"),
    ];
    let answer = sandbox.post("/_debugger", "", &fields).unwrap().json();
    assert_eq!(answer, json!({ "url": DEBUGGER, "alerts": 30 }));
    until("the alerts", || alerts(&hook).len() == 30);
    assert_eq!(
        alerts(&hook)[0].parameter("Level").as_deref(),
        Some("WARNING")
    );
    until("the batch", || {
        sandbox.control("/_sinks")["sinks"][0]["delivered"] == 30
    });
    let mut requests = hook.requests();
    requests.retain(|request| request.target.starts_with("/sink"));
    let batch = requests[0].json();
    let data = &batch[0]["data"];
    assert_eq!(batch[0]["id"], data["sid"]);
    assert_eq!(data["error_code"], "11200");
    let payload: Value = serde_json::from_str(data["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload["webhook"]["request"]["url"], STATUS);

    let answer = sandbox.post("/_debugger", "", &[("url", "")]).unwrap();
    assert_eq!(answer.json(), json!({ "url": null, "alerts": 30 }));
}
