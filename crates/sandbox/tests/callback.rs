//! Callbacks: their sequence, signature, headers and retries.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use std::net::TcpStream;

use protocol::form::Form;
use protocol::signature::{Algorithm, Key, Payload, verify};
use protocol::url::SignedUrl;
use support::{Hook, PUBLIC, Request, SERVICE, Sandbox, TOKEN, basic, until};

const STATUS: &str = "https://hooks.example.com/twilio/status?a=1&b=%C3%A9";

fn is_signed(request: &Request, algorithm: Algorithm, secret: &str) -> bool {
    let key = Key::new(algorithm, secret.as_bytes());
    let url = format!("{PUBLIC}{}", request.target);
    let payload = match request.method.as_str() {
        "GET" => Payload::Empty,
        _ => Payload::Form(Form::parse(&request.body)),
    };
    let signature = request.header("x-twilio-signature").unwrap_or_default();
    let urls: Vec<_> = SignedUrl::parse(&url).into_iter().collect();
    verify(&[key], &urls, &payload, signature).is_some()
}

fn statuses(requests: &[Request]) -> Vec<String> {
    requests
        .iter()
        .filter_map(|request| request.parameter("MessageStatus"))
        .collect()
}

#[test]
fn a_direct_number_reports_sent_and_delivered() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let message = sandbox.accepted("+12025550123", STATUS);
    assert_eq!(message["status"], "queued");
    let sid = message["sid"].as_str().unwrap();
    let requests = hook.about(sid, 2);
    assert_eq!(statuses(&requests), ["sent", "delivered"]);
    for request in &requests {
        assert_eq!(request.target, "/twilio/status?a=1&b=%C3%A9");
        assert!(
            is_signed(request, Algorithm::HmacSha1, TOKEN),
            "{request:?}"
        );
        assert!(!is_signed(request, Algorithm::HmacSha1, "another token"));
        assert_eq!(request.header("user-agent"), Some("TwilioProxy/1.1"));
        assert_eq!(request.header("host"), Some("hooks.example.com"));
        assert_eq!(
            request.header("content-type"),
            Some("application/x-www-form-urlencoded; charset=utf-8")
        );
        assert_eq!(request.parameter("SmsSid").as_deref(), Some(sid));
        assert_eq!(request.parameter("From").as_deref(), Some("+12025550100"));
    }
    let token = |request: &Request| {
        request
            .header("i-twilio-idempotency-token")
            .map(str::to_owned)
    };
    assert_ne!(token(&requests[0]), token(&requests[1]));
    assert!(requests[0].parameter("ErrorCode").is_none());
    until("a price", || sandbox.fetch(sid)["price"].is_string());
    assert_eq!(sandbox.fetch(sid)["status"], "delivered");
}

#[test]
fn a_messaging_service_reports_queued_first() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let fields = [
        ("To", "+12025550123"),
        ("MessagingServiceSid", SERVICE),
        ("Body", "x"),
        ("StatusCallback", STATUS),
    ];
    let message = sandbox.create(&fields).unwrap().json();
    assert_eq!(message["status"], "accepted");
    assert!(message["from"].is_null());
    assert_eq!(message["num_segments"], "0");
    let requests = hook.about(message["sid"].as_str().unwrap(), 3);
    assert_eq!(statuses(&requests), ["queued", "sent", "delivered"]);
    assert_eq!(
        requests[0].parameter("MessagingServiceSid").as_deref(),
        Some(SERVICE)
    );
    assert_eq!(
        requests[0].parameter("From").as_deref(),
        Some("+15005550006")
    );
}

#[test]
fn recipients_choose_what_is_reported() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    for (to, expected, code) in [
        ("+150000001130003", &["sent", "undelivered"][..], "30003"),
        ("+150000001230001", &["failed"], "30001"),
        (
            "whatsapp:+150000001163049",
            &["sent", "undelivered"],
            "63049",
        ),
        ("+150000001163049", &["sent", "delivered"], ""),
        (
            "whatsapp:+150000001000001",
            &["sent", "delivered", "read"],
            "",
        ),
        ("+150000001000002", &["delivered", "sent"], ""),
        (
            "+150000001000003",
            &[
                "sent",
                "sent",
                "sent",
                "delivered",
                "delivered",
                "delivered",
            ],
            "",
        ),
        ("+150000001000004", &["sent"], ""),
        (
            "+150000001000020",
            &["sent", "handset_confirmed", "delivered"],
            "",
        ),
        ("+150000001000021", &["sent", "delivered"], ""),
        (
            "+150000001630003",
            &["sent", "undelivered", "delivered"],
            "",
        ),
        (
            "+150000001730003",
            &["sent", "undelivered", "failed"],
            "30003",
        ),
        (
            "whatsapp:+150100001405000",
            &["sent", "undelivered"],
            "63049",
        ),
        ("+150100001405000", &["sent", "undelivered"], "30003"),
    ] {
        let message = sandbox.accepted(to, STATUS);
        let requests = hook.about(message["sid"].as_str().unwrap(), expected.len());
        assert_eq!(statuses(&requests), expected, "{to}");
        let last = requests
            .last()
            .and_then(|request| request.parameter("ErrorCode"));
        assert_eq!(last.unwrap_or_default(), code, "{to}");
        assert!(
            requests
                .iter()
                .all(|request| is_signed(request, Algorithm::HmacSha1, TOKEN))
        );
    }
}

