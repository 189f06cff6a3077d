//! Twilio's Messages resource: the request that creates a message, and the other requests about it.
//!
//! Twilio's responses are read by [`response`], lists for reconciliation by [`list`].
//! <https://www.twilio.com/docs/messaging/api/message-resource>

pub mod list;
pub mod response;

use thiserror::Error;

use crate::address::{Address, Kind};
use crate::destination::{self, Fault};
use crate::sid;

/// A message to be created, before it is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draft<'a> {
    /// Recipient: E.164, a short code, or an address of a channel such as `whatsapp:+12025550123`.
    pub to: &'a str,
    /// Sender: an address, or a messaging service's `MG…`.
    pub from: Option<&'a str>,
    /// Messaging service, if it is given beside a sender.
    pub messaging_service_sid: Option<&'a str>,
    /// Text, at most 1,600 characters; empty counts as none.
    pub body: Option<&'a str>,
    /// Addresses of media, at most 10.
    pub media_urls: &'a [&'a str],
    /// URL of the status callbacks. It may have a query, and a fragment of connection overrides.
    pub status_callback: Option<&'a str>,
    /// How long Twilio may hold the message before it is sent, 1 to 36,000 seconds.
    pub validity_period: Option<u32>,
    /// Any other parameters of Twilio's, in order; names may repeat.
    pub extra: &'a [(&'a str, &'a str)],
}

/// Why a draft cannot become a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The recipient is not an address that can receive.
    #[error("recipient is not a phone number or an address of a channel")]
    Recipient,
    /// The sender is not an address.
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
    /// The sender's channel cannot reach the recipient's.
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
    /// A further parameter has a name that is empty, malformed or set by a field of the draft.
    #[error("parameter \"{0}\" cannot be given as a further parameter")]
    Parameter(String),
}

impl Draft<'_> {
    /// Checks the draft and encodes it: the body of a POST to [`messages_path`], parameters in a
    /// fixed order.
    ///
    /// Only Twilio can check whether a number exists or a template fits.
    ///
    /// ```
    /// use protocol::message::Draft;
    ///
    /// let draft = Draft {
    ///     to: "+12025550123",
    ///     from: Some("+12025550100"),
    ///     body: Some("Your table is ready"),
    ///     ..Draft::default()
    /// };
    /// assert_eq!(
    ///     draft.encode().unwrap(),
    ///     "To=%2B12025550123&From=%2B12025550100&Body=Your+table+is+ready"
    /// );
    /// ```
    ///
    /// # Errors
    ///
    /// The first rule that the draft breaks.
    pub fn encode(&self) -> Result<String, DraftError> {
        let sender = self.sender()?;
        self.check_recipient(sender)?;
        self.check_content()?;
        self.check_urls()?;
        self.check_extra()?;
        let validity_period = self.checked_validity_period()?;

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
        if self.media_urls.len() > MAX_MEDIA {
            return Err(DraftError::TooManyMedia(self.media_urls.len()));
        }
        Ok(())
    }

    fn check_urls(&self) -> Result<(), DraftError> {
        let check_url_length = |name, url: &str| match url.len() {
            0..=MAX_URL => Ok(()),
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
}

#[derive(Clone, Copy)]
struct Sender<'a> {
    from: Option<&'a str>,
    service: Option<&'a str>,
    channel: Option<&'a str>,
}

/// Checks that a text is not too long for Twilio: at most 1,600 characters on every channel, although WhatsApp itself
/// allows 4,096.
///
/// # Errors
///
/// [`DraftError::TooLong`] with the number of characters.
///
/// <https://www.twilio.com/docs/api/errors/21617>, <https://www.twilio.com/docs/api/errors/21658>
pub fn check_length(text: &str) -> Result<(), DraftError> {
    match text.chars().count() {
        length if length > MAX_CHARACTERS => Err(DraftError::TooLong(length)),
        _ => Ok(()),
    }
}

/// The path of an account's messages: POST creates one, GET lists them.
pub fn messages_path(account_sid: &str) -> String {
    format!("{VERSION}/Accounts/{account_sid}/Messages.json")
}

/// The path of one message: GET fetches it.
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

/// The path that lists all messages of a day in UTC, `YYYY-MM-DD`, a thousand at a time.
pub fn day_list_path(account_sid: &str, day: &str) -> String {
    let query = serde_urlencoded::to_string([("DateSent", day), ("PageSize", "1000")]);
    format!(
        "{}?{}",
        messages_path(account_sid),
        query.unwrap_or_default()
    )
}

/// The version of the API, as it begins every path.
const VERSION: &str = "/2010-04-01";
const MAX_CHARACTERS: usize = 1600;
const MAX_MEDIA: usize = 10;
const MAX_URL: usize = 4096;
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
