//! Webhooks of SMSGate's phones: signatures and events.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::smsgate::webhook::{Event, Kind, Malformed, SignatureError, device_id, sign, verify};

const KEY: &[u8] = b"my-secret-key";
const BODY: &[u8] = br#"{"event":"sms:received","payload":{"message":"Hello"}}"#;
const TIME: &str = "1700000000";
const NOW: i64 = 1_700_000_000;
const SIGNATURE: &str = "f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea";

#[test]
fn the_known_signature_is_made_and_verified() {
    assert_eq!(sign(KEY, BODY, TIME), SIGNATURE);
    let upper = SIGNATURE.to_ascii_uppercase();
    for signature in [SIGNATURE, &upper] {
        assert_eq!(verify(&[KEY], BODY, TIME, signature, NOW, 300), Ok(0));
        assert_eq!(
            verify(&[b"other", KEY, b""], BODY, TIME, signature, NOW, 300),
            Ok(1)
        );
    }
}

#[test]
fn anything_else_is_refused() {
    let verify = |keys: &[&[u8]], body: &[u8], time: &str, signature: &str| {
        verify(keys, body, time, signature, NOW, 300)
    };
    let mismatch = Err(SignatureError::Mismatch);
    assert_eq!(verify(&[], BODY, TIME, SIGNATURE), mismatch);
    assert_eq!(verify(&[b"other"], BODY, TIME, SIGNATURE), mismatch);
    assert_eq!(verify(&[KEY], b"{}", TIME, SIGNATURE), mismatch);
    assert_eq!(verify(&[KEY], BODY, "1700000001", SIGNATURE), mismatch);
    // Nothing separates body and time, but cut elsewhere the time is decades off.
    let shifted = [BODY, b"1"].concat();
    let cut = verify(&[KEY], &shifted, "700000000", SIGNATURE);
    assert_eq!(cut, Err(SignatureError::Stale(-1_000_000_000)));
    assert_eq!(verify(&[b""], BODY, TIME, &sign(b"", BODY, TIME)), mismatch);
    for signature in [
        "",
        "f7",
        &SIGNATURE[1..],
        &SIGNATURE.replace('f', "g"),
        &"é".repeat(32),
    ] {
        let result = verify(&[KEY], BODY, TIME, signature);
        assert_eq!(result, Err(SignatureError::Malformed), "{signature}");
    }
    for time in [
        "",
        "-1",
        "+1700000000",
        "1700000000.0",
        "17e8",
        "9999999999999",
    ] {
        let signature = sign(KEY, BODY, time);
        let result = verify(&[KEY], BODY, time, &signature);
        assert_eq!(result, Err(SignatureError::Malformed), "{time}");
    }
}

#[test]
fn the_time_may_be_off_by_the_tolerance() {
    let at = |now, tolerance| verify(&[KEY], BODY, TIME, SIGNATURE, now, tolerance);
    assert_eq!(at(NOW + 300, 300), Ok(0));
    assert_eq!(at(NOW - 300, 300), Ok(0));
    assert_eq!(at(NOW + 301, 300), Err(SignatureError::Stale(-301)));
    assert_eq!(at(NOW - 301, 300), Err(SignatureError::Stale(301)));
    assert_eq!(at(NOW + 1, 0), Err(SignatureError::Stale(-1)));
    assert!(matches!(
        at(i64::MIN, u32::MAX),
        Err(SignatureError::Stale(_))
    ));
    // Of a forged one nothing is told, not even its age.
    let forged = verify(&[b"other"], BODY, TIME, SIGNATURE, 0, 0);
    assert_eq!(forged, Err(SignatureError::Mismatch));
}

fn one(body: &str) -> Event {
    let mut events = Event::parse(body.as_bytes()).unwrap();
    assert_eq!(events.len(), 1);
    events.remove(0)
}

#[test]
fn a_failure_is_read() {
    let event = one(
        r#"{"id":"Ey6ECgOkVVFjz3CL48B8C","webhookId":"LreFUt-Z3sSq0JufY9uWB","event":"sms:failed",
        "deviceId":"d1","payload":{"messageId":"a-1","recipient":"+12025550123","simNumber":1,
        "failedAt":"2026-02-18T09:15:00.000+07:00","reason":"Send result: RESULT_ERROR_NO_SERVICE"}}"#,
    );
    assert_eq!(event.event_id, "Ey6ECgOkVVFjz3CL48B8C");
    assert_eq!(event.device_id.as_deref(), Some("d1"));
    assert_eq!(event.kind, Kind::State("Failed"));
    assert_eq!(event.message_id.as_deref(), Some("a-1"));
    assert_eq!(event.at, Some(1_771_380_900_000));
    assert!(event.reason.unwrap().ends_with("NO_SERVICE"));
    assert_eq!(
        (event.sender, event.recipient.as_deref()),
        (None, Some("+12025550123"))
    );
}

