//! A message in the gateway, and its state in the API.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::outcome::{Course, Outcome};
use super::submission::{Content, Plain, Submission};
use crate::clock::Moment;

/// One message, on its way to one or more recipients through one device.
#[derive(Debug, Clone)]
pub(crate) struct Sms {
    /// Place in the order of arrival.
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) device_id: String,
    pub(crate) content: Content,
    /// The content as the phone reads it, which differs if the message is encrypted.
    pub(crate) plain: Plain,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) is_encrypted: bool,
    pub(crate) sim: u64,
    pub(crate) has_report: bool,
    pub(crate) priority: i64,
    pub(crate) created: Moment,
    pub(crate) valid_until: Option<Moment>,
    /// When the phone fetches it, if ever.
    pub(crate) due: Option<Moment>,
    pub(crate) states: Vec<(State, Moment)>,
}

/// One recipient of a message.
#[derive(Debug, Clone)]
pub(crate) struct Recipient {
    pub(crate) number: String,
    pub(crate) state: State,
    pub(crate) error: Option<&'static str>,
    pub(crate) course: Course,
}

/// SMSGate's processing states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Cancelling,
    Cancelled,
    Processed,
    Sent,
    Delivered,
    Failed,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Cancelling => "Cancelling",
            Self::Cancelled => "Cancelled",
            Self::Processed => "Processed",
            Self::Sent => "Sent",
            Self::Delivered => "Delivered",
            Self::Failed => "Failed",
        }
    }
}

impl Sms {
    /// A message that `device_id` is to send, received at `now`.
    pub(crate) fn new(
        id: String,
        device_id: &str,
        (submission, plain): (Submission, Plain),
        outcome: Outcome,
        now: Moment,
    ) -> Self {
        let course = |index, number: &str| match index {
            0 => outcome.course,
            _ => Outcome::of(number).unwrap_or(Outcome::DELIVERED).course,
        };
        let numbers = submission.numbers.into_iter().zip(&plain.numbers);
        let recipients = numbers
            .enumerate()
            .map(|(index, (number, read))| Recipient {
                course: course(index, read),
                number,
                state: State::Pending,
                error: None,
            });
        Self {
            number: 0,
            id,
            device_id: device_id.to_owned(),
            content: submission.content,
            recipients: recipients.collect(),
            plain,
            is_encrypted: submission.is_encrypted,
            sim: submission.sim.unwrap_or(1),
            has_report: submission.has_report,
            priority: submission.priority,
            created: now,
            valid_until: submission.valid_until,
            due: None,
            states: vec![(State::Pending, now)],
        }
    }

    /// The state of the message from those of its recipients, as the app aggregates them.
    pub(crate) fn state(&self) -> State {
        let any = |state| self.recipients.iter().any(|r| r.state == state);
        let all = |state| self.recipients.iter().all(|r| r.state == state);
        let first = [
            State::Pending,
            State::Cancelling,
            State::Cancelled,
            State::Processed,
        ];
        match first.into_iter().find(|state| any(*state)) {
            Some(state) => state,
            None if all(State::Failed) => State::Failed,
            None if all(State::Delivered) => State::Delivered,
            None => State::Sent,
        }
    }

    /// Sets the state of one recipient at `now` and notes when the whole changed.
    pub(crate) fn set(
        &mut self,
        recipient: usize,
        state: State,
        error: Option<&'static str>,
        now: Moment,
    ) {
        if let Some(recipient) = self.recipients.get_mut(recipient) {
            recipient.state = state;
            recipient.error = error;
        }
        let whole = self.state();
        if self.states.last().is_none_or(|(last, _)| *last != whole) {
            self.states.push((whole, now));
        }
    }

    /// Sets the state of all recipients.
    pub(crate) fn set_all(&mut self, state: State, error: Option<&'static str>, now: Moment) {
        for recipient in 0..self.recipients.len() {
            self.set(recipient, state, error, now);
        }
    }

    pub(crate) fn is_expired(&self, now: Moment) -> bool {
        self.valid_until.is_some_and(|until| until < now)
    }

    /// The state as JSON. Some time after the message left Pending, the server only has hashes.
    pub(crate) fn to_json(&self, has_content: bool, is_hashed: bool) -> Value {
        let recipients: Vec<Value> = self
            .recipients
            .iter()
            .map(|r| r.to_json(is_hashed))
            .collect();
        let states: Map<String, Value> = self
            .states
            .iter()
            .map(|(state, at)| (state.as_str().to_owned(), at.rfc3339().into()))
            .collect();
        let mut json = json!({
            "id": self.id,
            "deviceId": self.device_id,
            "state": self.state().as_str(),
            "isHashed": is_hashed,
            "isEncrypted": self.is_encrypted,
            "recipients": recipients,
            "states": states,
        });
        if has_content && !is_hashed {
            match &self.content {
                Content::Text(text) => json["textMessage"] = json!({ "text": text }),
                Content::Data { data, port } => {
                    json["dataMessage"] = json!({ "data": data, "port": port });
                }
            }
        }
        json
    }

    /// When the message left Pending.
    pub(crate) fn left_pending(&self) -> Option<Moment> {
        self.states
            .iter()
            .find(|(state, _)| *state != State::Pending)
            .map(|(_, at)| *at)
    }
}

impl Recipient {
    fn to_json(&self, is_hashed: bool) -> Value {
        let number = match is_hashed {
            true => hex(&Sha256::digest(&self.number))
                .chars()
                .take(16)
                .collect(),
            false => self.number.clone(),
        };
        let mut json = json!({ "phoneNumber": number, "state": self.state.as_str() });
        if let Some(error) = self.error {
            json["error"] = error.into();
        }
        json
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sms(states: &[State]) -> Sms {
        let recipient = |state: &State| Recipient {
            number: "+12025550123".to_owned(),
            state: *state,
            error: None,
            course: Course::Delivered,
        };
        Sms {
            number: 1,
            id: "x".to_owned(),
            device_id: "d".to_owned(),
            content: Content::Text("x".to_owned()),
            plain: Plain {
                content: Content::Text("x".to_owned()),
                numbers: vec!["+12025550123".to_owned()],
            },
            recipients: states.iter().map(recipient).collect(),
            is_encrypted: false,
            sim: 1,
            has_report: true,
            priority: 0,
            created: Moment(0),
            valid_until: None,
            due: None,
            states: vec![(State::Pending, Moment(0))],
        }
    }

    #[test]
    fn the_whole_is_as_far_as_its_last_recipient() {
        use State::{Delivered, Failed, Pending, Processed, Sent};
        assert_eq!(sms(&[Delivered, Pending]).state(), Pending);
        assert_eq!(sms(&[Delivered, Processed]).state(), Processed);
        assert_eq!(sms(&[Failed, Failed]).state(), Failed);
        assert_eq!(sms(&[Delivered, Delivered]).state(), Delivered);
        assert_eq!(sms(&[Delivered, Failed]).state(), Sent);
        assert_eq!(sms(&[Sent]).state(), Sent);
    }

    #[test]
    fn hashed_messages_show_no_number_and_no_text() {
        let json = sms(&[State::Sent]).to_json(true, true);
        assert_eq!(json["recipients"][0]["phoneNumber"], "d5ab8b77e69a81df");
        assert!(json.get("textMessage").is_none());
    }
}
