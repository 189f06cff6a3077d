//! The calls of our own SQL functions for recording: typed values in, rows out.

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::thread::LocalKey;

use pgrx::PgMemoryContexts;
use pgrx::PgSqlErrorCode;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};
use protocol::source::network_of;

use crate::error;

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
    Spi::connect(|client| {
        select(client, &PUBLIC_URLS, &[])?
            .map(|row| row.get::<String>(1).map(Option::unwrap_or_default))
            .collect::<Result<_, _>>()
    })
    .map_err(error::internal)
}

/// Binds SIDs to the messages of our attempts; one element an item, null where an attempt is not ours.
pub(crate) fn bind(
    attempts: Vec<Option<&str>>,
    account_sids: Vec<Option<&str>>,
    message_sids: Vec<Option<&str>>,
) -> Result<Vec<Option<i64>>, ErrorReport> {
    let arguments: [DatumWithOid<'_>; 3] =
        [attempts.into(), account_sids.into(), message_sids.into()];
    Spi::connect_mut(|client| {
        update(client, &BIND, &arguments)?
            .map(|row| row.get(1))
            .collect::<Result<_, _>>()
    })
    .map_err(error::internal)
}

/// The provider's wording of an error among these parameters, which are `jsonb`.
pub(crate) fn error_wording(params: Option<pg_sys::Datum>) -> Result<Option<String>, ErrorReport> {
    // SAFETY: the value is of that type.
    let params = params.map(|params| unsafe { DatumWithOid::new(params, pg_sys::JSONBOID) });
    Spi::connect(|client| {
        let arguments: Vec<_> = params.into_iter().collect();
        select(client, &ERROR_WORDING, &arguments)?.first().get(1)
    })
    .map_err(error::internal)
}

/// Computes the state of a message, which the caller has locked, from all of its events.
pub(crate) fn apply_state(message_id: i64) -> Result<(), ErrorReport> {
    perform(&APPLY_STATE, vec![message_id])
}

/// Takes what these events say of consent to account.
pub(crate) fn note_consent(event_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform(&NOTE_CONSENT, event_ids)
}

/// Whether a rule by time is enabled.
pub(crate) fn has_rules_by_time() -> Result<bool, ErrorReport> {
    Spi::connect(|client| {
        let row = select(client, &HAS_RULES_BY_TIME, &[])?.first();
        row.get(1).map(|answer| answer.unwrap_or(false))
    })
    .map_err(error::internal)
}

/// Has these messages, which were made just now, watched by rules of time.
pub(crate) fn watch(message_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform(&WATCH, message_ids)
}

/// Plans what is sent instead of these messages, which failed.
pub(crate) fn plan_fallback(message_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform(&PLAN_FALLBACK, message_ids)
}

/// Takes back what is sent instead of these messages, which were delivered after all.
pub(crate) fn withdraw_fallback(message_ids: Vec<i64>) -> Result<(), ErrorReport> {
    perform(&WITHDRAW_FALLBACK, message_ids)
}

fn perform(statement: &Statement, ids: Vec<i64>) -> Result<(), ErrorReport> {
    Spi::connect_mut(|client| update(client, statement, &[ids.into()]).map(drop))
        .map_err(error::internal)
}

/// The replies to these incoming messages; `is_retold` marks requests to the fallback URL.
pub(crate) fn replies(
    message_ids: Vec<i64>,
    is_retold: Vec<bool>,
) -> Result<Vec<Reply>, ErrorReport> {
    Spi::connect_mut(|client| {
        update(client, &REPLIES, &[message_ids.into(), is_retold.into()])?
            .map(|row| {
                Ok(Reply {
                    twiml: row.get(1)?,
                    is_to_be_made: row.get(2)?.unwrap_or(false),
                    wait_ms: row.get(3)?.unwrap_or(0),
                })
            })
            .collect::<Result<_, _>>()
    })
    .map_err(error::internal)
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
        Spi::connect_mut(|client| update(client, &LOCK_QUARANTINE, &[]).map(drop))
            .map_err(error::internal)?;
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
    let arguments: [DatumWithOid<'_>; 9] = [
        rejections
            .iter()
            .map(|r| r.kind.name())
            .collect::<Vec<_>>()
            .into(),
        rejections
            .iter()
            .map(|r| r.account)
            .collect::<Vec<_>>()
            .into(),
        rejections
            .iter()
            .map(|r| r.reason)
            .collect::<Vec<_>>()
            .into(),
        rejections
            .iter()
            .map(|r| r.method)
            .collect::<Vec<_>>()
            .into(),
        rejections.iter().map(|r| r.url).collect::<Vec<_>>().into(),
        rejections
            .iter()
            .map(|r| r.headers.as_str())
            .collect::<Vec<_>>()
            .into(),
        rejections.iter().map(|r| r.body).collect::<Vec<_>>().into(),
        rejections
            .iter()
            .map(|r| r.source)
            .collect::<Vec<_>>()
            .into(),
        rejections
            .iter()
            .map(|r| network_of(r.source))
            .collect::<Vec<_>>()
            .into(),
    ];
    // A plan for these very requests would show their signatures.
    let _plan = GenericPlans::force();
    without_rows(|| {
        Spi::connect_mut(|client| update(client, &REJECT, &arguments).map(drop))
            .map_err(error::internal)
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
        // SAFETY: a variable of this process, which has one thread that uses PostgreSQL.
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
        // SAFETY: as above.
        unsafe { pg_sys::plan_cache_mode = self.before };
    }
}

/// A statement whose plan lives as long as the connection.
struct Statement {
    text: &'static str,
    arguments: &'static [PgBuiltInOids],
    plan: &'static LocalKey<OnceCell<OwnedPreparedStatement>>,
}

fn select<'c>(
    client: &SpiClient<'c>,
    statement: &Statement,
    arguments: &[DatumWithOid<'_>],
) -> Result<SpiTupleTable<'c>, pgrx::spi::Error> {
    prepare(client, statement)?;
    statement.plan.with(|plan| match plan.get() {
        Some(plan) => client.select(plan, None, arguments),
        None => client.select(statement.text, None, arguments),
    })
}

fn update<'c>(
    client: &mut SpiClient<'c>,
    statement: &Statement,
    arguments: &[DatumWithOid<'_>],
) -> Result<SpiTupleTable<'c>, pgrx::spi::Error> {
    prepare(client, statement)?;
    statement.plan.with(|plan| match plan.get() {
        Some(plan) => client.update(plan, None, arguments),
        None => client.update(statement.text, None, arguments),
    })
}

