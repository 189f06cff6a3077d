//! One poll of the database: saves results and claims jobs that are due.

use std::time::Duration;

use pgrx::pg_sys::panic::ErrorReport;
use sender::Authorization;

use crate::clock::now;
use crate::credential::{Credential, NONE, credential};
use crate::provider::job::{self, Job, JobResult};
use crate::provider::queue::{self, MessageJob, MessageResult};
use crate::provider::twilio::media_check::MAX_TIME;
use crate::provider::twilio::{self, Found};
use crate::setting;
use crate::spi::first;
use crate::worker::process::is_work_wanted;
use crate::worker::process::own_pid;
use crate::worker::timed_rule;

/// The result of a poll.
#[derive(Default)]
pub(crate) struct Polled {
    /// Whether this process is still to be the worker.
    pub(crate) is_wanted: bool,
    pub(crate) message_jobs: Vec<MessageJob>,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) jobs: Vec<Job>,
    /// In how many seconds the next work is due.
    pub(crate) due: Option<f64>,
    /// In how many seconds a message that a rule by time waits for is due.
    pub(crate) overdue: Option<f64>,
}

/// Which kind of job gets the odd slot.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fairness {
    #[default]
    Messages,
    Jobs,
}

impl Fairness {
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Messages => Self::Jobs,
            Self::Jobs => Self::Messages,
        }
    }
}

/// When to look again.
#[derive(Default)]
pub(crate) struct PollBackoff {
    pause: Duration,
}

impl PollBackoff {
    /// `due` says in how many seconds something is, from 0 down at once; `has_taken` whether something was taken.
    pub(crate) fn wait(&mut self, due: Option<f64>, has_taken: bool) -> Duration {
        let is_held = !has_taken && due.is_some_and(|seconds| seconds <= 0.0);
        // Jobs that are due and cannot be claimed are locked by others: poll for them with a growing pause.
        self.pause = if is_held {
            (self.pause * 2).clamp(TICK, MAX_PAUSE)
        } else {
            Duration::ZERO
        };
        let wait = due.map_or(NAP, |seconds| {
            Duration::try_from_secs_f64(seconds.max(0.0)).map_or(NAP, |wait| wait.min(NAP) + TICK)
        });
        wait.max(self.pause)
    }
}

/// Polls within the caller's transaction. The claimed jobs may be sent once that is committed.
pub(crate) fn run(
    results: &[MessageResult],
    found: &[(MessageJob, Found)],
    job_results: &[JobResult],
    room: usize,
    fairness: Fairness,
    is_sweep_due: bool,
) -> Result<Polled, ErrorReport> {
    if !is_work_wanted(own_pid())? {
        return Ok(Polled::default());
    }
    queue::finish(results)?;
    queue::finish(&conclude(found)?)?;
    job::finish(job_results)?;
    if is_sweep_due {
        sweep()?;
    }
    // Neither keeps the other waiting, however much there is of it; of a single place they take turns.
    let share = room.midpoint(usize::from(fairness == Fairness::Jobs));
    let jobs = if share > 0 {
        job::claim(share, lease().as_secs_f64())?
    } else {
        Vec::new()
    };
    let room = room.saturating_sub(jobs.len());
    let message_jobs = if room > 0 {
        queue::claim(room, lease())?
    } else {
        Vec::new()
    };
    let due = [next_due()?, job::next_due()?];
    Ok(Polled {
        is_wanted: true,
        credentials: credentials(&message_jobs)?,
        message_jobs,
        jobs,
        due: due.into_iter().flatten().reduce(f64::min),
        overdue: timed_rule::next_due()?,
    })
}

/// The credentials of the accounts of these jobs.
fn credentials(message_jobs: &[MessageJob]) -> Result<Vec<Credential>, ErrorReport> {
    let mut accounts: Vec<_> = message_jobs
        .iter()
        .map(|w| w.account_sid.as_str())
        .collect();
    accounts.sort_unstable();
    accounts.dedup();
    let credentials = accounts.into_iter().map(credential);
    credentials.filter_map(Result::transpose).collect()
}

/// The credentials of the requests of one job.
pub(crate) fn authorization(
    job: &MessageJob,
    credentials: &[Credential],
) -> Result<Authorization, String> {
    let credential = credentials
        .iter()
        .find(|credential| credential.account_sid == job.account_sid);
    let credential = credential.ok_or_else(|| NONE.to_owned())?;
    credential.authorization()
}

/// The results of reconciliation, without the messages of other attempts.
pub(crate) fn conclude(found: &[(MessageJob, Found)]) -> Result<Vec<MessageResult>, ErrorReport> {
    let mut results = Vec::new();
    for (job, found) in found {
        let sids = found.sids().map(str::to_owned).collect();
        let unbound = queue::unbound(sids, job.message_id)?;
        let mut mine = found.clone();
        mine.retain(|sid| unbound.iter().any(|free| free == sid));
        results.push(twilio::concluded(job, mine, &now()));
    }
    Ok(results)
}

/// A request ends well before its lease.
pub(crate) fn lease() -> Duration {
    let is_longer = setting::check_media();
    let look = if is_longer { MAX_TIME } else { Duration::ZERO };
    look + setting::request_timeout() + LEASE_MARGIN
}

const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Between looks where nothing is due.
pub(crate) const NAP: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Ends what expired and what was settled, and takes back expired leases.
fn sweep() -> Result<(), ErrorReport> {
    first::<i32>(
        "select twilio_internal.expire_due() + twilio_internal.rescue_orphaned()",
        &[],
    )
    .map(drop)
}

/// In how many seconds the next work is due.
fn next_due() -> Result<Option<f64>, ErrorReport> {
    first("select twilio_internal.next_due()", &[])
}
