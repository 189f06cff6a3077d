//! Requests with events: of Event Streams, and of the debugger's webhook. Events of messages are recorded like callbacks;
//! all others, and those that cannot be recorded, are stored as they are.

use pgrx::prelude::*;
use protocol::callback_url::attempt;
use protocol::event_stream::{Event, UNREADABLE};

use crate::receive::record;
use crate::receive::verify::{Verified, VerifiedStream};
use crate::record::{Recorded, Unrecorded};
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

/// Records the events of verified requests; `received_at` is empty for now, or has one element a request.
pub(crate) fn record_streams(
    streams: &[VerifiedStream<'_>],
    received_at: &[Option<TimestampWithTimeZone>],
) -> Result<Vec<Outcome>, Unrecorded> {
    let mut outcomes = vec![Outcome::default(); streams.len()];
    let mut reports: Vec<Verified<'_>> = Vec::new();
    let mut reported: Vec<(usize, &Event)> = Vec::new();
    let mut stored: Vec<(usize, StoredEvent<'_>)> = Vec::new();
    for (place, stream) in streams.iter().enumerate() {
        outcomes[place].all = count(stream.events.len());
        for event in &stream.events {
            match report(stream, event) {
                Ok(Some(report)) => {
                    reports.push(report);
                    reported.push((place, event));
                }
                Ok(None) => stored.push((place, kept(stream, event, None))),
                Err(problem) => stored.push((place, kept(stream, event, Some(problem)))),
            }
        }
    }
    let times: Vec<_> = match received_at.is_empty() {
        true => Vec::new(),
        false => reported
            .iter()
            .map(|(place, _)| received_at[*place])
            .collect(),
    };
    for ((place, event), recorded) in reported.into_iter().zip(record(&reports, &times)?) {
        match problem(&recorded) {
            Some(problem) => stored.push((place, kept(&streams[place], event, Some(problem)))),
            None => outcomes[place].new += i32::from(recorded.is_new),
        }
    }
    // Rows are locked in one order everywhere.
    stored.sort_by(|(_, one), (_, other)| one.event_sid.cmp(&other.event_sid));
    let (places, events): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
    for place in statement::store_events(&events)? {
        outcomes[places[place]].new += 1;
    }
    Ok(outcomes)
}

/// The event as a callback; none if it is not about a message's state. The error says why it cannot be recorded.
fn report<'a>(
    stream: &'a VerifiedStream<'_>,
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
        attempt: form.filled("StatusCallBackUrl").and_then(attempt),
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
    stream: &'a VerifiedStream<'_>,
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
