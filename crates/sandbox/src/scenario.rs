//! The tables behind [`crate::number`]: the meaning of digits, and its text for `--help`.

use std::fmt::Write;

use crate::outcome::{Breakage, Course, Half, Reply};
use crate::smsgate::outcome as smsgate;

/// An outcome with a number of two digits.
pub(crate) struct Scenario {
    pub(crate) digits: u8,
    pub(crate) name: &'static str,
    pub(crate) half: Half,
    pub(crate) meaning: &'static str,
}

/// An outcome that takes an argument, chosen by one digit.
pub(crate) struct Kind {
    pub(crate) digit: u8,
    pub(crate) name: &'static str,
    pub(crate) make: fn(u32) -> Half,
    pub(crate) meaning: &'static str,
}

/// The table of outcomes for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from(HELP);
    for Kind {
        digit,
        name,
        meaning,
        ..
    } in KINDS
    {
        let _ = writeln!(text, "  {digit}AAAAA  {name:<13} {meaning}");
    }
    text.push_str("\nSS  scenario\n");
    for Scenario {
        digits,
        name,
        meaning,
        ..
    } in SCENARIOS
    {
        let _ = writeln!(text, "  {digits:02}  {name:<13} {meaning}");
    }
    for (digits, name, code) in CODES {
        let _ = writeln!(text, "  {digits:02}  {name} {code}");
    }
    text.push('\n');
    text.push_str(&smsgate::help());
    text.push_str("\nTwilio's own test numbers work too: ");
    let magic = MAGIC_TO
        .iter()
        .map(|(number, code)| format!("{number} is refused with {code}"));
    text.push_str(&magic.collect::<Vec<_>>().join(", "));
    text.push_str(".\n");
    text
}

const fn row(digits: u8, name: &'static str, half: Half, meaning: &'static str) -> Scenario {
    Scenario {
        digits,
        name,
        half,
        meaning,
    }
}

const fn course(course: Course) -> Half {
    Half::Course(course)
}

const fn reply(reply: Reply) -> Half {
    Half::Reply(reply)
}

const fn broken(is_accepted: bool, how: Breakage) -> Half {
    Half::Reply(Reply::Broken { is_accepted, how })
}

const HELP: &str = "\
Outcomes are chosen by the recipient. Every ordinary number is delivered. Numbers of fifteen digits:

  +1500 nnnnn 0000SS     scenario SS on every channel
  +1500 nnnnn KAAAAA     kind K with argument A; error codes 63xxx happen on WhatsApp, RCS and
                         Messenger only, the same number by SMS is delivered
  +1501 nnnnn CCSSGG     scenario CC on WhatsApp, RCS and Messenger, SS by SMS, GG at an SMSGate phone

nnnnn are free. A number of this form that the tables do not know is refused with 21211.

K AAAAA
";

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        digit: 1,
        name: "undelivered",
        make: |code| Half::Course(Course::Undelivered(code)),
        meaning: "sent, then undelivered with error code A",
    },
    Kind {
        digit: 2,
        name: "failed",
        make: |code| Half::Course(Course::Failed(code)),
        meaning: "failed with error code A, never sent",
    },
    Kind {
        digit: 3,
        name: "refused",
        make: |code| Half::Reply(Reply::Refused(code)),
        meaning: "refused at once with error code A",
    },
    Kind {
        digit: 4,
        name: "too-many",
        make: |count| Half::Reply(Reply::TooMany(count)),
        meaning: "429 for the first A creates, then delivered",
    },
    Kind {
        digit: 5,
        name: "slow",
        make: |ms| Half::Reply(Reply::Slow(ms)),
        meaning: "accepted at once, answered after A ms",
    },
    Kind {
        digit: 6,
        name: "corrected",
        make: |code| Half::Course(Course::Corrected(code)),
        meaning: "undelivered with error code A, after --late-delay delivered after all",
    },
    Kind {
        digit: 7,
        name: "both",
        make: |code| Half::Course(Course::Both(code)),
        meaning: "undelivered and failed are both reported, with error code A",
    },
    Kind {
        digit: 8,
        name: "lost-failure",
        make: |code| Half::Course(Course::LostFailure(code)),
        meaning: "undelivered with error code A, but no callback is made",
    },
];

