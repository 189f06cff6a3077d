//! Calls of our own SQL functions by what receives requests: typed values in, rows out.

use std::panic::AssertUnwindSafe;

use pgrx::PgMemoryContexts;
use pgrx::PgSqlErrorCode;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use protocol::event_stream::Alert;
use protocol::source::network_of;

use crate::error;
use crate::spi::{read, rows};

/// The reply to one incoming message, as `twilio_internal.replies` returns it.
pub(crate) struct Reply {
    pub(crate) twiml: Option<String>,
    pub(crate) is_to_be_made: bool,
    pub(crate) wait_ms: i32,
}

/// The store of the quarantine that a refused request belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Kept {
    Callback,
    Phone,
    Stranger,
}

impl Kept {
    const fn name(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Phone => "phone",
            Self::Stranger => "stranger",
        }
    }
}

/// A refused request as `twilio_internal.reject` takes it.
pub(crate) struct Rejection<'a> {
    pub(crate) kind: Kept,
    /// Must be one of ours, or the request is a stranger's.
    pub(crate) account: Option<&'a str>,
    pub(crate) reason: &'a str,
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) headers: String,
    pub(crate) body: &'a [u8],
    pub(crate) source: Option<&'a str>,
}

impl Rejection<'_> {
    fn size(&self) -> usize {
        let source = self.source.map_or(0, str::len);
        self.url.len() + self.headers.len() + self.body.len() + source
    }
}

/// The base URLs under which we are called.
pub(crate) fn public_urls() -> Result<Vec<String>, ErrorReport> {
    let query = "select url from twilio.public_url order by created_at, url";
    read(query, &[], |row| row.get(1).map(Option::unwrap_or_default))
}

/// Binds SIDs to the messages of our attempts; one element an item, null where an attempt is not ours.
pub(crate) fn bind(
    attempts: Vec<Option<&str>>,
    account_sids: Vec<Option<&str>>,
    message_sids: Vec<Option<&str>>,
) -> Result<Vec<Option<i64>>, ErrorReport> {
    let arguments: [DatumWithOid<'_>; 3] =
        [attempts.into(), account_sids.into(), message_sids.into()];
    let query = "select message_id from twilio_internal.bind($1::uuid[], $2, $3)";
    rows(query, &arguments, |row| row.get(1))
}

/// The provider's text of an error in these parameters, which are `jsonb`.
pub(crate) fn provider_error_text(
    params: Option<pg_sys::Datum>,
) -> Result<Option<String>, ErrorReport> {
    let argument = match params {
        // SAFETY: the caller's value is jsonb.
        Some(params) => unsafe { DatumWithOid::new(params, pg_sys::JSONBOID) },
        None => DatumWithOid::null_oid(pg_sys::JSONBOID),
    };
    let query = "select twilio_internal.provider_error_text($1)";
    let text = read(query, &[argument], |row| row.get(1))?;
    Ok(text.into_iter().next().flatten())
}

/// Computes the state of a message, which the caller has locked, from all of its events.
pub(crate) fn apply_state(message_id: i64) -> Result<(), ErrorReport> {
    perform("select twilio_internal.apply_state($1)", vec![message_id])
}

/// Applies the consequences that these events have for consent.
pub(crate) fn record_consent(event_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform("select twilio_internal.record_consent($1)", event_ids)
}

/// Whether a timed rule is enabled.
pub(crate) fn has_timed_rules() -> Result<bool, ErrorReport> {
    let query = "select twilio_internal.has_timed_rules()";
    let answer = read(query, &[], |row| row.get::<bool>(1))?;
    Ok(answer.contains(&Some(true)))
}

/// Watches these new messages, if timed rules concern them.
pub(crate) fn watch_for_timeout(message_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform("select twilio_internal.watch_for_timeout($1)", message_ids)
}

/// Plans the fallbacks of these messages, which failed.
pub(crate) fn plan_fallback(message_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform("select twilio_internal.plan_fallback($1)", message_ids)
}

/// Cancels the fallbacks of these messages, which were delivered after all.
pub(crate) fn withdraw_fallback(message_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform("select twilio_internal.withdraw_fallback($1)", message_ids)
}

/// Has the files fetched of the incoming messages that these events report.
pub(crate) fn queue_media(event_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform("select twilio_internal.queue_media($1)", event_ids)
}

/// An event that is stored as it is.
pub(crate) struct StoredEvent<'a> {
    pub(crate) account_sid: &'a str,
    pub(crate) event_sid: Option<&'a str>,
    pub(crate) kind: &'a str,
    /// In milliseconds since 1970.
    pub(crate) event_time: Option<i64>,
    pub(crate) message_sid: Option<&'a str>,
    pub(crate) json: &'a str,
    pub(crate) alert: Option<&'a Alert>,
    /// Why it could not be recorded as the event of a message.
    pub(crate) problem: Option<String>,
}

