//! SMSGate's API.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use serde_json::json;
use support::smsgate::{MESSAGES, OPTIONS, message, post, register, user};
use support::{Sandbox, basic};

#[test]
fn a_message_is_taken_once_by_each_device() {
    let sandbox = Sandbox::start(OPTIONS);
    let first = post(&sandbox, MESSAGES, &message("+12025550123", "m1"));
    assert_eq!(first.status, 202);
    assert!(
        first.head.contains("location: /3rdparty/v1/messages/m1"),
        "{}",
        first.head
    );
    assert_eq!(first.json()["deviceId"], "first");
    assert_eq!(first.json()["state"], "Pending");
    assert_eq!(
        post(&sandbox, MESSAGES, &message("+12025550123", "m1")).status,
        409
    );
    let mut other = message("+12025550123", "m1");
    other["deviceId"] = "second".into();
    assert_eq!(post(&sandbox, MESSAGES, &other).status, 202);
    assert_eq!(sandbox.get(&format!("{MESSAGES}/m1"), &user()).status, 500);
    other["deviceId"] = "third".into();
    let refused = post(&sandbox, MESSAGES, &other);
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json(),
        json!({ "message": "failed to select device: record not found" })
    );
    assert_eq!(
        sandbox.get(&format!("{MESSAGES}/nothing"), &user()).status,
        404
    );
}

