//! Webhooks, which the phones themselves call: their signature, and the events in them.
//!
//! <https://docs.sms-gate.app/features/webhooks/>

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use crate::date;
use crate::json::{short_text, text};

/// A registration of a webhook. It replaces an earlier one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration<'a> {
    /// The id that the caller chooses, at most 36 characters.
    pub id: &'a str,
    /// The URL to call.
    pub url: &'a str,
    /// The event to report, such as `sms:failed`.
    pub event: &'a str,
    /// The device that calls it; all devices of the user if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<&'a str>,
}

impl Registration<'_> {
    /// The JSON body of the request.
    pub fn encode(&self) -> String {
        // Texts always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Why the signature of a webhook is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// A header is missing or malformed.
    #[error("signature or timestamp is missing or malformed")]
    Malformed,
    /// The signature was not made with any of the keys.
    #[error("no key made this signature")]
    Mismatch,
    /// The signature is valid, but its time is off by this many seconds.
    #[error("timestamp is {0} seconds off")]
    Stale(i64),
}

/// Finds the index of the key that made `signature`, the header X-Signature, over body and `timestamp`, the header
/// X-Timestamp in seconds since 1970.
///
/// Each device has a key of its own. `now` is in seconds since 1970, `tolerance` in seconds. The phone signs each of its
/// retries anew, so `tolerance` only has to cover the error of its clock. The time this takes does not depend on which
/// key matches or how close a guess is. An empty key never matches.
///
/// # Errors
///
/// If a header is malformed, no key matches, or the time is off by more than `tolerance`.
pub fn verify(
    keys: &[&[u8]],
    body: &[u8],
    timestamp: &str,
    signature: &str,
    now: i64,
    tolerance: u32,
) -> Result<usize, SignatureError> {
    let is_time =
        (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
    let sent_at: i64 = timestamp
        .parse()
        .ok()
        .filter(|_| is_time)
        .ok_or(SignatureError::Malformed)?;
    let given = unhex(signature).ok_or(SignatureError::Malformed)?;
    let mut found = u64::MAX;
    for (index, key) in keys.iter().enumerate() {
        let is_match =
            digest(key, body, timestamp).ct_eq(&given) & Choice::from(u8::from(!key.is_empty()));
        found = u64::conditional_select(&found, &(index as u64), is_match);
    }
    let index = usize::try_from(found)
        .ok()
        .filter(|index| *index < keys.len())
        .ok_or(SignatureError::Mismatch)?;
    let skew = sent_at.saturating_sub(now);
    if skew.unsigned_abs() > u64::from(tolerance) {
        return Err(SignatureError::Stale(skew));
    }
    Ok(index)
}

/// Whether a text has the form of a signature.
pub fn is_signed(signature: &str) -> bool {
    unhex(signature).is_some()
}

/// The header X-Signature for a body sent at `timestamp`: lower-case hexadecimal HMAC-SHA256 over body
/// and timestamp, with nothing in between.
pub fn sign(key: &[u8], body: &[u8], timestamp: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(key, body, timestamp) {
        push_hex(&mut text, byte);
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    for half in [byte >> 4, byte & 15] {
        text.extend(char::from_digit(half.into(), 16));
    }
}

/// The device that a body names. It selects the key and must not be trusted before that key has verified the body.
pub fn device_id(body: &[u8]) -> Option<String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => short_text(&object, "deviceId", MAX_ID_BYTES),
        _ => None,
    }
}

/// An event that a phone reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id, the same at each retry; those of a batch have `/` and their number behind it.
    pub event_id: String,
    /// The phone.
    pub device_id: Option<String>,
    /// The event's name, such as `sms:failed`, known or not.
    pub name: String,
    /// The kind of event.
    pub kind: Kind,
    /// The id of the message. Of an incoming SMS it is a hash over sender, time, SIM card and text, of an MMS the
    /// phone's own number.
    pub message_id: Option<String>,
    /// Why the message failed, at most 500 characters.
    pub reason: Option<String>,
    /// The time of the event by the phone's clock, in milliseconds since 1970.
    pub at: Option<i64>,
    /// Sender, if the phone reports it.
    pub sender: Option<String>,
    /// Recipient, if the phone reports it.
    pub recipient: Option<String>,
    /// Text of an incoming message.
    pub text: Option<String>,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A sent message has this state now.
    State(&'static str),
    /// A message came in.
    Received,
    /// Any other event, such as one about the phone itself.
    Other,
}

/// Why a body is not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The body is not a JSON object.
    #[error("body is not a JSON object")]
    NotAnObject,
    /// The event's id or name is missing or too long.
    #[error("event has no id or no name")]
    Nameless,
    /// The event reports a message's state without the message's id.
    #[error("event about a message names none")]
    NoMessage,
}

