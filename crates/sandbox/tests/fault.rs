//! Answers that come late, broken or not at all, by recipient and by faults that are switched on.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use serde_json::{Value, json};
use support::{Hook, Sandbox, messages_path, twilio_user, until};

fn create(sandbox: &Sandbox, to: &str) -> Option<support::Response> {
    sandbox.create(&[("To", to), ("From", "+12025550100"), ("Body", "x")])
}

fn list(sandbox: &Sandbox, query: &str) -> Value {
    let response = sandbox.get(&format!("{}?{query}", messages_path()), &twilio_user());
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

#[test]
fn too_many_requests_end_after_so_many() {
    let sandbox = Sandbox::start(&["--retry-after", "7"]);
    let statuses: Vec<_> = (0..3)
        .map(|_| create(&sandbox, "+150000001400002").unwrap())
        .collect();
    assert_eq!(
        statuses.iter().map(|r| r.status).collect::<Vec<_>>(),
        [429, 429, 201]
    );
    assert!(statuses[0].head.contains("retry-after: 7"));
    assert_eq!(statuses[0].code(), 20429);
    let counts = sandbox.control("/_counts");
    assert_eq!(
        counts["recipients"]["+150000001400002"],
        json!({ "requests": 3, "accepted": 1 })
    );
}

#[test]
fn broken_answers_accept_or_not_as_they_say() {
    let sandbox = Sandbox::start(&[]);
    for (to, status, is_accepted) in [
        ("+150000001000008", None, true),
        ("+150000001000010", Some(500), true),
        ("+150000001000011", Some(502), true),
        ("+150000001000017", Some(201), true),
        ("+150000001000012", None, false),
        ("+150000001000014", Some(500), false),
        ("+150000001000015", Some(502), false),
    ] {
        let response = create(&sandbox, to);
        assert_eq!(response.as_ref().map(|r| r.status), status, "{to}");
        let heard = sandbox.control(&format!("/_requests?to={}", to.replace('+', "%2B")));
        assert_eq!(heard["requests"][0]["accepted"], is_accepted, "{to}");
        let listed = list(&sandbox, &format!("To={}", to.replace('+', "%2B")));
        assert_eq!(
            listed["messages"].as_array().map(Vec::len),
            Some(usize::from(is_accepted)),
            "{to}"
        );
        if let Some(response) = response.filter(|r| r.status != 500) {
            assert!(
                serde_json::from_str::<Value>(&response.body).is_err(),
                "{response:?}"
            );
        }
    }
}

#[test]
fn a_create_takes_effect_although_the_client_disconnects() {
    let sandbox = Sandbox::start(&["--latency", "60000"]);
    for to in ["+150000001000009", "+12025550123"] {
        let body = format!("To=%2B{}&From=%2B12025550100&Body=x", &to[1..]);
        let media = "application/x-www-form-urlencoded";
        let stream = sandbox.write("POST", &messages_path(), &twilio_user(), media, &body);
        let path = format!("/_counts?to=%2B{}", &to[1..]);
        until("the request", || sandbox.control(&path)["accepted"] == 1);
        drop(stream);
    }
}

#[test]
fn callbacks_can_come_before_the_answer() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let message = sandbox.accepted("+150000001000007", "https://hooks.example.com/x");
    let requests = hook.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        requests[1].parameter("MessageSid").as_deref(),
        message["sid"].as_str()
    );
}

#[test]
fn faults_hit_so_many_requests() {
    let sandbox = Sandbox::start(&[]);
    let on = |fields: &[(&str, &str)]| sandbox.post("/_faults", "", fields).unwrap().status;
    assert_eq!(on(&[("outcome", "drop"), ("count", "2")]), 201);
    assert_eq!(on(&[("outcome", "error"), ("on", "read")]), 201);
    assert_eq!(on(&[("outcome", "nonsense")]), 400);
    let answers: Vec<_> = (0..3)
        .map(|_| create(&sandbox, "+12025550123").map(|r| r.status))
        .collect();
    assert_eq!(answers, [None, None, Some(201)]);
    let read = || sandbox.get(&messages_path(), &twilio_user()).status;
    assert_eq!([read(), read()], [500, 200]);
    assert_eq!(sandbox.control("/_counts")["accepted"], 3);
    assert_eq!(sandbox.control("/_faults")["faults"][0]["hits"], 2);
    assert_eq!(
        sandbox
            .request("DELETE", "/_faults", "", "", "")
            .unwrap()
            .status,
        204
    );
    assert_eq!(sandbox.control("/_faults")["count"], 0);
}
