//! SMSGate: Android phones that send SMS. The request that sends a message, and the gateway's responses.
//!
//! Messages carry an id that the sender chooses, so sending one again to the same device is harmless: the gateway
//! responds that it has the message. <https://docs.sms-gate.app/integration/api/>

pub mod encryption;
pub mod state;
pub mod token;
pub mod webhook;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::address::{Address, Kind};
use crate::json;
use state::MessageState;

/// A message to be sent, before it is checked. It goes to one recipient, so that its state is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft<'a> {
    /// The id that the sender chooses: 1 to 36 letters, digits, `-` and `_`.
    pub id: &'a str,
    /// The device to send with. Without one the gateway chooses, and may choose another when the request is repeated,
    /// which sends the message twice.
    pub device_id: Option<&'a str>,
    /// Recipient: E.164 or a short code.
    pub to: &'a str,
    /// Text, 1 to 65,535 characters.
    pub text: &'a str,
    /// The slot of the SIM card, 1 to 3. Without one, the phone decides.
    pub sim_number: Option<u8>,
    /// Messages of higher priority are sent first; from 100 on, the phone's limits and delays do not apply.
    pub priority: i8,
    /// How long the message may wait for its phone, in seconds, at least 5. It is required, because a phone that comes
    /// back after days must not send stale messages.
    pub ttl: u32,
    /// Whether to ask the carrier for a delivery report.
    pub with_delivery_report: bool,
    /// Recipient and text in encrypted form, which are sent instead.
    pub sealed: Option<Sealed<'a>>,
}

/// Recipient and text encrypted by [`encryption::encrypt`], which only the phone can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The recipient.
    pub to: &'a str,
    /// The text.
    pub text: &'a str,
}

/// Why a draft cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The id is empty, too long or has other characters.
    #[error("id is not 1 to 36 letters, digits, hyphens and underscores")]
    Id,
    /// The device's id is empty or too long.
    #[error("device is not 1 to 21 letters, digits, hyphens and underscores")]
    Device,
    /// The recipient is not a phone number.
    #[error("recipient is not a phone number")]
    Recipient,
    /// The text is empty or too long.
    #[error("text has {0} characters, 1 to 65535 are allowed")]
    Length(usize),
    /// The text is too long once it is encrypted, which makes it a third longer.
    #[error("encrypted text has {0} characters, 65535 are allowed")]
    SealedLength(usize),
    /// The text holds U+0000.
    #[error("text holds a null character")]
    Null,
    /// The slot is out of range.
    #[error("SIM number {0} is out of range, 1 to 3 are allowed")]
    SimNumber(u8),
    /// The message would expire at once.
    #[error("time to live of {0} seconds is too short, 5 is the least")]
    Ttl(u32),
}

impl Draft<'_> {
    /// Checks the draft and encodes it: the JSON body of a POST to [`SEND_PATH`].
    ///
    /// # Errors
    ///
    /// The first rule that the draft breaks.
    pub fn encode(&self) -> Result<String, DraftError> {
        if !is_id(self.id, 36) {
            return Err(DraftError::Id);
        }
        if !self.device_id.is_none_or(|id| is_id(id, 21)) {
            return Err(DraftError::Device);
        }
        let is_phone = |address: &Address<'_>| {
            address.channel == "sms" && matches!(address.kind, Kind::E164 | Kind::ShortCode)
        };
        if !Address::parse(self.to).is_ok_and(|address| is_phone(&address)) {
            return Err(DraftError::Recipient);
        }
        let length = self.text.chars().count();
        if !(1..=MAX_TEXT).contains(&length) {
            return Err(DraftError::Length(length));
        }
        let sealed_length = self.sealed.map_or(0, |sealed| sealed.text.len());
        if sealed_length > MAX_TEXT {
            return Err(DraftError::SealedLength(sealed_length));
        }
        if self.text.contains('\0') {
            return Err(DraftError::Null);
        }
        if let Some(number) = self.sim_number.filter(|number| !(1..=3).contains(number)) {
            return Err(DraftError::SimNumber(number));
        }
        if self.ttl < 5 {
            return Err(DraftError::Ttl(self.ttl));
        }
        let (to, text) = self
            .sealed
            .map_or((self.to, self.text), |sealed| (sealed.to, sealed.text));
        let body = Body {
            id: self.id,
            device_id: self.device_id,
            text_message: Text { text },
            phone_numbers: [to],
            is_encrypted: self.sealed.is_some(),
            sim_number: self.sim_number,
            priority: self.priority,
            ttl: self.ttl,
            with_delivery_report: self.with_delivery_report,
        };
        // Text and numbers always serialize.
        Ok(serde_json::to_string(&body).unwrap_or_default())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    text_message: Text<'a>,
    phone_numbers: [&'a str; 1],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sim_number: Option<u8>,
    priority: i8,
    ttl: u32,
    with_delivery_report: bool,
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

/// The outcome of a request that sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The gateway has the message.
    Accepted {
        /// Its state, if the response has one.
        state: Option<Box<MessageState>>,
    },
    /// The gateway will never accept this message.
    Refused {
        /// The gateway's words.
        message: Option<String>,
    },
    /// The gateway does not have the message; the same request may be sent again.
    NotProcessed {
        /// The gateway's words.
        message: Option<String>,
    },
    /// The gateway may have the message. The same request may be sent again to the same device, but the message must
    /// not be sent in another way.
    Unknown {
        /// The gateway's words.
        message: Option<String>,
    },
}

