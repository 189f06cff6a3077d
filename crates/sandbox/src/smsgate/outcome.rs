//! The outcome of a message at an SMSGate phone, by the recipient's last two digits.

use std::fmt::Write;

use crate::outcome::Breakage;

/// The outcome of a request and of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) reply: Reply,
    pub(crate) course: Course,
}

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 202 with the message's state.
    Accepted,
    /// An error with this text; nothing is accepted.
    Refused(u16, &'static str),
    /// The error for the first request to this recipient, then 202.
    RefusedOnce(u16, &'static str),
    /// No valid response.
    Broken { is_accepted: bool, how: Breakage },
}

/// What the phone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Delivered,
    /// The carrier reports nothing.
    Sent,
    Failed,
    /// Sent in three parts, each of which is reported as delivered.
    Parts,
    /// Sent, then failed.
    SentFailed,
    /// Delivered and, after the late delay, failed.
    DeliveredFailed,
    /// Every event twice, with another id.
    Doubled,
    /// The event of delivery before the one of sending.
    Disorder,
    /// The phone never fetches it.
    Pending,
    /// The phone fetches it and nothing more is heard.
    Processed,
    /// As delivered, without events.
    Lost,
    /// The phone fetches it only after it has expired.
    Expired,
    /// The phone fetches it after the late delay.
    Late,
    /// It is encrypted with a passphrase that is not the phone's.
    Unreadable,
}

enum Half {
    Reply(Reply),
    Course(Course),
}

struct Scenario {
    digits: u8,
    name: &'static str,
    half: Half,
    meaning: &'static str,
}

impl Outcome {
    /// The outcome of ordinary numbers.
    pub(crate) const DELIVERED: Self = Self {
        name: "delivered",
        reply: Reply::Accepted,
        course: Course::Delivered,
    };

    /// The outcome of a message that the phone cannot decrypt.
    pub(crate) const UNREADABLE: Self = Self {
        name: "unreadable",
        reply: Reply::Accepted,
        course: Course::Unreadable,
    };

    /// The outcome of a message to `number`; `None` for a number of the sandbox's form without a meaning.
    pub(crate) fn of(number: &str) -> Option<Self> {
        let digits = number
            .strip_prefix("+1501")
            .filter(|digits| digits.len() == 11);
        let Some(digits) = digits.and_then(|digits| digits.get(9..)) else {
            return Some(Self::DELIVERED);
        };
        let digits: u8 = digits.parse().ok()?;
        SCENARIOS
            .iter()
            .find(|scenario| scenario.digits == digits)
            .map(Scenario::outcome)
    }

    /// The outcome called `name`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        SCENARIOS
            .iter()
            .find(|scenario| scenario.name == name)
            .map(Scenario::outcome)
    }

    /// This outcome with one half replaced: the one in which `other` differs from the usual.
    pub(crate) fn overlaid_by(self, other: Self) -> Self {
        match other.reply {
            Reply::Accepted => Self {
                name: other.name,
                course: other.course,
                ..self
            },
            reply => Self {
                name: other.name,
                reply,
                ..self
            },
        }
    }
}

impl Scenario {
    fn outcome(&self) -> Outcome {
        let (reply, course) = match self.half {
            Half::Reply(reply) => (reply, Course::Delivered),
            Half::Course(course) => (Reply::Accepted, course),
        };
        Outcome {
            name: self.name,
            reply,
            course,
        }
    }
}

/// The table, as `--help` shows it.
pub(crate) fn help() -> String {
    let mut text = String::from("GG  scenario at an SMSGate phone\n");
    for Scenario {
        digits,
        name,
        meaning,
        ..
    } in SCENARIOS
    {
        let _ = writeln!(text, "  {digits:02}  {name:<17} {meaning}");
    }
    text
}

const fn course(digits: u8, name: &'static str, course: Course, meaning: &'static str) -> Scenario {
    Scenario {
        digits,
        name,
        half: Half::Course(course),
        meaning,
    }
}

const fn reply(digits: u8, name: &'static str, reply: Reply, meaning: &'static str) -> Scenario {
    Scenario {
        digits,
        name,
        half: Half::Reply(reply),
        meaning,
    }
}

const fn broken(is_accepted: bool, how: Breakage) -> Reply {
    Reply::Broken { is_accepted, how }
}

pub(crate) const NO_DEVICE: &str = "failed to select device: record not found";
const QUEUE: &str =
    "failed to enqueue message: queue limits exceeded: too many pending messages: 100 / 100";

