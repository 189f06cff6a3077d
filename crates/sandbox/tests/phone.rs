//! SMSGate's phones: what they report, when, and how they sign it.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use support::smsgate::{MESSAGES, OPTIONS, message, post, register, user};
use support::{Hook, Sandbox, until};

fn state(sandbox: &Sandbox, id: &str) -> String {
    let json = sandbox.get(&format!("{MESSAGES}/{id}"), &user()).json();
    json["state"].as_str().unwrap_or_default().to_owned()
}

fn events(hook: &Hook, id: &str, count: usize) -> Vec<String> {
    let requests = hook.about(&format!("\"messageId\":\"{id}\""), count);
    requests
        .iter()
        .map(|r| r.json()["event"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn phones_report_what_becomes_of_messages() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, OPTIONS);
    register(&sandbox);
    for (digits, expected, last) in [
        ("00", &["sms:sent", "sms:delivered"][..], "Delivered"),
        ("01", &["sms:sent"], "Sent"),
        ("02", &["sms:failed"], "Failed"),
        (
            "03",
            &[
                "sms:sent",
                "sms:delivered",
                "sms:delivered",
                "sms:delivered",
            ],
            "Delivered",
        ),
        ("04", &["sms:sent", "sms:delivered", "sms:failed"], "Failed"),
        (
            "05",
            &["sms:sent", "sms:sent", "sms:delivered", "sms:delivered"],
            "Delivered",
        ),
        ("06", &["sms:delivered", "sms:sent"], "Delivered"),
        ("09", &[], "Delivered"),
        ("07", &[], "Pending"),
        ("08", &[], "Processed"),
    ] {
        let to = format!("+1501000010000{digits}");
        let id = format!("m{digits}");
        assert_eq!(post(&sandbox, MESSAGES, &message(&to, &id)).status, 202);
        assert_eq!(events(&hook, &id, expected.len()), expected, "{digits}");
        until(last, || state(&sandbox, &id) == last);
    }
    let doubled = hook.about("\"messageId\":\"m05\"", 4);
    assert_ne!(doubled[0].json()["id"], doubled[1].json()["id"]);
    let sent = sandbox.control("/_sent?id=m00");
    assert_eq!(sent["sent"][0]["text"], "hé 🙂");
}

#[test]
fn every_try_of_a_webhook_is_signed() {
    let hook = Hook::answering(&[500, 503]);
    let sandbox = Sandbox::with_hook(&hook, OPTIONS);
    register(&sandbox);
    post(&sandbox, MESSAGES, &message("+150100001000001", "m1"));
    let tries = hook.about("\"messageId\":\"m1\"", 3);
    assert!(
        tries
            .iter()
            .all(|request| request.json()["id"] == tries[0].json()["id"])
    );
    for request in &tries {
        let timestamp = request.header("x-timestamp").unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"key one").unwrap();
        mac.update(&request.body);
        mac.update(timestamp.as_bytes());
        let expected: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(request.header("x-signature"), Some(expected.as_str()));
        assert_eq!(request.json()["deviceId"], "first");
    }
}

#[test]
fn a_phone_that_is_away_sends_nothing_and_what_expired_fails() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, OPTIONS);
    register(&sandbox);
    let phone = |fields: &[(&str, &str)]| {
        assert_eq!(
            sandbox.post("/_phones/first", "", fields).unwrap().status,
            200
        )
    };
    phone(&[("online", "false")]);
    post(&sandbox, MESSAGES, &message("+12025550123", "waits"));
    post(&sandbox, MESSAGES, &message("+12025550123", "cancelled"));
    let mut short = message("+12025550123", "expired");
    // Over already when the phone comes back, without waiting for the shortest ttl.
    short["validUntil"] = "2020-01-01T00:00:00Z".into();
    assert_eq!(post(&sandbox, MESSAGES, &short).status, 202);
    let cancel = |id: &str| {
        sandbox
            .request("DELETE", &format!("{MESSAGES}/{id}"), &user(), "", "")
            .unwrap()
    };
    assert_eq!(cancel("cancelled").json()["state"], "Cancelling");
    assert_eq!(cancel("cancelled").status, 409);
    assert_eq!(state(&sandbox, "waits"), "Pending");
    phone(&[("online", "true")]);
    assert_eq!(events(&hook, "cancelled", 1), ["sms:cancelled"]);
    assert_eq!(events(&hook, "waits", 2), ["sms:sent", "sms:delivered"]);
    let failed = hook.about("\"messageId\":\"expired\"", 1)[0].json();
    assert_eq!(failed["event"], "sms:failed");
    assert_eq!(failed["payload"]["reason"], "TTL expired");
    assert_eq!(sandbox.control("/_sent")["count"], 1);
}

#[test]
fn hashed_messages_and_texts_that_come_in() {
    let hook = Hook::start();
    let options: Vec<&str> = OPTIONS
        .iter()
        .copied()
        .chain(["--smsgate-hash-after", "0"])
        .collect();
    let sandbox = Sandbox::with_hook(&hook, &options);
    register(&sandbox);
    post(&sandbox, MESSAGES, &message("+12025550123", "m1"));
    let fetch = || sandbox.get(&format!("{MESSAGES}/m1"), &user()).json();
    until("hashes", || fetch()["isHashed"] == true);
    assert_eq!(fetch()["recipients"][0]["phoneNumber"], "d5ab8b77e69a81df");
    assert!(fetch().get("textMessage").is_none());
    sandbox.post(
        "/_phones/second",
        "",
        &[("From", "+12025550177"), ("Body", "a & b")],
    );
    let received = hook.about("sms:received\"", 1)[0].json();
    assert_eq!(received["payload"]["message"], "a & b");
    assert_eq!(received["deviceId"], "second");
}