fn prepare(client: &SpiClient<'_>, statement: &Statement) -> Result<(), pgrx::spi::Error> {
    statement.plan.with(|plan| {
        if plan.get().is_none() {
            let oids: Vec<_> = statement
                .arguments
                .iter()
                .map(|oid| (*oid).into())
                .collect();
            let kept = client.prepare(statement.text, &oids)?.keep();
            // Only this thread sets it, and it was empty a line above.
            let _ = plan.set(kept);
        }
        Ok(())
    })
}

use pgrx::pg_sys::BuiltinOid::{BOOLARRAYOID, BYTEAARRAYOID, INT8ARRAYOID, JSONBOID, TEXTARRAYOID};

thread_local! {
    static PUBLIC_URLS_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static BIND_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static ERROR_WORDING_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static APPLY_STATE_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static NOTE_CONSENT_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static HAS_RULES_BY_TIME_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static WATCH_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static PLAN_FALLBACK_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static WITHDRAW_FALLBACK_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static REPLIES_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static LOCK_QUARANTINE_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
    static REJECT_PLAN: OnceCell<OwnedPreparedStatement> = const { OnceCell::new() };
}

static PUBLIC_URLS: Statement = Statement {
    text: "select url from twilio.public_url order by created_at, url",
    arguments: &[],
    plan: &PUBLIC_URLS_PLAN,
};

static BIND: Statement = Statement {
    text: "select message_id from twilio_internal.bind($1::uuid[], $2, $3)",
    arguments: &[TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID],
    plan: &BIND_PLAN,
};

static ERROR_WORDING: Statement = Statement {
    text: "select twilio_internal.provider_error_text($1)",
    arguments: &[JSONBOID],
    plan: &ERROR_WORDING_PLAN,
};

static APPLY_STATE: Statement = Statement {
    text: "select twilio_internal.apply_state($1)",
    arguments: &[INT8ARRAYOID],
    plan: &APPLY_STATE_PLAN,
};

static NOTE_CONSENT: Statement = Statement {
    text: "select twilio_internal.record_consent($1)",
    arguments: &[INT8ARRAYOID],
    plan: &NOTE_CONSENT_PLAN,
};

static HAS_RULES_BY_TIME: Statement = Statement {
    text: "select twilio_internal.has_timed_rules()",
    arguments: &[],
    plan: &HAS_RULES_BY_TIME_PLAN,
};

static WATCH: Statement = Statement {
    text: "select twilio_internal.watch_for_timeout($1)",
    arguments: &[INT8ARRAYOID],
    plan: &WATCH_PLAN,
};

static PLAN_FALLBACK: Statement = Statement {
    text: "select twilio_internal.plan_fallback($1)",
    arguments: &[INT8ARRAYOID],
    plan: &PLAN_FALLBACK_PLAN,
};

static WITHDRAW_FALLBACK: Statement = Statement {
    text: "select twilio_internal.withdraw_fallback($1)",
    arguments: &[INT8ARRAYOID],
    plan: &WITHDRAW_FALLBACK_PLAN,
};

static REPLIES: Statement = Statement {
    text: "select twiml, is_to_be_made, wait_ms from twilio_internal.replies($1, $2)",
    arguments: &[INT8ARRAYOID, BOOLARRAYOID],
    plan: &REPLIES_PLAN,
};

static LOCK_QUARANTINE: Statement = Statement {
    text: "select twilio_internal.lock_quarantine()",
    arguments: &[],
    plan: &LOCK_QUARANTINE_PLAN,
};

static REJECT: Statement = Statement {
    text: "select twilio_internal.reject($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    arguments: &[
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        BYTEAARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
    ],
    plan: &REJECT_PLAN,
};

/// So many bytes of refused requests are handed over by one statement, or one request: more than the shim's batches have.
const MAX_REJECTED: usize = 2 << 20;
