//! The worker's part of reading Twilio's lists of a day's messages: one page at a time, each in a transaction of its own,
//! beside what it sends.

use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::form::storable;
use protocol::message::day_list_path;
use protocol::message::list::Page;
use protocol::message::response::{ApiError, Resource};
use protocol::retry;
use protocol::trust::Api;
use sender::{BodyEnd, Method, Outcome, Report, Request, Response, Sender};
use serde_json::Value;

use crate::clock::now;
use crate::credential::{Credential, NONE, credential};
use crate::extension::is_installed;
use crate::provider::request_id::Kind;
use crate::setting;
use crate::spi::{first, limit_lock_wait, log_once_a_minute, rows, transaction};

/// The page that is being read or recorded, and the time of the next poll.
#[derive(Default)]
pub(crate) struct Sweep {
    in_flight: Option<SweepJob>,
    result: Option<SweepResult>,
    next_look: Option<Instant>,
}

/// A page to be read.
struct SweepJob {
    sweep_id: i64,
    lease_token: String,
    account_sid: String,
    day: String,
    /// Path and query of the page; none for the first one.
    page: Option<String>,
    credential: Option<Credential>,
}

/// The result of reading a page.
#[derive(Default)]
struct SweepResult {
    sweep_id: i64,
    lease_token: String,
    outcome: &'static str,
    /// The messages, as JSON.
    resources: Option<String>,
    next_page: Option<String>,
    unreadable: i32,
    reason: Option<String>,
    retry_after_ms: Option<i64>,
}

impl Sweep {
    /// Saves the result and takes the next page. Returns when it wants to run again; never, if nothing is due.
    pub(crate) fn run(&mut self, sender: &Sender) -> Option<Duration> {
        if self.in_flight.is_some() {
            return None;
        }
        let now = Instant::now();
        if let Some(wait) = self.next_look.and_then(|at| at.checked_duration_since(now)) {
            return Some(wait);
        }
        self.next_look = Some(now + INTERVAL);
        // One that cannot be saved is read again when its lease ends.
        if let Some(result) = self.result.take()
            && let Err(error) = transaction(|| finish(&result))
        {
            log_once_a_minute(&format!(
                "twilio_callback worker cannot record a list of messages: {error}"
            ));
            return Some(PAUSE);
        }
        // Messages to send come first.
        if sender.room() < 2 && setting::max_in_flight() > 1 {
            return Some(PAUSE);
        }
        match transaction(look) {
            Ok((Some(job), _)) => {
                self.push(sender, job);
                self.result.is_some().then_some(INTERVAL)
            }
            Ok((None, due)) => {
                self.next_look = Some(now + IDLE);
                let wait = Duration::try_from_secs_f64(due?.max(0.0)).ok()?;
                Some(wait.clamp(INTERVAL, IDLE))
            }
            Err(error) => {
                log_once_a_minute(&format!(
                    "twilio_callback worker cannot look for lists of messages to read: {error}"
                ));
                Some(PAUSE)
            }
        }
    }

    /// Takes the response to its request. Returns the report if its request is another.
    pub(crate) fn take(&mut self, report: Report) -> Option<Report> {
        let is_own = |job: &&mut SweepJob| Kind::Sweep.request_id(job.sweep_id) == report.id;
        if self.in_flight.as_mut().filter(is_own).is_none() {
            return Some(report);
        }
        if let Some(job) = self.in_flight.take() {
            self.result = Some(classify(&job, &report.outcome));
        }
        self.next_look = None;
        None
    }

    fn push(&mut self, sender: &Sender, job: SweepJob) {
        let pushed = request(&job).and_then(|request| {
            sender
                .push(request)
                .map_err(|error| job.result("failed", error.to_string()))
        });
        match pushed {
            Ok(()) => self.in_flight = Some(job),
            Err(result) => self.result = Some(result),
        }
    }
}

impl SweepJob {
    /// A result without a page.
    fn result(&self, outcome: &'static str, reason: String) -> SweepResult {
        SweepResult {
            sweep_id: self.sweep_id,
            lease_token: self.lease_token.clone(),
            outcome,
            reason: Some(storable(&reason).into_owned()),
            ..SweepResult::default()
        }
    }
}

