//! The table of error codes keeps its promises.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::error_code::{Class, Fallback, Retry, advice, all, lookup, more_info};

#[test]
fn is_sorted_and_unique() {
    assert!(all().is_sorted_by(|a, b| a.code < b.code));
    assert!(all().len() >= 100, "{}", all().len());
}

#[test]
fn meanings_are_short_sentences_of_our_own() {
    for entry in all() {
        let meaning = entry.meaning;
        assert!((10..=80).contains(&meaning.chars().count()), "{meaning}");
        assert!(
            meaning.starts_with(|c: char| c.is_ascii_uppercase()),
            "{meaning}"
        );
        assert!(!meaning.ends_with('.'), "{meaning}");
    }
}

#[test]
fn consent_never_falls_back_and_never_repeats() {
    for code in [21610, 30004, 63014, 63033] {
        assert_eq!(lookup(code).unwrap().advice.class, Class::Consent, "{code}");
    }
    for entry in all() {
        if entry.advice.class == Class::Consent {
            assert_eq!(entry.advice.fallback, Fallback::No, "{}", entry.code);
            assert_eq!(entry.advice.retry, Retry::Never, "{}", entry.code);
        }
    }
}

#[test]
fn messages_that_whatsapp_does_not_deliver_may_go_by_sms() {
    for code in [63003, 63016, 63024, 63032, 63036, 63049] {
        assert_eq!(
            lookup(code).unwrap().advice.fallback,
            Fallback::Yes,
            "{code}"
        );
    }
}

#[test]
fn classes_agree_with_their_retries() {
    for entry in all() {
        match entry.advice.class {
            Class::Request | Class::Configuration | Class::Consent => {
                assert_eq!(entry.advice.retry, Retry::Never, "{}", entry.code);
            }
            Class::Transient => assert_ne!(entry.advice.retry, Retry::Never, "{}", entry.code),
            // What may have arrived is never sent elsewhere without a thought.
            Class::Uncertain => assert_ne!(entry.advice.fallback, Fallback::Yes, "{}", entry.code),
            Class::Recipient => {}
        }
        assert!(entry.advice.retry.delay() <= 86_400);
    }
}

#[test]
fn the_codes_that_older_systems_knew_are_there() {
    for code in [
        20003, 20404, 20429, 20500, 21211, 21408, 21610, 21612, 21614, 21617, 21656, 30003, 30004,
        30005, 30006, 30007, 30008, 30010, 30410, 63016, 63018, 63049,
    ] {
        assert!(lookup(code).is_some(), "{code}");
    }
}

#[test]
fn unknown_codes_are_judged_by_their_range() {
    for (code, class, fallback) in [
        (21999, Class::Request, Fallback::No),
        (20599, Class::Uncertain, Fallback::No),
        (30999, Class::Uncertain, Fallback::Careful),
        (63999, Class::Uncertain, Fallback::Careful),
        (10999, Class::Configuration, Fallback::No),
        (0, Class::Uncertain, Fallback::No),
        (-1, Class::Uncertain, Fallback::No),
        (i32::MAX, Class::Uncertain, Fallback::No),
    ] {
        assert!(lookup(code).is_none(), "{code}");
        let advice = advice(code);
        assert_eq!((advice.class, advice.fallback), (class, fallback), "{code}");
        assert_eq!(advice.retry, Retry::Never);
    }
}

#[test]
fn names_are_those_of_the_database() {
    let classes: Vec<_> = all()
        .iter()
        .map(|entry| entry.advice.class.as_str())
        .collect();
    for name in [
        "request",
        "recipient",
        "consent",
        "configuration",
        "transient",
        "uncertain",
    ] {
        assert!(classes.contains(&name), "{name}");
    }
    assert_eq!(Retry::After(60).as_str(), "after");
    assert_eq!(Retry::After(60).delay(), 60);
    assert_eq!(Retry::Later.delay(), 0);
    assert_eq!(more_info(63049), "https://www.twilio.com/docs/errors/63049");
}

proptest! {
    #[test]
    fn lookup_finds_exactly_what_the_table_holds(code in any::<i32>()) {
        let expected = all().iter().find(|entry| entry.code == code);
        prop_assert_eq!(lookup(code), expected);
        let _ = advice(code);
    }
}
