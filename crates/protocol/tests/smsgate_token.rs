//! Tokens of SMSGate's API.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::smsgate::token::{Token, request};

const ANSWER: &str = r#"{"id":"x","token_type":"Bearer","access_token":"a.b.c","refresh_token":"d.e.f",
    "expires_at":"2026-09-19T10:15:00.500Z"}"#;
/// Fifteen minutes before that.
const DATE: &str = "Sat, 19 Sep 2026 10:00:00 GMT";

fn parse(body: &str) -> Option<Token> {
    Token::parse(body.as_bytes())
}

#[test]
fn a_token_is_read() {
    let token = parse(ANSWER).unwrap();
    assert_eq!(token.access, "a.b.c");
    assert_eq!(token.refresh.as_deref(), Some("d.e.f"));
    // As the gateway's authors' libraries name it.
    let other =
        r#"{"accessToken":"a.b.c","refreshToken":"d.e.f","expiresAt":"2026-09-19T10:15:00.5Z"}"#;
    assert_eq!(parse(other), Some(token.clone()));
    let shown = format!("{token:?}");
    assert!(
        !shown.contains("a.b.c") && !shown.contains("d.e.f"),
        "{shown}"
    );
}

#[test]
fn text_that_a_header_cannot_carry_is_not_a_token() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":null}"#,
        r#"{"access_token":"a b"}"#,
        r#"{"access_token":"a\r\nX: y"}"#,
        r#"{"access_token":"é"}"#,
        &format!(r#"{{"access_token":"{}"}}"#, "x".repeat(8193)),
    ] {
        assert_eq!(parse(body), None, "{body}");
    }
    let bare = parse(r#"{"access_token":"a","refresh_token":"b c","expires_at":"soon"}"#).unwrap();
    assert_eq!((bare.refresh, bare.expires_at), (None, None));
}

#[test]
fn it_lives_by_the_gateways_clock() {
    let token = parse(ANSWER).unwrap();
    assert_eq!(token.life(Some(DATE)), 899_500);
    assert_eq!(token.life(Some("Sat, 19 Sep 2026 10:16:00 GMT")), 0);
    let hour = 3_600_000;
    assert_eq!(token.life(Some("Sat, 19 Sep 2020 10:00:00 GMT")), hour);
    for unknown in [None, Some(""), Some("today")] {
        assert_eq!(token.life(unknown), 300_000);
    }
    let endless = parse(r#"{"access_token":"a"}"#).unwrap();
    assert_eq!(endless.life(Some(DATE)), 300_000);
}

#[test]
fn no_more_is_asked_for_than_is_used() {
    assert_eq!(
        request(),
        r#"{"scopes":["messages:send","messages:read","messages:cancel","webhooks:write","webhooks:delete"],"ttl":3600}"#
    );
}

proptest! {
    #[test]
    fn anything_is_survived(body in ".*", end in ".*", date in ".*") {
        prop_assert_eq!(parse(&body), None);
        let answer = serde_json::json!({ "access_token": "a", "expires_at": end }).to_string();
        prop_assert!(parse(&answer).unwrap().life(Some(&date)) >= 0);
    }
}