/// Stores events and hands them on to the feed. Returns the places of those that had not come before.
pub(crate) fn store_events(events: &[StoredEvent<'_>]) -> Result<Vec<usize>, ErrorReport> {
    fn column<'a, T>(
        events: &'a [StoredEvent<'_>],
        field: impl Fn(&'a StoredEvent<'_>) -> T,
    ) -> Vec<T> {
        events.iter().map(field).collect()
    }
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let alerts: Vec<_> = (events.iter())
        .map(|event| event.alert.map(alert_json))
        .collect();
    let arguments: [DatumWithOid<'_>; 8] = [
        column(events, |e| e.account_sid).into(),
        column(events, |e| e.event_sid).into(),
        column(events, |e| e.kind).into(),
        column(events, |e| e.event_time).into(),
        column(events, |e| e.message_sid).into(),
        column(events, |e| e.json).into(),
        alerts.into(),
        column(events, |e| e.problem.as_deref()).into(),
    ];
    let query = "select place from twilio_internal.store_events($1, $2, $3, $4, $5, $6, $7, $8)";
    let places = rows(query, &arguments, |row| row.get::<i32>(1))?;
    let place = |place: Option<i32>| usize::try_from(place?).ok();
    Ok(places.into_iter().filter_map(place).collect())
}

fn alert_json(alert: &Alert) -> String {
    serde_json::json!({
        "sid": alert.sid,
        "level": alert.level,
        "error_code": alert.error_code,
        "resource_sid": alert.resource_sid,
        "url": alert.url,
        "http_status": alert.http_status,
        "text": alert.text,
    })
    .to_string()
}

fn perform(query: &'static str, ids: Vec<i64>) -> Result<(), ErrorReport> {
    rows(query, &[ids.into()], |_| Ok(())).map(drop)
}

/// The replies to these incoming messages; `is_retold` marks requests to the fallback URL.
pub(crate) fn replies(
    message_ids: Vec<i64>,
    is_retold: Vec<bool>,
) -> Result<Vec<Reply>, ErrorReport> {
    let query = "select twiml, is_to_be_made, wait_ms from twilio_internal.replies($1, $2)";
    rows(query, &[message_ids.into(), is_retold.into()], |row| {
        Ok(Reply {
            twiml: row.get(1)?,
            is_to_be_made: row.get(2)?.unwrap_or(false),
            wait_ms: row.get(3)?.unwrap_or(0),
        })
    })
}

