//! What the worker does besides creating messages at Twilio: it asks for the originals of fallbacks, sends,
//! asks for and takes back messages at SMSGate, and registers webhooks there. This is the database's side.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use sender::Authorization;

use crate::provider::request_id::Kind;
use crate::secret::Secret;
use crate::spi::first;

mod claim;
mod encryption;
mod in_flight;
mod request;
mod response;
mod token;

use encryption::Sealing;
use request::request;
use response::{hindered, judge};

pub(crate) use claim::claim;
pub(crate) use in_flight::Round;

/// An errand that is claimed, and all that is needed for it.
pub(crate) struct Errand {
    /// The message, or for a registration the webhook.
    id: i64,
    lease_token: String,
    task: Task,
    tries: u32,
    base_url: String,
    user: String,
    secret: Option<Secret>,
    /// What the message is called there: the original's path at Twilio, our id at SMSGate.
    name: String,
    phone: Phone,
    webhook: Webhook,
    pass: Pass,
}

impl Errand {
    /// What its request is known by.
    pub(crate) fn key(&self) -> i64 {
        let kind = match self.task {
            Task::Register | Task::Unregister => Kind::Webhook,
            _ => Kind::Errand,
        };
        kind.request_id(self.id)
    }
}

/// A token that stands in for the secret.
#[derive(Default)]
struct Pass {
    is_wanted: bool,
    /// Once there is one.
    bearer: Option<Authorization>,
    /// Whether one was refused already.
    is_renewed: bool,
}

impl Pass {
    fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            ..Self::default()
        }
    }
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
    sealing: Sealing,
}

/// What phones are to call, and on what.
#[derive(Default)]
struct Webhook {
    url: String,
    event: String,
    device_id: Option<String>,
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
    /// Have phones call a webhook.
    Register,
    /// Have them call it no more.
    Unregister,
}

/// What came of an errand.
#[derive(Default)]
pub(crate) struct Finding {
    /// Of the errand.
    id: i64,
    lease_token: String,
    task: &'static str,
    outcome: &'static str,
    reason: Option<String>,
    http_status: Option<i32>,
    /// Whether the gateway could not be reached.
    is_away: bool,
    retry_after_ms: Option<i64>,
    /// SMSGate's state in our words, or Twilio's.
    state: Option<String>,
    error_code: Option<i32>,
    device_id: Option<String>,
    body: Option<String>,
    media_count: i32,
    /// When the original was created, in milliseconds since 1970.
    dated: Option<i64>,
}

impl Finding {
    /// What it is about, for the log.
    pub(crate) fn name(&self) -> String {
        match self.task {
            "register" | "unregister" => format!("webhook {}", self.id),
            _ => format!("message {}", self.id),
        }
    }
}

/// In how many seconds the next errand is due.
pub(crate) fn next_due() -> Result<Option<f64>, ErrorReport> {
    first(
        "select least(twilio.next_preparation(), twilio.next_phone(), twilio.next_webhook())",
        &[],
    )
}

/// Writes down what came of errands, in the order of their ids: whoever else locks several goes by that.
pub(crate) fn finish(findings: &[Finding]) -> Result<(), ErrorReport> {
    let mut findings: Vec<_> = findings.iter().collect();
    findings.sort_unstable_by_key(|finding| finding.id);
    for finding in findings {
        match finding.task {
            "prepare" => finish_preparation(finding)?,
            "register" | "unregister" => finish_webhook(finding)?,
            _ => finish_phone(finding)?,
        }
    }
    Ok(())
}

fn finish_preparation(finding: &Finding) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 10] = [
        finding.id.into(),
        finding.lease_token.as_str().into(),
        finding.outcome.into(),
        finding.body.as_deref().into(),
        finding.media_count.into(),
        finding.dated.into(),
        finding.reason.as_deref().into(),
        finding.retry_after_ms.into(),
        finding.state.as_deref().into(),
        finding.error_code.into(),
    ];
    first::<bool>(
        "select twilio.finish_preparation($1, $2::uuid, $3, $4, $5, to_timestamp($6 / 1000.0), $7, $8, $9, $10)",
        &arguments,
    )
    .map(drop)
}

fn finish_phone(finding: &Finding) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 10] = [
        finding.id.into(),
        finding.lease_token.as_str().into(),
        finding.task.into(),
        finding.outcome.into(),
        finding.state.as_deref().into(),
        finding.device_id.as_deref().into(),
        finding.reason.as_deref().into(),
        finding.http_status.into(),
        finding.retry_after_ms.into(),
        finding.is_away.into(),
    ];
    first::<bool>(
        "select twilio.finish_phone($1, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10)",
        &arguments,
    )
    .map(drop)
}

fn finish_webhook(finding: &Finding) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 5] = [
        finding.id.into(),
        finding.lease_token.as_str().into(),
        (finding.outcome == "done").into(),
        finding.reason.as_deref().into(),
        finding.retry_after_ms.into(),
    ];
    first::<bool>(
        "select twilio.finish_webhook($1, $2::uuid, $3, $4, $5)",
        &arguments,
    )
    .map(drop)
}
