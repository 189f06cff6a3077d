//! Addresses of senders and recipients, and the channels that they belong to.

use thiserror::Error;

/// An address of a known form, borrowed from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    /// The channel of the address: `sms`, `whatsapp`, `rcs`, `messenger`, …
    pub channel: &'a str,
    /// The kind of address.
    pub kind: Kind,
    /// The address without its channel prefix.
    pub bare: &'a str,
}

/// The kinds of address that Twilio knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `+` and 7 to 15 digits, the first not 0.
    E164,
    /// 3 to 8 digits, rented for bulk traffic.
    ShortCode,
    /// 1 to 11 letters, digits, spaces and `-_+&.`, with at least one letter: sends only.
    Alphanumeric,
    /// `MG…`: Twilio chooses a sender from the service.
    MessagingService,
    /// A channel's own identifier, such as a Messenger page or an RCS agent.
    ChannelId,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The text is empty.
    #[error("address is empty")]
    Empty,
    /// The text has the form of no known kind of address.
    #[error("\"{0}\" is not an address")]
    Unknown(String),
}

impl<'a> Address<'a> {
    /// Parses an address with its channel prefix, if any.
    ///
    /// <https://www.twilio.com/docs/messaging/api/message-resource#request-body-parameters>
    ///
    /// ```
    /// use protocol::address::{Address, Kind};
    ///
    /// let address = Address::parse("whatsapp:+12025550123").unwrap();
    /// assert_eq!((address.channel, address.kind), ("whatsapp", Kind::E164));
    /// assert!(Address::parse("+0123").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is empty or has the form of no known kind of address.
    pub fn parse(text: &'a str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let (channel, bare) = split_channel(text);
        let kind = if channel == SMS {
            sms_kind(bare)
        } else if is_e164(bare) {
            Some(Kind::E164)
        } else {
            is_channel_id(channel, bare).then_some(Kind::ChannelId)
        };
        kind.map(|kind| Self {
            channel,
            kind,
            bare,
        })
        .ok_or_else(|| AddressError::Unknown(text.chars().take(64).collect()))
    }

    /// Whether a message can be sent to this address.
    pub fn can_receive(&self) -> bool {
        matches!(self.kind, Kind::E164 | Kind::ShortCode | Kind::ChannelId)
    }
}

/// The channel of a message between two addresses: that of the address which is not plain SMS.
///
/// A messaging service or a missing sender has no channel, so the other address decides.
pub fn channel<'a>(from: Option<&'a str>, to: Option<&'a str>) -> &'a str {
    let channels = [from, to].into_iter().flatten().map(|a| split_channel(a).0);
    channels.into_iter().find(|c| *c != SMS).unwrap_or(SMS)
}

/// Splits `whatsapp:+12025550123` into channel and bare address; without a prefix the channel is `sms`.
///
/// Twilio may add channels, so any short prefix of lower-case letters counts as one.
pub fn split_channel(text: &str) -> (&str, &str) {
    match text.split_once(':') {
        Some((channel, bare)) if is_channel_name(channel) => (channel, bare),
        _ => (SMS, text),
    }
}

/// Whether a channel reaches people by their telephone numbers, so that digits alone are not an address of it.
pub fn has_numbers(channel: &str) -> bool {
    matches!(channel, SMS | "mms" | "rcs" | "whatsapp" | "tel")
}

/// `+` and 7 to 15 digits, the first not 0, as ITU-T E.164 has it.
pub fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

fn sms_kind(text: &str) -> Option<Kind> {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    if is_e164(text) {
        Some(Kind::E164)
    } else if is_digits && (3..=8).contains(&text.len()) {
        Some(Kind::ShortCode)
    } else if crate::sid::is_messaging_service(text) {
        Some(Kind::MessagingService)
    } else {
        is_alphanumeric(text).then_some(Kind::Alphanumeric)
    }
}

fn is_alphanumeric(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b" -_+&.".contains(&b);
    text.len() <= 11
        && text.bytes().all(is_allowed)
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && text.trim() == text
}

/// A number that is not in E.164 is not another identifier: it would reach nobody, or pass a block.
fn is_channel_id(channel: &str, text: &str) -> bool {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    let is_number = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+()-./".contains(&b));
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
        && !(is_number && (!is_digits || has_numbers(channel)))
}

fn is_channel_name(text: &str) -> bool {
    (2..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase())
}

const SMS: &str = "sms";

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<Kind> {
        Address::parse(text).ok().map(|address| address.kind)
    }

    #[test]
    fn knows_the_kinds() {
        assert_eq!(kind("+12025550123"), Some(Kind::E164));
        assert_eq!(kind("whatsapp:+12025550123"), Some(Kind::E164));
        assert_eq!(kind("whatsapp:US.1234"), Some(Kind::ChannelId));
        assert_eq!(kind("messenger:110012345"), Some(Kind::ChannelId));
        assert_eq!(kind("rcs:brand_agent"), Some(Kind::ChannelId));
        assert_eq!(kind("12345"), Some(Kind::ShortCode));
        assert_eq!(kind("My Shop"), Some(Kind::Alphanumeric));
        assert_eq!(
            kind("MG0123456789abcdef0123456789abcdef"),
            Some(Kind::MessagingService)
        );
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "+",
            "+0123456789",
            "+1202555012x",
            "+1234567890123456",
            "12",
            "123456789",
            "whatsapp:",
            "whatsapp:+1 202",
            "whatsapp:12025550123",
            "whatsapp:0012025550123",
            "whatsapp:(202)555-0123",
            "whatsapp:+1-202-555-0123",
            "whatsapp:+0123456789",
            "rcs:12025550123",
            "mms:12025550123",
            "messenger:+1-202-555-0123",
            "twelve chars",
            " x",
            "\u{e9}",
            "a:b",
        ] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    #[test]
    fn either_address_may_name_the_channel() {
        assert_eq!(channel(Some("MG1"), Some("whatsapp:+1")), "whatsapp");
        assert_eq!(channel(Some("rcs:agent"), Some("+12025550123")), "rcs");
        assert_eq!(channel(None, Some("+12025550123")), "sms");
        assert_eq!(channel(None, None), "sms");
    }
}
