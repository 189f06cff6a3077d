//! Reconciliation of a message whose outcome is unknown with Twilio's list of messages.

use std::time::{Duration, Instant};

use protocol::message::list::{Conclusion, Found, Page, Wanted, may_be_listed_elsewhere};
use protocol::message::list_path;
use protocol::message::response::{ApiError, Verdict, classify};
use protocol::retry::{self, Policy};
use sender::{Method, Outcome, Request};

use super::{result, to_api, wording};
use crate::clock::{Now, now};
use crate::provider::queue::{MessageJob, MessageResult, Pages};
use crate::provider::twilio::media_check::MAX_TIME;
use crate::setting;

/// The request for the next page of the list. It ends before the lease does, so that no other worker reconciles meanwhile.
pub(super) fn request(job: &mut MessageJob) -> Result<Request, MessageResult> {
    let asked_at = now().unix_ms;
    (job.pages.found).get_or_insert_with(|| Found::new(asked_at));
    let first = || list_path(&job.account_sid, &job.to_address, PAGE_SIZE);
    let path = job.pages.next.clone().unwrap_or_else(first);
    let mut request = to_api(job, Method::Get, &path)?;
    request.timeout = setting::request_timeout().min(time_left(job));
    Ok(request)
}

/// How much longer pages may be not_before for.
fn time_left(job: &MessageJob) -> Duration {
    let lease = job.lease_end.saturating_duration_since(Instant::now());
    lease.saturating_sub(LEASE_REST)
}

/// Takes a page of the list: `Ok(Some)` once the list is complete, `Ok(None)` if more pages follow.
pub(crate) fn reconciled(
    job: &mut MessageJob,
    outcome: &Outcome,
    now: &Now,
) -> Result<Option<Found>, MessageResult> {
    let page = listed(job, outcome, now)?;
    let mut found = (job.pages.found.take()).unwrap_or_else(|| Found::new(now.unix_ms));
    let next = found.add(&wanted(job), page);
    if next.is_some() {
        if !time_left(job).is_zero() {
            job.pages = Pages {
                found: Some(found),
                next,
            };
            return Ok(None);
        }
        let reason = "the list of messages takes too long";
        if found.matching.is_empty() {
            return Err(failed(job, reason.to_owned(), now));
        }
        found.has_gap(reason);
    }
    Ok(Some(found))
}

/// The message to find.
fn wanted(job: &MessageJob) -> Wanted<'_> {
    Wanted {
        to: &job.to_address,
        from: job.from_address.as_deref(),
        messaging_service_sid: job.messaging_service_sid.as_deref(),
        body: job.body.as_deref(),
        num_media: (job.twilio_parameters.is_none())
            .then(|| u32::try_from(job.media_urls.len()).ok())
            .flatten(),
        created_from: job.started_at - CLOCK_DIFFERENCE,
        created_until: job.started_at + MAX_CREATE,
        is_elsewhere: may_be_listed_elsewhere(&job.to_address, job.twilio_parameters.as_deref()),
    }
}

/// A page of the list, or the result of the job without one.
fn listed(job: &MessageJob, outcome: &Outcome, now: &Now) -> Result<Page, MessageResult> {
    let response = match outcome {
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            return Err(failed(job, failure.to_string(), now));
        }
        Outcome::Response(response) => response,
    };
    if response.status != 200 {
        let error = ApiError::parse(&response.body);
        let is_fault = matches!(
            classify(response.status, &response.body),
            Verdict::NotProcessed {
                is_account_fault: true,
                ..
            }
        );
        return Err(MessageResult {
            error_code: error.code,
            account_at_fault: is_fault.then(|| job.account_sid.clone()),
            ..failed(job, wording(&error, response), now)
        });
    }
    Page::parse(&job.account_sid, &response.body).ok_or_else(|| {
        let reason = "the list of messages cannot be read".to_owned();
        failed(job, reason, now)
    })
}

/// The result of a look-up that failed; it is retried for a day.
fn failed(job: &MessageJob, reason: String, now: &Now) -> MessageResult {
    let tries = job.tries.min(RECONCILE.most_tries - 1);
    let at = retry::next(&RECONCILE, tries, now.unix_ms, None, now.jitter, None);
    let is_over = now.unix_ms - job.started_at > MAX_RECONCILIATION;
    let again = at.map(|at| at - now.unix_ms);
    MessageResult {
        outcome: if is_over { "open" } else { "again" },
        reason: Some(reason),
        retry_after_ms: again.filter(|_| !is_over),
        ..result(job)
    }
}

/// The result that follows from the complete list, once the SIDs of other messages are taken out of `found`.
pub(crate) fn concluded(job: &MessageJob, found: Found, now: &Now) -> MessageResult {
    // The candidates for the user who decides: those that match, or else all.
    let sids: Vec<_> = match found.matching.len() {
        0 => found.sids().collect(),
        count => found.sids().take(count).collect(),
    };
    let response =
        (!sids.is_empty()).then(|| serde_json::json!({ "candidates": sids }).to_string());
    match found.conclude(job.started_at, time_to_show()) {
        Conclusion::Sent(resource) => MessageResult {
            outcome: "accepted",
            message_sid: Some(resource.sid),
            status: resource.status.or_else(|| Some("queued".to_owned())),
            error_code: resource.error_code,
            reason: resource.error_message,
            ..result(job)
        },
        Conclusion::Absent => MessageResult {
            outcome: "absent",
            ..result(job)
        },
        Conclusion::Later => {
            let tries = job.tries.min(RECONCILE.most_tries - 1);
            let at = retry::next(&RECONCILE, tries, now.unix_ms, None, now.jitter, None);
            MessageResult {
                outcome: "again",
                response,
                retry_after_ms: at.map(|at| at - now.unix_ms),
                ..result(job)
            }
        }
        Conclusion::Open(reason) => MessageResult {
            outcome: "open",
            reason: Some(reason),
            response,
            ..result(job)
        },
    }
}

/// How long after its claim, in milliseconds, a message must be in Twilio's list: the check of its files, its request and
fn time_to_show() -> i64 {
    let time = MAX_TIME + setting::request_timeout() + TIME_TO_SHOW;
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const PAGE_SIZE: u16 = 100;
/// The time that is kept free at the end of a lease to save the result.
const LEASE_REST: Duration = Duration::from_secs(10);

/// How an open outcome is looked up until it must have shown; times are from the last look on.
const RECONCILE: Policy<'static> = Policy {
    delays: &[3_000, 10_000, 30_000, 60_000, 60_000],
    most_tries: 6,
    spread: 0.2,
};

/// How long after the end of its request a message that Twilio's list does not show was not created.
const TIME_TO_SHOW: Duration = Duration::from_secs(120);

/// How long a look-up that keeps failing is repeated: a day.
const MAX_RECONCILIATION: i64 = 86_400_000;

/// By how much Twilio's clock may be behind ours, and the second that its dates are cut to.
const CLOCK_DIFFERENCE: i64 = 6_000;

/// How long after its beginning a create may take effect at the latest.
const MAX_CREATE: i64 = 660_000;