pub(crate) const SCENARIOS: &[Scenario] = &[
    row(0, "delivered", course(Course::Delivered), "sent, delivered"),
    row(
        1,
        "read",
        course(Course::Read),
        "sent, delivered, read (by SMS: delivered)",
    ),
    row(
        2,
        "disorder",
        course(Course::Disorder),
        "callbacks in the wrong order: delivered, sent",
    ),
    row(
        3,
        "repeated",
        course(Course::Repeated),
        "every callback three times",
    ),
    row(4, "sent", course(Course::Sent), "sent and nothing after"),
    row(
        5,
        "silent",
        course(Course::Silent),
        "accepted; no progress, no callbacks",
    ),
    row(
        6,
        "lost",
        course(Course::Lost),
        "delivered, but no callback is made",
    ),
    row(
        7,
        "early",
        reply(Reply::AfterCallbacks),
        "all callbacks come before the answer to the create",
    ),
    row(
        8,
        "drop",
        broken(true, Breakage::Close),
        "accepted, then the connection closes without an answer",
    ),
    row(
        9,
        "hang",
        broken(true, Breakage::Hang),
        "accepted, never answered",
    ),
    row(
        10,
        "error",
        broken(true, Breakage::ServerError),
        "accepted, answered 500",
    ),
    row(
        11,
        "proxy",
        broken(true, Breakage::Proxy),
        "accepted, answered 502 with a proxy's HTML",
    ),
    row(
        12,
        "drop-before",
        broken(false, Breakage::Close),
        "not accepted, the connection closes without an answer",
    ),
    row(
        13,
        "hang-before",
        broken(false, Breakage::Hang),
        "not accepted, never answered",
    ),
    row(
        14,
        "error-before",
        broken(false, Breakage::ServerError),
        "not accepted, answered 500",
    ),
    row(
        15,
        "proxy-before",
        broken(false, Breakage::Proxy),
        "not accepted, answered 502 with a proxy's HTML",
    ),
    row(
        16,
        "unavailable",
        broken(false, Breakage::Unavailable),
        "not accepted, answered 503",
    ),
    row(
        17,
        "garbled",
        broken(true, Breakage::Garbled),
        "accepted, answered 201 with JSON that breaks off",
    ),
    row(
        18,
        "suspended",
        reply(Reply::Refused(20005)),
        "refused: the account is not active",
    ),
    row(
        19,
        "unauthorized",
        reply(Reply::Refused(20003)),
        "refused as if the credentials were wrong",
    ),
    row(
        20,
        "novel",
        course(Course::Novel),
        "a status and parameters unknown so far, then delivered",
    ),
    row(
        21,
        "late",
        course(Course::Late),
        "sent, delivered after --late-delay",
    ),
    row(
        22,
        "busy",
        reply(Reply::TooMany(1)),
        "429 for the first create, then delivered",
    ),
];

/// Scenarios that are an outcome with an error code.
pub(crate) const CODES: &[(u8, &str, u32)] = &[
    (40, "undelivered", 63049),
    (41, "undelivered", 63016),
    (42, "undelivered", 63003),
    (43, "undelivered", 63024),
    (44, "undelivered", 63032),
    (45, "undelivered", 63014),
    (46, "undelivered", 63033),
    (47, "failed", 63016),
    (50, "undelivered", 30003),
    (51, "undelivered", 30004),
    (52, "undelivered", 30005),
    (53, "undelivered", 30006),
    (54, "undelivered", 30007),
    (55, "undelivered", 30008),
    (56, "undelivered", 30017),
    (57, "failed", 21610),
    (58, "failed", 30001),
    (60, "both", 30003),
    (61, "corrected", 30003),
    (62, "corrected", 63049),
    (70, "refused", 21211),
    (71, "refused", 21408),
    (72, "refused", 21608),
    (73, "refused", 21610),
    (74, "refused", 21611),
    (75, "refused", 21612),
    (76, "refused", 21614),
    (77, "refused", 21617),
];

/// Twilio's own test numbers: <https://www.twilio.com/docs/iam/test-credentials>
pub(crate) const MAGIC_TO: &[(&str, u32)] = &[
    ("+15005550001", 21211),
    ("+15005550002", 21612),
    ("+15005550003", 21408),
    ("+15005550004", 21610),
    ("+15005550009", 21614),
];

pub(crate) const MAGIC_FROM: &[(&str, u32)] = &[
    ("+15005550001", 21212),
    ("+15005550007", 21606),
    ("+15005550008", 21611),
];
