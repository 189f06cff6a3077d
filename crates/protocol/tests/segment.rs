//! Compares sizes of texts as SMS with those of Twilio's calculator.
//!
//! `vectors/segment.json` holds the results of `sms-segments-calculator` 1.3.0 from npm. Each text is a list of parts
//! and how often each is repeated. `last` is the number of units in the last segment.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::segment::{Encoding, Size};
use serde_json::Value;

#[test]
fn sizes_are_those_of_the_calculator() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors/segment.json")).unwrap();
    for vector in &vectors {
        let parts = vector["text"].as_array().unwrap().iter();
        let text: String = parts
            .map(|part| {
                let times = usize::try_from(part[1].as_u64().unwrap()).unwrap();
                part[0].as_str().unwrap().repeat(times)
            })
            .collect();
        let size = Size::of(&text, vector["smart"].as_bool().unwrap());
        let found = (
            size.encoding.as_str(),
            size.units as u64,
            size.segments as u64,
            (size.capacity - size.left) as u64,
        );
        let number = |name: &str| vector[name].as_u64().unwrap();
        let expected = (
            vector["encoding"].as_str().unwrap(),
            number("units"),
            number("segments"),
            number("last"),
        );
        assert_eq!(found, expected, "{vector}");
    }
}

#[test]
fn an_empty_text_has_no_segment() {
    let size = Size::of("", false);
    assert_eq!((size.segments, size.units, size.left), (0, 0, 160));
}

#[test]
fn smart_encoding_changes_all_or_nothing() {
    // The calculator replaces the ellipsis beside an emoji, Twilio leaves such a text alone.
    let text = "…😀";
    assert_eq!(Size::of(text, true), Size::of(text, false));
    assert_eq!(Size::of("…", true).encoding, Encoding::Gsm7);
}

#[test]
fn a_character_longer_than_a_segment_is_divided() {
    let text = format!("e{}", "\u{301}".repeat(140));
    let size = Size::of(&text, false);
    assert_eq!((size.units, size.segments, size.left), (141, 3, 60));
}

proptest! {
    #[test]
    fn segments_hold_all_units(text in "([a-z{€çé…中😀\u{301}\u{200d}\r\n]|👩‍👧){0,400}", smart: bool) {
        let size = Size::of(&text, smart);
        let room = size.segments * size.capacity;
        prop_assert!(size.units <= room);
        prop_assert!(size.left <= size.capacity);
        // Less than one piece is left over in each segment but the last.
        let (alone, piece) = match size.encoding {
            Encoding::Gsm7 => (160, 2),
            Encoding::Ucs2 => (70, 67),
        };
        prop_assert_eq!(size.segments <= 1, size.units <= alone);
        let wasted = room - size.units - size.left * usize::from(size.segments > 0);
        prop_assert!(wasted <= (piece - 1) * size.segments.saturating_sub(1));
    }
}
