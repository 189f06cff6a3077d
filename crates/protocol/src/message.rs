//! Twilio's Messages resource: the request that creates a message, and the other requests about it.
//!
//! What Twilio answers is read by [`answer`], lists for reconciliation by [`list`].
//! <https://www.twilio.com/docs/messaging/api/message-resource>

pub mod answer;
pub mod list;

use thiserror::Error;

use crate::address::{Address, Kind};
use crate::destination::{self, Fault};
use crate::spelling::name_of;
use crate::{date, sid};

/// A message to be created, before it is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draft<'a> {
    /// Recipient: E.164, a short code, or an address of a channel such as `whatsapp:+12025550123`.
    pub to: &'a str,
    /// Sender: an address, or a messaging service's `MG…`.
    pub from: Option<&'a str>,
    /// Messaging service, where it is given beside a sender.
    pub messaging_service_sid: Option<&'a str>,
    /// Text, at most 1,600 characters; empty counts as none.
    pub body: Option<&'a str>,
    /// Addresses of media, at most 10.
    pub media_urls: &'a [&'a str],
    /// Where Twilio reports the message's progress. May carry a query and a fragment of connection
    /// overrides.
    pub status_callback: Option<&'a str>,
    /// How long Twilio may hold the message before it is sent, 1 to 36,000 seconds.
    pub validity_period: Option<u32>,
    /// When Twilio is to send it, in milliseconds since 1970; 5 minutes to 35 days ahead.
    pub send_at: Option<i64>,
    /// Any other parameters of Twilio's, in order; names may repeat.
    pub extra: &'a [(&'a str, &'a str)],
}

