//! Results that could not be saved with the others. Each is saved on its own and retried with a growing pause, so that a
//! lock or a trigger that concerns one message does not delay the others.

use std::collections::VecDeque;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension::is_installed;
use crate::provider::job::{self, JobResult};
use crate::provider::queue::{self, MessageJob, MessageResult};
use crate::provider::twilio::Found;
use crate::setting;
use crate::spi::{self, transaction};
use crate::worker::poll;

/// Results that are not saved yet.
#[derive(Default)]
pub(crate) struct UnsavedResults {
    entries: VecDeque<Entry>,
}

enum AnyResult {
    Message(Box<MessageResult>),
    Found(Box<(MessageJob, Found)>),
    Job(Box<JobResult>),
}

struct Entry {
    result: AnyResult,
    next_try: Instant,
    pause: Duration,
    /// When its lease has ended for certain. From then on the message is reconciled instead.
    give_up: Instant,
}

impl UnsavedResults {
    /// Takes over results that a poll could not save.
    pub(crate) fn take(
        &mut self,
        results: &mut Vec<MessageResult>,
        found: &mut Vec<(MessageJob, Found)>,
        job_results: &mut Vec<JobResult>,
    ) {
        let now = Instant::now();
        let results = results
            .drain(..)
            .map(|result| AnyResult::Message(Box::new(result)));
        let found = found
            .drain(..)
            .map(|found| AnyResult::Found(Box::new(found)));
        let job_results = job_results.drain(..);
        let job_results = job_results.map(|result| AnyResult::Job(Box::new(result)));
        let result = results.chain(found).chain(job_results);
        self.entries.extend(result.map(|result| Entry {
            result,
            next_try: now,
            pause: FIRST_PAUSE,
            give_up: now + poll::lease(),
        }));
    }

    /// Whether so many results wait that no new request may be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_PER_REQUEST * setting::max_in_flight()
    }

    /// Saves the results that are due, for half a second at most. Returns the time until the next one is due.
    pub(crate) fn run(&mut self) -> Option<Duration> {
        let until = Instant::now() + AT_A_TIME;
        for _ in 0..self.entries.len() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            let kept = if entry.next_try > now {
                Some(entry)
            } else {
                entry.attempt()
            };
            self.entries.extend(kept);
        }
        let next = self.entries.iter().map(|entry| entry.next_try).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

impl Entry {
    /// Saves the result. Returns the entry if it is to be retried.
    fn attempt(mut self) -> Option<Self> {
        let written = transaction(|| {
            if is_installed()? {
                // Each result waits for its own lock only.
                spi::limit_lock_wait()?;
                self.result.write()
            } else {
                Ok(())
            }
        });
        let Err(error) = written else {
            return None;
        };
        let what = self.result.name();
        let now = Instant::now();
        if now >= self.give_up {
            log!("twilio_callback worker gives up finishing {what}: {error}");
            return None;
        }
        log!("twilio_callback worker cannot finish {what}: {error}");
        self.next_try = now + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Some(self)
    }
}

impl AnyResult {
    fn write(&self) -> Result<(), ErrorReport> {
        match self {
            Self::Message(result) => queue::finish(from_ref(result)),
            Self::Found(found) => queue::finish(&poll::conclude(from_ref(found))?),
            Self::Job(result) => job::finish(from_ref(result)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Message(result) => format!("message {}", result.message_id),
            Self::Found(found) => format!("message {}", found.0.message_id),
            Self::Job(result) => result.name(),
        }
    }
}

/// The most entries for each request that may be in flight.
const MAX_PER_REQUEST: usize = 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long one run may take, since each entry may wait for a lock.
const AT_A_TIME: Duration = Duration::from_millis(500);