/// Keeps or counts refused requests. A statement has its parameters several times in memory, so that many or large
/// ones are handed over in parts: those of strangers first, in the order in which the two bounds are locked.
pub(crate) fn reject<'a>(
    rejections: impl Iterator<Item = Rejection<'a>>,
) -> Result<(), ErrorReport> {
    // SAFETY: a plain check. The rows of the quarantine are locked for update, which a standby would refuse as a bug.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"twilio_internal.reject()".as_ptr()) };
    let rejections: Vec<_> = rejections.collect();
    if rejections.iter().map(Rejection::size).sum::<usize>() > MAX_REJECTED {
        // Each part locks the counters of its kinds, and two sessions must do so in one order.
        rows("select twilio_internal.lock_quarantine()", &[], |_| Ok(()))?;
    }
    let mut size = rejections.first().map_or(0, Rejection::size);
    let parts = rejections.chunk_by(|_, next| {
        size += next.size();
        let is_full = size > MAX_REJECTED;
        if is_full {
            size = next.size();
        }
        !is_full
    });
    for part in parts {
        let mut memory = PgMemoryContexts::new("twilio_callback rejections");
        // SAFETY: nothing that the call allocates is used after it.
        unsafe { memory.switch_to(|_| reject_part(part)) }?;
    }
    Ok(())
}

fn reject_part(rejections: &[Rejection<'_>]) -> Result<(), ErrorReport> {
    fn column<'a, T>(
        rejections: &'a [Rejection<'_>],
        field: impl Fn(&'a Rejection<'_>) -> T,
    ) -> Vec<T> {
        rejections.iter().map(field).collect()
    }
    let arguments: [DatumWithOid<'_>; 9] = [
        column(rejections, |r| r.kind.name()).into(),
        column(rejections, |r| r.account).into(),
        column(rejections, |r| r.reason).into(),
        column(rejections, |r| r.method).into(),
        column(rejections, |r| r.url).into(),
        column(rejections, |r| r.headers.as_str()).into(),
        column(rejections, |r| r.body).into(),
        column(rejections, |r| r.source).into(),
        column(rejections, |r| network_of(r.source)).into(),
    ];
    // A plan for these very requests would show their signatures.
    let _plan = GenericPlans::force();
    without_rows(|| {
        let query = "select twilio_internal.reject($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        rows(query, &arguments, |_| Ok(())).map(drop)
    })
}

/// Calls what writes secrets or signatures. Of a row that a constraint refuses, only the constraint is named.
pub(crate) fn without_rows<T>(
    call: impl FnOnce() -> Result<T, ErrorReport>,
) -> Result<T, ErrorReport> {
    PgTryBuilder::new(AssertUnwindSafe(call))
        .catch_others(|caught| match &caught {
            CaughtError::PostgresError(report) if is_about_a_row(report.sql_error_code()) => {
                Err(error::without_row(report))
            }
            _ => caught.rethrow(),
        })
        .execute()
}

/// Whether PostgreSQL shows a row or a key of one with such an error: all of class 23.
fn is_about_a_row(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode as Code;
    matches!(
        code,
        Code::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION
            | Code::ERRCODE_RESTRICT_VIOLATION
            | Code::ERRCODE_NOT_NULL_VIOLATION
            | Code::ERRCODE_FOREIGN_KEY_VIOLATION
            | Code::ERRCODE_UNIQUE_VIOLATION
            | Code::ERRCODE_CHECK_VIOLATION
            | Code::ERRCODE_EXCLUSION_VIOLATION
    )
}

/// While this value lives, plans contain no parameter values.
struct GenericPlans {
    before: std::ffi::c_int,
}

impl GenericPlans {
    fn force() -> Self {
        // SAFETY: PostgreSQL's code and ours read and write it on this thread only.
        unsafe {
            let before = pg_sys::plan_cache_mode;
            pg_sys::plan_cache_mode =
                pg_sys::PlanCacheMode::PLAN_CACHE_MODE_FORCE_GENERIC_PLAN.cast_signed();
            Self { before }
        }
    }
}

impl Drop for GenericPlans {
    fn drop(&mut self) {
        // SAFETY: PostgreSQL's code and ours read and write it on this thread only.
        unsafe { pg_sys::plan_cache_mode = self.before };
    }
}

/// So many bytes of refused requests are handed over by one statement, or one request: more than the shim's batches have.
const MAX_REJECTED: usize = 2 << 20;
