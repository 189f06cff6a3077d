//! URLs of status callbacks with the attempt that they are about.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::callback_url::{ATTEMPT, attempt, with_parameter};
use protocol::form::Form;

#[test]
fn a_parameter_is_added_before_the_fragment_and_sorted() {
    for (url, expected) in [
        ("https://a/b", "https://a/b?a=1+2"),
        ("https://a/b?", "https://a/b?a=1+2"),
        ("https://a/b?c=d", "https://a/b?a=1+2&c=d"),
        ("https://a/b?c=d&", "https://a/b?a=1+2&c=d"),
        ("https://a/b#rc=5&rp=all", "https://a/b?a=1+2#rc=5&rp=all"),
        ("https://a/b?c#d?e", "https://a/b?a=1+2&c#d?e"),
    ] {
        assert_eq!(with_parameter(url, "a", "1 2"), expected);
    }
    // The parameters are sorted by name, so that Twilio's sorting does not change them.
    for (query, expected) in [
        ("b=1&a=2", "a=2&attempt=x&b=1"),
        (
            "z=1&Z=2&attempt-1=3&atte=4",
            "Z=2&atte=4&attempt=x&attempt-1=3&z=1",
        ),
        ("%62=1&c=2&%61=3", "%61=3&attempt=x&%62=1&c=2"),
        ("q=2&q=1&=3", "=3&attempt=x&q=2&q=1"),
        // Ours comes first, so it counts.
        ("attempt=y", "attempt=x&attempt=y"),
    ] {
        let url = with_parameter(&format!("https://a/b?{query}"), ATTEMPT, "x");
        assert_eq!(url, format!("https://a/b?{expected}"));
        assert_eq!(sorted(&url), url);
    }
}

#[test]
fn the_attempt_is_read_from_the_query_if_it_is_a_uuid() {
    let id = "0b9c4f0e-5a6b-4c3d-8e2f-1a2b3c4d5e6f";
    let url = with_parameter("https://a/b?z=1#rc=5", ATTEMPT, id);
    assert_eq!(attempt(&url).as_deref(), Some(id));
    for url in [
        "https://a/b",
        "https://a/b?attempt=",
        "https://a/b?attempt=7",
    ] {
        assert_eq!(attempt(url), None, "{url}");
    }
}

/// A URL with its parameters as Twilio was seen to request them.
fn sorted(url: &str) -> String {
    let (path, query) = url.split_once('?').unwrap();
    let form = Form::parse(query.as_bytes());
    let mut pieces: Vec<_> = form.iter().zip(query.split('&')).collect();
    pieces.sort_by_key(|((name, _), _)| *name);
    let pieces: Vec<_> = pieces.into_iter().map(|(_, piece)| piece).collect();
    format!("{path}?{}", pieces.join("&"))
}

proptest! {
    #[test]
    fn a_query_with_an_attempt_is_sorted(query in "([a-cA-C]{0,3}=[a-c]{0,2}&?){0,6}") {
        let url = with_parameter(&format!("https://a/b?{query}"), ATTEMPT, "x");
        prop_assert_eq!(sorted(&url), url);
    }

    #[test]
    fn any_text_is_survived(url in ".{0,30}", name in ".{0,20}", value in ".{0,20}") {
        let _ = attempt(&with_parameter(&url, &name, &value));
    }
}
