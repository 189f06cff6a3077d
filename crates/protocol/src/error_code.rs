//! Twilio's error codes: what they mean, whether to retry, and whether to try another channel.
//!
//! Twilio may change codes at any time, so users can override single codes in the database. <https://www.twilio.com/docs/api/errors>

mod table;

use table::TABLE;

/// A known code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// The code in `ErrorCode` and in error responses, 10001 to 99999.
    pub code: i32,
    /// What it means, at most 80 characters.
    pub meaning: &'static str,
    /// What to do about it.
    pub advice: Advice,
}

/// The class of a failure, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// The class of the failure.
    pub class: Class,
    /// Whether to send the same message again.
    pub retry: Retry,
    /// Whether to try another channel.
    pub fallback: Fallback,
}

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request is invalid and would fail again.
    Request,
    /// This recipient cannot be reached over this channel.
    Recipient,
    /// The recipient does not want the message.
    Consent,
    /// The account or the sender is not set up for the message.
    Configuration,
    /// The message may get through later.
    Transient,
    /// It is unknown whether the message arrived.
    Uncertain,
}

/// Whether to send the same message again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No, unless something is changed first.
    Never,
    /// Yes, by the usual schedule.
    Later,
    /// Yes, and at a lower rate.
    Slower,
    /// Yes, but not before this many seconds.
    After(u32),
}

/// Whether to try another channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// Yes.
    Yes,
    /// No: it would not help or is not allowed.
    No,
    /// Maybe, at the risk of a duplicate or of breaking the same rule again.
    Careful,
}

impl Class {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Recipient => "recipient",
            Self::Consent => "consent",
            Self::Configuration => "configuration",
            Self::Transient => "transient",
            Self::Uncertain => "uncertain",
        }
    }
}

impl Retry {
    /// The name in the database; the seconds are in [`Self::delay`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Later => "later",
            Self::Slower => "slower",
            Self::After(_) => "after",
        }
    }

    /// Seconds to wait at least, 0 to 86,400.
    pub fn delay(self) -> u32 {
        match self {
            Self::After(seconds) => seconds,
            Self::Never | Self::Later | Self::Slower => 0,
        }
    }
}

impl Fallback {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Careful => "careful",
        }
    }
}

/// The entry of a known code.
pub fn lookup(code: i32) -> Option<&'static ErrorCode> {
    TABLE
        .binary_search_by_key(&code, |entry| entry.code)
        .ok()
        .and_then(|index| TABLE.get(index))
}

/// All known codes, ascending.
pub fn all() -> &'static [ErrorCode] {
    TABLE
}

/// The advice for a code, known or not. Unknown codes are classified by their range: the API refuses requests with 2xxxx
/// and 9xxxx, while 3xxxx and 63xxx are about messages that it had accepted.
pub fn advice(code: i32) -> Advice {
    if let Some(known) = lookup(code) {
        return known.advice;
    }
    let (class, fallback) = match code {
        10_000..=10_999 => (Class::Configuration, Fallback::No),
        20_500..=20_599 => (Class::Uncertain, Fallback::No),
        20_000..=29_999 | 35_000..=35_999 | 90_000..=99_999 => (Class::Request, Fallback::No),
        30_000..=34_999 | 63_000..=63_999 => (Class::Uncertain, Fallback::Careful),
        _ => (Class::Uncertain, Fallback::No),
    };
    Advice {
        class,
        retry: Retry::Never,
        fallback,
    }
}

/// Twilio's page about a code.
pub fn more_info(code: i32) -> String {
    format!("https://www.twilio.com/docs/errors/{code}")
}
