//! The lifecycle of a message at a phone: its states, and the events that report them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Sent;
use super::message::{Sms, State};
use super::outcome::Course;
use super::phone::Phone;
use super::submission::Content;
use super::webhook::{self, Event};
use crate::clock::Moment;
use crate::message::segments;
use crate::sandbox::Sandbox;

/// Sends a message that the phone fetched, or reports why not.
pub(crate) fn begin(sandbox: &Arc<Sandbox>, phone: &Arc<Phone>, sms: &Sms) {
    for (index, recipient) in sms.recipients.iter().enumerate() {
        match sms.state() {
            State::Cancelled => report(sandbox, phone, sms, index, State::Cancelled, None),
            State::Failed => report(sandbox, phone, sms, index, State::Failed, Some(EXPIRED)),
            _ => {
                let steps = steps(recipient.course, sms.has_report);
                tokio::spawn(live(
                    sandbox.clone(),
                    phone.clone(),
                    sms.number,
                    index,
                    steps,
                ));
            }
        }
    }
}

/// One step of a message to one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    is_late: bool,
    /// The state that the phone reports to the server.
    state: Option<State>,
    /// The event, and how often it is reported; 0 means as often as there are parts.
    event: Option<(State, usize)>,
    reason: Option<&'static str>,
}

fn steps(course: Course, has_report: bool) -> Vec<Step> {
    let said = |state, times| Step {
        is_late: false,
        state: Some(state),
        event: Some((state, times)),
        reason: None,
    };
    let failed = |reason| Step {
        reason: Some(reason),
        ..said(State::Failed, 1)
    };
    let (sent, delivered) = (said(State::Sent, 1), said(State::Delivered, 0));
    let mut steps = match course {
        Course::Processed => Vec::new(),
        Course::Sent => vec![sent],
        Course::Failed => vec![failed("Send result: RESULT_ERROR_GENERIC_FAILURE")],
        Course::Unreadable => vec![failed("Can't send message: it cannot be decrypted")],
        Course::SentFailed => vec![sent, failed("Delivery result from SC +15005550000: 64")],
        Course::DeliveredFailed => {
            let late = Step {
                is_late: true,
                ..failed("Delivery result from SC +15005550000: 70")
            };
            vec![sent, delivered, late]
        }
        Course::Parts => vec![sent, said(State::Delivered, 3)],
        Course::Doubled => vec![said(State::Sent, 2), said(State::Delivered, 2)],
        Course::Lost => {
            let silent = |step| Step {
                event: None,
                ..step
            };
            vec![silent(sent), silent(delivered)]
        }
        Course::Disorder => vec![
            Step {
                event: None,
                ..sent
            },
            delivered,
            Step {
                state: None,
                ..sent
            },
        ],
        Course::Delivered | Course::Pending | Course::Expired | Course::Late => {
            vec![sent, delivered]
        }
    };
    if !has_report {
        steps.retain(|step| {
            step.event
                .is_none_or(|(state, _)| state != State::Delivered)
        });
    }
    steps
}

async fn live(
    sandbox: Arc<Sandbox>,
    phone: Arc<Phone>,
    number: u64,
    index: usize,
    steps: Vec<Step>,
) {
    let Some(gateway) = &sandbox.gateway else {
        return;
    };
    for step in steps {
        let wait = if step.is_late {
            sandbox.late_delay
        } else {
            sandbox.callback_delay
        };
        tokio::time::sleep(wait).await;
        let now = Moment::now();
        let sms = {
            let mut state = gateway.state();
            let Some(sms) = state.messages.get_mut(&number) else {
                return;
            };
            if let Some(reached) = step.state {
                sms.set(index, reached, step.reason, now);
            }
            let sms = sms.clone();
            if step.state == Some(State::Sent) {
                state.sent.push(sms.sent_to(index, now));
            }
            sms
        };
        let Some((state, times)) = step.event else {
            continue;
        };
        let times = if times == 0 { sms.parts() } else { times };
        for _ in 0..times {
            report(&sandbox, &phone, &sms, index, state, step.reason);
        }
    }
}

