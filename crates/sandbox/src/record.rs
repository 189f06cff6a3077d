//! Records of received requests and sent callbacks, for people and tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use protocol::form::Form;
use serde_json::{Map, Value, json};

use crate::clock::Moment;
use crate::delivery::{Failure, Received};

/// The newest entries, oldest first, numbered from 1.
pub(crate) struct Log<T> {
    entries: VecDeque<(u64, Arc<T>)>,
    next: u64,
    keep: usize,
}

/// An API request and its result.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) at: Moment,
    pub(crate) provider: &'static str,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: Body,
    /// The scheme only, because the rest is a secret.
    pub(crate) authorization: Option<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) to: Option<String>,
    pub(crate) outcome: String,
    /// None if the connection was closed or got no response.
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<u32>,
    pub(crate) is_accepted: bool,
    /// The message's identifier, if there is one.
    pub(crate) id: Option<String>,
}

/// A callback with all its tries.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) id: String,
    pub(crate) status: &'static str,
    pub(crate) to: Option<String>,
    pub(crate) url: String,
    pub(crate) body: Body,
    pub(crate) unknown_overrides: Vec<String>,
    /// Why it was not sent at all.
    pub(crate) refused: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
}

/// A body as it was sent, which takes a tenth of the memory of the parsed one.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Form(Box<[u8]>),
    Json(Box<[u8]>),
}

/// One try.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) at: Moment,
    took: i64,
    pub(crate) status: Option<u16>,
    failure: Option<String>,
}

/// A code and name of Twilio's debugger: <https://www.twilio.com/docs/api/errors>
pub(crate) type Problem = (u32, &'static str);

/// Selects entries.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) to: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) since: Option<Moment>,
    pub(crate) after: Option<u64>,
    pub(crate) limit: Option<usize>,
}

/// What the lists of records need of an entry.
pub(crate) trait Entry {
    fn is_wanted(&self, filter: &Filter) -> bool;
    fn to_json(&self, number: u64) -> Value;
}

impl<T> Log<T> {
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            next: 1,
            keep: keep.max(1),
        }
    }

    pub(crate) fn push(&mut self, entry: impl Into<Arc<T>>) {
        if self.entries.len() == self.keep {
            self.entries.pop_front();
        }
        self.entries.push_back((self.next, entry.into()));
        self.next += 1;
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The entries after number `after`: cheap copies, so that the lock is free while they are written.
    pub(crate) fn entries(&self, after: u64) -> Vec<(u64, Arc<T>)> {
        let from = self.entries.partition_point(|(number, _)| *number <= after);
        self.entries.range(from..).cloned().collect()
    }
}

impl Entry for Heard {
    fn to_json(&self, number: u64) -> Value {
        json!({
            "number": number,
            "received_at": self.at.rfc3339(),
            "received_us": self.at.0,
            "provider": self.provider,
            "method": self.method,
            "target": self.target,
            "parameters": self.body.to_json(),
            "unknown_parameters": self.unknown,
            "authorization": self.authorization,
            "to": self.to,
            "outcome": self.outcome,
            "status": self.status,
            "code": self.code,
            "accepted": self.is_accepted,
            "id": self.id,
        })
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        is_or_any(&filter.to, self.to.as_deref())
            && is_or_any(&filter.id, self.id.as_deref())
            && is_or_any(&filter.provider, Some(self.provider))
            && filter.since.is_none_or(|since| self.at >= since)
    }
}

impl Body {
    fn to_json(&self) -> Value {
        match self {
            Self::Form(bytes) => object(Form::parse(bytes).iter()),
            Self::Json(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
        }
    }
}

impl Called {
    /// The code of the problem that Twilio's debugger would report about the last try, and its name.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let last = self.attempts.last()?;
        match (last.status, &last.failure) {
            (Some(200..=299), _) => None,
            (_, Some(failure)) if failure.starts_with("connect: ") => {
                Some((11205, "HTTP connection failure"))
            }
            _ => Some(RETRIEVAL_FAILURE),
        }
    }
}

impl Entry for Called {
    fn to_json(&self, number: u64) -> Value {
        let attempts: Vec<Value> = self.attempts.iter().map(Attempt::to_json).collect();
        json!({
            "number": number,
            "id": self.id,
            "status": self.status,
            "to": self.to,
            "url": self.url,
            "parameters": self.body.to_json(),
            "unknown_overrides": self.unknown_overrides,
            "refused": self.refused,
            "attempts": attempts,
            "answer": self.attempts.last().and_then(|attempt| attempt.status),
        })
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        let at = self.attempts.first().map(|attempt| attempt.at);
        is_or_any(&filter.to, self.to.as_deref())
            && is_or_any(&filter.id, Some(&self.id))
            && filter
                .since
                .is_none_or(|since| at.is_some_and(|at| at >= since))
    }
}

impl Attempt {
    pub(crate) fn new(at: Moment, result: &Result<Received, Failure>) -> Self {
        let failure = match result {
            Ok(_) => None,
            Err(Failure::Connect(reason)) => Some(format!("connect: {reason}")),
            Err(Failure::Read(reason)) => Some(format!("read: {reason}")),
        };
        Self {
            at,
            took: Moment::now().0 - at.0,
            status: result.as_ref().ok().map(|received| received.status),
            failure,
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "sent_at": self.at.rfc3339(),
            "sent_us": self.at.0,
            "took_us": self.took,
            "status": self.status,
            "failure": self.failure,
        })
    }
}

/// Counts creates and accepted messages, in total and by recipient.
pub(crate) fn counts(entries: &[(u64, Arc<Heard>)]) -> Value {
    let mut recipients: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut accepted = 0;
    for (_, heard) in entries {
        accepted += u64::from(heard.is_accepted);
        if let Some(to) = &heard.to {
            let count = recipients.entry(to).or_default();
            count.0 += 1;
            count.1 += u64::from(heard.is_accepted);
        }
    }
    let recipients: Map<String, Value> = recipients
        .into_iter()
        .map(|(to, (requests, accepted))| {
            (
                to.to_owned(),
                json!({ "requests": requests, "accepted": accepted }),
            )
        })
        .collect();
    json!({ "requests": entries.len(), "accepted": accepted, "recipients": recipients })
}

/// Pairs as an object; a repeated name becomes an array.
fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let mut map = Map::new();
    for (name, value) in pairs {
        match map.get_mut(name) {
            None => {
                map.insert(name.to_owned(), value.into());
            }
            Some(Value::Array(list)) => list.push(value.into()),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    Value::Object(map)
}

pub(crate) fn is_or_any(wanted: &Option<String>, actual: Option<&str>) -> bool {
    wanted
        .as_deref()
        .is_none_or(|wanted| actual == Some(wanted))
}

pub(crate) const RETRIEVAL_FAILURE: Problem = (11200, "HTTP retrieval failure");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_newest_and_counts_on() {
        let mut log = Log::new(3);
        for n in 0..5 {
            log.push(n);
        }
        let numbers = |log: &Log<i32>, after| {
            log.entries(after)
                .iter()
                .map(|(n, _)| *n)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&log, 0), [3, 4, 5]);
        assert_eq!(numbers(&log, 4), [5]);
        log.clear();
        log.push(9);
        assert_eq!(numbers(&log, 0), [6]);
    }

    #[test]
    fn repeated_parameters_become_arrays() {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")];
        assert_eq!(
            object(pairs.into_iter()),
            json!({"a": ["1", "3", "4"], "b": "2"})
        );
    }
}
