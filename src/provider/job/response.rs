//! The result of a job, from the response.

use protocol::form::{storable, storable_json};
use protocol::message::response::{self, ApiError};
use protocol::retry::{self, Policy};
use protocol::smsgate::state::MessageState;
use protocol::smsgate::{self, Fetched, Verdict};
use protocol::status::from_smsgate;
use sender::{FailureKind, Outcome, Response};

use super::{Job, JobResult, Task};
use crate::clock::Now;

/// The result of a job that could not begin. It is retried, not before `not_before`.
pub(super) fn blocked(job: &Job, reason: String, not_before: Option<i64>, now: &Now) -> JobResult {
    retry_later(job, "failed", reason, not_before, now)
}

/// The result of a job whose request had this outcome.
pub(super) fn classify(job: &Job, outcome: &Outcome, now: &Now) -> JobResult {
    match outcome {
        Outcome::NotProcessed(failure)
            if failure.kind == FailureKind::InvalidRequest && job.task == Task::Send =>
        {
            refused(job, failure.to_string())
        }
        Outcome::NotProcessed(failure) => JobResult {
            // Otherwise the worker ended.
            is_away: failure.kind != FailureKind::Stopped,
            ..retry_later(job, "failed", failure.to_string(), None, now)
        },
        Outcome::Unknown(failure) => retry_later(job, "unknown", failure.to_string(), None, now),
        Outcome::Response(response) => {
            let result = match job.task {
                Task::FetchOriginal => prepared(job, response, now),
                Task::FetchState => fetched(job, response, now),
                Task::Send => sent(job, response, now),
                Task::Reconcile | Task::Poll => polled(job, response, now),
                Task::Cancel => withdrawn(job, response),
                Task::Register | Task::Unregister => registered(job, response, now),
                Task::EventSink => answered(job, response, now),
            };
            JobResult {
                http_status: Some(response.status.into()),
                ..result
            }
        }
    }
}

fn prepared(job: &Job, response: &Response, now: &Now) -> JobResult {
    let reason = |error: ApiError| {
        error
            .message
            .unwrap_or_else(|| format!("HTTP status {}", response.status))
    };
    match response::classify_fetch(response.status, &response.body) {
        response::Fetched::Found(resource) => JobResult {
            outcome: "found",
            body: resource.body.map(|body| storable(&body).into_owned()),
            media_count: resource
                .num_media
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(0),
            dated: resource.created_at,
            state: resource.status.map(|status| storable(&status).into_owned()),
            error_code: resource.error_code,
            ..result(job)
        },
        response::Fetched::Missing => JobResult {
            outcome: "missing",
            ..result(job)
        },
        response::Fetched::Refused(error) | response::Fetched::Failed(error) => {
            retry_later(job, "failed", reason(error), not_before(response, now), now)
        }
    }
}

fn fetched(job: &Job, response: &Response, now: &Now) -> JobResult {
    let (outcome, error) = match response::classify_fetch(response.status, &response.body) {
        response::Fetched::Found(resource) => {
            return JobResult {
                outcome: "found",
                resource: Some(resource.to_report().to_string()),
                ..result(job)
            };
        }
        response::Fetched::Missing => ("missing", ApiError::default()),
        response::Fetched::Refused(error) => ("unclear", error),
        // An answer that cannot be read, or a proxy's, may concern this message alone.
        response::Fetched::Failed(error) if matches!(response.status, 200..=299 | 404 | 410) => {
            ("unclear", error)
        }
        response::Fetched::Failed(error) => ("failed", error),
    };
    let reason = error.message;
    JobResult {
        outcome,
        reason: Some(reason.unwrap_or_else(|| format!("HTTP status {}", response.status))),
        retry_after_ms: not_before(response, now).map(|at| at - now.unix_ms),
        ..result(job)
    }
}

fn sent(job: &Job, response: &Response, now: &Now) -> JobResult {
    let reason = |message: Option<String>| {
        message.unwrap_or_else(|| format!("HTTP status {}", response.status))
    };
    match smsgate::classify(response.status, &response.body) {
        Verdict::Accepted { state, .. } => reported(job, "accepted", state.as_deref()),
        Verdict::Refused { message } => refused(job, reason(message)),
        Verdict::NotProcessed { message, .. } => {
            // A phone that cannot be reached, a full queue and a wrong password take a while to be repaired.
            let not_before = not_before(response, now).unwrap_or(now.unix_ms + BUSY_MS);
            retry_later(job, "failed", reason(message), Some(not_before), now)
        }
        Verdict::Unknown { message } => retry_later(
            job,
            "unknown",
            reason(message),
            not_before(response, now),
            now,
        ),
    }
}

