//! SMSGate: Android phones that send SMS. The request that sends one, and what the gateway answers.
//!
//! Messages carry an id of ours, so sending one again to the same device is harmless: the gateway
//! answers that it has it. <https://docs.sms-gate.app/integration/api/>

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
    /// Our id of the message: 1 to 36 letters, digits, `-` and `_`.
    pub id: &'a str,
    /// The device to send with. Without one the gateway chooses, and chooses anew at a repeat, which
    /// may send the message twice.
    pub device_id: Option<&'a str>,
    /// Recipient: E.164 or a short code.
    pub to: &'a str,
    /// Text, 1 to 65,535 characters.
    pub text: &'a str,
    /// The slot of the SIM card, 1 to 3; the phone decides without.
    pub sim_number: Option<u8>,
    /// Messages of higher priority go first; from 100 on they pass the phone's limits and delays.
    pub priority: i8,
    /// How long the message may wait for its phone, at least 5 seconds. Always given, for a phone
    /// that comes back after days must not send what is stale.
    pub ttl: u32,
    /// Whether the carrier is asked for a delivery report.
    pub with_delivery_report: bool,
    /// Recipient and text once more, encrypted, to be sent in place of them.
    pub sealed: Option<Sealed<'a>>,
}

/// What only the phone can read, as [`encryption::encrypt`] made it.
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
    /// The recipient is no phone number.
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
    /// There is no such slot.
    #[error("SIM number {0} is out of range, 1 to 3 are allowed")]
    SimNumber(u8),
    /// The message would expire at once.
    #[error("time to live of {0} seconds is too short, 5 is the least")]
    Ttl(u32),
}

impl Draft<'_> {
    /// Checks the draft and encodes it: the JSON body of a POST to [`SEND_PATH`].
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
        if !(1..=LONGEST_TEXT).contains(&length) {
            return Err(DraftError::Length(length));
        }
        let sealed_length = self.sealed.map_or(0, |sealed| sealed.text.len());
        if sealed_length > LONGEST_TEXT {
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

/// What became of a request that sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The gateway has the message.
    Accepted {
        /// Whether it had it before. Its state must then be asked for.
        is_repeat: bool,
        /// Its state, as far as it was told.
        state: Option<Box<MessageState>>,
    },
    /// The gateway will never take this message.
    Refused {
        /// The gateway's words.
        message: Option<String>,
    },
    /// The gateway does not have the message; the same may be sent again.
    NotProcessed {
        /// Why not.
        cause: Cause,
        /// The gateway's words.
        message: Option<String>,
    },
    /// The gateway may have the message. The same may be sent again to the same device, but not in
    /// another way.
    Unknown {
        /// The gateway's words.
        message: Option<String>,
    },
}

/// Why a gateway did not take a message that it might take later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Too many messages are waiting or have failed.
    Busy,
    /// No device, or not this one, is registered or active.
    NoDevice,
    /// Address, credentials or scope are wrong: no message will go through until they are changed.
    Gateway,
}

/// Judges the answer to a request that sends a message.
///
/// A missing device is a 400 like a wrong number, and only its words tell. A 503 of the gateway's own
/// names its limits; any other comes from something in between, which may have passed it on.
pub fn classify(http_status: u16, body: &[u8]) -> Verdict {
    let message = error_message(body);
    let says = |words: &str| {
        message
            .as_deref()
            .is_some_and(|text| text.to_ascii_lowercase().contains(words))
    };
    let cause = match http_status {
        200..=299 | 409 => {
            return Verdict::Accepted {
                is_repeat: http_status == 409,
                state: MessageState::parse(body).map(Box::new),
            };
        }
        400 if NO_DEVICE.iter().any(|words| says(words)) => Cause::NoDevice,
        503 if says("queue limits exceeded") => Cause::Busy,
        408 | 425 | 429 => Cause::Busy,
        301 | 307 | 308 | 401 | 403 | 404 | 405 | 407 | 501 => Cause::Gateway,
        400..=499 if message.is_some() => return Verdict::Refused { message },
        400..=499 => Cause::Gateway,
        _ => return Verdict::Unknown { message },
    };
    Verdict::NotProcessed { cause, message }
}

/// What a question for a message's state was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The message as it is now.
    Found(Box<MessageState>),
    /// The gateway does not know the message. It remembers that for up to 5 minutes, so only a
    /// second such answer, later than that, proves anything.
    Missing,
    /// Nothing is known; try again later.
    Failed(Option<String>),
}

/// Judges the answer to a GET of [`message_path`].
pub fn classify_fetch(http_status: u16, body: &[u8]) -> Fetched {
    match http_status {
        200..=299 => MessageState::parse(body).map_or_else(
            || Fetched::Failed(None),
            |state| Fetched::Found(Box::new(state)),
        ),
        // Without the gateway's words it is a proxy that knows no such path.
        404 if error_message(body).is_some() => Fetched::Missing,
        _ => Fetched::Failed(error_message(body)),
    }
}

/// The path, below a gateway's base URL, of one message: GET asks, DELETE cancels.
pub fn message_path(id: &str) -> String {
    format!("{SEND_PATH}/{id}")
}

/// The words with which a gateway refuses something.
pub fn error_message(body: &[u8]) -> Option<String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => json::short_text(&object, "message", 500),
        _ => None,
    }
}

/// Ids go into paths, so nothing that a path gives a meaning.
fn is_id(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The path, below a gateway's base URL, that takes registrations of webhooks.
pub const WEBHOOKS_PATH: &str = "/webhooks";

/// The path, below a gateway's base URL, that takes messages.
pub const SEND_PATH: &str = "/messages";

const LONGEST_TEXT: usize = 65_535;

const NO_DEVICE: [&str; 3] = ["failed to select device", "no device", "device not found"];