/// Classifies the response to a request that sends a message.
///
/// A missing device gives 400 like a wrong number, and only the message tells them apart. A 503 of the gateway itself
/// names its limits; any other comes from a proxy, which may have passed the request on.
pub fn classify(http_status: u16, body: &[u8]) -> Verdict {
    let message = error_message(body);
    let says = |words: &str| {
        message
            .as_deref()
            .is_some_and(|text| text.to_ascii_lowercase().contains(words))
    };
    match http_status {
        // 409: the gateway has had the message before.
        200..=299 | 409 => Verdict::Accepted {
            state: MessageState::parse(body).map(Box::new),
        },
        400 if NO_DEVICE.iter().any(|words| says(words)) => Verdict::NotProcessed { message },
        503 if says("queue limits exceeded") => Verdict::NotProcessed { message },
        // Limits, and a wrong address, credentials or scope.
        301 | 307 | 308 | 401 | 403 | 404 | 405 | 407 | 408 | 425 | 429 | 501 => {
            Verdict::NotProcessed { message }
        }
        400..=499 if message.is_some() => Verdict::Refused { message },
        // The response comes from a proxy, which did not pass the request on.
        400..=499 => Verdict::NotProcessed { message },
        _ => Verdict::Unknown { message },
    }
}

/// The outcome of a request for a message's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The message as it is now.
    Found(Box<MessageState>),
    /// The gateway does not know the message. It caches this response for up to 5 minutes, so only a second one after
    /// that time proves it.
    Missing,
    /// The request failed; try again later.
    Failed(Option<String>),
}

/// Classifies the response to a GET of [`message_path`].
pub fn classify_fetch(http_status: u16, body: &[u8]) -> Fetched {
    match http_status {
        200..=299 => MessageState::parse(body).map_or_else(
            || Fetched::Failed(None),
            |state| Fetched::Found(Box::new(state)),
        ),
        // Without a message of the gateway, the response is that of a proxy.
        404 if error_message(body).is_some() => Fetched::Missing,
        _ => Fetched::Failed(error_message(body)),
    }
}

/// The path, below a gateway's base URL, of one message: GET fetches, DELETE cancels it.
pub fn message_path(id: &str) -> String {
    format!("{SEND_PATH}/{id}")
}

/// The message of a gateway's error response, at most 500 characters.
pub fn error_message(body: &[u8]) -> Option<String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => json::short_text(&object, "message", 500),
        _ => None,
    }
}

/// Ids are put into paths, so they must not have characters with a meaning there.
fn is_id(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The path, below a gateway's base URL, for registrations of webhooks.
pub const WEBHOOKS_PATH: &str = "/webhooks";

/// The path, below a gateway's base URL, for messages.
pub const SEND_PATH: &str = "/messages";

const MAX_TEXT: usize = 65_535;

const NO_DEVICE: [&str; 3] = ["failed to select device", "no device", "device not found"];