#[test]
fn silence_and_losses_show_in_the_resource_only() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    for (to, status) in [
        ("+150000001000006", "delivered"),
        ("+150000001830003", "undelivered"),
        ("+150000001000005", "queued"),
    ] {
        let message = sandbox.accepted(to, STATUS);
        let sid = message["sid"].as_str().unwrap();
        until(status, || sandbox.fetch(sid)["status"] == status);
    }
    // What is delivered later has overtaken all of them.
    let marker = sandbox.accepted("+12025550123", STATUS);
    assert_eq!(
        hook.about(marker["sid"].as_str().unwrap(), 2).len(),
        hook.requests().len()
    );
}

#[test]
fn whatsapp_has_its_own_parameters() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let message = sandbox.accepted("whatsapp:+150000001163016", STATUS);
    let requests = hook.about(message["sid"].as_str().unwrap(), 2);
    let parameter = |name| requests[1].parameter(name);
    assert_eq!(parameter("ChannelPrefix").as_deref(), Some("whatsapp"));
    assert_eq!(
        parameter("ChannelToAddress").as_deref(),
        Some("+15000000116XXXX")
    );
    assert!(parameter("ChannelInstallSid").is_some_and(|sid| sid.starts_with("XE")));
    assert!(parameter("ChannelStatusMessage").is_some());
    assert!(parameter("RawDlrDoneDate").is_none());
}

#[test]
fn a_failing_webhook_is_called_again_as_the_fragment_says() {
    let hook = Hook::answering(&[500, 500]);
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let url = format!("{STATUS}#rc=3&rp=5xx");
    let message = sandbox.accepted("+150000001000004", &url);
    let sid = message["sid"].as_str().unwrap();
    let requests = hook.about(sid, 3);
    let tokens: Vec<_> = requests
        .iter()
        .map(|r| r.header("i-twilio-idempotency-token"))
        .collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    let path = format!("/_callbacks?id={sid}");
    until("the record", || sandbox.control(&path)["count"] == 1);
    let called = &sandbox.control(&path)["callbacks"][0];
    let answers: Vec<_> = called["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["status"].as_u64())
        .collect();
    assert_eq!(answers, [Some(500), Some(500), Some(204)]);
    assert_eq!(called["answer"], 204);
}

#[test]
fn a_failing_webhook_is_not_called_again_by_default() {
    let hook = Hook::answering(&[500]);
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let message = sandbox.accepted("+12025550123", STATUS);
    let requests = hook.about(message["sid"].as_str().unwrap(), 2);
    assert_eq!(statuses(&requests), ["sent", "delivered"]);
}

#[test]
fn an_unreachable_webhook_is_tried_twice() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    // A port that a connection has for its own cannot be listened on meanwhile.
    let client = TcpStream::connect(("127.0.0.1", hook.port)).unwrap();
    let nobody = format!("http://{}/nobody", client.local_addr().unwrap());
    let message = sandbox.accepted("+150000001000004", &nobody);
    let path = format!("/_callbacks?id={}", message["sid"].as_str().unwrap());
    until("the record", || sandbox.control(&path)["count"] == 1);
    let attempts = sandbox.control(&path)["callbacks"][0]["attempts"].clone();
    assert_eq!(attempts.as_array().map(Vec::len), Some(2), "{attempts}");
    assert!(
        attempts[0]["failure"]
            .as_str()
            .unwrap()
            .starts_with("connect: ")
    );
}

#[test]
fn callbacks_outside_loopback_are_not_sent() {
    let sandbox = Sandbox::start(&[]);
    for url in [
        "https://example.com/x",
        "http://192.0.2.1/x",
        "http://example.com/x",
    ] {
        let message = sandbox.accepted("+150000001000004", url);
        let path = format!("/_callbacks?id={}", message["sid"].as_str().unwrap());
        until("the record", || sandbox.control(&path)["count"] == 1);
        let called = &sandbox.control(&path)["callbacks"][0];
        assert!(called["refused"].is_string(), "{called}");
        assert_eq!(called["attempts"], serde_json::json!([]));
    }
}

