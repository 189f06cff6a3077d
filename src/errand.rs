//! What the worker does besides creating messages at Twilio: it asks for the originals of fallbacks, and
//! sends, asks for and takes back messages at SMSGate.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::form::storable;
use protocol::message::answer::{self, ApiError};
use protocol::message::message_path;
use protocol::retry::{self, Policy};
use protocol::smsgate::state::MessageState;
use protocol::smsgate::{self, Draft, Fetched, Verdict};
use protocol::status::from_smsgate;
use sender::{Authorization, FailureKind, Method, Outcome, Request, Response};

use crate::provider::Moment;
use crate::queue::{first, rows};
use crate::{secret, setting};

/// An errand that is claimed, and all that is needed for it.
pub(crate) struct Errand {
    pub(crate) message_id: i64,
    lease_token: String,
    task: Task,
    tries: u32,
    base_url: String,
    user: String,
    /// As stored.
    secret: Option<String>,
    /// What the message is called there: the original's path at Twilio, our id at SMSGate.
    name: String,
    phone: Phone,
}

/// How a message is to leave its phone.
#[derive(Default)]
struct Phone {
    device_id: Option<String>,
    to: String,
    text: String,
    sim_number: Option<u8>,
    priority: i8,
    with_delivery_report: bool,
    skip_phone_validation: bool,
    ttl: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Ask Twilio for the original of a fallback.
    Prepare,
    /// Send by SMSGate.
    Send,
    /// Find out whether SMSGate has it.
    Look,
    /// Ask SMSGate for its state.
    Ask,
    /// Take it back from SMSGate.
    Withdraw,
}

/// What came of an errand.
#[derive(Default)]
pub(crate) struct Finding {
    pub(crate) message_id: i64,
    lease_token: String,
    task: &'static str,
    outcome: &'static str,
    reason: Option<String>,
    http_status: Option<i32>,
    retry_after_ms: Option<i64>,
    /// SMSGate's state, in our words.
    state: Option<String>,
    device_id: Option<String>,
    body: Option<String>,
    media_count: i32,
    /// When the original was created, in milliseconds since 1970.
    dated: Option<i64>,
}

/// In how many seconds the next errand is due.
pub(crate) fn next_due() -> Result<Option<f64>, ErrorReport> {
    first(
        "select least(twilio.next_overdue(), twilio.next_preparation(), twilio.next_phone())",
        &[],
    )
}

/// Takes due errands, once what is overdue is planned.
pub(crate) fn claim(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    first::<i32>("select twilio.plan_overdue()", &[])?;
    let mut errands = prepare(at_most, lease_s)?;
    let room = at_most.saturating_sub(errands.len());
    if room > 0 {
        errands.extend(phones(room, lease_s)?);
    }
    Ok(errands)
}

fn prepare(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    rows(
        "select message_id, lease_token::text, tries, api_url, user_name, secret, account_sid, message_sid \
         from twilio.claim_preparation($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            Ok(Errand {
                message_id: row.get(1)?.unwrap_or_default(),
                lease_token: text(2)?,
                task: Task::Prepare,
                tries: unsigned(row.get(3)?),
                base_url: text(4)?,
                user: text(5)?,
                secret: row.get(6)?,
                name: message_path(&text(7)?, &text(8)?),
                phone: Phone::default(),
            })
        },
    )
}

fn phones(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    rows(
        "select message_id, lease_token::text, task, tries, base_url, username, password, reference, device_id, \
         to_address, body, sim_number, priority, with_delivery_report, skip_phone_validation, ttl_s \
         from twilio.claim_phone($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            let flag = |column| row.get::<bool>(column).map(Option::unwrap_or_default);
            Ok(Errand {
                message_id: row.get(1)?.unwrap_or_default(),
                lease_token: text(2)?,
                task: match text(3)?.as_str() {
                    "send" => Task::Send,
                    "look" => Task::Look,
                    "withdraw" => Task::Withdraw,
                    _ => Task::Ask,
                },
                tries: unsigned(row.get(4)?),
                base_url: text(5)?,
                user: text(6)?,
                secret: row.get(7)?,
                name: text(8)?,
                phone: Phone {
                    device_id: row.get(9)?,
                    to: text(10)?,
                    text: text(11)?,
                    sim_number: row.get::<i32>(12)?.and_then(|n| u8::try_from(n).ok()),
                    priority: row
                        .get::<i32>(13)?
                        .and_then(|n| i8::try_from(n).ok())
                        .unwrap_or(0),
                    with_delivery_report: flag(14)?,
                    skip_phone_validation: flag(15)?,
                    ttl: unsigned(row.get(16)?),
                },
            })
        },
    )
}

