//! The state of a message as the gateway tells it.

use serde_json::{Map, Value};

use crate::date;
use crate::json::{short_text, text};

/// A message's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageState {
    /// Our id of the message.
    pub id: String,
    /// The device that sends it.
    pub device_id: Option<String>,
    /// The state of the whole, known or not.
    pub state: String,
    /// Why it failed, in the phone's or the carrier's words, at most 500 characters.
    pub reason: Option<String>,
    /// The states of the recipients.
    pub recipients: Vec<String>,
    /// When each state was entered, by the phone's clock, in milliseconds since 1970.
    pub states: Vec<(String, i64)>,
    /// Whether numbers and text have been replaced by hashes, which happens soon.
    pub is_hashed: bool,
}

impl MessageState {
    /// Reads a message's JSON; `None` if it has no id, or no state of its own or of recipients.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let object = value.as_object()?;
        let recipients: Vec<&Map<String, Value>> = object
            .get("recipients")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_object).collect())
            .unwrap_or_default();
        let states: Vec<String> = recipients
            .iter()
            .filter_map(|recipient| state(recipient))
            .collect();
        let state = state(object)
            .or_else(|| aggregate(states.iter().map(String::as_str)).map(str::to_owned))?;
        Some(Self {
            id: text(object, "id").filter(|id| (1..=64).contains(&id.len()))?,
            device_id: short_text(object, "deviceId", 64),
            state,
            reason: recipients
                .iter()
                .find_map(|recipient| short_text(recipient, "error", 500)),
            recipients: states,
            states: times(object),
            is_hashed: object.get("isHashed") == Some(&Value::Bool(true)),
        })
    }

    /// When the present state was entered, in milliseconds since 1970.
    pub fn entered_at(&self) -> Option<i64> {
        self.states
            .iter()
            .find(|(name, _)| *name == self.state)
            .map(|(_, at)| *at)
    }
}

/// The state of a whole from those of its recipients, as the phone's own rule has it: what is still to
/// be done outweighs what is done, and a failure counts only where nothing was sent. Unknown states
/// are left out; `None` if there is nothing else.
pub fn aggregate<'a>(states: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let known: Vec<&'static str> = states
        .into_iter()
        .filter_map(|state| STATES.into_iter().find(|known| *known == state))
        .collect();
    let all = |state| known.iter().all(|known| *known == state);
    if known.is_empty() {
        return None;
    }
    let unfinished = ["Pending", "Cancelling", "Cancelled", "Processed"];
    if let Some(state) = unfinished.into_iter().find(|state| known.contains(state)) {
        return Some(state);
    }
    Some(if all("Failed") {
        "Failed"
    } else if all("Delivered") {
        "Delivered"
    } else {
        "Sent"
    })
}

fn state(object: &Map<String, Value>) -> Option<String> {
    text(object, "state").filter(|text| (1..=64).contains(&text.len()))
}

fn times(object: &Map<String, Value>) -> Vec<(String, i64)> {
    let Some(Value::Object(states)) = object.get("states") else {
        return Vec::new();
    };
    states
        .iter()
        .take(STATES.len() * 2)
        .filter_map(|(name, at)| Some((name.clone(), date::parse_iso(at.as_str()?)?)))
        .collect()
}

/// <https://docs.sms-gate.app/features/status-tracking/>
const STATES: [&str; 7] = [
    "Pending",
    "Cancelling",
    "Cancelled",
    "Processed",
    "Sent",
    "Delivered",
    "Failed",
];
