//! Which outcome a number chooses, by its last digits.
//!
//! The numbers are fifteen digits long and begin with +1500 or +1501: real numbers of +1 have eleven digits, so a
//! message that is sent to the real Twilio by mistake reaches nobody.

use crate::outcome::{Half, Outcome, Reply};
use crate::scenario::{CODES, KINDS, MAGIC_FROM, MAGIC_TO, SCENARIOS};

impl Outcome {
    /// The outcome of a message to `bare` over `channel`; `None` for a number of the sandbox's form without a meaning.
    pub(crate) fn of(channel: &str, bare: &str) -> Option<Self> {
        if let Some((_, code)) = MAGIC_TO.iter().find(|(number, _)| *number == bare) {
            return Some(Self::named(
                "refused",
                *code,
                Half::Reply(Reply::Refused(*code)),
            ));
        }
        let Some(digits) = bare.strip_prefix('+').filter(|d| d.len() == 15) else {
            return Some(Self::DELIVERED);
        };
        let last: u32 = digits.get(9..).and_then(|d| d.parse().ok()).unwrap_or(0);
        match &digits[..4] {
            "1500" => single(channel, (last / 100_000) as u8, last % 100_000),
            "1501" if channel == "sms" => scenario((last / 100 % 100) as u8),
            "1501" => scenario((last / 10_000) as u8),
            _ => Some(Self::DELIVERED),
        }
    }

    /// The outcome with the name `name`, such as `drop`, or `undelivered` with an error code.
    pub(crate) fn from_name(name: &str, argument: u32) -> Option<Self> {
        let kind = KINDS.iter().find(|kind| kind.name == name);
        if let Some(kind) = kind {
            return Some(Self::named(kind.name, argument, (kind.make)(argument)));
        }
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
        scenario.map(|s| Self::named(s.name, 0, s.half))
    }
}

/// The error for one of Twilio's test numbers that cannot send.
/// <https://www.twilio.com/docs/iam/test-credentials>
pub(crate) fn refusal_of_sender(from: &str) -> Option<u32> {
    let magic = MAGIC_FROM.iter().find(|(number, _)| *number == from);
    magic.map(|(_, code)| *code)
}

fn single(channel: &str, digit: u8, argument: u32) -> Option<Outcome> {
    if digit == 0 {
        return scenario(u8::try_from(argument).ok()?);
    }
    let kind = KINDS.iter().find(|kind| kind.digit == digit)?;
    let half = (kind.make)(argument);
    let is_about_code = !matches!(half, Half::Reply(Reply::TooMany(_) | Reply::Slow(_)));
    if is_about_code && argument < 10_000 {
        return None;
    }
    // One number can fail over WhatsApp and be reached by SMS.
    if is_about_code && channel == "sms" && (63_000..64_000).contains(&argument) {
        return Some(Outcome::DELIVERED);
    }
    Some(Outcome::named(kind.name, argument, half))
}

fn scenario(digits: u8) -> Option<Outcome> {
    if let Some((_, name, code)) = CODES.iter().find(|(d, ..)| *d == digits) {
        return Outcome::from_name(name, *code);
    }
    let scenario = SCENARIOS.iter().find(|scenario| scenario.digits == digits);
    scenario.map(|s| Outcome::named(s.name, 0, s.half))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(channel: &str, number: &str) -> Option<String> {
        Outcome::of(channel, number).map(|outcome| outcome.label())
    }

    #[test]
    fn ordinary_numbers_are_delivered() {
        for number in [
            "+12025550123",
            "+491701234567",
            "+15005550006",
            "12345",
            "+999123456789012",
        ] {
            assert_eq!(
                Outcome::of("sms", number),
                Some(Outcome::DELIVERED),
                "{number}"
            );
        }
    }

    #[test]
    fn last_digits_choose_kind_and_code() {
        assert_eq!(
            label("sms", "+150012345130003").as_deref(),
            Some("undelivered 30003")
        );
        assert_eq!(
            label("sms", "+150012345230001").as_deref(),
            Some("failed 30001")
        );
        assert_eq!(
            label("sms", "+150012345321610").as_deref(),
            Some("refused 21610")
        );
        assert_eq!(
            label("sms", "+150012345400003").as_deref(),
            Some("too-many 3")
        );
        assert_eq!(
            label("sms", "+150012345501500").as_deref(),
            Some("slow 1500")
        );
        assert_eq!(
            label("whatsapp", "+150012345000001").as_deref(),
            Some("read")
        );
    }

    #[test]
    fn channel_codes_happen_on_channels_only() {
        assert_eq!(
            label("whatsapp", "+150000000163049").as_deref(),
            Some("undelivered 63049")
        );
        assert_eq!(
            label("sms", "+150000000163049").as_deref(),
            Some("delivered")
        );
    }

    #[test]
    fn chains_name_one_scenario_for_each_channel() {
        assert_eq!(
            label("whatsapp", "+150100000405000").as_deref(),
            Some("undelivered 63049")
        );
        assert_eq!(
            label("sms", "+150100000405000").as_deref(),
            Some("undelivered 30003")
        );
        assert_eq!(label("rcs", "+150100000010800").as_deref(), Some("read"));
        assert_eq!(label("sms", "+150100000010800").as_deref(), Some("drop"));
    }

    #[test]
    fn numbers_of_ours_without_meaning_are_none() {
        for number in [
            "+150000000000099",
            "+150000000900000",
            "+150000000100007",
            "+150000000000300",
        ] {
            assert_eq!(Outcome::of("sms", number), None, "{number}");
        }
    }

    #[test]
    fn twilios_test_numbers_keep_their_meaning() {
        assert_eq!(
            label("sms", "+15005550004").as_deref(),
            Some("refused 21610")
        );
        assert_eq!(refusal_of_sender("+15005550007"), Some(21606));
        assert_eq!(refusal_of_sender("+15005550006"), None);
    }

    #[test]
    fn every_digit_and_name_is_given_once() {
        let mut digits: Vec<u8> = SCENARIOS.iter().map(|s| s.digits).collect();
        digits.extend(CODES.iter().map(|(digits, ..)| digits));
        let mut names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
        names.extend(KINDS.iter().map(|kind| kind.name));
        let (all_digits, all_names) = (digits.len(), names.len());
        digits.sort_unstable();
        digits.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((digits.len(), names.len()), (all_digits, all_names));
        for (_, name, code) in CODES {
            assert!(Outcome::from_name(name, *code).is_some(), "{name}");
        }
    }
}
