//! The state of a message in the gateway's responses.

use serde_json::{Map, Value};

use crate::json::{short_text, text};

/// A message's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageState {
    /// The device that sends it.
    pub device_id: Option<String>,
    /// The state of the message, known or not.
    pub state: String,
    /// Why it failed, as the phone or the carrier reports it, at most 500 characters.
    pub reason: Option<String>,
}

impl MessageState {
    /// Parses a message's JSON; `None` if it has no id, or neither a state nor recipients with a state.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let object = value.as_object()?;
        text(object, "id").filter(|id| (1..=64).contains(&id.len()))?;
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
            device_id: short_text(object, "deviceId", 64),
            state,
            reason: recipients
                .iter()
                .find_map(|recipient| short_text(recipient, "error", 500)),
        })
    }
}

/// The state of a message from those of its recipients, by the phone's own rule: unfinished states come first, and the
/// message failed only if nothing was sent. Unknown states are ignored; `None` if there are no others.
fn aggregate<'a>(states: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
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
