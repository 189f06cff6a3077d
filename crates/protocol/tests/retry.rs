//! The schedule of tries.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::retry::{Policy, next, retry_after};

const NOW: i64 = 1_771_380_900_000;

#[test]
fn the_default_schedule_is_as_documented() {
    let delays: Vec<_> = (1..=7)
        .map(|tries| {
            next(&Policy::DEFAULT, tries, NOW, None, 0.0, None).map(|at| (at - NOW) / 1000)
        })
        .collect();
    let expected = [
        Some(5),
        Some(30),
        Some(120),
        Some(600),
        Some(1800),
        Some(7200),
        None,
    ];
    assert_eq!(delays, expected);
}

#[test]
fn the_last_delay_repeats_and_none_is_no_delay() {
    let policy = Policy {
        delays: &[1000, 2000],
        most_tries: 100,
        spread: 0.0,
    };
    assert_eq!(next(&policy, 50, NOW, None, 1.0, None), Some(NOW + 2000));
    let hasty = Policy {
        delays: &[],
        most_tries: 3,
        spread: 0.5,
    };
    assert_eq!(next(&hasty, 2, NOW, None, 1.0, None), Some(NOW));
    assert_eq!(next(&hasty, 3, NOW, None, 1.0, None), None);
    assert_eq!(next(&policy, 0, NOW, None, 0.0, None), Some(NOW + 1000));
}

#[test]
fn a_try_in_vain_is_none() {
    let at = |end| next(&Policy::DEFAULT, 1, NOW, Some(end), 0.0, None);
    assert_eq!(at(NOW + 5001), Some(NOW + 5000));
    assert_eq!(at(NOW + 5000), None);
    assert_eq!(at(NOW - 1), None);
    let asked = next(
        &Policy::DEFAULT,
        1,
        NOW,
        Some(NOW + 60_000),
        0.0,
        Some(NOW + 60_000),
    );
    assert_eq!(asked, None);
}

#[test]
fn the_server_is_heard_and_the_schedule_kept() {
    let at = |asked| next(&Policy::DEFAULT, 2, NOW, None, 0.0, Some(asked));
    assert_eq!(at(NOW + 90_000), Some(NOW + 90_000));
    assert_eq!(at(NOW + 1000), Some(NOW + 30_000));
    assert_eq!(at(NOW - 1000), Some(NOW + 30_000));
    // Not all at once: jitter comes on top.
    let later = next(&Policy::DEFAULT, 2, NOW, None, 1.0, Some(NOW + 90_000));
    assert_eq!(later, Some(NOW + 97_500));
}

#[test]
fn the_header_is_read_in_both_forms() {
    assert_eq!(retry_after("120", NOW), Some(NOW + 120_000));
    assert_eq!(retry_after(" 0 ", NOW), Some(NOW));
    assert_eq!(
        retry_after("Wed, 18 Feb 2026 02:16:00 GMT", NOW),
        Some(NOW + 60_000)
    );
    assert_eq!(retry_after("Wed, 18 Feb 2026 01:00:00 GMT", NOW), Some(NOW));
    for nonsense in ["", "-5", "+5", "1.5", "soon", "Wed, 18 Feb"] {
        assert_eq!(retry_after(nonsense, NOW), None, "{nonsense}");
    }
}

#[test]
fn an_absurd_retry_after_does_not_expire_a_message() {
    let hour = NOW + 3_600_000;
    for long in [
        "3600",
        "3601",
        "86401",
        "9223372036854775807",
        "Thu, 01 Jan 2099 00:00:00 GMT",
    ] {
        assert_eq!(retry_after(long, NOW), Some(hour), "{long}");
    }
    for unreadable in ["9223372036854775808", "99999999999999999999"] {
        assert_eq!(retry_after(unreadable, NOW), None, "{unreadable}");
    }
    let expires_at = Some(NOW + 4 * 3_600_000);
    for header in ["99999999999999999999", "9999999999"] {
        let asked = retry_after(header, NOW);
        for tries in 1..Policy::DEFAULT.most_tries - 1 {
            let at = next(&Policy::DEFAULT, tries, NOW, expires_at, 1.0, asked);
            assert!(at.is_some(), "{header} after {tries} tries");
        }
    }
}

proptest! {
    #[test]
    fn never_before_base_nor_beyond_its_spread(
        tries in 0u32..7, jitter in 0.0f64..=1.0, asked in proptest::option::of(-100_000i64..100_000_000),
    ) {
        let asked = asked.map(|offset| NOW + offset);
        let index = tries.saturating_sub(1) as usize;
        let base = i64::from(Policy::DEFAULT.delays[index]);
        let at = next(&Policy::DEFAULT, tries, NOW, None, jitter, asked).unwrap();
        let earliest = (NOW + base).max(asked.unwrap_or(NOW));
        prop_assert!(at >= earliest);
        prop_assert!(at <= earliest + base / 4);
    }

    #[test]
    fn delays_grow(jitter in 0.0f64..=1.0, other in 0.0f64..=1.0, tries in 1u32..6) {
        // The default delays differ by more than jitter can blur.
        let earlier = next(&Policy::DEFAULT, tries, NOW, None, jitter, None);
        let later = next(&Policy::DEFAULT, tries + 1, NOW, None, other, None);
        prop_assert!(later > earlier);
    }

    #[test]
    fn tries_and_expiry_are_bounds(
        tries in any::<u32>(), most_tries in any::<u32>(), end in any::<i64>(), now in any::<i64>(),
        delays in proptest::collection::vec(any::<u32>(), 0..5),
        jitter in any::<f64>(), spread in any::<f64>(), asked in proptest::option::of(any::<i64>()),
    ) {
        let policy = Policy { delays: &delays, most_tries, spread };
        let at = next(&policy, tries, now, Some(end), jitter, asked);
        if let Some(at) = at {
            prop_assert!(at >= now && at < end && tries < most_tries);
        }
    }

    #[test]
    fn any_header_is_survived(header in ".*", now in any::<i64>()) {
        if let Some(at) = retry_after(&header, now) {
            prop_assert!(at >= now);
        }
    }
}
