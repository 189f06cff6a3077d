//! One delivery to a sink, of an event or of a batch, with all its tries.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::event::Event;
use crate::delivery::{Failure, Received};
use crate::random::Generator;
use crate::record::{Attempt, Entry, Filter, is_or_any};
use crate::sandbox::lock;

/// A delivery and how it stands.
pub(crate) struct Delivery {
    pub(super) sink_sid: String,
    pub(super) account_sid: String,
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) is_batched: bool,
    pub(super) events: Vec<Event>,
    progress: Mutex<Progress>,
}

pub(super) struct Progress {
    pub(super) outcome: Outcome,
    pub(super) attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Delivered,
    /// The sink refused it for good.
    Discarded,
    /// It could not be delivered in time.
    GivenUp,
    /// A fault dropped it.
    Dropped,
    /// Its sink was deleted meanwhile.
    Deleted,
    /// The destination is not one that the sandbox calls; why.
    Refused(String),
}

impl Delivery {
    pub(super) fn new(
        (sink_sid, account_sid): (&str, &str),
        (method, url): (Method, &str),
        is_batched: bool,
        events: Vec<Event>,
    ) -> Self {
        Self {
            sink_sid: sink_sid.to_owned(),
            account_sid: account_sid.to_owned(),
            method,
            url: url.to_owned(),
            is_batched,
            events,
            progress: Mutex::new(Progress {
                outcome: Outcome::Pending,
                attempts: Vec::new(),
            }),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// An event, or an array of the events of a batch.
    pub(super) fn body(&self) -> String {
        let events: Vec<&str> = self.events.iter().map(|event| &*event.text).collect();
        match (self.is_batched, events.as_slice()) {
            (false, [event]) => (*event).to_owned(),
            _ => format!("[{}]", events.join(",")),
        }
    }
}

impl Entry for Delivery {
    fn is_wanted(&self, filter: &Filter) -> bool {
        let progress = self.progress();
        let at = progress.attempts.first().map(|attempt| attempt.at);
        let is_about = |event: &Event| {
            let is_id = [&event.id, &event.about, &self.sink_sid]
                .iter()
                .any(|id| is_or_any(&filter.id, Some(id)));
            is_or_any(&filter.to, Some(&event.to)) && is_id
        };
        self.events.iter().any(is_about)
            && filter
                .since
                .is_none_or(|since| at.is_some_and(|at| at >= since))
    }

    fn to_json(&self, number: u64) -> Value {
        let progress = self.progress();
        let attempts: Vec<Value> = progress.attempts.iter().map(Attempt::to_json).collect();
        let events: Vec<Value> = self
            .events
            .iter()
            .map(|event| serde_json::from_str(&event.text).unwrap_or_default())
            .collect();
        json!({
            "number": number,
            "sink": self.sink_sid,
            "url": self.url,
            "outcome": progress.outcome.as_str(),
            "refused": match &progress.outcome {
                Outcome::Refused(reason) => Some(reason),
                _ => None,
            },
            "events": events,
            "attempts": attempts,
            "answer": progress.attempts.last().and_then(|attempt| attempt.status),
        })
    }
}

impl Outcome {
    /// What an answer leads to; `Pending` if the delivery is tried again.
    /// <https://www.twilio.com/docs/events/event-delivery-and-duplication>
    pub(super) fn of(result: &Result<Received, Failure>) -> Self {
        match result.as_ref().map(|received| received.status) {
            Ok(200..=299) => Self::Delivered,
            Ok(429) => Self::Pending,
            Ok(400..=499) => Self::Discarded,
            Ok(_) | Err(_) => Self::Pending,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Discarded => "discarded",
            Self::GivenUp => "given up",
            Self::Dropped => "dropped",
            Self::Deleted => "deleted",
            Self::Refused(_) => "refused",
        }
    }
}

/// The pause after a number of tries: it doubles up to its limit, and its second half is random.
pub(super) fn pause(tries: u32, random: &mut Generator) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << tries.min(20));
    let half = longest.min(LONGEST_PAUSE) / 2;
    half + half.mul_f64(random.below(1000) as f64 / 1000.0)
}

const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_decide() {
        let answered = |status| {
            let received = Received {
                status,
                content_type: None,
                asks_for_user: false,
                body: "".into(),
            };
            Outcome::of(&Ok(received))
        };
        assert_eq!(answered(204), Outcome::Delivered);
        for status in [400, 403, 404, 422] {
            assert_eq!(answered(status), Outcome::Discarded, "{status}");
        }
        for status in [301, 429, 500, 503] {
            assert_eq!(answered(status), Outcome::Pending, "{status}");
        }
        let failure = Failure::Read("no answer in time".to_owned());
        assert_eq!(Outcome::of(&Err(failure)), Outcome::Pending);
    }

    #[test]
    fn pauses_grow_and_end_after_tens_of_tries() {
        let mut random = Generator::new(1);
        let pauses: Vec<Duration> = (0..60).map(|tries| pause(tries, &mut random)).collect();
        assert!((1.0..2.0).contains(&pauses[0].as_secs_f64()));
        assert!((2.0..4.0).contains(&pauses[1].as_secs_f64()));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        let four_hours: Duration = pauses.iter().take(45).sum();
        assert!(four_hours > Duration::from_secs(4 * 3600), "{four_hours:?}");
    }
}