#[test]
fn without_a_device_any_phone_is_chosen() {
    let sandbox = Sandbox::start(OPTIONS);
    let devices: std::collections::BTreeSet<String> = (0..64)
        .map(|_| {
            let body = json!({ "phoneNumbers": ["+12025550123"], "message": "x" });
            post(&sandbox, MESSAGES, &body).json()["deviceId"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(devices.into_iter().collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn broken_answers_and_refusals() {
    let sandbox = Sandbox::start(OPTIONS);
    for (digits, status, is_accepted) in [
        ("10", Some(400), false),
        ("11", Some(503), false),
        ("13", Some(500), false),
        ("14", Some(500), true),
        ("15", None, true),
        ("17", None, false),
        ("19", Some(400), false),
        ("21", Some(403), false),
        ("22", Some(401), false),
        ("26", Some(502), true),
        ("99", Some(400), false),
    ] {
        let id = format!("m{digits}");
        let body = message(&format!("+1501000010000{digits}"), &id);
        let response = sandbox.json("POST", MESSAGES, &user(), &body);
        assert_eq!(response.map(|r| r.status), status, "{digits}");
        let fetched = sandbox.get(&format!("{MESSAGES}/{id}"), &user()).status;
        assert_eq!(fetched, if is_accepted { 200 } else { 404 }, "{digits}");
        let again = sandbox
            .json("POST", MESSAGES, &user(), &message("+12025550123", &id))
            .unwrap();
        assert_eq!(
            again.status,
            if is_accepted { 409 } else { 202 },
            "{digits}"
        );
    }
    let once = message("+150100001000012", "once");
    assert_eq!(post(&sandbox, MESSAGES, &once).status, 503);
    assert_eq!(post(&sandbox, MESSAGES, &once).status, 202);
}

#[test]
fn a_full_queue_is_refused() {
    let options: Vec<&str> = OPTIONS
        .iter()
        .copied()
        .chain(["--smsgate-queue-limit", "2"])
        .collect();
    let sandbox = Sandbox::start(&options);
    sandbox.post("/_phones/first", "", &[("online", "false")]);
    let status = |id| post(&sandbox, MESSAGES, &message("+12025550123", id)).status;
    assert_eq!([status("a"), status("b"), status("c")], [202, 202, 503]);
}

#[test]
fn tokens_are_good_for_their_scopes() {
    let sandbox = Sandbox::start(OPTIONS);
    let token = "/3rdparty/v1/auth/token";
    let body = json!({ "scopes": ["messages:send"], "ttl": 60 });
    assert_eq!(
        sandbox
            .json("POST", token, &basic("u", "wrong"), &body)
            .unwrap()
            .status,
        401
    );
    let issued = post(&sandbox, token, &body);
    assert_eq!(issued.status, 201);
    let bearer = |name: &str| format!("Bearer {}", issued.json()[name].as_str().unwrap());
    let access = bearer("access_token");
    let sent = sandbox
        .json("POST", MESSAGES, &access, &message("+12025550123", "m1"))
        .unwrap();
    assert_eq!(sent.status, 202);
    let read = sandbox.get(&format!("{MESSAGES}/m1"), &access);
    assert_eq!(read.status, 403);
    assert_eq!(
        read.json(),
        json!({ "message": "scope required: messages:read" })
    );
    let refresh = || {
        sandbox
            .json(
                "POST",
                &format!("{token}/refresh"),
                &bearer("refresh_token"),
                &json!({}),
            )
            .unwrap()
            .status
    };
    assert_eq!([refresh(), refresh()], [201, 401]);
    let id = issued.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        sandbox
            .request("DELETE", &format!("{token}/{id}"), &user(), "", "")
            .unwrap()
            .status,
        204
    );
    let sent = sandbox
        .json("POST", MESSAGES, &access, &message("+12025550123", "m2"))
        .unwrap();
    assert_eq!(sent.status, 401);
}

#[test]
fn lists_and_registrations() {
    let sandbox = Sandbox::start(OPTIONS);
    for n in 0..5 {
        post(
            &sandbox,
            MESSAGES,
            &message("+12025550123", &format!("m{n}")),
        );
    }
    let page = sandbox.get(
        &format!("{MESSAGES}?limit=2&offset=1&includeContent=true"),
        &user(),
    );
    assert!(page.head.contains("x-total-count: 5"), "{}", page.head);
    let json = page.json();
    let ids: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["id"].as_str())
        .collect();
    assert_eq!(ids, ["m3", "m2"]);
    assert_eq!(json[0]["textMessage"]["text"], "hé 🙂");
    assert_eq!(
        sandbox
            .get(&format!("{MESSAGES}?limit=101"), &user())
            .status,
        400
    );
    register(&sandbox);
    register(&sandbox);
    let webhooks = || {
        sandbox
            .get("/3rdparty/v1/webhooks", &user())
            .json()
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(webhooks(), Some(5));
    let bad = json!({ "url": "http://hooks.example.com/x", "event": "sms:sent" });
    assert_eq!(post(&sandbox, "/3rdparty/v1/webhooks", &bad).status, 400);
    sandbox.request("DELETE", "/3rdparty/v1/webhooks/sms:sent", &user(), "", "");
    assert_eq!(webhooks(), Some(4));
    assert_eq!(
        sandbox
            .get("/api/3rdparty/v1/devices", &user())
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(sandbox.get("/3rdparty/v1/health", "").status, 200);
}

#[test]
fn faults_and_counts_are_shared_with_twilio() {
    let sandbox = Sandbox::start(OPTIONS);
    let fields = [
        ("on", "smsgate"),
        ("outcome", "drop"),
        ("to", "+12025550123"),
    ];
    assert_eq!(sandbox.post("/_faults", "", &fields).unwrap().status, 201);
    assert!(
        sandbox
            .json("POST", MESSAGES, &user(), &message("+12025550123", "m1"))
            .is_none()
    );
    assert_eq!(
        post(&sandbox, MESSAGES, &message("+12025550123", "m1")).status,
        409
    );
    let counts = sandbox.control("/_counts?provider=smsgate");
    assert_eq!(
        counts["recipients"]["+12025550123"],
        json!({ "requests": 2, "accepted": 1 })
    );
}

#[test]
fn there_is_no_gateway_without_a_user() {
    let sandbox = Sandbox::start(&[]);
    assert_eq!(
        post(&sandbox, MESSAGES, &message("+12025550123", "m1")).status,
        404
    );
}
