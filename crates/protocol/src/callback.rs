//! The content of a verified request: a status callback or an inbound message.

use std::borrow::Cow;

use thiserror::Error;

use crate::form::{Form, MAX_PARAMETERS, TooManyParameters, storable};
use crate::{address, sid};

/// The fields of a callback that are stored in columns. All parameters are stored beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback<'a> {
    /// Whether this is a status callback or an inbound message.
    pub kind: Kind,
    /// The account that the message belongs to.
    pub account_sid: &'a str,
    /// The message.
    pub message_sid: &'a str,
    /// Twilio's name of its status, known or not, 1 to 64 bytes.
    pub status: &'a str,
    /// Twilio's error code; 0 and empty count as none.
    pub error_code: Option<i32>,
    /// Sender.
    pub from: Option<Cow<'a, str>>,
    /// Recipient.
    pub to: Option<Cow<'a, str>>,
    /// The channel that the addresses name.
    pub channel: &'a str,
    /// The messaging service that was used.
    pub messaging_service_sid: Option<&'a str>,
    /// Text of an inbound message.
    pub body: Option<Cow<'a, str>>,
    /// URLs of an inbound message's media, in order, at most 100.
    pub media_urls: Vec<Cow<'a, str>>,
}

/// The two kinds of callback, distinguished by their parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A status of a message that was sent.
    Status,
    /// An inbound message.
    Inbound,
}

/// Why a signed request is not a callback.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A parameter that every callback has is missing.
    #[error("parameter {0} is missing")]
    Missing(&'static str),
    /// A parameter is too long or has another form.
    #[error("parameter {0} is malformed")]
    OutOfBounds(&'static str),
    /// The body is neither a form nor a flat JSON object.
    #[error("body is not a flat JSON object")]
    NotFlat,
    /// It has too many parameters.
    #[error(transparent)]
    TooMany(#[from] TooManyParameters),
}

impl<'a> Callback<'a> {
    /// Reads a form. Unknown parameters and unknown statuses are accepted. A SID, a status or an error code out of its
    /// bounds is not, because it could not be stored or found again.
    ///
    /// <https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks>
    /// <https://www.twilio.com/docs/messaging/guides/webhook-request>
    ///
    /// # Errors
    ///
    /// If the account, the message or the status is missing, or a parameter is out of its bounds.
    pub fn parse(form: &'a Form<'_>) -> Result<Self, Malformed> {
        let account_sid = required(form, "AccountSid", sid::is_account)?;
        let message_sid = ["MessageSid", "SmsSid", "SmsMessageSid"]
            .into_iter()
            .find(|name| form.filled(name).is_some())
            .ok_or(Malformed::Missing("MessageSid"))?;
        let message_sid = required(form, message_sid, sid::is_message)?;
        let (kind, status) = kind_and_status(form)?;
        let from = address_of(form, "From")?;
        let to = address_of(form, "To")?;
        let is_inbound = kind == Kind::Inbound;
        Ok(Self {
            kind,
            account_sid,
            message_sid,
            status,
            error_code: error_code(form)?,
            channel: address::channel(form.filled("From"), form.filled("To")),
            from,
            to,
            messaging_service_sid: form
                .filled("MessagingServiceSid")
                .filter(|text| sid::is_messaging_service(text)),
            body: form.first("Body").filter(|_| is_inbound).map(storable),
            media_urls: if is_inbound {
                media_urls(form)
            } else {
                Vec::new()
            },
        })
    }
}

/// The parameters of a JSON body: a flat object whose members are texts, numbers, booleans or null.
///
/// # Errors
///
/// If the body is not such an object or has more than [`MAX_PARAMETERS`] members.
pub fn form_of_json(body: &[u8]) -> Result<Form<'static>, Malformed> {
    let members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|_| Malformed::NotFlat)?;
    if members.len() > MAX_PARAMETERS {
        return Err(TooManyParameters.into());
    }
    let pairs = members.into_iter().map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Null => String::new(),
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                return Err(Malformed::NotFlat);
            }
            plain => plain.to_string(),
        };
        Ok((Cow::Owned(name), Cow::Owned(value)))
    });
    Ok(Form::from_pairs(pairs.collect::<Result<Vec<_>, _>>()?))
}

fn required<'a>(
    form: &'a Form<'_>,
    name: &'static str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<&'a str, Malformed> {
    let value = form.filled(name).ok_or(Malformed::Missing(name))?;
    if is_valid(value) {
        Ok(value)
    } else {
        Err(Malformed::OutOfBounds(name))
    }
}

/// Inbound webhooks have no MessageStatus, and SmsStatus says that the message is received.
fn kind_and_status<'a>(form: &'a Form<'_>) -> Result<(Kind, &'a str), Malformed> {
    if form.filled("MessageStatus").is_some() {
        return Ok((Kind::Status, required(form, "MessageStatus", is_status)?));
    }
    match form.filled("SmsStatus") {
        Some("received" | "receiving") => Ok((Kind::Inbound, "received")),
        Some(_) => Ok((Kind::Status, required(form, "SmsStatus", is_status)?)),
        None if form.first("Body").is_some() || form.first("NumMedia").is_some() => {
            Ok((Kind::Inbound, "received"))
        }
        None => Err(Malformed::Missing("MessageStatus")),
    }
}