#[test]
fn a_fault_drops_delays_or_repeats_callbacks_and_leaves_the_message_alone() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let on = |outcome, to| {
        let fields = [("on", "callback"), ("outcome", outcome), ("to", to)];
        let response = sandbox.post("/_faults", "", &fields).unwrap();
        assert_eq!(response.status, 201, "{response:?}");
    };
    let callbacks = |sid: &str| sandbox.control(&format!("/_callbacks?id={sid}"));

    on("drop", "+12025550121");
    let dropped = sandbox.accepted("+12025550121", STATUS);
    let dropped = dropped["sid"].as_str().unwrap();
    assert_eq!(statuses(&hook.about(dropped, 1)), ["delivered"]);
    until("the record", || callbacks(dropped)["count"] == 2);
    let first = &callbacks(dropped)["callbacks"][0];
    assert_eq!(first["status"], "sent");
    assert_eq!(first["refused"], "dropped");
    assert_eq!(first["attempts"], serde_json::json!([]));
    assert_eq!(sandbox.fetch(dropped)["status"], "delivered");

    on("late", "+12025550122");
    let late = sandbox.accepted("+12025550122", STATUS);
    let late = late["sid"].as_str().unwrap();
    assert_eq!(statuses(&hook.about(late, 2)), ["delivered", "sent"]);
    assert_eq!(sandbox.fetch(late)["status"], "delivered");

    on("repeated", "+12025550123");
    let repeated = sandbox.accepted("+12025550123", STATUS);
    let repeated = repeated["sid"].as_str().unwrap();
    let expected = ["sent", "sent", "sent", "delivered"];
    assert_eq!(statuses(&hook.about(repeated, 4)), expected);
}

#[test]
fn a_share_of_callbacks_is_dropped() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &["--seed", "7"]);
    let fields = [
        ("on", "callback"),
        ("outcome", "drop"),
        ("count", "unlimited"),
        ("percent", "30"),
    ];
    assert_eq!(sandbox.post("/_faults", "", &fields).unwrap().status, 201);
    (0..100).for_each(|_| drop(sandbox.accepted("+150000001000004", STATUS)));
    until("the callbacks", || {
        sandbox.control("/_callbacks")["count"] == 100
    });
    let hits = sandbox.control("/_faults")["faults"][0]["hits"].clone();
    assert!(
        hits.as_u64().is_some_and(|hits| (15..45).contains(&hits)),
        "{hits}"
    );
}

#[test]
fn a_shared_key_signs_with_sha256() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &["--shared-key", "webhooks_sharedkey_1:deep secret"]);
    let message = sandbox.accepted("+150000001000004", STATUS);
    let request = &hook.about(message["sid"].as_str().unwrap(), 1)[0];
    assert_eq!(
        request.header("x-twilio-webhooks-signature-settings"),
        Some("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256")
    );
    assert!(is_signed(request, Algorithm::HmacSha256, "deep secret"));
    assert!(!is_signed(request, Algorithm::HmacSha1, TOKEN));
}

#[test]
fn user_information_is_sent_when_asked_for_and_never_signed() {
    let hook = Hook::answering(&[401]);
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let message = sandbox.accepted("+150000001000004", "https://u:p@hooks.example.com/x");
    let requests = hook.about(message["sid"].as_str().unwrap(), 2);
    let users: Vec<_> = requests.iter().map(|r| r.header("authorization")).collect();
    assert_eq!(users, [None, Some(basic("u", "p").as_str())]);
    assert!(
        requests
            .iter()
            .all(|r| is_signed(r, Algorithm::HmacSha1, TOKEN))
    );
}

#[test]
fn inbound_messages_call_the_webhook_and_show_its_answer() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    for method in ["POST", "GET"] {
        let fields = [
            ("url", "https://hooks.example.com/twilio/inbound?x=1"),
            ("method", method),
            ("From", "+12025550123"),
            ("To", "+12025550100"),
            ("Body", "hi & bye"),
            ("MediaUrl", "https://media.example.com/1.png"),
        ];
        let answer = sandbox.post("/_inbound", "", &fields).unwrap().json();
        assert_eq!(answer["status"], 204, "{answer}");
        let request = hook.requests().pop().unwrap();
        assert_eq!(request.method, method);
        assert!(
            is_signed(&request, Algorithm::HmacSha1, TOKEN),
            "{request:?}"
        );
        assert_eq!(
            sandbox.fetch(answer["sid"].as_str().unwrap())["direction"],
            "inbound"
        );
    }
    let posted = &hook.requests()[0];
    assert_eq!(
        posted.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        posted.parameter("MediaContentType0").as_deref(),
        Some("image/png")
    );
    assert_eq!(posted.parameter("SmsStatus").as_deref(), Some("received"));
}
