//! What an answer makes of an errand.

use protocol::form::storable;
use protocol::message::answer::{self, ApiError};
use protocol::retry::{self, Policy};
use protocol::smsgate::state::MessageState;
use protocol::smsgate::{self, Fetched, Verdict};
use protocol::status::from_smsgate;
use sender::{FailureKind, Outcome, Response};

use super::{Errand, Finding, Task};
use crate::clock::Moment;

/// An errand that could not be begun, to be tried again: not before `asked`, where a time was named.
pub(super) fn hindered(
    errand: &Errand,
    reason: String,
    asked: Option<i64>,
    moment: &Moment,
) -> Finding {
    later(errand, "failed", reason, asked, moment)
}

/// What an outcome makes of an errand.
pub(super) fn judge(errand: &Errand, outcome: &Outcome, moment: &Moment) -> Finding {
    match outcome {
        Outcome::NotProcessed(failure)
            if failure.kind == FailureKind::InvalidRequest && errand.task == Task::Send =>
        {
            refused(errand, failure.to_string())
        }
        Outcome::NotProcessed(failure) => Finding {
            // Otherwise it was the worker that ended.
            is_away: failure.kind != FailureKind::Stopped,
            ..later(errand, "failed", failure.to_string(), None, moment)
        },
        Outcome::Unknown(failure) => later(errand, "unknown", failure.to_string(), None, moment),
        Outcome::Response(response) => {
            let finding = match errand.task {
                Task::Prepare => prepared(errand, response, moment),
                Task::Send => sent(errand, response, moment),
                Task::Look | Task::Ask => asked(errand, response, moment),
                Task::Withdraw => withdrawn(errand, response),
                Task::Register | Task::Unregister => registered(errand, response, moment),
            };
            Finding {
                http_status: Some(response.status.into()),
                ..finding
            }
        }
    }
}

fn prepared(errand: &Errand, response: &Response, moment: &Moment) -> Finding {
    let said = |error: ApiError| {
        error
            .message
            .unwrap_or_else(|| format!("HTTP status {}", response.status))
    };
    match answer::classify_fetch(response.status, &response.body) {
        answer::Fetched::Found(resource) => Finding {
            outcome: "found",
            body: resource.body.map(|body| storable(&body).into_owned()),
            media_count: resource
                .num_media
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(0),
            dated: resource.created_at,
            state: resource.status.map(|status| storable(&status).into_owned()),
            error_code: resource.error_code,
            ..finding(errand)
        },
        answer::Fetched::Missing => Finding {
            outcome: "missing",
            ..finding(errand)
        },
        answer::Fetched::Refused(error) | answer::Fetched::Failed(error) => later(
            errand,
            "failed",
            said(error),
            asked_for(response, moment),
            moment,
        ),
    }
}

fn sent(errand: &Errand, response: &Response, moment: &Moment) -> Finding {
    let said = |message: Option<String>| {
        message.unwrap_or_else(|| format!("HTTP status {}", response.status))
    };
    match smsgate::classify(response.status, &response.body) {
        Verdict::Accepted { state, .. } => told(errand, "accepted", state.as_deref()),
        Verdict::Refused { message } => refused(errand, said(message)),
        Verdict::NotProcessed { message, .. } => {
            // A phone that is away or a queue that is full takes a while; so does a wrong password.
            let asked = asked_for(response, moment).unwrap_or(moment.now + BUSY_MS);
            later(errand, "failed", said(message), Some(asked), moment)
        }
        Verdict::Unknown { message } => later(
            errand,
            "unknown",
            said(message),
            asked_for(response, moment),
            moment,
        ),
    }
}

fn asked(errand: &Errand, response: &Response, moment: &Moment) -> Finding {
    let found = if errand.task == Task::Look {
        "accepted"
    } else {
        "found"
    };
    match smsgate::classify_fetch(response.status, &response.body) {
        Fetched::Found(state) => told(errand, found, Some(&state)),
        Fetched::Missing => Finding {
            outcome: "missing",
            ..finding(errand)
        },
        Fetched::Failed(message) => {
            let said = message.unwrap_or_else(|| format!("HTTP status {}", response.status));
            later(errand, "failed", said, asked_for(response, moment), moment)
        }
    }
}

fn withdrawn(errand: &Errand, response: &Response) -> Finding {
    // What is no longer pending cannot be taken back: then its state is asked for.
    let outcome = match response.status {
        200..=299 => "withdrawn",
        400..=499 => "late",
        _ => "failed",
    };
    Finding {
        outcome,
        ..finding(errand)
    }
}

fn registered(errand: &Errand, response: &Response, moment: &Moment) -> Finding {
    let is_done = match errand.task {
        Task::Unregister => matches!(response.status, 200..=299 | 404),
        _ => (200..=299).contains(&response.status),
    };
    if is_done {
        return Finding {
            outcome: "done",
            ..finding(errand)
        };
    }
    let said = smsgate::error_message(&response.body)
        .unwrap_or_else(|| format!("HTTP status {}", response.status));
    let asked = asked_for(response, moment).unwrap_or(moment.now + BUSY_MS);
    later(errand, "failed", said, Some(asked), moment)
}

fn told(errand: &Errand, outcome: &'static str, state: Option<&MessageState>) -> Finding {
    Finding {
        outcome,
        state: state.map(|state| storable(&from_smsgate(&state.state)).into_owned()),
        device_id: state.and_then(|state| state.device_id.clone()),
        reason: state
            .and_then(|state| state.reason.as_deref())
            .map(|reason| storable(reason).into_owned()),
        ..finding(errand)
    }
}

fn finding(errand: &Errand) -> Finding {
    Finding {
        id: errand.id,
        lease_token: errand.lease_token.clone(),
        task: match errand.task {
            Task::Prepare => "prepare",
            Task::Send => "send",
            Task::Look => "look",
            Task::Ask => "ask",
            Task::Withdraw => "withdraw",
            Task::Register => "register",
            Task::Unregister => "unregister",
        },
        ..Finding::default()
    }
}

pub(super) fn refused(errand: &Errand, reason: String) -> Finding {
    Finding {
        outcome: "refused",
        reason: Some(storable(&reason).into_owned()),
        ..finding(errand)
    }
}

fn later(
    errand: &Errand,
    outcome: &'static str,
    reason: String,
    asked: Option<i64>,
    moment: &Moment,
) -> Finding {
    // It goes on until the message expires, which is seen to where the finding is written down.
    let policy = Policy {
        most_tries: u32::MAX,
        ..Policy::DEFAULT
    };
    let at = retry::next(
        &policy,
        errand.tries.max(1),
        moment.now,
        None,
        moment.jitter,
        asked,
    );
    // Of a send there are two kinds of failure: what did not happen, and what may have.
    let outcome = match (errand.task, outcome) {
        (Task::Send, "failed") => "not_processed",
        (Task::Look, _) => "unknown",
        (Task::Send, other) => other,
        _ => "failed",
    };
    Finding {
        outcome,
        reason: Some(storable(&reason).into_owned()),
        retry_after_ms: at.map(|at| at - moment.now),
        ..finding(errand)
    }
}

/// Before when the server does not want to be asked again.
pub(super) fn asked_for(response: &Response, moment: &Moment) -> Option<i64> {
    retry::retry_after(response.header("retry-after")?, moment.now)
}

/// How long a gateway is left alone that cannot take a message, or lets nobody in.
pub(super) const BUSY_MS: i64 = 60_000;
