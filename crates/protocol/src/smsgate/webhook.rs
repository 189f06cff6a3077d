//! Webhooks, which the phones themselves call: who signed one, and what it tells.
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
use crate::json::{number, short_text, text};

/// A registration: what phones call when something happens. One with the id of another replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration<'a> {
    /// Our id of it, at most 36 characters.
    pub id: &'a str,
    /// What is called.
    pub url: &'a str,
    /// On what, such as `sms:failed`.
    pub event: &'a str,
    /// The only device that calls it; every one of the user without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<&'a str>,
}

impl Registration<'_> {
    /// The body of the request, JSON.
    pub fn encode(&self) -> String {
        // Texts always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Why a webhook is not vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// A header is missing or cannot be what it should be.
    #[error("signature or timestamp is missing or malformed")]
    Malformed,
    /// None of the keys made the signature.
    #[error("no key made this signature")]
    Mismatch,
    /// The signature is good, but of another time.
    #[error("timestamp is {0} seconds off")]
    Stale(i64),
}

/// Which of `keys` made `signature`, the header X-Signature, over body and `timestamp`, the header
/// X-Timestamp in seconds since 1970.
///
/// Each device has a key of its own. The phone signs anew for each of its retries, so only its clock
/// limits how narrow `tolerance` may be; both are in seconds, as is `now`. Takes the same time whichever
/// key fits and however close a guess was. An empty key vouches for nothing.
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

/// Whether this has the form of a signature, whoever made it.
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

/// The device that a body names. It chooses the key, and counts for nothing before that key has verified.
pub fn device_id(body: &[u8]) -> Option<String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => short_text(&object, "deviceId", MOST_ID),
        _ => None,
    }
}

/// One thing that a phone tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id, the same at each retry; those of a batch have `/` and their number behind it.
    pub event_id: String,
    /// The phone.
    pub device_id: Option<String>,
    /// The registration that asked for it.
    pub webhook_id: Option<String>,
    /// Its name, such as `sms:failed`, known or not.
    pub name: String,
    /// What it is about.
    pub kind: Kind,
    /// Our id of the message; of an incoming SMS a hash over sender, time, SIM card and text, of an MMS the
    /// phone's own number of it.
    pub message_id: Option<String>,
    /// Why it failed, at most 500 characters.
    pub reason: Option<String>,
    /// When it happened by the phone's clock, in milliseconds since 1970.
    pub at: Option<i64>,
    /// Sender, if the phone may know it.
    pub sender: Option<String>,
    /// Recipient, if the phone may know it.
    pub recipient: Option<String>,
    /// Slot of the SIM card.
    pub sim_number: Option<i32>,
    /// Text of an incoming message.
    pub text: Option<String>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message of ours is in this state now.
    State(&'static str),
    /// A message came in.
    Received,
    /// The phone tells of itself, or something that is not known here.
    Other,
}

/// Why a body is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It is no JSON object.
    #[error("body is not a JSON object")]
    NotAnObject,
    /// The event's id or name is missing or too long.
    #[error("event has no id or no name")]
    Nameless,
    /// A message's state without the message.
    #[error("event about a message names none")]
    NoMessage,
}

impl Event {
    /// Reads a body: one event, or as many as a batch holds, at most 1,000.
    pub fn parse(body: &[u8]) -> Result<Vec<Self>, Malformed> {
        let value: Value = serde_json::from_slice(body).map_err(|_| Malformed::NotAnObject)?;
        let object = value.as_object().ok_or(Malformed::NotAnObject)?;
        let id = text(object, "id").filter(|id| (1..=MOST_ID).contains(&id.len()));
        let name = text(object, "event").filter(|name| (1..=MOST_ID).contains(&name.len()));
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
        let message_id = short_text(payload, "messageId", MOST_ID).filter(|id| !id.is_empty());
        if matches!(kind, Kind::State(_)) && message_id.is_none() {
            return Err(Malformed::NoMessage);
        }
        let address = |name| short_text(payload, name, 256);
        // Older phones know only one number: of whom a message came, or to whom it went.
        let number_of_other = || address("phoneNumber");
        let is_received = kind == Kind::Received;
        Ok(Self {
            event_id,
            device_id: short_text(object, "deviceId", MOST_ID),
            webhook_id: short_text(object, "webhookId", MOST_ID),
            name: name.to_owned(),
            kind,
            message_id,
            reason: short_text(payload, "reason", 500),
            at: TIMES
                .into_iter()
                .find_map(|name| date::parse_iso(payload.get(name)?.as_str()?)),
            sender: address("sender").or_else(|| number_of_other().filter(|_| is_received)),
            recipient: address("recipient").or_else(|| number_of_other().filter(|_| !is_received)),
            sim_number: number(payload, "simNumber"),
            text: incoming_text(payload).filter(|_| is_received),
        })
    }

    /// The key of an incoming message: the same however often a phone reports it, under whatever id of an event,
    /// alone or in a batch. The event's own id where the phone says too little.
    ///
    /// An export of the phone's inbox has another `messageId` for the same message, so that counts only where
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
    // HMAC takes a key of any length, so an error cannot be.
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

const MOST_ID: usize = 64;
const TIMES: [&str; 5] = [
    "sentAt",
    "deliveredAt",
    "failedAt",
    "cancelledAt",
    "receivedAt",
];