const SCENARIOS: &[Scenario] = &[
    course(0, "delivered", Course::Delivered, "sent, delivered"),
    course(1, "sent", Course::Sent, "sent and nothing after"),
    course(
        2,
        "failed",
        Course::Failed,
        "failed: RESULT_ERROR_GENERIC_FAILURE",
    ),
    course(
        3,
        "parts",
        Course::Parts,
        "delivered in three parts, each reported",
    ),
    course(
        4,
        "delivered-failed",
        Course::DeliveredFailed,
        "delivered, after --late-delay failed",
    ),
    course(
        5,
        "doubled",
        Course::Doubled,
        "every event twice, with another id",
    ),
    course(
        6,
        "disorder",
        Course::Disorder,
        "the event of delivery comes before the one of sending",
    ),
    course(7, "pending", Course::Pending, "the phone never fetches it"),
    course(
        8,
        "processed",
        Course::Processed,
        "the phone fetches it and nothing more is heard",
    ),
    course(
        9,
        "lost",
        Course::Lost,
        "delivered, but no webhook is called",
    ),
    reply(
        10,
        "no-device",
        Reply::Refused(400, NO_DEVICE),
        "400: no device",
    ),
    reply(
        11,
        "queue-full",
        Reply::Refused(503, QUEUE),
        "503: queue limits exceeded",
    ),
    reply(
        12,
        "queue-full-once",
        Reply::RefusedOnce(503, QUEUE),
        "503 for the first request, then delivered",
    ),
    reply(
        13,
        "error-before",
        broken(false, Breakage::ServerError),
        "not accepted, answered 500",
    ),
    reply(
        14,
        "error",
        broken(true, Breakage::ServerError),
        "accepted, answered 500",
    ),
    reply(
        15,
        "drop",
        broken(true, Breakage::Close),
        "accepted, then the connection closes without an answer",
    ),
    reply(
        16,
        "hang",
        broken(true, Breakage::Hang),
        "accepted, never answered",
    ),
    reply(
        17,
        "drop-before",
        broken(false, Breakage::Close),
        "not accepted, the connection closes without an answer",
    ),
    reply(
        18,
        "hang-before",
        broken(false, Breakage::Hang),
        "not accepted, never answered",
    ),
    reply(
        19,
        "invalid",
        Reply::Refused(400, "invalid phone number"),
        "400: invalid phone number",
    ),
    reply(
        20,
        "landline",
        Reply::Refused(400, "not mobile phone number"),
        "400: not a mobile number",
    ),
    reply(
        21,
        "forbidden",
        Reply::Refused(403, "scope required: messages:send"),
        "403: scope required",
    ),
    reply(
        22,
        "unauthorized",
        Reply::Refused(401, "Unauthorized"),
        "401 as if the credentials were wrong",
    ),
    course(
        23,
        "expired",
        Course::Expired,
        "the phone comes to it only after it expired: failed, TTL expired",
    ),
    course(
        24,
        "late",
        Course::Late,
        "the phone comes to it after --late-delay",
    ),
    course(25, "sent-failed", Course::SentFailed, "sent, then failed"),
    reply(
        26,
        "proxy",
        broken(true, Breakage::Proxy),
        "accepted, answered 502 with a proxy's HTML",
    ),
    reply(
        27,
        "proxy-before",
        broken(false, Breakage::Proxy),
        "not accepted, answered 502 with a proxy's HTML",
    ),
    reply(
        28,
        "no-device-once",
        Reply::RefusedOnce(400, NO_DEVICE),
        "400, no device, for the first request, then delivered",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: &str) -> Option<&'static str> {
        Outcome::of(number).map(|outcome| outcome.name)
    }

    #[test]
    fn the_last_two_digits_of_a_chain_choose() {
        assert_eq!(name("+150112345405002"), Some("failed"));
        assert_eq!(name("+150112345405000"), Some("delivered"));
        assert_eq!(name("+150112345405099"), None);
    }

    #[test]
    fn other_numbers_are_delivered() {
        for number in [
            "+12025550123",
            "+150012345130003",
            "79990001234",
            "+15010000002",
        ] {
            assert_eq!(name(number), Some("delivered"), "{number}");
        }
    }

    #[test]
    fn every_digit_and_name_is_given_once() {
        let mut digits: Vec<_> = SCENARIOS.iter().map(|s| s.digits).collect();
        let mut names: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
        digits.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!(
            (digits.len(), names.len()),
            (SCENARIOS.len(), SCENARIOS.len())
        );
    }
}