#[test]
fn every_state_has_its_event() {
    for (name, state, time) in [
        ("sms:sent", "Sent", "sentAt"),
        ("sms:delivered", "Delivered", "deliveredAt"),
        ("sms:failed", "Failed", "failedAt"),
        ("sms:cancelled", "Cancelled", "cancelledAt"),
    ] {
        let event = one(&format!(
            r#"{{"id":"e","event":"{name}","deviceId":"d","payload":{{"messageId":"m",
            "phoneNumber":"+1","{time}":"1970-01-01T00:00:01Z"}}}}"#
        ));
        assert_eq!(
            (event.kind, event.at),
            (Kind::State(state), Some(1000)),
            "{name}"
        );
        assert_eq!(event.recipient.as_deref(), Some("+1"), "{name}");
        let without = format!(r#"{{"id":"e","event":"{name}","payload":{{}}}}"#);
        assert_eq!(
            Event::parse(without.as_bytes()),
            Err(Malformed::NoMessage),
            "{name}"
        );
    }
}

#[test]
fn incoming_messages_and_batches_are_read() {
    for name in [
        "sms:received",
        "sms:data-received",
        "mms:received",
        "mms:downloaded",
    ] {
        let event = one(&format!(
            r#"{{"id":"e","event":"{name}","deviceId":"d","payload":{{"messageId":"cafe",
            "phoneNumber":"+1","message":"STOP","simNumber":null,"receivedAt":"1970-01-01T05:00:00.000+05:0"}}}}"#
        ));
        assert_eq!((event.kind, event.at), (Kind::Received, Some(0)), "{name}");
        assert_eq!(event.sender.as_deref(), Some("+1"));
        assert_eq!(
            (event.recipient, event.text.as_deref()),
            (None, Some("STOP"))
        );
    }
    let batch = br#"{"id":"e","event":"sms:batch:received","deviceId":"d","payload":{"messages":[
        {"messageId":"1","sender":"+1","message":"a"},"stray",{"messageId":"2","sender":"+2","message":"b"}]}}"#;
    let events = Event::parse(batch).unwrap();
    let ids: Vec<_> = events.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(ids, ["e/0", "e/1"]);
    assert_eq!(events[1].text.as_deref(), Some("b"));
    assert_eq!(events[1].device_id.as_deref(), Some("d"));
    let empty = br#"{"id":"e","event":"mms:batch:downloaded","payload":{"messages":[]}}"#;
    assert_eq!(Event::parse(empty), Ok(Vec::new()));
}

