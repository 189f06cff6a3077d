//! Jobs besides creating messages at Twilio: fetching the originals of fallbacks, and the state of messages, from Twilio;
//! sending, polling and canceling messages at SMSGate; registering webhooks there; sinks of Event Streams. This module holds
//! the calls of the database.

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

use encryption::Encryption;
use request::request;
use response::{blocked, classify};

pub(crate) use claim::claim;
pub(crate) use in_flight::InFlight;

/// A claimed job with all that its request needs.
pub(crate) struct Job {
    /// The message, or for a registration the webhook.
    id: i64,
    lease_token: String,
    task: Task,
    tries: u32,
    base_url: String,
    user: String,
    secret: Option<Secret>,
    /// The name of the message there: the path of the original at Twilio, our id at SMSGate.
    name: String,
    phone: Phone,
    webhook: Webhook,
    sink: SinkRequest,
    token_auth: TokenAuth,
}

impl Job {
    /// The identifier of its request.
    pub(crate) fn key(&self) -> i64 {
        let kind = match self.task {
            Task::Register | Task::Unregister => Kind::Webhook,
            Task::EventSink => Kind::EventSink,
            Task::FetchState => Kind::Reconciliation,
            _ => Kind::Job,
        };
        kind.request_id(self.id)
    }
}

/// The access token that replaces the password, if the gateway uses tokens.
#[derive(Default)]
struct TokenAuth {
    is_wanted: bool,
    /// Once there is one.
    bearer: Option<Authorization>,
    /// Whether the gateway has rejected a token for this job.
    is_renewed: bool,
}

impl TokenAuth {
    fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            ..Self::default()
        }
    }
}

/// How a phone is to send a message.
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
    encryption: Encryption,
}

/// A request to the Events API: SQL decides on it.
#[derive(Default)]
struct SinkRequest {
    method: String,
    /// The encoded parameters of a POST.
    form: Option<String>,
}

/// The URL that phones call, and the event.
#[derive(Default)]
struct Webhook {
    url: String,
    event: String,
    device_id: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Task {
    /// Fetch the original of a fallback from Twilio.
    #[default]
    FetchOriginal,
    /// Fetch the state of a message from Twilio.
    FetchState,
    /// Send by SMSGate.
    Send,
    /// Find out whether SMSGate has the message.
    Reconcile,
    /// Ask SMSGate for the state of the message.
    Poll,
    /// Cancel the message at SMSGate.
    Cancel,
    /// Register a webhook at SMSGate.
    Register,
    /// Remove a webhook from SMSGate.
    Unregister,
    /// Make, check or remove a sink of Event Streams at Twilio.
    EventSink,
}

/// The names of tasks at SMSGate in SQL.
const SMSGATE_TASKS: [(&str, Task); 4] = [
    ("send", Task::Send),
    ("look", Task::Reconcile),
    ("ask", Task::Poll),
    ("withdraw", Task::Cancel),
];

/// The result of a job.
#[derive(Default)]
pub(crate) struct JobResult {
    /// The identifier of the job.
    id: i64,
    lease_token: String,
    task: Task,
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
    /// The message as Twilio shows it, as JSON.
    resource: Option<String>,
}

impl JobResult {
    /// The subject of the job, for the log.
    pub(crate) fn name(&self) -> String {
        match self.task {
            Task::Register | Task::Unregister => format!("webhook {}", self.id),
            Task::EventSink => format!("event sink {}", self.id),
            _ => format!("message {}", self.id),
        }
    }
}

/// In how many seconds the next job is due.
pub(crate) fn next_due() -> Result<Option<f64>, ErrorReport> {
    first(
        "select least(twilio_internal.next_original_fetch(), twilio_internal.next_smsgate(), twilio_internal.next_webhook(), \
         twilio_internal.next_event_sink(), twilio_internal.next_reconciliation())",
        &[],
    )
}

/// Saves the results of jobs in the order of their ids, the order in which rows are locked everywhere.
pub(crate) fn finish(results: &[JobResult]) -> Result<(), ErrorReport> {
    let mut results: Vec<_> = results.iter().collect();
    results.sort_unstable_by_key(|result| result.id);
    for result in results {
        match result.task {
            Task::FetchOriginal => finish_original_fetch(result)?,
            Task::FetchState => finish_reconciliation(result)?,
            Task::Register | Task::Unregister => finish_webhook(result)?,
            Task::EventSink => finish_event_sink(result)?,
            _ => finish_smsgate(result)?,
        }
    }
    Ok(())
}

fn finish_original_fetch(result: &JobResult) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 10] = [
        result.id.into(),
        result.lease_token.as_str().into(),
        result.outcome.into(),
        result.body.as_deref().into(),
        result.media_count.into(),
        result.dated.into(),
        result.reason.as_deref().into(),
        result.retry_after_ms.into(),
        result.state.as_deref().into(),
        result.error_code.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_original_fetch($1, $2::uuid, $3, $4, $5, to_timestamp($6 / 1000.0), $7, $8, $9, $10)",
        &arguments,
    )
    .map(drop)
}

fn finish_reconciliation(result: &JobResult) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 6] = [
        result.id.into(),
        result.lease_token.as_str().into(),
        result.outcome.into(),
        result.resource.as_deref().into(),
        result.reason.as_deref().into(),
        result.retry_after_ms.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_reconciliation($1, $2::uuid, $3, $4::jsonb, $5, $6)",
        &arguments,
    )
    .map(drop)
}

fn finish_smsgate(result: &JobResult) -> Result<(), ErrorReport> {
    let named = |(_, task): &&(&str, Task)| *task == result.task;
    let task = SMSGATE_TASKS.iter().find(named).map(|(name, _)| *name);
    let arguments: [DatumWithOid<'_>; 10] = [
        result.id.into(),
        result.lease_token.as_str().into(),
        task.into(),
        result.outcome.into(),
        result.state.as_deref().into(),
        result.device_id.as_deref().into(),
        result.reason.as_deref().into(),
        result.http_status.into(),
        result.retry_after_ms.into(),
        result.is_away.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_smsgate($1, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10)",
        &arguments,
    )
    .map(drop)
}

fn finish_event_sink(result: &JobResult) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 6] = [
        result.id.into(),
        result.lease_token.as_str().into(),
        result.http_status.into(),
        result.body.as_deref().into(),
        result.reason.as_deref().into(),
        result.retry_after_ms.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_event_sink($1, $2::uuid, $3, $4, $5, $6)",
        &arguments,
    )
    .map(drop)
}

fn finish_webhook(result: &JobResult) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 5] = [
        result.id.into(),
        result.lease_token.as_str().into(),
        (result.outcome == "done").into(),
        result.reason.as_deref().into(),
        result.retry_after_ms.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_webhook($1, $2::uuid, $3, $4, $5)",
        &arguments,
    )
    .map(drop)
}
