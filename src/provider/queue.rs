//! Jobs that create messages at Twilio: claimed from the outbox, and their results.

use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::message::list::Found;
use sender::Authorization;

use crate::setting;
use crate::spi::{first, rows};

/// A claimed job with all that its requests need.
pub(crate) struct MessageJob {
    pub(crate) message_id: i64,
    /// Of a create it is the attempt's identifier too.
    pub(crate) lease_token: String,
    pub(crate) task: Task,
    pub(crate) tries: u32,
    pub(crate) account_sid: String,
    pub(crate) api_url: String,
    pub(crate) from_address: Option<String>,
    pub(crate) to_address: String,
    pub(crate) messaging_service_sid: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) media_urls: Vec<String>,
    pub(crate) twilio_parameters: Option<String>,
    pub(crate) status_callback: Option<String>,
    /// Seconds until it expires.
    pub(crate) validity_s: i32,
    /// When the create began, in milliseconds since 1970.
    pub(crate) started_at: i64,
    /// When the lease is over.
    pub(crate) lease_end: Instant,
    /// The credentials of its requests, once they are known.
    pub(crate) authorization: Option<Authorization>,
    /// The pages of the list that were read so far.
    pub(crate) pages: Pages,
    /// How far the look at its files has come.
    pub(crate) progress: Progress,
}

/// The pages of a look-up.
#[derive(Default)]
pub(crate) struct Pages {
    /// From the request for the first one on.
    pub(crate) found: Option<Found>,
    /// Path and query of the next one; the first one's is made up from the job.
    pub(crate) next: Option<String>,
}

/// How many files of a message are checked.
pub(crate) struct Progress {
    /// The number of files that can be sent.
    pub(crate) passed: usize,
    pub(crate) began: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            passed: 0,
            began: Instant::now(),
        }
    }
}

/// The next step of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Check the message's media, and then create it.
    CheckMedia,
    /// Create the message.
    Create,
    /// Find out whether it was created.
    Reconcile,
}

/// The result of a job, as `twilio_internal.finish` takes it.
#[derive(Debug, Default)]
pub(crate) struct MessageResult {
    pub(crate) message_id: i64,
    pub(crate) lease_token: String,
    pub(crate) outcome: &'static str,
    pub(crate) message_sid: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) http_status: Option<i32>,
    pub(crate) error_code: Option<i32>,
    pub(crate) reason: Option<String>,
    pub(crate) response: Option<String>,
    pub(crate) retry_after_ms: Option<i64>,
    /// Whether the provider could not be reached.
    pub(crate) is_away: bool,
    /// The account that cannot send, if that is why.
    pub(crate) account_at_fault: Option<String>,
}

/// Claims jobs that are due.
pub(crate) fn claim(at_most: usize, lease: Duration) -> Result<Vec<MessageJob>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    let lease_end = Instant::now() + lease;
    rows(
        "select message_id, lease_token::text, state, tries, account_sid, api_url, from_address, to_address, \
         messaging_service_sid, body, media_urls, twilio_parameters, status_callback, validity_s, \
         (extract(epoch from started_at) * 1000)::bigint from twilio_internal.claim($1, $2 * interval '1 second')",
        &[at_most.into(), lease.as_secs_f64().into()],
        |row| {
            let text = |column| row.get::<String>(column);
            let media_urls: Vec<_> = row
                .get::<Vec<Option<String>>>(11)?
                .unwrap_or_default()
                .into_iter()
                .flatten()
                .collect();
            Ok(MessageJob {
                message_id: row.get(1)?.unwrap_or_default(),
                lease_token: text(2)?.unwrap_or_default(),
                task: match text(3)?.as_deref() {
                    Some("unknown") => Task::Reconcile,
                    _ if setting::check_media() && !media_urls.is_empty() => Task::CheckMedia,
                    _ => Task::Create,
                },
                tries: row
                    .get::<i32>(4)?
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(1),
                account_sid: text(5)?.unwrap_or_default(),
                api_url: text(6)?.unwrap_or_default(),
                from_address: text(7)?,
                to_address: text(8)?.unwrap_or_default(),
                messaging_service_sid: text(9)?,
                body: text(10)?,
                media_urls,
                twilio_parameters: text(12)?,
                status_callback: text(13)?,
                validity_s: row.get(14)?.unwrap_or(0),
                started_at: row.get(15)?.unwrap_or(0),
                lease_end,
                authorization: None,
                pages: Pages::default(),
                progress: Progress::new(),
            })
        },
    )
}

/// Those of these SIDs that no other message of ours has.
pub(crate) fn unbound(
    message_sids: Vec<String>,
    message_id: i64,
) -> Result<Vec<String>, ErrorReport> {
    rows(
        "select sid from twilio_internal.unclaimed_sids($1, $2) sid",
        &[message_sids.into(), message_id.into()],
        |row| row.get(1).map(Option::unwrap_or_default),
    )
}

/// Saves the results of jobs.
pub(crate) fn finish(results: &[MessageResult]) -> Result<(), ErrorReport> {
    if results.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(
        results: &'a [MessageResult],
        field: impl Fn(&'a MessageResult) -> T,
    ) -> Vec<T> {
        results.iter().map(field).collect()
    }
    let arguments: [DatumWithOid<'_>; 11] = [
        column(results, |r| r.message_id).into(),
        column(results, |r| r.lease_token.as_str()).into(),
        column(results, |r| r.outcome).into(),
        column(results, |r| r.message_sid.as_deref()).into(),
        column(results, |r| r.status.as_deref()).into(),
        column(results, |r| r.http_status).into(),
        column(results, |r| r.error_code).into(),
        column(results, |r| r.reason.as_deref()).into(),
        column(results, |r| r.response.as_deref()).into(),
        column(results, |r| r.retry_after_ms).into(),
        column(results, |r| r.is_away).into(),
    ];
    first::<i32>(
        "select twilio_internal.finish($1, $2::uuid[], $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &arguments,
    )?;
    for result in results {
        if let Some(account) = &result.account_at_fault {
            let arguments = [
                account.as_str().into(),
                result.reason.as_deref().into(),
                result.error_code.into(),
            ];
            rows(
                "select twilio_internal.pause_account($1, $2, $3)",
                &arguments,
                |_| Ok(()),
            )?;
        }
    }
    Ok(())
}