fn report(
    sandbox: &Arc<Sandbox>,
    phone: &Arc<Phone>,
    sms: &Sms,
    index: usize,
    state: State,
    reason: Option<&str>,
) {
    let number = sms
        .recipients
        .get(index)
        .map_or("", |recipient| recipient.number.as_str());
    let mut payload = json!({
        "messageId": sms.id,
        "sender": phone.number,
        "recipient": number,
        "phoneNumber": number,
        "simNumber": sms.sim,
    });
    let name = match state {
        State::Sent => {
            payload["partsCount"] = sms.parts().into();
            payload["sentAt"] = phone.time().into();
            "sms:sent"
        }
        State::Delivered => {
            payload["deliveredAt"] = phone.time().into();
            "sms:delivered"
        }
        State::Cancelled => {
            payload["cancelledAt"] = phone.time().into();
            "sms:cancelled"
        }
        _ => {
            payload["failedAt"] = phone.time().into();
            payload["reason"] = reason.map_or(Value::Null, Value::from);
            "sms:failed"
        }
    };
    webhook::emit(
        sandbox,
        phone,
        &Event {
            name,
            id: sms.id.clone(),
            payload,
        },
    );
}

impl Sms {
    fn parts(&self) -> usize {
        match &self.plain.content {
            Content::Text(text) => segments("sms", text),
            Content::Data { .. } => 1,
        }
    }

    fn sent_to(&self, index: usize, at: Moment) -> Sent {
        let text = match &self.plain.content {
            Content::Text(text) => text.clone(),
            Content::Data { data, .. } => data.clone(),
        };
        Sent {
            at,
            device_id: self.device_id.clone(),
            id: self.id.clone(),
            to: self.plain.numbers.get(index).cloned().unwrap_or_default(),
            text,
            parts: self.parts(),
        }
    }
}

/// When a phone fetches a message with this course.
pub(crate) fn due(
    course: Course,
    sms: &Sms,
    scheduled: Option<Moment>,
    late: Duration,
) -> Option<Moment> {
    let from = scheduled.unwrap_or(sms.created);
    match course {
        Course::Pending => None,
        Course::Late => Some(Moment(from.0 + late.as_micros() as i64)),
        // Without a time to live, the message never expires, so the phone never fetches it.
        Course::Expired => sms.valid_until.map(|until| Moment(until.0 + 1000)),
        _ => Some(from),
    }
}

/// The app's text: <https://docs.sms-gate.app/features/status-tracking/>
pub(crate) const EXPIRED: &str = "TTL expired";

#[cfg(test)]
mod tests {
    use super::*;

    fn events(course: Course) -> Vec<(State, usize)> {
        steps(course, true)
            .iter()
            .filter_map(|step| step.event)
            .collect()
    }

    #[test]
    fn delivery_is_reported_for_each_part() {
        assert_eq!(
            events(Course::Delivered),
            [(State::Sent, 1), (State::Delivered, 0)]
        );
        assert_eq!(
            events(Course::Parts),
            [(State::Sent, 1), (State::Delivered, 3)]
        );
    }

    #[test]
    fn without_a_report_nothing_is_delivered() {
        let steps = steps(Course::Delivered, false);
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].state, Some(State::Sent));
    }

    #[test]
    fn disorder_and_silence() {
        assert_eq!(
            events(Course::Disorder),
            [(State::Delivered, 0), (State::Sent, 1)]
        );
        assert!(events(Course::Lost).is_empty());
        assert!(events(Course::Processed).is_empty());
        let states: Vec<_> = steps(Course::Lost, true)
            .iter()
            .map(|step| step.state)
            .collect();
        assert_eq!(states, [Some(State::Sent), Some(State::Delivered)]);
    }
}