fn unsigned(number: Option<i32>) -> u32 {
    number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// The request that an errand takes; a finding where it cannot be made. Its id is below 0, those of
/// creates are above.
pub(crate) fn request(errand: &Errand, moment: &Moment) -> Result<Request, Finding> {
    let hindered = |reason: String| later(errand, "failed", reason, None, moment);
    let stored = errand
        .secret
        .as_ref()
        .ok_or_else(|| hindered("the account has no live auth token and no API key".to_owned()))?;
    let secret = secret::resolve(stored).map_err(|error| hindered(error.to_string()))?;
    let base = &errand.base_url;
    let path = smsgate::message_path(&errand.name);
    let (method, url) = match errand.task {
        Task::Prepare => (Method::Get, format!("{base}{}", errand.name)),
        Task::Send if errand.phone.skip_phone_validation => (
            Method::Post,
            format!("{base}{}?skipPhoneValidation=true", smsgate::SEND_PATH),
        ),
        Task::Send => (Method::Post, format!("{base}{}", smsgate::SEND_PATH)),
        Task::Look | Task::Ask => (Method::Get, format!("{base}{path}")),
        Task::Withdraw => (Method::Delete, format!("{base}{path}")),
    };
    let mut request = Request::new(-errand.message_id, method, url);
    request.authorization = Some(Authorization::basic(
        &errand.user,
        &String::from_utf8_lossy(&secret),
    ));
    request
        .headers
        .push(("accept".to_owned(), "application/json".to_owned()));
    request.timeout = setting::request_timeout();
    if errand.task != Task::Prepare {
        request.timeout = request.timeout.min(PHONE_TIMEOUT);
    }
    if errand.task == Task::Send {
        let body = draft(errand)
            .encode()
            .map_err(|error| refused(errand, error.to_string()))?;
        request.body = body.into_bytes();
        request
            .headers
            .push(("content-type".to_owned(), "application/json".to_owned()));
    }
    Ok(request)
}

fn draft(errand: &Errand) -> Draft<'_> {
    let phone = &errand.phone;
    Draft {
        id: &errand.name,
        device_id: phone.device_id.as_deref(),
        to: &phone.to,
        text: &phone.text,
        sim_number: phone.sim_number,
        priority: phone.priority,
        ttl: phone.ttl,
        with_delivery_report: phone.with_delivery_report,
    }
}

/// An errand that could not be begun, to be tried again.
pub(crate) fn hindered(errand: &Errand, reason: String, moment: &Moment) -> Finding {
    later(errand, "failed", reason, None, moment)
}

/// What an outcome makes of an errand.
pub(crate) fn judge(errand: &Errand, outcome: &Outcome, moment: &Moment) -> Finding {
    match outcome {
        Outcome::NotProcessed(failure)
            if failure.kind == FailureKind::InvalidRequest && errand.task == Task::Send =>
        {
            refused(errand, failure.to_string())
        }
        Outcome::NotProcessed(failure) => {
            later(errand, "failed", failure.to_string(), None, moment)
        }
        Outcome::Unknown(failure) => later(errand, "unknown", failure.to_string(), None, moment),
        Outcome::Response(response) => {
            let finding = match errand.task {
                Task::Prepare => prepared(errand, response, moment),
                Task::Send => sent(errand, response, moment),
                Task::Look | Task::Ask => asked(errand, response, moment),
                Task::Withdraw => withdrawn(errand, response),
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
        message_id: errand.message_id,
        lease_token: errand.lease_token.clone(),
        task: match errand.task {
            Task::Prepare => "prepare",
            Task::Send => "send",
            Task::Look => "look",
            Task::Ask => "ask",
            Task::Withdraw => "withdraw",
        },
        ..Finding::default()
    }
}

fn refused(errand: &Errand, reason: String) -> Finding {
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

fn asked_for(response: &Response, moment: &Moment) -> Option<i64> {
    retry::retry_after(response.header("retry-after")?, moment.now)
}

/// Writes down what came of errands.
pub(crate) fn finish(findings: &[Finding]) -> Result<(), ErrorReport> {
    for finding in findings {
        if finding.task == "prepare" {
            let arguments: [DatumWithOid<'_>; 8] = [
                finding.message_id.into(),
                finding.lease_token.as_str().into(),
                finding.outcome.into(),
                finding.body.as_deref().into(),
                finding.media_count.into(),
                finding.dated.into(),
                finding.reason.as_deref().into(),
                finding.retry_after_ms.into(),
            ];
            first::<bool>(
                "select twilio.finish_preparation($1, $2::uuid, $3, $4, $5, to_timestamp($6 / 1000.0), $7, $8)",
                &arguments,
            )?;
        } else {
            let arguments: [DatumWithOid<'_>; 9] = [
                finding.message_id.into(),
                finding.lease_token.as_str().into(),
                finding.task.into(),
                finding.outcome.into(),
                finding.state.as_deref().into(),
                finding.device_id.as_deref().into(),
                finding.reason.as_deref().into(),
                finding.http_status.into(),
                finding.retry_after_ms.into(),
            ];
            first::<bool>(
                "select twilio.finish_phone($1, $2::uuid, $3, $4, $5, $6, $7, $8, $9)",
                &arguments,
            )?;
        }
    }
    Ok(())
}

/// A gateway that takes longer to answer is asked again: our id makes that harmless.
const PHONE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a gateway is left alone that cannot take a message.
const BUSY_MS: i64 = 60_000;
