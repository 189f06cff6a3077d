//! Messages at Twilio: the request of a job, and the result that follows from the response.

pub(crate) mod media_check;

use protocol::callback_url::{ATTEMPT, with_parameter};
use protocol::error_code;
use protocol::form::storable_json;
use protocol::message::response::{ApiError, Verdict, classify};
use protocol::message::{Draft, messages_path};
use protocol::retry::{self, Policy};
use protocol::trust::Api;
use sender::{Failure, FailureKind, Method, Outcome, Request, Response};
use serde_json::Value;

use crate::clock::{Now, now};
use crate::function::message::parameters;
use crate::provider::queue::{MessageJob, MessageResult, Task};
use crate::setting;

mod reconcile;

pub(crate) use protocol::message::list::Found;
pub(crate) use reconcile::{concluded, reconciled};

/// The request of a job, or the result if there can be none.
pub(crate) fn request(job: &mut MessageJob) -> Result<Request, MessageResult> {
    let mut request = match job.task {
        Task::CheckMedia => return media_check::request(job, &now()),
        Task::Create => create(job)?,
        Task::Reconcile => reconcile::request(job)?,
    };
    let accept = ("accept".to_owned(), "application/json".to_owned());
    request.headers.push(accept);
    Ok(request)
}

fn create(job: &MessageJob) -> Result<Request, MessageResult> {
    let further = match &job.twilio_parameters {
        None => Some(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .ok()
            .as_ref()
            .and_then(parameters),
    };
    let Some(further) = further else {
        return Err(refused(job, "further parameters are no names and values"));
    };
    let extra: Vec<_> = further
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let media: Vec<_> = job.media_urls.iter().map(String::as_str).collect();
    let callback =
        (job.status_callback.as_ref()).map(|url| with_parameter(url, ATTEMPT, &job.lease_token));
    // Other channels keep times of their own.
    let is_sms = !job.to_address.contains(':');
    let draft = Draft {
        to: &job.to_address,
        from: job.from_address.as_deref(),
        messaging_service_sid: job.messaging_service_sid.as_deref(),
        body: job.body.as_deref(),
        media_urls: &media,
        status_callback: callback.as_deref(),
        validity_period: is_sms
            .then(|| u32::try_from(job.validity_s.clamp(1, MAX_VALIDITY)).ok())
            .flatten(),
        extra: &extra,
    };
    let body = draft
        .encode()
        .map_err(|error| refused(job, &error.to_string()))?;
    let mut request = to_api(job, Method::Post, &messages_path(&job.account_sid))?;
    request.timeout = setting::request_timeout();
    request.body = body.into_bytes();
    request.headers.push((
        "content-type".to_owned(),
        "application/x-www-form-urlencoded".to_owned(),
    ));
    Ok(request)
}

/// A request to the account's API with its credentials.
fn to_api(job: &MessageJob, method: Method, path: &str) -> Result<Request, MessageResult> {
    let to = Api::parse(&job.api_url)
        .and_then(|api| api.at(path))
        .map_err(|fault| blocked(job, format!("api_url cannot be used: {fault}"), &now()))?;
    let authorization = job.authorization.clone().ok_or_else(|| {
        let reason = "the account has no credentials".to_owned();
        blocked(job, reason, &now())
    })?;
    let request = Request::authorized(job.message_id, method, to, authorization);
    Ok(request)
}

/// The result of a request that creates a message.
pub(crate) fn created(job: &MessageJob, outcome: &Outcome, now: &Now) -> MessageResult {
    match outcome {
        Outcome::NotProcessed(failure) => not_processed(job, failure, now),
        Outcome::Unknown(failure) => MessageResult {
            reason: Some(failure.to_string()),
            ..unknown(job)
        },
        Outcome::Response(response) => answered(job, response, now),
    }
}

fn not_processed(job: &MessageJob, failure: &Failure, now: &Now) -> MessageResult {
    match failure.kind {
        FailureKind::InvalidRequest => refused(job, &failure.to_string()),
        // The worker ended.
        FailureKind::Stopped => deferred(job, failure.to_string()),
        _ => MessageResult {
            is_away: true,
            ..retry_later(job, failure.to_string(), None, now)
        },
    }
}

fn answered(job: &MessageJob, response: &Response, now: &Now) -> MessageResult {
    let verdict = classify(response.status, &response.body);
    let said = match verdict {
        Verdict::Accepted(resource) => MessageResult {
            outcome: "accepted",
            message_sid: Some(resource.sid),
            status: resource.status.or_else(|| Some("queued".to_owned())),
            error_code: resource.error_code,
            reason: resource.error_message,
            ..result(job)
        },
        Verdict::Refused { error, .. } => MessageResult {
            error_code: error.code,
            ..refused(job, &wording(&error, response))
        },
        Verdict::NotProcessed {
            error,
            is_account_fault: true,
        } => MessageResult {
            outcome: "not_processed",
            error_code: error.code,
            reason: Some(wording(&error, response)),
            retry_after_ms: Some(0),
            account_at_fault: Some(job.account_sid.clone()),
            ..result(job)
        },
        Verdict::NotProcessed { error, .. } => {
            let header = response.header("retry-after");
            let asked = header.and_then(|header| retry::retry_after(header, now.unix_ms));
            let advised = error
                .code
                .map(|code| error_code::advice(code).retry.delay());
            let advised = advised.map(|seconds| now.unix_ms + i64::from(seconds) * 1000);
            let not_before = asked.max(advised);
            MessageResult {
                error_code: error.code,
                ..retry_later(job, wording(&error, response), not_before, now)
            }
        }
        Verdict::Unknown { error } => MessageResult {
            error_code: error.code,
            reason: Some(wording(&error, response)),
            ..unknown(job)
        },
    };
    MessageResult {
        http_status: Some(response.status.into()),
        response: Some(stored(&response.body)),
        ..said
    }
}

/// The result of a job that cannot be done now for a reason on our side. It is retried.
pub(crate) fn blocked(job: &MessageJob, reason: String, now: &Now) -> MessageResult {
    match job.task {
        Task::CheckMedia | Task::Create => retry_later(job, reason, None, now),
        Task::Reconcile => MessageResult {
            outcome: "again",
            reason: Some(reason),
            retry_after_ms: Some(60_000),
            ..result(job)
        },
    }
}

fn result(job: &MessageJob) -> MessageResult {
    MessageResult {
        message_id: job.message_id,
        lease_token: job.lease_token.clone(),
        ..MessageResult::default()
    }
}

pub(crate) fn refused(job: &MessageJob, reason: &str) -> MessageResult {
    MessageResult {
        outcome: "refused",
        status: Some("refused".to_owned()),
        reason: Some(reason.to_owned()),
        ..result(job)
    }
}

fn unknown(job: &MessageJob) -> MessageResult {
    MessageResult {
        outcome: "unknown",
        status: Some("unknown".to_owned()),
        retry_after_ms: Some(FIRST_RECONCILIATION),
        ..result(job)
    }
}

/// The result of a job of which nothing was sent; it can be retried at once.
pub(crate) fn deferred(job: &MessageJob, reason: String) -> MessageResult {
    MessageResult {
        outcome: "not_processed",
        reason: Some(reason),
        retry_after_ms: Some(0),
        ..result(job)
    }
}

pub(crate) fn retry_later(
    job: &MessageJob,
    reason: String,
    not_before: Option<i64>,
    now: &Now,
) -> MessageResult {
    let policy = Policy::DEFAULT;
    match retry::next(
        &policy,
        job.tries,
        now.unix_ms,
        None,
        now.jitter,
        not_before,
    ) {
        Some(at) => MessageResult {
            outcome: "not_processed",
            reason: Some(reason),
            retry_after_ms: Some(at - now.unix_ms),
            ..result(job)
        },
        None => refused(
            job,
            &format!("given up after {} tries: {reason}", job.tries),
        ),
    }
}

fn wording(error: &ApiError, response: &Response) -> String {
    let said = error.message.clone();
    said.unwrap_or_else(|| format!("HTTP status {}", response.status))
}

/// The body as jsonb takes it: JSON as it is, anything else as a text of bounded length.
fn stored(body: &[u8]) -> String {
    let value = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        Value::String(text.chars().take(MAX_TEXT).collect())
    });
    storable_json(value).to_string()
}

const MAX_VALIDITY: i32 = 36_000;
const MAX_TEXT: usize = 2000;

/// Milliseconds until an open outcome is first looked up: the callback is usually sooner.
const FIRST_RECONCILIATION: i64 = 2_000;
