//! Requests to SMSGate, checked against the description of its API; signatures of the sandbox's phones, checked by
//! SMSGate's library for Rust.

use std::collections::BTreeSet;

use android_sms_gateway::webhook::verify_signature;
use end_to_end::client::request::Request;
use end_to_end::peer::openapi::Description;
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{PUBLIC_URL, set_setting};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::start_worker;
use end_to_end::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

/// user:password
const AUTHORIZATION: &str = "Basic dXNlcjpwYXNzd29yZA==";
const FLAGS: &str = "--callback-delay 5 --smsgate-user user --smsgate-password password \
    --device phone-1:key-1 --device phone-2:key-2";

/// The vector of SMSGate's people: key, body, timestamp, signature.
const VECTOR: [&str; 4] = [
    "my-secret-key",
    r#"{"event":"sms:received","payload":{"message":"Hello"}}"#,
    "1700000000",
    "f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea",
];

#[test]
fn requests_to_smsgate_match_its_description() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    // There is no listener for webhooks, so that the worker polls.
    let sandbox = Sandbox::start(free_port(), &FLAGS.split_whitespace().collect::<Vec<_>>());
    let base = format!("{}/3rdparty/v1", sandbox.url());
    database
        .connect()
        .batch_execute(&format!(
            "select twilio.add_smsgate('user', 'password', '{base}', device_id => 'phone-1'); \
             select twilio.add_smsgate('user', 'password', '{base}', device_id => 'phone-2', \
                 sim_number => 2, priority => 127, with_delivery_report => false, skip_phone_validation => true); \
             select twilio.add_smsgate('user', 'password', '{base}')"
        ))
        .unwrap();
    start_worker(&database);
    let send = |to: &str, body: &str, from: &str| -> i64 {
        let sql = "select twilio.send_message($1, $2, from_address => $3)";
        database.value(sql, &[&to, &body, &from])
    };
    let long = "\u{1f389}".repeat(8000);
    let plain = send("+12025550123", "plain", "user/phone-1");
    send("+12025550124", &long, "user/phone-2");
    // The answer is lost, and no phone is known that has it: it is looked for.
    let lost = send("+150100001405015", "lost", "user");
    // One that its phone never fetches is taken back once it has expired.
    let stuck = send("+150100002405007", "stuck", "user/phone-1");
    wait_until(PATIENCE, "all to be there", || {
        let sql = "select count(*) from twilio_internal.smsgate_message where is_open";
        database.value::<i64>(sql, &[]) >= 3 && sandbox.counts().contains_key("+150100001405015")
    });
    let is_any = |id: i64, statuses: &[&str]| {
        let sql = "select status = any ($2) from twilio.message where message_id = $1";
        database.value::<bool>(sql, &[&id, &statuses])
    };
    set_setting(&database, "clock_offset", "10 min");
    wait_until(PATIENCE, "states to be asked for", || {
        [plain, lost].iter().all(|&id| is_any(id, &["delivered"]))
    });
    set_setting(&database, "clock_offset", "5 h");
    wait_until(PATIENCE, "the message to be taken back", || {
        is_any(stuck, &["expired", "cancelling", "canceled"])
    });

    let registered = || {
        let path =
            Request::new("GET", "/3rdparty/v1/webhooks").header("Authorization", AUTHORIZATION);
        let list: Value = serde_json::from_slice(&sandbox.send(&path).body).unwrap();
        list.as_array().unwrap().len()
    };
    let sql = "select twilio.register_smsgate_webhooks()";
    assert_eq!(database.value::<i32>(sql, &[]), 12);
    wait_until(PATIENCE, "twelve webhooks", || registered() == 12);
    // Again: the same ones.
    assert_eq!(database.value::<i32>(sql, &[]), 12);
    wait_until(PATIENCE, "them to be confirmed", || {
        let sql = "select count(*) from twilio.smsgate_webhook where registered_at is not null and due_at = 'infinity'";
        database.value::<i64>(sql, &[]) == 12
    });
    assert_eq!(registered(), 12);
    let sql = "select twilio.withdraw_smsgate_webhooks(from_address => 'user/phone-1')";
    assert_eq!(database.value::<i32>(sql, &[]), 4);
    wait_until(PATIENCE, "four of them to go", || registered() == 8);

    let description = Description::parse(include_str!("../../data/smsgate_openapi.json"));
    let answer = sandbox.send(&Request::new(
        "GET",
        "/_requests?provider=smsgate&limit=1000",
    ));
    let heard: Value = serde_json::from_slice(&answer.body).unwrap();
    let mut kinds = BTreeSet::new();
    for request in heard["requests"].as_array().unwrap() {
        let (method, target) = (
            request["method"].as_str().unwrap(),
            request["target"].as_str().unwrap(),
        );
        // Shown for a request without a body.
        let body = Some(&request["parameters"]).filter(|body| **body != json!({}));
        let problems = description.problems(method, target, body.unwrap_or(&Value::Null));
        assert_eq!(problems, Vec::<String>::new(), "{request:#}");
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        kinds.insert((
            method.to_owned(),
            path.split('/').nth(3).unwrap().to_owned(),
        ));
    }
    let expected = [
        ("DELETE", "messages"),
        ("DELETE", "webhooks"),
        ("GET", "messages"),
        ("POST", "messages"),
        ("POST", "webhooks"),
        ("GET", "webhooks"),
    ];
    let expected = expected.map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(kinds, BTreeSet::from(expected));
    cluster.assert_no_errors();
}

