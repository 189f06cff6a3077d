//! Work at Twilio: the request that it takes, and what the answer makes of it.

pub(crate) mod media_check;

use protocol::form::storable;
use protocol::message::answer::{ApiError, Verdict, classify};
use protocol::message::{ATTEMPT, Draft, messages_path, with_parameter};
use protocol::retry::{self, Policy};
use protocol::trust::Api;
use sender::{Failure, FailureKind, Method, Outcome, Request, Response};
use serde_json::Value;

use crate::clock::{Moment, moment};
use crate::function::message::parameters;
use crate::provider::queue::{End, Task, Work};
use crate::setting;

mod reconcile;

pub(crate) use protocol::message::list::Found;
pub(crate) use reconcile::{concluded, looked_up};

/// The request that work takes; an end where it cannot be made.
pub(crate) fn request(work: &mut Work) -> Result<Request, End> {
    let mut request = match work.task {
        Task::Check => return media_check::request(work, &moment()),
        Task::Create => create(work)?,
        Task::LookUp => reconcile::request(work)?,
    };
    let accept = ("accept".to_owned(), "application/json".to_owned());
    request.headers.push(accept);
    Ok(request)
}

fn create(work: &Work) -> Result<Request, End> {
    let further = match &work.twilio_parameters {
        None => Some(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .ok()
            .as_ref()
            .and_then(parameters),
    };
    let Some(further) = further else {
        return Err(refused(work, "further parameters are no names and values"));
    };
    let extra: Vec<_> = further
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let media: Vec<_> = work.media_urls.iter().map(String::as_str).collect();
    let callback =
        (work.status_callback.as_ref()).map(|url| with_parameter(url, ATTEMPT, &work.lease_token));
    // Other channels keep times of their own.
    let is_sms = !work.to_address.contains(':');
    let draft = Draft {
        to: &work.to_address,
        from: work.from_address.as_deref(),
        messaging_service_sid: work.messaging_service_sid.as_deref(),
        body: work.body.as_deref(),
        media_urls: &media,
        status_callback: callback.as_deref(),
        validity_period: is_sms
            .then(|| u32::try_from(work.validity_s.clamp(1, LONGEST_VALIDITY)).ok())
            .flatten(),
        send_at: None,
        extra: &extra,
    };
    let body = draft
        .encode(0)
        .map_err(|error| refused(work, &error.to_string()))?;
    let mut request = to_api(work, Method::Post, &messages_path(&work.account_sid))?;
    request.timeout = setting::request_timeout();
    request.body = body.into_bytes();
    request.headers.push((
        "content-type".to_owned(),
        "application/x-www-form-urlencoded".to_owned(),
    ));
    Ok(request)
}

/// A request to the account's API with its credentials.
fn to_api(work: &Work, method: Method, path: &str) -> Result<Request, End> {
    let to = Api::parse(&work.api_url)
        .and_then(|api| api.at(path))
        .map_err(|fault| hindered(work, format!("api_url cannot be used: {fault}"), &moment()))?;
    let authorization = work.authorization.clone().ok_or_else(|| {
        let reason = "the account has no credentials".to_owned();
        hindered(work, reason, &moment())
    })?;
    let request = Request::authorized(work.message_id, method, to, authorization);
    Ok(request)
}

/// What became of a create.
pub(crate) fn created(work: &Work, outcome: &Outcome, moment: &Moment) -> End {
    match outcome {
        Outcome::NotProcessed(failure) => not_processed(work, failure, moment),
        Outcome::Unknown(failure) => End {
            reason: Some(failure.to_string()),
            ..unknown(work)
        },
        Outcome::Response(response) => answered(work, response, moment),
    }
}

fn not_processed(work: &Work, failure: &Failure, moment: &Moment) -> End {
    match failure.kind {
        FailureKind::InvalidRequest => refused(work, &failure.to_string()),
        // It was the worker that ended.
        FailureKind::Stopped => put_off(work, failure.to_string()),
        _ => End {
            is_away: true,
            ..later(work, failure.to_string(), None, moment)
        },
    }
}

fn answered(work: &Work, response: &Response, moment: &Moment) -> End {
    let verdict = classify(response.status, &response.body);
    let said = match verdict {
        Verdict::Accepted(resource) => End {
            outcome: "accepted",
            message_sid: Some(resource.sid),
            status: resource.status.or_else(|| Some("queued".to_owned())),
            error_code: resource.error_code,
            reason: resource.error_message,
            ..end(work)
        },
        Verdict::Refused { error, .. } => End {
            error_code: error.code,
            ..refused(work, &wording(&error, response))
        },
        Verdict::NotProcessed {
            error,
            is_account_fault: true,
        } => End {
            outcome: "not_processed",
            error_code: error.code,
            reason: Some(wording(&error, response)),
            retry_after_ms: Some(0),
            account_at_fault: Some(work.account_sid.clone()),
            ..end(work)
        },
        Verdict::NotProcessed { error, .. } => {
            let header = response.header("retry-after");
            let asked = header.and_then(|header| retry::retry_after(header, moment.now));
            End {
                error_code: error.code,
                ..later(work, wording(&error, response), asked, moment)
            }
        }
        Verdict::Unknown { error } => End {
            error_code: error.code,
            reason: Some(wording(&error, response)),
            ..unknown(work)
        },
    };
    End {
        http_status: Some(response.status.into()),
        response: Some(stored(&response.body)),
        ..said
    }
}

/// An end of work that cannot be done for a reason on our side, to be tried again.
pub(crate) fn hindered(work: &Work, reason: String, moment: &Moment) -> End {
    match work.task {
        Task::Check | Task::Create => later(work, reason, None, moment),
        Task::LookUp => End {
            outcome: "again",
            reason: Some(reason),
            retry_after_ms: Some(60_000),
            ..end(work)
        },
    }
}

fn end(work: &Work) -> End {
    End {
        message_id: work.message_id,
        lease_token: work.lease_token.clone(),
        ..End::default()
    }
}

pub(crate) fn refused(work: &Work, reason: &str) -> End {
    End {
        outcome: "refused",
        status: Some("refused".to_owned()),
        reason: Some(reason.to_owned()),
        ..end(work)
    }
}

fn unknown(work: &Work) -> End {
    End {
        outcome: "unknown",
        status: Some("unknown".to_owned()),
        retry_after_ms: Some(FIRST_LOOK_UP),
        ..end(work)
    }
}

/// Nothing was sent, and it can go at once.
pub(crate) fn put_off(work: &Work, reason: String) -> End {
    End {
        outcome: "not_processed",
        reason: Some(reason),
        retry_after_ms: Some(0),
        ..end(work)
    }
}

pub(crate) fn later(work: &Work, reason: String, asked: Option<i64>, moment: &Moment) -> End {
    let policy = Policy::DEFAULT;
    match retry::next(&policy, work.tries, moment.now, None, moment.jitter, asked) {
        Some(at) => End {
            outcome: "not_processed",
            reason: Some(reason),
            retry_after_ms: Some(at - moment.now),
            ..end(work)
        },
        None => refused(
            work,
            &format!("given up after {} tries: {reason}", work.tries),
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
        Value::String(text.chars().take(MOST_TEXT).collect())
    });
    clean(value).to_string()
}

/// Without U+0000, which jsonb cannot hold.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(clean).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (storable(&name).into_owned(), clean(value)))
            .collect(),
        value => value,
    }
}

const LONGEST_VALIDITY: i32 = 36_000;
const MOST_TEXT: usize = 2000;

/// Milliseconds until an open outcome is first looked up: the callback is usually sooner.
const FIRST_LOOK_UP: i64 = 2_000;