impl Event {
    /// Parses a body: one event, or the events of a batch, at most 1,000.
    ///
    /// # Errors
    ///
    /// If the body is not a JSON object, or an event lacks its id, its name or its message.
    pub fn parse(body: &[u8]) -> Result<Vec<Self>, Malformed> {
        let value: Value = serde_json::from_slice(body).map_err(|_| Malformed::NotAnObject)?;
        let object = value.as_object().ok_or(Malformed::NotAnObject)?;
        let id = text(object, "id").filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        let name = text(object, "event").filter(|name| (1..=MAX_ID_BYTES).contains(&name.len()));
        let (Some(id), Some(name)) = (id, name) else {
            return Err(Malformed::Nameless);
        };
        let nothing = Map::new();
        let payload = object
            .get("payload")
            .and_then(Value::as_object)
            .unwrap_or(&nothing);
        match payload.get("messages") {
            Some(Value::Array(messages)) => messages
                .iter()
                .filter_map(Value::as_object)
                .take(1000)
                .enumerate()
                .map(|(number, message)| {
                    Self::read(object, message, format!("{id}/{number}"), &name)
                })
                .collect(),
            _ => Self::read(object, payload, id, &name).map(|event| vec![event]),
        }
    }

    fn read(
        object: &Map<String, Value>,
        payload: &Map<String, Value>,
        event_id: String,
        name: &str,
    ) -> Result<Self, Malformed> {
        let kind = kind(name);
        let message_id = short_text(payload, "messageId", MAX_ID_BYTES).filter(|id| !id.is_empty());
        if matches!(kind, Kind::State(_)) && message_id.is_none() {
            return Err(Malformed::NoMessage);
        }
        let address = |name| short_text(payload, name, 256);
        // Older versions of the app send only one number: the other party's.
        let number_of_other = || address("phoneNumber");
        let is_received = kind == Kind::Received;
        Ok(Self {
            event_id,
            device_id: short_text(object, "deviceId", MAX_ID_BYTES),
            name: name.to_owned(),
            kind,
            message_id,
            reason: short_text(payload, "reason", 500),
            at: TIMES
                .into_iter()
                .find_map(|name| date::parse_iso(payload.get(name)?.as_str()?)),
            sender: address("sender").or_else(|| number_of_other().filter(|_| is_received)),
            recipient: address("recipient").or_else(|| number_of_other().filter(|_| !is_received)),
            text: incoming_text(payload).filter(|_| is_received),
        })
    }

    /// The key of an incoming message. It is the same for each report of the message, whatever the event's id, alone or
    /// in a batch. It is the event's own id if the event lacks the fields to compute it.
    ///
    /// An export of the phone's inbox has another `messageId` for the same message, so `messageId` only counts if
    /// there is no text.
    pub fn incoming_id(&self) -> Cow<'_, str> {
        let content = self.text.as_ref().or(self.message_id.as_ref());
        let (Some(sender), Some(at), Some(content)) = (&self.sender, self.at, content) else {
            return Cow::Borrowed(&self.event_id);
        };
        let what = self.name.replace(":batch:", ":");
        let mut hash = Sha256::new();
        for field in [what.as_str(), sender, &at.to_string(), content] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        let mut id = String::with_capacity(32);
        for byte in &hash.finalize()[..16] {
            push_hex(&mut id, *byte);
        }
        Cow::Owned(id)
    }
}

/// The text of an incoming message: `message` of an SMS, `body` of an MMS, and what the documentation of the
/// app had before 2026.
fn incoming_text(payload: &Map<String, Value>) -> Option<String> {
    let nested = || text(payload.get("textMessage")?.as_object()?, "text");
    ["message", "body", "text"]
        .into_iter()
        .find_map(|name| text(payload, name))
        .or_else(nested)
}

fn kind(name: &str) -> Kind {
    match name {
        "sms:sent" => Kind::State("Sent"),
        "sms:delivered" => Kind::State("Delivered"),
        "sms:failed" => Kind::State("Failed"),
        "sms:cancelled" => Kind::State("Cancelled"),
        "sms:received"
        | "sms:data-received"
        | "mms:received"
        | "mms:downloaded"
        | "sms:batch:received"
        | "sms:batch:data-received"
        | "mms:batch:received"
        | "mms:batch:downloaded" => Kind::Received,
        _ => Kind::Other,
    }
}

fn digest(key: &[u8], body: &[u8], timestamp: &str) -> [u8; 32] {
    // HMAC accepts a key of any length, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(body);
    mac.update(timestamp.as_bytes());
    mac.finalize().into_bytes().into()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(bytes)
}

const MAX_ID_BYTES: usize = 64;
const TIMES: [&str; 5] = [
    "sentAt",
    "deliveredAt",
    "failedAt",
    "cancelledAt",
    "receivedAt",
];
