//! What becomes of a message, chosen by the recipient's last digits.
//!
//! The numbers are fifteen digits long and begin with +1500 or +1501: real numbers of +1 have eleven
//! digits, so a message that leaves for the real Twilio by mistake reaches nobody.

use crate::scenario::{CODES, KINDS, MAGIC_FROM, MAGIC_TO, SCENARIOS};

/// What becomes of one create and of the message it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// An error code, a count or milliseconds; 0 where the outcome takes none.
    pub(crate) argument: u32,
    pub(crate) reply: Reply,
    pub(crate) course: Course,
}

/// How a create is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 201 with the message.
    Created,
    /// An error with this code; nothing is accepted.
    Refused(u32),
    /// 429 for so many creates to this recipient, then 201.
    TooMany(u32),
    /// Accepted at once, answered after so many milliseconds.
    Slow(u32),
    /// Answered after the last callback.
    AfterCallbacks,
    /// No proper answer.
    Broken { is_accepted: bool, how: Breakage },
}

/// Ways in which an answer goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// The connection is closed.
    Close,
    /// Nothing comes and the connection stays open.
    Hang,
    /// 500 with Twilio's error 20500.
    ServerError,
    /// 503 with Twilio's error 20503.
    Unavailable,
    /// 502 with a proxy's HTML.
    Proxy,
    /// 201 with a body that is cut short.
    Garbled,
}

/// What happens to an accepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Delivered,
    /// As delivered, then read; SMS knows no reading.
    Read,
    /// Stays sent: the carrier reports nothing.
    Sent,
    /// As delivered, after the late delay.
    Late,
    /// Stays in its first status; no callbacks.
    Silent,
    /// As delivered, without callbacks.
    Lost,
    /// The callback `delivered` comes before `sent`.
    Disorder,
    /// Every callback is sent three times.
    Repeated,
    /// With a status and parameters that nobody has seen before.
    Novel,
    Undelivered(u32),
    Failed(u32),
    /// Undelivered, and after the late delay delivered after all.
    Corrected(u32),
    /// Undelivered and failed are both reported.
    Both(u32),
    /// As undelivered, without callbacks.
    LostFailure(u32),
}

/// One half of an outcome; the other half is as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Reply(Reply),
    Course(Course),
}

impl Outcome {
    /// The outcome of ordinary numbers.
    pub(crate) const DELIVERED: Self = Self {
        name: "delivered",
        argument: 0,
        reply: Reply::Created,
        course: Course::Delivered,
    };

    /// What becomes of a message to `bare` over `channel`; `None` for a number of ours without meaning.
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

    /// The outcome called `name`, such as `drop`, or `undelivered` with an error code.
    pub(crate) fn from_name(name: &str, argument: u32) -> Option<Self> {
        let kind = KINDS.iter().find(|kind| kind.name == name);
        if let Some(kind) = kind {
            return Some(Self::named(kind.name, argument, (kind.make)(argument)));
        }
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
        scenario.map(|s| Self::named(s.name, 0, s.half))
    }

    /// This outcome with the half that `other` is about replaced.
    pub(crate) fn overlaid_by(self, other: Self) -> Self {
        if other.reply == Reply::Created {
            Self {
                name: other.name,
                argument: other.argument,
                course: other.course,
                ..self
            }
        } else {
            Self {
                name: other.name,
                argument: other.argument,
                reply: other.reply,
                ..self
            }
        }
    }

    /// The name with its argument, for people.
    pub(crate) fn label(&self) -> String {
        match self.argument {
            0 => self.name.to_owned(),
            argument => format!("{} {argument}", self.name),
        }
    }

    fn named(name: &'static str, argument: u32, half: Half) -> Self {
        let (reply, course) = match half {
            Half::Reply(reply) => (reply, Course::Delivered),
            Half::Course(course) => (Reply::Created, course),
        };
        Self {
            name,
            argument,
            reply,
            course,
        }
    }
}

/// The error with which `from` cannot send, by Twilio's own test numbers.
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
    // So that one number fails over WhatsApp and is reached by SMS.
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

    #[test]
    fn a_broken_reply_keeps_the_course() {
        let failing = Outcome::from_name("undelivered", 30003).unwrap();
        let dropped = failing.overlaid_by(Outcome::from_name("drop", 0).unwrap());
        assert_eq!(dropped.course, Course::Undelivered(30003));
        assert_eq!(
            dropped.reply,
            Reply::Broken {
                is_accepted: true,
                how: Breakage::Close
            }
        );
    }
}
