//! Requests to Twilio's Messages resource.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::destination::Fault;
use protocol::form::Form;
use protocol::message::{Draft, DraftError, list_path, message_path, messages_path};

const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";

fn draft<'a>() -> Draft<'a> {
    Draft {
        to: "+12025550123",
        from: Some("+12025550100"),
        body: Some("Your table is ready"),
        ..Draft::default()
    }
}

fn error(draft: Draft<'_>) -> DraftError {
    draft.encode().unwrap_err()
}

#[test]
fn parameters_come_in_a_fixed_order() {
    let full = Draft {
        messaging_service_sid: Some(SERVICE),
        media_urls: &["https://a.example/1.png", "https://a.example/2.png"],
        status_callback: Some("https://hooks.example.com/twilio/status?a=1#rc=5"),
        validity_period: Some(600),
        extra: &[
            ("PersistentAction", "x"),
            ("PersistentAction", "y"),
            ("MaxPrice", "0.1"),
        ],
        ..draft()
    };
    assert_eq!(
        full.encode().unwrap(),
        format!(
            "To=%2B12025550123&From=%2B12025550100&MessagingServiceSid={SERVICE}\
             &Body=Your+table+is+ready&MediaUrl=https%3A%2F%2Fa.example%2F1.png\
             &MediaUrl=https%3A%2F%2Fa.example%2F2.png\
             &StatusCallback=https%3A%2F%2Fhooks.example.com%2Ftwilio%2Fstatus%3Fa%3D1%23rc%3D5\
             &ValidityPeriod=600&PersistentAction=x&PersistentAction=y&MaxPrice=0.1"
        )
    );
}

#[test]
fn a_service_may_stand_as_the_sender() {
    let by_service = Draft {
        from: Some(SERVICE),
        ..draft()
    };
    let encoded = by_service.encode().unwrap();
    assert!(
        encoded.contains(&format!("&MessagingServiceSid={SERVICE}&")),
        "{encoded}"
    );
    assert!(!encoded.contains("From="));
}

#[test]
fn addresses_are_checked() {
    for to in [
        "",
        "2025550123",
        "whatsapp:",
        "hello",
        SERVICE,
        "+0123456789",
    ] {
        let result = Draft { to, ..draft() }.encode();
        let expected = if to == "2025550123" {
            None
        } else {
            Some(DraftError::Recipient)
        };
        // Ten digits are neither E.164 nor a short code.
        assert_eq!(
            result.err(),
            expected.or(Some(DraftError::Recipient)),
            "{to}"
        );
    }
    let from = |from| error(Draft { from, ..draft() });
    assert_eq!(from(None), DraftError::NoSender);
    assert_eq!(from(Some("")), DraftError::NoSender);
    assert_eq!(from(Some("not a sender at all")), DraftError::Sender);
    assert_eq!(from(Some("+12025550123")), DraftError::ToItself);
    let service = |sid| {
        error(Draft {
            messaging_service_sid: Some(sid),
            ..draft()
        })
    };
    assert_eq!(service("MG1"), DraftError::MessagingService);
    assert_eq!(
        error(Draft {
            from: Some(SERVICE),
            messaging_service_sid: Some(SERVICE),
            ..draft()
        }),
        DraftError::Sender
    );
}

#[test]
fn channels_must_fit() {
    let pair = |from, to| {
        Draft {
            from: Some(from),
            to,
            ..draft()
        }
        .encode()
    };
    for (from, to) in [
        ("whatsapp:+12025550100", "whatsapp:+12025550123"),
        ("rcs:brand_agent", "rcs:+12025550123"),
        ("rcs:brand_agent", "+12025550123"),
        ("12345", "+12025550123"),
        ("My Shop", "+12025550123"),
        (SERVICE, "whatsapp:+12025550123"),
        ("messenger:1", "messenger:2"),
    ] {
        assert!(pair(from, to).is_ok(), "{from} {to}");
    }
    for (from, to) in [
        ("+12025550100", "whatsapp:+12025550123"),
        ("whatsapp:+12025550100", "+12025550123"),
        ("whatsapp:+12025550100", "messenger:2"),
        ("+12025550100", "rcs:+12025550123"),
    ] {
        let error = pair(from, to).unwrap_err();
        assert!(matches!(error, DraftError::Channels { .. }), "{from} {to}");
    }
}