fn is_status(text: &str) -> bool {
    text.len() <= MAX_STATUS_BYTES && !text.chars().any(char::is_control)
}

fn error_code(form: &Form<'_>) -> Result<Option<i32>, Malformed> {
    let Some(text) = form.filled("ErrorCode") else {
        return Ok(None);
    };
    // Digits only: Rust's parser would accept a sign, which no code has.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed::OutOfBounds("ErrorCode"));
    }
    let code = text
        .parse::<i32>()
        .map_err(|_| Malformed::OutOfBounds("ErrorCode"))?;
    Ok((code != 0).then_some(code))
}

fn address_of<'a>(
    form: &'a Form<'_>,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, Malformed> {
    match form.filled(name) {
        Some(text) if text.len() > MAX_ADDRESS_BYTES => Err(Malformed::OutOfBounds(name)),
        address => Ok(address.map(storable)),
    }
}

/// `NumMedia` is ignored: the URLs that are present count.
fn media_urls<'a>(form: &'a Form<'_>) -> Vec<Cow<'a, str>> {
    (0..MAX_MEDIA)
        .map_while(|index| form.filled(&format!("MediaUrl{index}")))
        .map(storable)
        .collect()
}

const MAX_STATUS_BYTES: usize = 64;
const MAX_ADDRESS_BYTES: usize = 256;
/// Twilio sends at most 10; the limit bounds the work for a malformed request.
const MAX_MEDIA: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "AccountSid=AC0123456789abcdef0123456789abcdef";
    const MESSAGE: &str = "MessageSid=SM0123456789abcdef0123456789abcdef";

    fn error(body: &str) -> Malformed {
        Callback::parse(&Form::parse(body.as_bytes())).unwrap_err()
    }

    #[test]
    fn reads_a_status_callback() {
        let body = format!(
            "{ACCOUNT}&{MESSAGE}&MessageStatus=undelivered&SmsStatus=sent&ErrorCode=63049\
             &From=whatsapp%3A%2B1&To=whatsapp%3A%2B2&ErrorMessage=&ChannelStatusMessage=no%00"
        );
        let form = Form::parse(body.as_bytes());
        let callback = Callback::parse(&form).unwrap();
        assert_eq!(callback.kind, Kind::Status);
        assert_eq!(callback.status, "undelivered");
        assert_eq!(callback.error_code, Some(63049));
        assert_eq!(callback.channel, "whatsapp");
    }

    #[test]
    fn reads_an_inbound_message() {
        let body = format!(
            "{ACCOUNT}&{MESSAGE}&SmsStatus=received&Body=&NumMedia=2&MediaUrl0=a&MediaUrl1=b"
        );
        let form = Form::parse(body.as_bytes());
        let callback = Callback::parse(&form).unwrap();
        assert_eq!(callback.kind, Kind::Inbound);
        assert_eq!(callback.body.as_deref(), Some(""));
        assert_eq!(callback.media_urls, ["a", "b"]);
    }

    #[test]
    fn takes_unknown_statuses_and_older_names() {
        let body = format!("{ACCOUNT}&SmsSid=MM0123456789abcdef0123456789abcdef&SmsStatus=beamed");
        let form = Form::parse(body.as_bytes());
        assert_eq!(Callback::parse(&form).unwrap().status, "beamed");
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(error(MESSAGE), Malformed::Missing("AccountSid"));
        assert_eq!(error(ACCOUNT), Malformed::Missing("MessageSid"));
        assert_eq!(
            error(&format!("{ACCOUNT}&{MESSAGE}")),
            Malformed::Missing("MessageStatus")
        );
        assert_eq!(
            error(&format!("{ACCOUNT}&MessageSid=SM1&SmsStatus=sent")),
            Malformed::OutOfBounds("MessageSid")
        );
        let start = format!("{ACCOUNT}&{MESSAGE}&MessageStatus=");
        assert_eq!(
            error(&format!("{start}{}", "x".repeat(65))),
            Malformed::OutOfBounds("MessageStatus")
        );
        assert_eq!(
            error(&format!("{start}a%00")),
            Malformed::OutOfBounds("MessageStatus")
        );
        for code in ["-1", "%2B1", "1e3", "2147483648", "x"] {
            assert_eq!(
                error(&format!("{start}failed&ErrorCode={code}")),
                Malformed::OutOfBounds("ErrorCode")
            );
        }
    }

    #[test]
    fn json_must_be_flat() {
        let form = form_of_json(br#"{"a":"x","b":1,"c":null,"d":true}"#).unwrap();
        assert_eq!(form.first("b"), Some("1"));
        for body in ["[]", "{\"a\":[]}", "{", "1"] {
            assert_eq!(form_of_json(body.as_bytes()), Err(Malformed::NotFlat));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Callback::parse(&Form::parse(&body));
            let _ = form_of_json(&body);
        }
    }
}