/// Why a draft cannot become a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The recipient is no address that can receive.
    #[error("recipient is not a phone number or an address of a channel")]
    Recipient,
    /// The sender is no address.
    #[error("sender is not a phone number, an address of a channel or a messaging service")]
    Sender,
    /// The messaging service is not `MG` and 32 hexadecimal digits.
    #[error("messaging service is not the identifier of one")]
    MessagingService,
    /// There is neither a sender nor a messaging service.
    #[error("message has no sender and no messaging service")]
    NoSender,
    /// Sender and recipient are the same.
    #[error("sender and recipient are the same")]
    ToItself,
    /// The channels of sender and recipient do not fit.
    #[error("sender on channel \"{from}\" cannot reach a recipient on channel \"{to}\"")]
    Channels {
        /// Channel of the sender.
        from: String,
        /// Channel of the recipient.
        to: String,
    },
    /// There is no text, no media and no template.
    #[error("message has neither text nor media nor a content template")]
    Empty,
    /// The text is too long.
    #[error("text has {0} characters, at most 1600 are allowed")]
    TooLong(usize),
    /// A text holds U+0000.
    #[error("parameter {0} holds a null character")]
    Null(String),
    /// Too many media.
    #[error("message has {0} media, at most 10 are allowed")]
    TooManyMedia(usize),
    /// A URL cannot be given to Twilio.
    #[error("parameter {0} is not a URL that Twilio can call: {1}")]
    Url(&'static str, Fault),
    /// A URL is too long.
    #[error("URL in parameter {0} has more than 4096 bytes")]
    LongUrl(&'static str),
    /// The validity period is out of range.
    #[error("validity period of {0} seconds is out of range, 1 to 36000 are allowed")]
    ValidityPeriod(u32),
    /// The time to send at is out of range.
    #[error("time to send at must be 5 minutes to 35 days ahead")]
    SendAt,
    /// Scheduling works through a messaging service only.
    #[error("a scheduled message needs a messaging service")]
    ScheduleWithoutService,
    /// A further parameter has a name that is empty, malformed or ours to set.
    #[error("parameter \"{0}\" cannot be given as a further parameter")]
    Parameter(String),
}

impl Draft<'_> {
    /// Checks the draft and encodes it: the body of a POST to [`messages_path`], parameters in a
    /// fixed order. `now` is the time in milliseconds since 1970.
    ///
    /// What Twilio alone can know (whether a number exists, a template fits) is left to Twilio.
    pub fn encode(&self, now: i64) -> Result<String, DraftError> {
        let sender = self.sender()?;
        self.check_recipient(sender)?;
        self.check_content()?;
        self.check_urls()?;
        self.check_extra()?;
        let validity_period = self.checked_validity_period()?;
        let send_at = self.checked_send_at(sender, now)?;

        let mut pairs: Vec<(&str, &str)> = vec![("To", self.to)];
        let mut push = |name, value: Option<_>| pairs.extend(value.map(|value| (name, value)));
        push("From", sender.from);
        push("MessagingServiceSid", sender.service);
        push("Body", self.text());
        for url in self.media_urls {
            push(MEDIA_URL, Some(*url));
        }
        push(STATUS_CALLBACK, self.status_callback);
        push("ValidityPeriod", validity_period.as_deref());
        push("SendAt", send_at.as_deref());
        push("ScheduleType", send_at.as_ref().map(|_| "fixed"));
        pairs.extend(self.extra);
        for (name, value) in &pairs {
            if value.contains('\0') {
                return Err(DraftError::Null((*name).to_owned()));
            }
        }
        // Encoding pairs of text cannot fail: the serializer's errors are about other types.
        Ok(serde_urlencoded::to_string(&pairs).unwrap_or_default())
    }

    fn text(&self) -> Option<&str> {
        self.body.filter(|body| !body.is_empty())
    }

    fn sender(&self) -> Result<Sender<'_>, DraftError> {
        let mut sender = Sender {
            from: None,
            service: self.messaging_service_sid,
            channel: None,
        };
        if let Some(from) = self.from.filter(|from| !from.is_empty()) {
            let address = Address::parse(from).map_err(|_| DraftError::Sender)?;
            match (address.kind, sender.service) {
                (Kind::MessagingService, None) => sender.service = Some(from),
                (Kind::MessagingService, Some(_)) => return Err(DraftError::Sender),
                _ => {
                    sender.from = Some(from);
                    sender.channel = Some(address.channel);
                }
            }
        }
        match sender.service {
            Some(service) if !sid::is_messaging_service(service) => {
                Err(DraftError::MessagingService)
            }
            None if sender.from.is_none() => Err(DraftError::NoSender),
            _ => Ok(sender),
        }
    }

    fn check_recipient(&self, sender: Sender<'_>) -> Result<(), DraftError> {
        let to = Address::parse(self.to)
            .ok()
            .filter(Address::can_receive)
            .ok_or(DraftError::Recipient)?;
        if sender.from == Some(self.to) {
            return Err(DraftError::ToItself);
        }
        match sender.channel {
            // An RCS sender is allowed to address a plain number.
            Some(from) if from != to.channel && (from, to.channel) != ("rcs", "sms") => {
                Err(DraftError::Channels {
                    from: from.to_owned(),
                    to: to.channel.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    fn check_content(&self) -> Result<(), DraftError> {
        let has_template = self
            .extra
            .iter()
            .any(|(name, value)| *name == "ContentSid" && !value.is_empty());
        if self.text().is_none() && self.media_urls.is_empty() && !has_template {
            return Err(DraftError::Empty);
        }
        check_length(self.text().unwrap_or_default())?;
        if self.media_urls.len() > MOST_MEDIA {
            return Err(DraftError::TooManyMedia(self.media_urls.len()));
        }
        Ok(())
    }

    fn check_urls(&self) -> Result<(), DraftError> {
        let check_url_length = |name, url: &str| match url.len() {
            0..=LONGEST_URL => Ok(()),
            _ => Err(DraftError::LongUrl(name)),
        };
        // Twilio fetches files without a password.
        for url in self.media_urls {
            check_url_length(MEDIA_URL, url)?;
            destination::check_media(url).map_err(|fault| DraftError::Url(MEDIA_URL, fault))?;
        }
        if let Some(url) = self.status_callback {
            check_url_length(STATUS_CALLBACK, url)?;
            destination::check_callback(url)
                .map_err(|fault| DraftError::Url(STATUS_CALLBACK, fault))?;
        }
        Ok(())
    }

    fn check_extra(&self) -> Result<(), DraftError> {
        let is_allowed = |name: &str| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric())
                && !OWN_PARAMETERS.contains(&name)
        };
        match self.extra.iter().find(|(name, _)| !is_allowed(name)) {
            Some((name, _)) => Err(DraftError::Parameter(name.chars().take(64).collect())),
            None => Ok(()),
        }
    }

    fn checked_validity_period(&self) -> Result<Option<String>, DraftError> {
        match self.validity_period {
            Some(seconds) if !(1..=36_000).contains(&seconds) => {
                Err(DraftError::ValidityPeriod(seconds))
            }
            period => Ok(period.map(|seconds| seconds.to_string())),
        }
    }

    /// The limits are those of <https://www.twilio.com/docs/api/errors/35114>.
    fn checked_send_at(&self, sender: Sender<'_>, now: i64) -> Result<Option<String>, DraftError> {
        let Some(send_at) = self.send_at else {
            return Ok(None);
        };
        if sender.service.is_none() {
            return Err(DraftError::ScheduleWithoutService);
        }
        let ahead = send_at.saturating_sub(now);
        if !(300_000..=3_024_000_000).contains(&ahead) {
            return Err(DraftError::SendAt);
        }
        date::format_iso(send_at)
            .map(Some)
            .ok_or(DraftError::SendAt)
    }
}

#[derive(Clone, Copy)]
struct Sender<'a> {
    from: Option<&'a str>,
    service: Option<&'a str>,
    channel: Option<&'a str>,
}

/// Checks that a text is not too long for Twilio: 1,600 characters on every channel, though WhatsApp itself has 4,096.
/// <https://www.twilio.com/docs/api/errors/21617>, <https://www.twilio.com/docs/api/errors/21658>
pub fn check_length(text: &str) -> Result<(), DraftError> {
    match text.chars().count() {
        length if length > MOST_CHARACTERS => Err(DraftError::TooLong(length)),
        _ => Ok(()),
    }
}

/// The path of an account's messages: POST creates one, GET lists them.
pub fn messages_path(account_sid: &str) -> String {
    format!("{VERSION}/Accounts/{account_sid}/Messages.json")
}

/// The path of one message: GET fetches it, POST changes it with [`CANCEL`] or [`REDACT`].
pub fn message_path(account_sid: &str, message_sid: &str) -> String {
    format!("{VERSION}/Accounts/{account_sid}/Messages/{message_sid}.json")
}

/// The path that lists messages to a recipient, newest first, `page_size` (1 to 1,000) at a time.
pub fn list_path(account_sid: &str, to: &str, page_size: u16) -> String {
    let size = page_size.clamp(1, 1000).to_string();
    let pairs = [("To", to), ("PageSize", size.as_str())];
    let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
    format!("{}?{query}", messages_path(account_sid))
}

/// Adds a parameter to the query of a URL, before its fragment, and sorts the parameters by name. It is used for the
/// attempt that a status callback is about. Twilio signs the query, but not the fragment.
///
/// Twilio has been observed to sign a query in the given order but to request it sorted, so that its signature does not
/// match. A sorted query does not change. Names are compared decoded and bytewise; parameters of one name keep their
/// order, behind an added one of that name. <https://github.com/twilio/twilio-php/issues/790>
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let (base, fragment) = match url.split_once('#') {
        Some((base, fragment)) => (base, Some(fragment)),
        None => (url, None),
    };
    let (path, query) = base.split_once('?').unwrap_or((base, ""));
    let pair = serde_urlencoded::to_string([(name, value)]).unwrap_or_default();
    let mut pieces = vec![pair.as_str()];
    pieces.extend(query.split('&').filter(|piece| !piece.is_empty()));
    pieces.sort_by_cached_key(|piece| name_of(piece));
    let query = pieces.join("&");
    let fragment = fragment.map(|text| format!("#{text}")).unwrap_or_default();
    format!("{path}?{query}{fragment}")
}