#[test]
fn content_is_checked() {
    fn body(body: Option<&str>) -> Result<String, DraftError> {
        Draft { body, ..draft() }.encode()
    }
    assert_eq!(body(None), Err(DraftError::Empty));
    assert_eq!(body(Some("")), Err(DraftError::Empty));
    assert!(body(Some(" ")).is_ok());
    assert!(body(Some(&"é".repeat(1600))).is_ok());
    assert_eq!(
        body(Some(&"é".repeat(1601))),
        Err(DraftError::TooLong(1601))
    );
    assert_eq!(body(Some("a\0b")), Err(DraftError::Null("Body".into())));

    fn media(media_urls: &[&str]) -> Result<String, DraftError> {
        Draft {
            body: None,
            media_urls,
            ..draft()
        }
        .encode()
    }
    assert!(media(&["http://a.example/x"; 10]).is_ok());
    assert_eq!(
        media(&["http://a.example/x"; 11]),
        Err(DraftError::TooManyMedia(11))
    );
    for url in [
        "",
        "x",
        "ftp://a.example/",
        "https://a b/",
        "https://",
        "https://a\n/",
    ] {
        let expected = Err(DraftError::Url("MediaUrl", Fault::Form));
        assert_eq!(media(&[url]), expected, "{url}");
    }
    for (url, fault) in [
        ("https://[127.0.0.1].a.example/x", Fault::Brackets),
        ("https://user:password@a.example/x", Fault::User),
        ("https://0x7f.1/x", Fault::Number),
        ("https://a.example:99999/x", Fault::Port),
    ] {
        let expected = Err(DraftError::Url("MediaUrl", fault));
        assert_eq!(media(&[url]), expected, "{url}");
    }
    let long = format!("https://a.example/{}", "x".repeat(4096));
    assert_eq!(media(&[&long]), Err(DraftError::LongUrl("MediaUrl")));

    let template = Draft {
        body: None,
        extra: &[("ContentSid", "HX1"), ("ContentVariables", "{\"1\":\"x\"}")],
        ..draft()
    };
    assert!(template.encode().is_ok());
}

#[test]
fn ranges_are_checked() {
    let period = |seconds| {
        Draft {
            validity_period: Some(seconds),
            ..draft()
        }
        .encode()
    };
    assert!(period(1).is_ok() && period(36_000).is_ok());
    for seconds in [0, 36_001, u32::MAX] {
        assert_eq!(period(seconds), Err(DraftError::ValidityPeriod(seconds)));
    }

    let callback = |url| {
        Draft {
            status_callback: Some(url),
            ..draft()
        }
        .encode()
    };
    assert!(callback("https://hooks.example.com/a_b?x=1").is_ok());
    // Twilio sends user information along.
    assert!(callback("https://user:password@hooks.example.com/").is_ok());
    for (url, fault) in [
        ("", Fault::Form),
        ("hooks.example.com", Fault::Form),
        ("https://my_host.example/", Fault::Underscore),
        ("https://a.example/ b", Fault::Form),
        ("https://[127.0.0.1].a.example/", Fault::Brackets),
    ] {
        let expected = Err(DraftError::Url("StatusCallback", fault));
        assert_eq!(callback(url), expected, "{url}");
    }
}

#[test]
fn further_parameters_may_not_be_ours() {
    for name in [
        "To",
        "From",
        "MessagingServiceSid",
        "Body",
        "MediaUrl",
        "StatusCallback",
        "ValidityPeriod",
        "SendAt",
        "ScheduleType",
        "",
        "a b",
        "a&b",
        "é",
    ] {
        let extra = [(name, "x")];
        let draft = Draft {
            extra: &extra,
            ..draft()
        };
        assert_eq!(error(draft), DraftError::Parameter(name.into()));
    }
}

#[test]
fn paths_and_callback_parameters() {
    assert_eq!(
        messages_path("AC1"),
        "/2010-04-01/Accounts/AC1/Messages.json"
    );
    assert_eq!(
        message_path("AC1", "SM1"),
        "/2010-04-01/Accounts/AC1/Messages/SM1.json"
    );
    assert_eq!(
        list_path("AC1", "whatsapp:+1", 5000),
        "/2010-04-01/Accounts/AC1/Messages.json?To=whatsapp%3A%2B1&PageSize=1000"
    );
}

proptest! {
    #[test]
    fn encoding_keeps_every_value(body in "[^\0]{1,200}", extra in "[^\0]{0,50}") {
        let extra = [("ContentVariables", extra.as_str())];
        let encoded = Draft { body: Some(&body), extra: &extra, ..draft() }.encode().unwrap();
        let form = Form::parse(encoded.as_bytes());
        prop_assert_eq!(form.first("Body"), Some(body.as_str()));
        prop_assert_eq!(form.first("ContentVariables"), Some(extra[0].1));
        prop_assert_eq!(form.first("To"), Some("+12025550123"));
    }

    #[test]
    fn any_draft_is_survived(
        to in ".{0,20}", from in ".{0,20}", url in ".{0,30}",
    ) {
        let _ = Draft {
            to: &to, from: Some(&from), media_urls: &[&url], status_callback: Some(&url), ..draft()
        }.encode();
    }
}