#[test]
fn the_check_finds_requests_that_are_not_described() {
    let description = Description::parse(include_str!("../../data/smsgate_openapi.json"));
    let check =
        |method: &str, target: &str, body: Value| description.problems(method, target, &body).len();
    let path = "/3rdparty/v1/messages";
    let good =
        json!({ "id": "x", "phoneNumbers": ["+1"], "textMessage": { "text": "x" }, "ttl": 5 });
    assert_eq!(check("POST", path, good.clone()), 0);
    assert_eq!(
        check(
            "POST",
            &format!("{path}?skipPhoneValidation=true"),
            good.clone()
        ),
        0
    );
    assert_eq!(
        check(
            "POST",
            &format!("{path}?skipPhoneValidation=1"),
            good.clone()
        ),
        1
    );
    assert_eq!(check("POST", &format!("{path}?skip=true"), good.clone()), 1);
    assert_eq!(check("PUT", path, good.clone()), 1);
    assert_eq!(check("POST", "/3rdparty/v1/message", good.clone()), 1);
    assert_eq!(check("GET", &format!("{path}/x"), good.clone()), 1);
    for (name, value) in [
        ("ttl", json!(4)),
        ("simNumber", json!(0)),
        ("priority", json!(128)),
        ("phoneNumbers", json!([])),
        ("id", json!("x".repeat(37))),
        ("textMessage", json!({ "text": "" })),
        ("textMessage", json!({ "text": "x", "txt": "x" })),
        ("device_id", json!("x")),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        assert_ne!(check("POST", path, bad), 0, "{name}");
    }
}

#[test]
fn smsgates_library_accepts_signatures_of_the_sandboxes_phones() {
    let [key, body, timestamp, signature] = VECTOR;
    assert!(verify_signature(key, body, timestamp, signature, None));

    let recorder = Recorder::start();
    let sandbox = Sandbox::start(
        recorder.port(),
        &FLAGS.split_whitespace().collect::<Vec<_>>(),
    );
    for event in ["sms:sent", "sms:delivered", "sms:failed"] {
        let registration = json!({ "url": format!("{PUBLIC_URL}/smsgate"), "event": event });
        assert_eq!(
            sandbox
                .send(&asked("/3rdparty/v1/webhooks", &registration))
                .status,
            201
        );
    }
    for (device, number) in [
        ("phone-1", "+150100001405000"),
        ("phone-2", "+150100002405002"),
    ] {
        let message = json!({
            "deviceId": device, "phoneNumbers": [number], "textMessage": { "text": "Grüße 🎉" },
        });
        assert_eq!(
            sandbox
                .send(&asked("/3rdparty/v1/messages", &message))
                .status,
            202
        );
    }
    let mut webhooks = Vec::new();
    wait_until(PATIENCE, "three webhooks", || {
        webhooks.extend(recorder.take());
        webhooks.len() >= 3
    });
    for webhook in webhooks {
        let body = String::from_utf8(webhook.body.clone()).unwrap();
        let event: Value = serde_json::from_str(&body).unwrap();
        let (key, other) = if event["deviceId"] == "phone-1" {
            ("key-1", "key-2")
        } else {
            ("key-2", "key-1")
        };
        let header = |name| webhook.value_of(name).unwrap();
        let (timestamp, signature) = (header("x-timestamp"), header("x-signature"));
        assert!(
            verify_signature(key, &body, timestamp, signature, Some(60)),
            "{body}"
        );
        assert!(!verify_signature(
            other,
            &body,
            timestamp,
            signature,
            Some(60)
        ));
    }
}

fn asked(target: &str, body: &Value) -> Request {
    Request::post(target, "application/json", body.to_string())
        .header("Authorization", AUTHORIZATION)
}
