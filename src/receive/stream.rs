//! Requests with events: of Event Streams, and of the debugger's webhook. Events of messages are recorded like callbacks;
//! all others, and those that cannot be recorded, are stored as they are.

use std::collections::HashSet;

use pgrx::pg_sys::panic::ErrorReport;
use protocol::event_stream::{Event, UNREADABLE};

use crate::receive::verify::{Verified, VerifiedStream};
use crate::record::Recorded;
use crate::statement::{self, StoredEvent};

/// How many events there were in requests.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Its events.
    pub(crate) all: i32,
    /// Those of them that had not come before.
    pub(crate) new: i32,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        self.new = self.new.saturating_add(other.new);
    }
}

/// The events of verified requests, divided into those that `record` takes and those that are stored as they are.
pub(crate) struct Sorted<'a> {
    streams: &'a [VerifiedStream<'a>],
    /// For each report the place of its request, and the event.
    reported: Vec<(usize, &'a Event)>,
    stored: Vec<(usize, StoredEvent<'a>)>,
}

impl<'a> Sorted<'a> {
    /// Adds the events of messages to `reports`, which are recorded in one go: rows of messages are locked in one order.
    pub(crate) fn new(streams: &'a [VerifiedStream<'a>], reports: &mut Vec<Verified<'a>>) -> Self {
        let mut sorted = Self {
            streams,
            reported: Vec::new(),
            stored: Vec::new(),
        };
        for (place, stream) in streams.iter().enumerate() {
            for event in &stream.events {
                match report(stream, event) {
                    Ok(Some(report)) => {
                        reports.push(report);
                        sorted.reported.push((place, event));
                    }
                    Ok(None) => sorted.stored.push((place, kept(stream, event, None))),
                    Err(problem) => {
                        (sorted.stored).push((place, kept(stream, event, Some(problem))))
                    }
                }
            }
        }
        sorted
    }

    /// Stores what was not recorded; `recorded` are the results of the reports. Returns what became of each request.
    pub(crate) fn finish(self, recorded: &[Recorded]) -> Result<Vec<Outcome>, ErrorReport> {
        let Self {
            streams,
            reported,
            mut stored,
        } = self;
        let counts = streams.iter().map(|stream| count(stream.events.len()));
        let mut outcomes: Vec<_> = counts.map(|all| Outcome { all, new: 0 }).collect();
        let mut seen = HashSet::new();
        for ((place, event), recorded) in reported.into_iter().zip(recorded) {
            match problem(recorded) {
                Some(problem) => stored.push((place, kept(&streams[place], event, Some(problem)))),
                None => {
                    let is_new = recorded.is_new && seen.insert(recorded.event_id);
                    outcomes[place].new += i32::from(is_new);
                }
            }
        }
        // Here too.
        stored.sort_by(|(_, one), (_, other)| one.event_sid.cmp(&other.event_sid));
        let (places, events): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
        for place in statement::store_events(&events)? {
            outcomes[places[place]].new += 1;
        }
        Ok(outcomes)
    }
}

/// The event as a callback; none if it is not about a message's state. The error says why it cannot be recorded.
fn report<'a>(
    stream: &'a VerifiedStream<'a>,
    event: &'a Event,
) -> Result<Option<Verified<'a>>, String> {
    if event.kind == UNREADABLE {
        return Err("it is no event".to_owned());
    }
    let Some((callback, form)) = event.callback().zip(event.parameters()) else {
        let is_other = (event.account_sid.as_deref()).is_some_and(|sid| sid != stream.account_sid);
        return match is_other {
            true => Err(OTHER_ACCOUNT.to_owned()),
            false => Ok(None),
        };
    };
    let callback = callback.map_err(|malformed| malformed.to_string())?;
    if callback.account_sid != stream.account_sid {
        return Err(OTHER_ACCOUNT.to_owned());
    }
    Ok(Some(Verified {
        arrival: stream.arrival,
        callback,
        form,
        attempt: event.attempt().map(str::to_owned),
        key_id: stream.key_id,
        public_url: stream.public_url,
        source: "stream",
        event_time: event.at,
    }))
}

/// Why an event was not recorded, if it was not.
fn problem(recorded: &Recorded) -> Option<String> {
    match (&recorded.dropped_by, recorded.message_id) {
        _ if recorded.is_purged => None,
        (Some(reason), _) => Some(reason.clone()),
        (None, None) => Some("message belongs to another account".to_owned()),
        (None, Some(_)) => None,
    }
}

fn kept<'a>(
    stream: &'a VerifiedStream<'a>,
    event: &'a Event,
    problem: Option<String>,
) -> StoredEvent<'a> {
    StoredEvent {
        account_sid: stream.account_sid,
        event_sid: event.id.as_deref(),
        kind: &event.kind,
        event_time: event.at,
        message_sid: event.message_sid.as_deref(),
        json: &event.json,
        alert: event.alert.as_ref().filter(|_| problem.is_none()),
        problem,
    }
}

fn count(events: usize) -> i32 {
    i32::try_from(events).unwrap_or(i32::MAX)
}

const OTHER_ACCOUNT: &str = "event belongs to another account than the key that signed it";
