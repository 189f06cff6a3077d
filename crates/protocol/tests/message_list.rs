//! Lists of messages, and finding in them one whose answer was lost.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use proptest::prelude::*;
use protocol::message::list::{Conclusion, Found, Page, Wanted, may_be_listed_elsewhere};
use protocol::message::response::Resource;
use serde_json::{Value, json};
use support::{ACCOUNT, NOW, SERVICE, resource};

fn parse(value: &Value) -> Option<Resource> {
    Resource::parse(value.to_string().as_bytes())
}

fn page(messages: &[Value], next: Value) -> Option<Page> {
    let body = json!({"messages": messages, "next_page_uri": next}).to_string();
    Page::parse(ACCOUNT, body.as_bytes())
}

#[test]
fn pages_lead_only_to_the_accounts_own() {
    let next =
        format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json?PageSize=50&Page=1&PageToken=PAx");
    let read = page(&[resource(&[]), json!("stray")], json!(next)).unwrap();
    assert_eq!(read.messages.len(), 1);
    assert_eq!(read.next_page_uri.as_deref(), Some(next.as_str()));
    assert!(read.has_unreadable && !read.is_cut, "{read:?}");
    for end in [json!(null), json!("")] {
        let last = page(&[], end).unwrap();
        assert!(last.next_page_uri.is_none() && !last.is_cut, "{last:?}");
    }
    for uri in [
        json!(5),
        json!(format!("https://api.twilio.com{next}")),
        json!(format!("/v2{next}")),
        json!("https://evil.example/2010-04-01/"),
        json!("//evil.example/"),
        json!("/2010-04-01/Accounts/ACff/Messages.json?x"),
        json!(format!(
            "/2010-04-01/Accounts/{ACCOUNT}/Messages.json@evil.example/?x"
        )),
        json!(format!("{next}\r\nEvil: 1")),
    ] {
        let last = page(&[], uri.clone()).unwrap();
        assert_eq!((last.next_page_uri, last.is_cut), (None, true), "{uri}");
    }
    // Nothing says that it ends here.
    assert!(Page::parse(ACCOUNT, b"{\"messages\":[]}").unwrap().is_cut);
    for body in ["", "[]", "{}", "{\"messages\":{}}", "<html>"] {
        assert_eq!(Page::parse(ACCOUNT, body.as_bytes()), None, "{body}");
    }
}

fn wanted<'a>() -> Wanted<'a> {
    Wanted {
        to: "+12025550123",
        from: Some("+12025550100"),
        messaging_service_sid: None,
        body: Some("Your table is ready"),
        num_media: Some(0),
        created_from: NOW - 1000,
        created_until: NOW + 60_000,
        is_elsewhere: false,
    }
}

#[test]
fn a_lost_message_is_found_by_what_was_sent() {
    let one = parse(&resource(&[])).unwrap();
    assert!(wanted().matches(&one));
    assert!(
        wanted().matches(&parse(&resource(&[("body", json!("Your table is ready "))])).unwrap())
    );
    for hidden in [
        [("body", json!(""))],
        [("from", json!(null))],
        [("num_media", json!(null))],
    ] {
        assert!(
            wanted().matches(&parse(&resource(&hidden)).unwrap()),
            "{hidden:?}"
        );
    }
    for other in [
        [("body", json!("Your table is gone"))],
        [("to", json!("+12025550124"))],
        [("from", json!("+12025550101"))],
        [("direction", json!("inbound"))],
        [("direction", json!("outbound-reply"))],
        [("messaging_service_sid", json!(SERVICE))],
        [("num_media", json!("1"))],
        [("date_created", json!("Wed, 18 Feb 2026 02:14:58 +0000"))],
        [("date_created", json!("Wed, 18 Feb 2026 02:16:01 +0000"))],
        [("date_created", json!(null))],
    ] {
        assert!(
            !wanted().matches(&parse(&resource(&other)).unwrap()),
            "{other:?}"
        );
    }
    let by_service = Wanted {
        from: None,
        messaging_service_sid: Some(SERVICE),
        ..wanted()
    };
    assert!(!by_service.matches(&one));
    let service = [("messaging_service_sid", json!(SERVICE))];
    assert!(by_service.matches(&parse(&resource(&service)).unwrap()));
    let template = Wanted {
        body: None,
        num_media: None,
        ..wanted()
    };
    assert!(template.matches(&one));
}

const MINUTE: i64 = 60_000;
/// How long a message may take to show, in these tests.
const TIME_TO_SHOW: i64 = 3 * MINUTE;

fn date(at: i64) -> Value {
    let seconds = at.div_euclid(1000) - NOW / 1000 + (2 * 60 + 15) * 60;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    json!(format!("Wed, 18 Feb 2026 {h:02}:{m:02}:{s:02} +0000"))
}

fn entry(n: u32, changes: &[(&str, Value)]) -> Value {
    let mut entry = resource(changes);
    entry["sid"] = json!(sid(n));
    entry
}

fn sid(n: u32) -> String {
    format!("SM{n:032x}")
}

/// What a list of this one page shows, read that long after the message was begun.
fn found(age: i64, wanted: &Wanted<'_>, page: Option<Page>) -> Found {
    let mut found = Found::new(NOW + age);
    assert_eq!(found.add(wanted, page.unwrap()), None);
    found
}

fn conclude(found: Found) -> Conclusion {
    found.conclude(NOW, TIME_TO_SHOW)
}