/// Takes the next page, and says in how many seconds one is due.
fn look() -> Result<(Option<SweepJob>, Option<f64>), ErrorReport> {
    if !is_installed()? {
        return Ok((None, None));
    }
    let lease = (setting::request_timeout() + LEASE_MARGIN).as_secs_f64();
    let jobs = rows(
        "select sweep_id, lease_token::text, account_sid, day, next_page \
         from twilio_internal.claim_sweep($1 * interval '1 second')",
        &[lease.into()],
        |row| {
            Ok(SweepJob {
                sweep_id: row.get(1)?.unwrap_or_default(),
                lease_token: row.get(2)?.unwrap_or_default(),
                account_sid: row.get(3)?.unwrap_or_default(),
                day: row.get(4)?.unwrap_or_default(),
                page: row.get(5)?,
                credential: None,
            })
        },
    )?;
    let Some(mut job) = jobs.into_iter().next() else {
        return Ok((None, first("select twilio_internal.next_sweep()", &[])?));
    };
    job.credential = credential(&job.account_sid)?;
    Ok((Some(job), None))
}

fn request(job: &SweepJob) -> Result<Request, SweepResult> {
    let failed = |reason| job.result("failed", reason);
    let credential = job.credential.as_ref();
    let credential = credential.ok_or_else(|| failed(NONE.to_owned()))?;
    let first = || day_list_path(&job.account_sid, &job.day);
    let path = job.page.clone().unwrap_or_else(first);
    let to = Api::parse(&credential.api_url)
        .and_then(|api| api.at(&path))
        .map_err(|fault| failed(format!("api_url cannot be used: {fault}")))?;
    let authorization = credential.authorization().map_err(failed)?;
    let id = Kind::Sweep.request_id(job.sweep_id);
    let mut request = Request::authorized(id, Method::Get, to, authorization);
    request.timeout = setting::request_timeout();
    request.body_limit = Some(PAGE_LIMIT);
    request.body_timeout = Some(request.timeout);
    Ok(request)
}

fn classify(job: &SweepJob, outcome: &Outcome) -> SweepResult {
    let response = match outcome {
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            return job.result("failed", failure.to_string());
        }
        Outcome::Response(response) => response,
    };
    let page = (response.status == 200 && response.body_end == BodyEnd::Complete)
        .then(|| Page::parse(&job.account_sid, &response.body))
        .flatten();
    let Some(page) = page else {
        return unread(job, response);
    };
    // A list that may go on elsewhere ends here: credentials are sent to the account's own list only.
    let cut = page
        .is_cut
        .then(|| "the next page cannot be read".to_owned());
    let resources = page.messages.iter().map(Resource::to_report);
    SweepResult {
        sweep_id: job.sweep_id,
        lease_token: job.lease_token.clone(),
        outcome: "found",
        resources: Some(Value::Array(resources.collect()).to_string()),
        next_page: page.next_page_uri,
        unreadable: i32::try_from(page.entries - page.messages.len()).unwrap_or(i32::MAX),
        reason: cut,
        retry_after_ms: None,
    }
}

/// The result of a response that is no page.
fn unread(job: &SweepJob, response: &Response) -> SweepResult {
    let now = now().unix_ms;
    let said = ApiError::parse(&response.body).message;
    let reason = match (response.status, response.body_end) {
        (200, BodyEnd::Truncated) => "the page is too large".to_owned(),
        (200, BodyEnd::Broken) => "the answer broke off".to_owned(),
        (200, BodyEnd::Complete) => "the page cannot be read".to_owned(),
        (status, _) => said.unwrap_or_else(|| format!("HTTP status {status}")),
    };
    let is_clear = matches!(response.status, 401 | 403 | 408 | 425 | 429 | 500..);
    let not_before = response
        .header("retry-after")
        .and_then(|header| retry::retry_after(header, now));
    SweepResult {
        retry_after_ms: not_before.map(|at| at - now),
        ..job.result(if is_clear { "failed" } else { "unclear" }, reason)
    }
}

fn finish(result: &SweepResult) -> Result<(), ErrorReport> {
    if !is_installed()? {
        return Ok(());
    }
    // Before a callback would wait for long.
    limit_lock_wait()?;
    let arguments: [DatumWithOid<'_>; 8] = [
        result.sweep_id.into(),
        result.lease_token.as_str().into(),
        result.outcome.into(),
        result.resources.as_deref().into(),
        result.next_page.as_deref().into(),
        result.unreadable.into(),
        result.reason.as_deref().into(),
        result.retry_after_ms.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_sweep($1, $2::uuid, $3, $4::jsonb, $5, $6, $7, $8)",
        &arguments,
    )
    .map(drop)
}

/// The largest page that is read: a thousand messages are 1 to 2 MB.
const PAGE_LIMIT: usize = 8 * 1024 * 1024;
/// However often the worker is woken.
const INTERVAL: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(1);
const LEASE_MARGIN: Duration = Duration::from_secs(60);
