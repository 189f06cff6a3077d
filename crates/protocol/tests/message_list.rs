//! Lists of messages, and finding in them one whose answer was lost.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use proptest::prelude::*;
use protocol::message::answer::Resource;
use protocol::message::list::{Page, Wanted};
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
    for uri in [
        json!(null),
        json!(""),
        json!(5),
        json!("https://evil.example/2010-04-01/"),
        json!("//evil.example/"),
        json!("/2010-04-01/Accounts/ACff/Messages.json?x"),
        json!(format!(
            "/2010-04-01/Accounts/{ACCOUNT}/Messages.json@evil.example/?x"
        )),
        json!(format!("{next}\r\nEvil: 1")),
    ] {
        assert_eq!(page(&[], uri.clone()).unwrap().next_page_uri, None, "{uri}");
    }
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

    let two = page(
        &[resource(&[]), resource(&[("to", json!("+1202555"))])],
        json!(null),
    )
    .unwrap();
    assert_eq!(wanted().candidates(&two).count(), 1);
}

#[test]
fn a_page_is_over_when_all_of_it_is_older() {
    let old = resource(&[("date_created", json!("Wed, 18 Feb 2026 01:00:00 +0000"))]);
    let is_before = |messages: &[_]| page(messages, json!(null)).unwrap().is_before(NOW);
    assert!(is_before(std::slice::from_ref(&old)));
    assert!(!is_before(&[old.clone(), resource(&[])]));
    assert!(!is_before(&[resource(&[]), old]));
    assert!(!is_before(&[]));
}

proptest! {
    #[test]
    fn any_page_is_survived(body in proptest::collection::vec(any::<u8>(), 0..300), text in ".*") {
        let _ = Page::parse(ACCOUNT, &body);
        let _ = page(&[json!(text)], json!(text));
    }
}