#[test]
fn only_a_list_without_anything_similar_shows_that_nothing_was_sent() {
    let late = 20 * MINUTE;
    for unlike in [
        &[("direction", json!("inbound"))][..],
        &[
            ("direction", json!("outbound-reply")),
            ("body", json!("Thanks")),
        ],
        &[("date_created", date(NOW - 16 * MINUTE))],
        &[("date_created", date(NOW + 16 * MINUTE))],
    ] {
        let found = found(late, &wanted(), page(&[entry(1, unlike)], json!(null)));
        assert_eq!(conclude(found), Conclusion::Absent, "{unlike:?}");
    }
    for similar in [
        // Twilio's clock is behind or ahead.
        ("date_created", date(NOW - 4_000)),
        ("date_created", date(NOW - 14 * MINUTE)),
        ("date_created", date(NOW + 14 * MINUTE)),
        // Ours is so far behind that the message seems to come from the future.
        ("date_created", date(NOW + 60 * MINUTE)),
        ("body", json!("Your table is ready https://s.example/x1")),
        ("num_media", json!("1")),
        ("to", json!("+120255XXXXX")),
        ("from", json!("+12025550101")),
        ("messaging_service_sid", json!(SERVICE)),
        ("direction", json!(null)),
        ("date_created", json!("yesterday")),
    ] {
        let list = || page(&[entry(1, std::slice::from_ref(&similar))], json!(null));
        let shown = found(late, &wanted(), list());
        assert_eq!(shown.sids().collect::<Vec<_>>(), [sid(1)], "{similar:?}");
        assert!(
            matches!(conclude(shown), Conclusion::Open(_)),
            "{similar:?}"
        );
        // It may yet turn out to be another one's.
        let early = found(TIME_TO_SHOW, &wanted(), list());
        assert_eq!(conclude(early), Conclusion::Later, "{similar:?}");
        let mut others = found(late, &wanted(), list());
        others.retain(|_| false);
        assert_eq!(conclude(others), Conclusion::Absent, "{similar:?}");
    }
}

#[test]
fn the_one_that_matches_is_taken() {
    let similar = entry(1, &[("body", json!("Other"))]);
    let list = |matching: &[u32]| {
        let matching = matching.iter().map(|n| entry(*n, &[]));
        let all: Vec<_> = [similar.clone()].into_iter().chain(matching).collect();
        found(TIME_TO_SHOW, &wanted(), page(&all, json!(null)))
    };
    let Conclusion::Sent(sent) = conclude(list(&[2])) else {
        panic!("it was not taken");
    };
    assert_eq!(sent.sid, sid(2));
    // The same one on two pages is one.
    assert!(matches!(conclude(list(&[2, 2])), Conclusion::Sent(_)));
    let Conclusion::Open(reason) = conclude(list(&[2, 3])) else {
        panic!("one was taken");
    };
    assert_eq!(reason, "2 messages at Twilio may be this one");
    let mut rest = list(&[2, 3]);
    rest.retain(|free| free != sid(2));
    assert!(matches!(conclude(rest), Conclusion::Sent(sent) if sent.sid == sid(3)));
}

#[test]
fn a_list_with_gaps_shows_nothing() {
    let (empty, end) = (|| page(&[], json!(null)), json!(null));
    assert_eq!(
        conclude(found(TIME_TO_SHOW, &wanted(), empty())),
        Conclusion::Absent
    );
    let elsewhere = Wanted {
        is_elsewhere: true,
        ..wanted()
    };
    for (wanted, list) in [
        (elsewhere, empty()),
        (wanted(), page(&[], json!("https://api.twilio.com/next"))),
        (wanted(), page(&[resource(&[("sid", json!(null))])], end)),
    ] {
        let found = found(TIME_TO_SHOW, &wanted, list);
        assert!(matches!(conclude(found), Conclusion::Open(_)));
    }
}

#[test]
fn old_messages_do_not_end_a_list() {
    let next = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json?PageToken=PAx");
    let old = [
        ("date_created", date(NOW - 60 * MINUTE)),
        ("date_sent", date(NOW - 60 * MINUTE)),
    ];
    let more = |n| page(&[entry(n, &old)], json!(next)).unwrap();
    let mut list = Found::new(NOW + TIME_TO_SHOW);
    assert_eq!(list.add(&wanted(), more(1)).as_deref(), Some(next.as_str()));
    // One that waits to be sent may be on any page.
    let last = page(&[entry(2, &[])], json!(null)).unwrap();
    assert_eq!(list.add(&wanted(), last), None);
    assert!(matches!(conclude(list), Conclusion::Sent(sent) if sent.sid == sid(2)));

    let mut long = Found::new(NOW + TIME_TO_SHOW);
    let pages = (1..20).find(|n| long.add(&wanted(), more(*n)).is_none());
    assert_eq!(pages, Some(10));
    assert!(matches!(conclude(long), Conclusion::Open(_)));
}

#[test]
fn a_list_is_as_old_as_the_request_for_its_first_page() {
    let list = found(TIME_TO_SHOW - 1, &wanted(), page(&[], json!(null)));
    assert_eq!(conclude(list), Conclusion::Later);
}

proptest! {
    #[test]
    fn any_page_is_survived(body in proptest::collection::vec(any::<u8>(), 0..300), text in ".*") {
        let _ = Page::parse(ACCOUNT, &body);
        let _ = page(&[json!(text)], json!(text));
    }
}

#[test]
fn a_recipient_may_be_listed_in_another_form() {
    let hidden = r#"{"AddressRetention": "obfuscate"}"#;
    for (to, parameters, expected) in [
        ("+12025550123", None, false),
        ("+12025550123", Some(r#"{"ShortenUrls": true}"#), false),
        ("+12025550123", Some("no JSON"), false),
        ("+12025550123", Some(hidden), true),
        ("whatsapp:+5215511112222", None, true),
    ] {
        assert_eq!(
            may_be_listed_elsewhere(to, parameters),
            expected,
            "{to} {parameters:?}"
        );
    }
}