fn polled(job: &Job, response: &Response, now: &Now) -> JobResult {
    let found = if job.task == Task::Reconcile {
        "accepted"
    } else {
        "found"
    };
    match smsgate::classify_fetch(response.status, &response.body) {
        Fetched::Found(state) => reported(job, found, Some(&state)),
        Fetched::Missing => JobResult {
            outcome: "missing",
            ..result(job)
        },
        Fetched::Failed(message) => {
            let reason = message.unwrap_or_else(|| format!("HTTP status {}", response.status));
            retry_later(job, "failed", reason, not_before(response, now), now)
        }
    }
}

fn withdrawn(job: &Job, response: &Response) -> JobResult {
    // A message that is no longer pending cannot be canceled. Its state is polled instead.
    let outcome = match response.status {
        200..=299 => "withdrawn",
        400..=499 => "late",
        _ => "failed",
    };
    JobResult {
        outcome,
        ..result(job)
    }
}

fn registered(job: &Job, response: &Response, now: &Now) -> JobResult {
    let is_done = match job.task {
        Task::Unregister => matches!(response.status, 200..=299 | 404),
        _ => (200..=299).contains(&response.status),
    };
    if is_done {
        return JobResult {
            outcome: "done",
            ..result(job)
        };
    }
    let reason = smsgate::error_message(&response.body)
        .unwrap_or_else(|| format!("HTTP status {}", response.status));
    let not_before = not_before(response, now).unwrap_or(now.unix_ms + BUSY_MS);
    retry_later(job, "failed", reason, Some(not_before), now)
}

/// The response to a request about a sink, which SQL reads.
fn answered(job: &Job, response: &Response, now: &Now) -> JobResult {
    let wait = not_before(response, now).map(|at| at - now.unix_ms);
    JobResult {
        body: serde_json::from_slice(&response.body)
            .ok()
            .map(|body| storable_json(body).to_string()),
        retry_after_ms: wait,
        ..result(job)
    }
}

fn reported(job: &Job, outcome: &'static str, state: Option<&MessageState>) -> JobResult {
    JobResult {
        outcome,
        state: state.map(|state| storable(&from_smsgate(&state.state)).into_owned()),
        device_id: state.and_then(|state| state.device_id.clone()),
        reason: state
            .and_then(|state| state.reason.as_deref())
            .map(|reason| storable(reason).into_owned()),
        ..result(job)
    }
}

fn result(job: &Job) -> JobResult {
    JobResult {
        id: job.id,
        lease_token: job.lease_token.clone(),
        task: job.task,
        ..JobResult::default()
    }
}

pub(super) fn refused(job: &Job, reason: String) -> JobResult {
    JobResult {
        outcome: "refused",
        reason: Some(storable(&reason).into_owned()),
        ..result(job)
    }
}

fn retry_later(
    job: &Job,
    outcome: &'static str,
    reason: String,
    not_before: Option<i64>,
    now: &Now,
) -> JobResult {
    // Retries continue until the message expires, which the database checks when the result is saved.
    let policy = Policy {
        most_tries: u32::MAX,
        ..Policy::DEFAULT
    };
    let at = retry::next(
        &policy,
        job.tries.max(1),
        now.unix_ms,
        None,
        now.jitter,
        not_before,
    );
    // A send can fail in two ways: it did not happen, or it may have happened.
    let outcome = match (job.task, outcome) {
        (Task::Send, "failed") => "not_processed",
        (Task::Reconcile, _) => "unknown",
        (Task::Send, other) => other,
        _ => "failed",
    };
    JobResult {
        outcome,
        reason: Some(storable(&reason).into_owned()),
        // How long an account is left alone is decided for all of its messages.
        retry_after_ms: at
            .filter(|_| job.task != Task::FetchState)
            .map(|at| at - now.unix_ms),
        ..result(job)
    }
}

/// The earliest time at which the server wants the next request.
pub(super) fn not_before(response: &Response, now: &Now) -> Option<i64> {
    retry::retry_after(response.header("retry-after")?, now.unix_ms)
}

/// The pause, in milliseconds, after a gateway could not take a message or refused the password.
pub(super) const BUSY_MS: i64 = 60_000;