/// The attempt that a status callback is about, as the query of its URL names it: a UUID in its usual
/// form, or none.
pub fn attempt(url: &str) -> Option<String> {
    let query = crate::url::query(url);
    // Most callbacks of messages that others sent have none, which is soon seen.
    if !query.contains(ATTEMPT) {
        return None;
    }
    let form = crate::form::Form::parse(query.as_bytes());
    form.filled(ATTEMPT)
        .filter(|text| is_uuid(text))
        .map(str::to_owned)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(n, b)| match n {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// The parameter of a status callback's URL that names our attempt.
pub const ATTEMPT: &str = "attempt";

/// The body that cancels a scheduled message.
pub const CANCEL: &str = "Status=canceled";

/// The body that takes the text out of a message at Twilio.
pub const REDACT: &str = "Body=";

/// The version of the API, as it begins every path.
const VERSION: &str = "/2010-04-01";
const MOST_CHARACTERS: usize = 1600;
const MOST_MEDIA: usize = 10;
const LONGEST_URL: usize = 4096;
const MEDIA_URL: &str = "MediaUrl";
const STATUS_CALLBACK: &str = "StatusCallback";

/// Parameters that a draft has fields for.
const OWN_PARAMETERS: [&str; 9] = [
    "To",
    "From",
    "MessagingServiceSid",
    "Body",
    MEDIA_URL,
    STATUS_CALLBACK,
    "ValidityPeriod",
    "SendAt",
    "ScheduleType",
];
