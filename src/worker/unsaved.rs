//! What could not be written down with the rest: each on its own and ever more rarely, so that somebody's
//! lock on one message, or a trigger that does not take it, keeps no other from being sent.

use std::collections::VecDeque;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension::is_installed;
use crate::provider::job::{self, Finding};
use crate::provider::queue::{self, End, Work};
use crate::provider::twilio::Found;
use crate::setting;
use crate::spi::{self, transaction};
use crate::worker::poll;

/// What the worker has yet to write down.
#[derive(Default)]
pub(crate) struct Unwritten {
    late: VecDeque<Late>,
}

enum Ended {
    End(Box<End>),
    Found(Box<(Work, Found)>),
    Finding(Box<Finding>),
}

struct Late {
    ended: Ended,
    next_try: Instant,
    pause: Duration,
    /// When its lease is over for certain: from then on it is found out anew.
    give_up: Instant,
}

impl Unwritten {
    /// Takes over what a look could not write.
    pub(crate) fn take(
        &mut self,
        ends: &mut Vec<End>,
        found: &mut Vec<(Work, Found)>,
        findings: &mut Vec<Finding>,
    ) {
        let now = Instant::now();
        let ends = ends.drain(..).map(|end| Ended::End(Box::new(end)));
        let found = found.drain(..).map(|found| Ended::Found(Box::new(found)));
        let findings = findings.drain(..);
        let findings = findings.map(|finding| Ended::Finding(Box::new(finding)));
        let ended = ends.chain(found).chain(findings);
        self.late.extend(ended.map(|ended| Late {
            ended,
            next_try: now,
            pause: FIRST_PAUSE,
            give_up: now + poll::lease(),
        }));
    }

    /// Whether there is so much that nothing more is to be begun: what is sent now could not be written down either.
    pub(crate) fn is_full(&self) -> bool {
        self.late.len() >= MOST_A_PLACE * setting::max_in_flight()
    }

    /// Writes what is due, as far as that comes in a short time. Returns when it wants to run again.
    pub(crate) fn run(&mut self) -> Option<Duration> {
        let until = Instant::now() + AT_A_TIME;
        for _ in 0..self.late.len() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let Some(late) = self.late.pop_front() else {
                break;
            };
            let kept = if late.next_try > now {
                Some(late)
            } else {
                late.attempt()
            };
            self.late.extend(kept);
        }
        let next = self.late.iter().map(|late| late.next_try).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

impl Late {
    /// Writes it; gives it back if that is to be tried again.
    fn attempt(mut self) -> Option<Self> {
        let written = transaction(|| {
            if is_installed()? {
                // Each waits here for its own lock, so none waits as long as all of them would together.
                spi::limit_lock_wait()?;
                self.ended.write()
            } else {
                Ok(())
            }
        });
        let Err(error) = written else {
            return None;
        };
        let what = self.ended.name();
        let now = Instant::now();
        if now >= self.give_up {
            log!("twilio_callback worker gives up finishing {what}: {error}");
            return None;
        }
        log!("twilio_callback worker cannot finish {what}: {error}");
        self.next_try = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(self)
    }
}

impl Ended {
    fn write(&self) -> Result<(), ErrorReport> {
        match self {
            Self::End(end) => queue::finish(from_ref(end)),
            Self::Found(found) => queue::finish(&poll::conclude(from_ref(found))?),
            Self::Finding(finding) => job::finish(from_ref(finding)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::End(end) => format!("message {}", end.message_id),
            Self::Found(found) => format!("message {}", found.0.message_id),
            Self::Finding(finding) => finding.name(),
        }
    }
}

/// So many for each request that may be under way. Single locks and triggers leave far fewer.
const MOST_A_PLACE: usize = 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What waits for locks here waits for each of them.
const AT_A_TIME: Duration = Duration::from_millis(500);
