//! One look at the database: what ended is written down, what is due is taken.

use std::time::Duration;

use pgrx::pg_sys::panic::ErrorReport;
use sender::Authorization;

use crate::clock::moment;
use crate::credential::{Credential, NONE, credential};
use crate::provider::job::{self, Errand, Finding};
use crate::provider::queue::{self, End, Work};
use crate::provider::twilio::media_check::LONGEST;
use crate::provider::twilio::{self, Found};
use crate::setting;
use crate::spi::first;
use crate::worker::process::is_work_wanted;
use crate::worker::process::own_pid;
use crate::worker::timed_rule;

/// What a look found.
#[derive(Default)]
pub(crate) struct Seen {
    /// Whether this process is still to be the worker.
    pub(crate) is_wanted: bool,
    pub(crate) works: Vec<Work>,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) errands: Vec<Errand>,
    /// In how many seconds the next work is due.
    pub(crate) due: Option<f64>,
    /// In how many seconds a message that a rule by time waits for is due.
    pub(crate) overdue: Option<f64>,
}

/// Whose is the odd place.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Turn {
    #[default]
    Works,
    Errands,
}

impl Turn {
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Works => Self::Errands,
            Self::Errands => Self::Works,
        }
    }
}

/// When to look again.
#[derive(Default)]
pub(crate) struct Pace {
    pause: Duration,
}

impl Pace {
    /// `due` says in how many seconds something is, from 0 down at once; `has_taken` whether something was taken.
    pub(crate) fn wait(&mut self, due: Option<f64>, has_taken: bool) -> Duration {
        let is_held = !has_taken && due.is_some_and(|seconds| seconds <= 0.0);
        // What is due and cannot be taken is in somebody's hands: it is asked for ever more rarely.
        self.pause = if is_held {
            (self.pause * 2).clamp(TICK, LONGEST_PAUSE)
        } else {
            Duration::ZERO
        };
        let wait = due.map_or(NAP, |seconds| {
            Duration::try_from_secs_f64(seconds.max(0.0)).map_or(NAP, |wait| wait.min(NAP) + TICK)
        });
        wait.max(self.pause)
    }
}

/// Looks, within the caller's transaction. What it takes may be sent once that is committed.
pub(crate) fn run(
    ends: &[End],
    found: &[(Work, Found)],
    findings: &[Finding],
    room: usize,
    turn: Turn,
    is_sweep_due: bool,
) -> Result<Seen, ErrorReport> {
    if !is_work_wanted(own_pid())? {
        return Ok(Seen::default());
    }
    queue::finish(ends)?;
    queue::finish(&conclude(found)?)?;
    job::finish(findings)?;
    if is_sweep_due {
        sweep()?;
    }
    // Neither keeps the other waiting, however much there is of it; of a single place they take turns.
    let share = room.midpoint(usize::from(turn == Turn::Errands));
    let errands = if share > 0 {
        job::claim(share, lease().as_secs_f64())?
    } else {
        Vec::new()
    };
    let room = room.saturating_sub(errands.len());
    let works = if room > 0 {
        queue::claim(room, lease())?
    } else {
        Vec::new()
    };
    let due = [next_due()?, job::next_due()?];
    Ok(Seen {
        is_wanted: true,
        credentials: credentials(&works)?,
        works,
        errands,
        due: due.into_iter().flatten().reduce(f64::min),
        overdue: timed_rule::next_due()?,
    })
}

/// What the accounts of this work send with.
fn credentials(works: &[Work]) -> Result<Vec<Credential>, ErrorReport> {
    let mut accounts: Vec<_> = works.iter().map(|w| w.account_sid.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let credentials = accounts.into_iter().map(credential);
    credentials.filter_map(Result::transpose).collect()
}

/// What the requests of one work are sent with.
pub(crate) fn authorization(
    work: &Work,
    credentials: &[Credential],
) -> Result<Authorization, String> {
    let credential = credentials
        .iter()
        .find(|credential| credential.account_sid == work.account_sid);
    let credential = credential.ok_or_else(|| NONE.to_owned())?;
    credential.authorization()
}

/// What lists say about open outcomes, messages of other attempts left out.
pub(crate) fn conclude(found: &[(Work, Found)]) -> Result<Vec<End>, ErrorReport> {
    let mut ends = Vec::new();
    for (work, found) in found {
        let sids = found.sids().map(str::to_owned).collect();
        let unbound = queue::unbound(sids, work.message_id)?;
        let mut mine = found.clone();
        mine.retain(|sid| unbound.iter().any(|free| free == sid));
        ends.push(twilio::concluded(work, mine, &moment()));
    }
    Ok(ends)
}

/// A request ends well before its lease.
pub(crate) fn lease() -> Duration {
    let is_longer = setting::check_media();
    let look = if is_longer { LONGEST } else { Duration::ZERO };
    look + setting::request_timeout() + LEASE_MARGIN
}

const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Between looks where nothing is due.
pub(crate) const NAP: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Ends what expired and what was settled, and takes back expired leases.
fn sweep() -> Result<(), ErrorReport> {
    first::<i32>("select twilio.sweep() + twilio.recover()", &[]).map(drop)
}

/// In how many seconds the next work is due.
fn next_due() -> Result<Option<f64>, ErrorReport> {
    first("select twilio.next_due()", &[])
}
