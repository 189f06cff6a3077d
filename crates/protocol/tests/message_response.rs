//! What Twilio answers about messages, and what follows from it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use proptest::prelude::*;
use protocol::message::response::{ApiError, Fetched, Resource, Verdict, classify, classify_fetch};
use serde_json::{Value, json};
use support::{NOW, resource};

fn parse(value: &Value) -> Option<Resource> {
    Resource::parse(value.to_string().as_bytes())
}

#[test]
fn a_resource_is_read_leniently() {
    let plain = parse(&resource(&[])).unwrap();
    assert_eq!(plain.status.as_deref(), Some("queued"));
    assert_eq!(plain.created_at, Some(NOW + 1000));
    assert_eq!(plain.error_code, None);

    let odd = parse(&resource(&[
        ("num_media", json!(2)),
        ("error_code", json!("30008")),
        ("status", json!("beamed")),
        ("body", json!("a\u{0}b")),
        ("to", json!(["x"])),
        ("date_created", json!("yesterday")),
        ("new_field", json!({"a": 1})),
    ]))
    .unwrap();
    assert_eq!((odd.num_media, odd.error_code), (Some(2), Some(30008)));
    assert_eq!(odd.status.as_deref(), Some("beamed"));
    assert_eq!(odd.body.as_deref(), Some("a\u{fffd}b"));
    assert_eq!((odd.to, odd.created_at), (None, None));

    assert!(parse(&resource(&[("sid", json!("XX1"))])).is_none());
    assert!(Resource::parse(br#"{"sid":"SM0123456789abcdef0123456789abcdef"}"#).is_some());
    for body in ["", "[]", "null", "<html>", "{\"sid\":"] {
        assert!(Resource::parse(body.as_bytes()).is_none(), "{body}");
    }
}

#[test]
fn a_report_has_what_is_recorded_of_a_resource() {
    let report = |changes: &[(&str, Value)]| parse(&resource(changes)).unwrap().to_report();
    let priced = report(&[
        ("status", json!("delivered")),
        ("from", json!("whatsapp:+12025550100")),
        ("num_segments", json!("2")),
        ("price", json!("-0.00790")),
        ("price_unit", json!("USD")),
        ("error_message", json!("x".repeat(10_000))),
    ]);
    assert_eq!(priced["status"], "delivered");
    assert_eq!(priced["channel"], "whatsapp");
    assert_eq!(priced["direction"], "outbound");
    assert_eq!(
        (&priced["num_segments"], &priced["price"]),
        (&json!(2), &json!("-0.00790"))
    );
    assert_eq!(priced["error_message"].as_str().unwrap().len(), 500);
    let inbound = report(&[
        ("direction", json!("inbound")),
        ("status", json!("received")),
        ("price", Value::Null),
    ]);
    assert_eq!(inbound["direction"], "inbound");
    assert_eq!(inbound["price"], Value::Null);
    // An invalid price or number of segments is left out, since storing it would raise an error.
    for price in [
        "",
        "-",
        "1e5",
        "NaN",
        "1.",
        ".5",
        "1234567890",
        "-0.1234567890",
    ] {
        assert_eq!(report(&[("price", json!(price))])["price"], Value::Null);
    }
    for segments in ["0", "-1", "10000", "x"] {
        let report = report(&[("num_segments", json!(segments))]);
        assert_eq!(report["num_segments"], Value::Null);
    }
}

#[test]
fn errors_are_read_whatever_they_are() {
    let error = ApiError::parse(
        br#"{"code":21211,"message":"Invalid","more_info":"https://www.twilio.com/docs/errors/21211","status":400}"#,
    );
    assert_eq!(error.code, Some(21211));
    assert_eq!(error.message.as_deref(), Some("Invalid"));
    for body in [
        "",
        "<html>502</html>",
        "[1]",
        "\"x\"",
        "{}",
        "{\"code\":{}}",
    ] {
        assert_eq!(
            ApiError::parse(body.as_bytes()),
            ApiError::default(),
            "{body}"
        );
    }
    let problem = ApiError::parse(br#"{"title":"Invalid","detail":"no body","code":5}"#);
    assert_eq!(
        (problem.code, problem.message.as_deref()),
        (None, Some("no body"))
    );
    let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(1000));
    assert_eq!(
        ApiError::parse(long.as_bytes())
            .message
            .unwrap()
            .chars()
            .count(),
        500
    );
}

fn verdict(status: u16, code: i32) -> Verdict {
    classify(
        status,
        format!(r#"{{"code":{code},"status":{status}}}"#).as_bytes(),
    )
}

#[test]
fn success_is_accepted_only_with_a_message() {
    let body = resource(&[]).to_string();
    for status in [200, 201, 202] {
        assert!(matches!(
            classify(status, body.as_bytes()),
            Verdict::Accepted(_)
        ));
    }
    for body in ["", "{}", "<html>", &body[..100]] {
        assert!(
            matches!(classify(201, body.as_bytes()), Verdict::Unknown { .. }),
            "{body}"
        );
    }
}

#[test]
fn a_failed_server_leaves_it_unknown() {
    for status in [500, 502, 503, 504, 599, 100, 302, 303, 0, 999] {
        assert!(
            matches!(classify(status, b""), Verdict::Unknown { .. }),
            "{status}"
        );
        assert!(
            matches!(verdict(status, 20500), Verdict::Unknown { .. }),
            "{status}"
        );
        assert!(
            matches!(verdict(status, 21211), Verdict::Unknown { .. }),
            "{status}"
        );
    }
}

#[test]
fn too_many_requests_are_not_processed() {
    for answer in [
        verdict(429, 20429),
        classify(429, b""),
        verdict(400, 21611),
        verdict(429, 21211),
    ] {
        assert!(
            matches!(
                answer,
                Verdict::NotProcessed {
                    is_account_fault: false,
                    ..
                }
            ),
            "{answer:?}"
        );
    }
}

#[test]
fn a_fault_of_the_account_is_told_apart() {
    for answer in [
        verdict(401, 20003),
        classify(401, b"<html>"),
        verdict(403, 20003),
        verdict(400, 20005),
        verdict(403, 90010),
        classify(301, b""),
        classify(308, b""),
    ] {
        assert!(
            matches!(
                answer,
                Verdict::NotProcessed {
                    is_account_fault: true,
                    ..
                }
            ),
            "{answer:?}"
        );
    }
}

#[test]
fn refusals_carry_their_code() {
    for (status, code) in [
        (400, 21211),
        (400, 21610),
        (400, 21602),
        (404, 20404),
        (403, 21408),
        (400, 21999),
    ] {
        match verdict(status, code) {
            Verdict::Refused { error } => assert_eq!(error.code, Some(code)),
            other => panic!("{code}: {other:?}"),
        }
    }
    // What stands between refuses in its own words, and the message never got to Twilio.
    for status in [400, 403, 404, 407, 408, 413] {
        let answer = classify(status, b"<html>proxy</html>");
        assert!(
            matches!(
                answer,
                Verdict::NotProcessed {
                    is_account_fault: false,
                    ..
                }
            ),
            "{status}: {answer:?}"
        );
    }
}

#[test]
fn fetches_are_judged() {
    let found = classify_fetch(200, resource(&[]).to_string().as_bytes());
    assert!(matches!(found, Fetched::Found(_)));
    assert_eq!(classify_fetch(404, br#"{"code":20404}"#), Fetched::Missing);
    assert!(matches!(classify_fetch(404, b"<html>"), Fetched::Failed(_)));
    assert!(matches!(
        classify_fetch(400, br#"{"code":30409}"#),
        Fetched::Refused(_)
    ));
    assert!(matches!(
        classify_fetch(401, br#"{"code":20003}"#),
        Fetched::Failed(_)
    ));
    for status in [200, 429, 500, 503] {
        assert!(
            matches!(classify_fetch(status, b""), Fetched::Failed(_)),
            "{status}"
        );
    }
}

proptest! {
    #[test]
    fn any_answer_is_survived(
        status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        // Only a message that is there counts as accepted.
        prop_assert!(!matches!(classify(status, &body), Verdict::Accepted(_)));
        let _ = classify_fetch(status, &body);
    }

    #[test]
    fn any_json_is_survived(
        name in "[a-z_]{1,12}", text in ".{0,20}", number in any::<f64>(), status in 100u16..600,
    ) {
        let number = json!(number);
        for value in [json!(text), number, json!([text])] {
            let body = resource(&[(name.as_str(), value)]).to_string();
            let _ = classify(status, body.as_bytes());
            let _ = ApiError::parse(body.as_bytes());
        }
    }
}