#[test]
fn the_text_is_read_wherever_it_stands() {
    for (name, payload) in [
        ("sms:received", r#""message":"STOP""#),
        (
            "mms:downloaded",
            r#""body":"STOP","subject":"x","attachments":[]"#,
        ),
        ("mms:received", r#""body":"STOP","transactionId":"T""#),
        ("sms:received", r#""textMessage":{"text":"STOP"}"#),
        ("sms:received", r#""text":"STOP""#),
    ] {
        let event = one(&format!(
            r#"{{"id":"e","event":"{name}","payload":{{"sender":"+1",{payload}}}}}"#
        ));
        assert_eq!(event.text.as_deref(), Some("STOP"), "{payload}");
    }
    for payload in [
        "",
        r#","body":null"#,
        r#","textMessage":"STOP""#,
        r#","textMessage":{}"#,
    ] {
        let event = one(&format!(
            r#"{{"id":"e","event":"mms:received","payload":{{"sender":"+1"{payload}}}}}"#
        ));
        assert_eq!(event.text, None, "{payload}");
    }
    // Of our own messages the text is known.
    let own = one(r#"{"id":"e","event":"sms:sent","payload":{"messageId":"m","message":"x"}}"#);
    assert_eq!(own.text, None);
}

/// An incoming message reported with this id of the event, name and payload.
fn incoming(id: &str, name: &str, payload: &str) -> String {
    let event = one(&format!(
        r#"{{"id":"{id}","event":"{name}","payload":{{{payload}}}}}"#
    ));
    event.incoming_id().into_owned()
}

#[test]
fn one_message_is_one_whoever_reports_it() {
    let payload =
        r#""messageId":"cafe","sender":"+1","message":"Hi","receivedAt":"2026-02-18T09:15:00Z""#;
    let first = incoming("e1", "sms:received", payload);
    assert_eq!(first, incoming("e2", "sms:received", payload));
    // The same moment, and an export that does not know the SIM card.
    let exported = r#""messageId":"beef","sender":"+1","message":"Hi","receivedAt":"2026-02-18T10:15:00.000+01:00""#;
    assert_eq!(first, incoming("e3", "sms:received", exported));
    let batch = format!(
        r#"{{"id":"e4","event":"sms:batch:received","payload":{{"messages":[{{{payload}}}]}}}}"#
    );
    assert_eq!(
        Event::parse(batch.as_bytes()).unwrap()[0].incoming_id(),
        first
    );
    for other in [
        payload.replace("+1", "+2"),
        payload.replace("Hi", "Ho"),
        payload.replace(":00Z", ":01Z"),
    ] {
        assert_ne!(incoming("e1", "sms:received", &other), first, "{other}");
    }
    // Without a text, the phone's own number of it counts; the notice of an MMS is not the MMS.
    let mms = r#""messageId":"7","sender":"+1","receivedAt":"2026-02-18T09:15:00Z""#;
    let notice = incoming("e1", "mms:received", mms);
    assert_eq!(notice, incoming("e2", "mms:received", mms));
    assert_ne!(notice, incoming("e1", "mms:downloaded", mms));
    assert_ne!(
        notice,
        incoming("e1", "mms:received", &mms.replace('7', "8"))
    );
    // What says too little is known by its event.
    for too_little in [
        r#""sender":"+1","message":"Hi""#,
        r#""message":"Hi","receivedAt":"2026-02-18T09:15:00Z""#,
        r#""sender":"+1","receivedAt":"2026-02-18T09:15:00Z""#,
    ] {
        assert_eq!(incoming("e1", "sms:received", too_little), "e1");
    }
}

#[test]
fn unknown_events_are_events() {
    for name in ["system:ping", "app:started", "sms:teleported"] {
        let event = one(&format!(r#"{{"id":"e","event":"{name}"}}"#));
        assert_eq!(
            (event.kind, event.message_id),
            (Kind::Other, None),
            "{name}"
        );
        assert_eq!(event.name, name);
    }
}

#[test]
fn malformed_events_are_named() {
    for body in ["", "[]", "1", "<html>", "{"] {
        assert_eq!(
            Event::parse(body.as_bytes()),
            Err(Malformed::NotAnObject),
            "{body}"
        );
    }
    let long = format!(r#"{{"id":"{}","event":"sms:sent"}}"#, "x".repeat(65));
    for body in [
        "{}",
        r#"{"id":"e"}"#,
        r#"{"event":"sms:sent"}"#,
        r#"{"id":"","event":"x"}"#,
        &long,
    ] {
        assert_eq!(
            Event::parse(body.as_bytes()),
            Err(Malformed::Nameless),
            "{body}"
        );
    }
    let nul = one(
        "{\"id\":\"e\",\"event\":\"sms:failed\",\"payload\":{\"messageId\":\"m\",\"reason\":\"a\\u0000b\"}}",
    );
    assert_eq!(nul.reason.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(device_id(br#"{"deviceId":"d"}"#).as_deref(), Some("d"));
    assert_eq!(device_id(b"x"), None);
}

proptest! {
    #[test]
    fn signed_bodies_verify(
        keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..5),
        body in proptest::collection::vec(any::<u8>(), 0..100),
        time in 0u32..u32::MAX,
    ) {
        let time = time.to_string();
        let now = time.parse().unwrap();
        let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        for key in &slices {
            let index = verify(&slices, &body, &time, &sign(key, &body, &time), now, 0).unwrap();
            prop_assert_eq!(slices[index], *key);
        }
        let mut other = body.clone();
        other.push(b' ');
        let forged = verify(&slices, &other, &time, &sign(slices[0], &body, &time), now, 0);
        prop_assert_eq!(forged, Err(SignatureError::Mismatch));
    }

    #[test]
    fn anything_is_survived(
        body in proptest::collection::vec(any::<u8>(), 0..300), time in ".*", signature in ".*",
        now in any::<i64>(), tolerance in any::<u32>(),
    ) {
        prop_assert!(verify(&[KEY], &body, &time, &signature, now, tolerance).is_err());
        let _ = Event::parse(&body);
        let _ = device_id(&body);
    }

    #[test]
    fn any_payload_is_survived(name in "[a-zA-Z]{1,10}", value in ".{0,30}", event in "(sms:|mms:)[a-z:]{1,15}") {
        let body = serde_json::json!({
            "id": "e", "event": event, "payload": {"messageId": "m", name: value},
        });
        prop_assert_eq!(Event::parse(body.to_string().as_bytes()).map(|events| events.len()), Ok(1));
    }
}
