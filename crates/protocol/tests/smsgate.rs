//! Requests to SMSGate, its answers and its states.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::smsgate::state::MessageState;
use protocol::smsgate::{
    Draft, DraftError, Fetched, SEND_PATH, Sealed, Verdict, classify, classify_fetch, message_path,
};
use protocol::status::{self, Provider};

fn draft<'a>() -> Draft<'a> {
    Draft {
        id: "SM0123456789abcdef0123456789abcdef",
        device_id: Some("PyDmBQZZXYmyxMwED8Fzy"),
        to: "+12025550123",
        text: "Your table is \"ready\"",
        sim_number: Some(2),
        priority: 100,
        ttl: 3600,
        with_delivery_report: true,
        sealed: None,
    }
}

#[test]
fn a_message_is_encoded_as_the_gateway_reads_it() {
    assert_eq!(
        draft().encode().unwrap(),
        r#"{"id":"SM0123456789abcdef0123456789abcdef","deviceId":"PyDmBQZZXYmyxMwED8Fzy","textMessage":{"text":"Your table is \"ready\""},"phoneNumbers":["+12025550123"],"simNumber":2,"priority":100,"ttl":3600,"withDeliveryReport":true}"#
    );
    let plain = Draft {
        device_id: None,
        sim_number: None,
        priority: -128,
        with_delivery_report: false,
        ..draft()
    }
    .encode()
    .unwrap();
    assert!(
        !plain.contains("deviceId") && !plain.contains("simNumber"),
        "{plain}"
    );
    assert!(
        plain.contains(r#""ttl":3600,"withDeliveryReport":false"#),
        "{plain}"
    );
    let sealed = Sealed {
        to: "$number",
        text: "$text",
    };
    let encrypted = Draft {
        sealed: Some(sealed),
        ..draft()
    }
    .encode()
    .unwrap();
    assert_eq!(
        encrypted,
        r#"{"id":"SM0123456789abcdef0123456789abcdef","deviceId":"PyDmBQZZXYmyxMwED8Fzy","textMessage":{"text":"$text"},"phoneNumbers":["$number"],"isEncrypted":true,"simNumber":2,"priority":100,"ttl":3600,"withDeliveryReport":true}"#
    );
    assert_eq!(SEND_PATH, "/messages");
    assert_eq!(message_path("a-1"), "/messages/a-1");
}

#[test]
fn drafts_are_checked() {
    let error = |draft: Draft<'_>| draft.encode().unwrap_err();
    let long = "x".repeat(37);
    for id in ["", "a b", "a/b", "é", long.as_str()] {
        assert_eq!(error(Draft { id, ..draft() }), DraftError::Id, "{id}");
    }
    for id in ["", "a/b", &long[..22]] {
        let device_id = Some(id);
        assert_eq!(
            error(Draft {
                device_id,
                ..draft()
            }),
            DraftError::Device,
            "{id}"
        );
    }
    for to in [
        "",
        "2025550123",
        "whatsapp:+12025550123",
        "Shop",
        "+1 202 555 0123",
    ] {
        assert_eq!(
            error(Draft { to, ..draft() }),
            DraftError::Recipient,
            "{to}"
        );
    }
    let text = "é".repeat(65_536);
    assert_eq!(
        error(Draft {
            text: "",
            ..draft()
        }),
        DraftError::Length(0)
    );
    assert_eq!(
        error(Draft {
            text: &text,
            ..draft()
        }),
        DraftError::Length(65_536)
    );
    let sealed = Some(Sealed {
        to: "$number",
        text: &text,
    });
    assert_eq!(
        error(Draft { sealed, ..draft() }),
        DraftError::SealedLength(131_072)
    );
    assert_eq!(
        error(Draft {
            text: "a\0",
            ..draft()
        }),
        DraftError::Null
    );
    for number in [0, 4] {
        let sim_number = Some(number);
        assert_eq!(
            error(Draft {
                sim_number,
                ..draft()
            }),
            DraftError::SimNumber(number)
        );
    }
    assert_eq!(error(Draft { ttl: 4, ..draft() }), DraftError::Ttl(4));
    assert!(Draft { ttl: 5, ..draft() }.encode().is_ok());
}

fn verdict(status: u16, message: &str) -> Verdict {
    classify(
        status,
        serde_json::json!({ "message": message })
            .to_string()
            .as_bytes(),
    )
}

#[test]
fn a_message_that_the_gateway_has_is_accepted() {
    let body = br#"{"id":"a","deviceId":"d","state":"Pending","recipients":[]}"#;
    match classify(202, body) {
        Verdict::Accepted { state: Some(state) } => {
            assert_eq!(state.device_id.as_deref(), Some("d"));
        }
        other => panic!("{other:?}"),
    }
    // We know the id, so an unreadable answer loses nothing.
    let accepted = Verdict::Accepted { state: None };
    assert_eq!(classify(202, b"<html>"), accepted);
    let repeat = verdict(409, "message with the same ID already exists");
    assert_eq!(repeat, accepted);
}

#[test]
fn a_missing_device_may_come_back_and_a_wrong_number_may_not() {
    for message in [
        "failed to select device: record not found",
        "No device available",
    ] {
        let answer = verdict(400, message);
        assert!(matches!(answer, Verdict::NotProcessed { .. }), "{answer:?}");
    }
    for message in [
        "invalid phone number",
        "not mobile phone number in row 1",
        "validation failed",
    ] {
        let answer = verdict(400, message);
        assert_eq!(
            answer,
            Verdict::Refused {
                message: Some(message.to_owned())
            }
        );
    }
    assert!(matches!(verdict(422, "x"), Verdict::Refused { .. }));
}

#[test]
fn other_answers_are_judged() {
    for (status, message) in [
        (401, "unauthorized"),
        (403, "scope required: messages:send"),
        (404, "cannot POST /messages"),
        (429, "too many requests"),
        (
            503,
            "queue limits exceeded: too many pending messages: 5 / 5",
        ),
    ] {
        let answer = verdict(status, message);
        assert!(
            matches!(answer, Verdict::NotProcessed { .. }),
            "{status}: {answer:?}"
        );
    }
    // A proxy's words are not the gateway's.
    for status in [400, 404, 413] {
        let answer = classify(status, b"<html>");
        assert!(matches!(answer, Verdict::NotProcessed { .. }), "{status}");
    }
    for (status, body) in [
        (500, "{\"message\":\"failed to handle request\"}"),
        (502, ""),
        (503, "busy"),
        (504, ""),
        (302, ""),
    ] {
        let answer = classify(status, body.as_bytes());
        assert!(
            matches!(answer, Verdict::Unknown { .. }),
            "{status}: {answer:?}"
        );
    }
}

#[test]
fn states_are_read() {
    let body = br#"{"id":"a","deviceId":"d","state":"Failed","isHashed":true,"isEncrypted":false,
        "recipients":[{"phoneNumber":"cafe","state":"Failed","error":"TTL expired"}],
        "states":{"Pending":"2026-02-18T02:15:00Z","Failed":"2026-02-18T09:15:01.500+07:00","x":1}}"#;
    let state = MessageState::parse(body).unwrap();
    assert_eq!(state.state, "Failed");
    assert_eq!(state.reason.as_deref(), Some("TTL expired"));
    let unknown = MessageState::parse(br#"{"id":"a","state":"Teleported"}"#).unwrap();
    assert_eq!(unknown.state, "Teleported");
    let by_recipients = br#"{"id":"a","recipients":[{"state":"Sent"},{"state":"Delivered"}]}"#;
    assert_eq!(MessageState::parse(by_recipients).unwrap().state, "Sent");
    for body in [
        "",
        "[]",
        "{}",
        r#"{"id":"a"}"#,
        r#"{"state":"Sent"}"#,
        r#"{"id":"","state":"Sent"}"#,
    ] {
        assert_eq!(MessageState::parse(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn questions_are_judged() {
    let found = classify_fetch(200, br#"{"id":"a","state":"Sent"}"#);
    assert!(matches!(found, Fetched::Found(_)));
    assert_eq!(
        classify_fetch(404, br#"{"message":"message not found"}"#),
        Fetched::Missing
    );
    for (status, body) in [
        (404, "<html>"),
        (200, "{}"),
        (401, "{}"),
        (500, "{}"),
        (503, ""),
    ] {
        assert!(
            matches!(classify_fetch(status, body.as_bytes()), Fetched::Failed(_)),
            "{status}"
        );
    }
}

#[test]
fn recipients_add_up_by_the_phones_rule() {
    let aggregate = |states: &[&str]| {
        let recipients: Vec<_> = states
            .iter()
            .map(|state| serde_json::json!({ "state": state }))
            .collect();
        let body = serde_json::json!({ "id": "a", "recipients": recipients }).to_string();
        MessageState::parse(body.as_bytes()).map(|message| message.state)
    };
    for (states, whole) in [
        (&["Delivered", "Pending", "Failed"][..], Some("Pending")),
        (
            &["Delivered", "Cancelling", "Cancelled"],
            Some("Cancelling"),
        ),
        (&["Processed", "Cancelled"], Some("Cancelled")),
        (&["Processed", "Failed"], Some("Processed")),
        (&["Failed", "Failed"], Some("Failed")),
        (&["Delivered", "Delivered"], Some("Delivered")),
        (&["Delivered", "Failed"], Some("Sent")),
        (&["Sent", "Failed"], Some("Sent")),
        (&["Teleported", "Sent"], Some("Sent")),
        (&["Teleported"], None),
        (&[], None),
    ] {
        assert_eq!(aggregate(states).as_deref(), whole, "{states:?}");
    }
    // Each state that can come out is one that the lattice knows.
    for state in [
        "Pending",
        "Cancelling",
        "Cancelled",
        "Processed",
        "Sent",
        "Delivered",
        "Failed",
    ] {
        assert_eq!(aggregate(&[state]).as_deref(), Some(state));
        let name = status::from_smsgate(state);
        assert!(
            status::lookup(Provider::SmsGate, &name).is_some(),
            "{state}"
        );
    }
}

proptest! {
    #[test]
    fn any_answer_is_survived(
        status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = classify(status, &body);
        let _ = classify_fetch(status, &body);
        prop_assert!(MessageState::parse(&body).is_none());
    }

    #[test]
    fn any_text_survives_encoding(text in "[^\0]{1,300}") {
        let encoded = Draft { text: &text, ..draft() }.encode().unwrap();
        let value: serde_json::Value = serde_json::from_str(&encoded).unwrap();
        prop_assert_eq!(value["textMessage"]["text"].as_str(), Some(text.as_str()));
    }
}
