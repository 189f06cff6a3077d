//! The worker's calls to the queue: typed values in, typed values out, each in a transaction of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};
use protocol::message::list::Found;
use sender::Authorization;

use crate::provider::twilio::media_check::Progress;
use crate::{error, setting};

/// Work that is claimed, and all that is needed for it.
pub(crate) struct Work {
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
    /// What its requests are sent with, once that is known.
    pub(crate) authorization: Option<Authorization>,
    /// What the pages of a look-up have shown so far.
    pub(crate) pages: Pages,
    /// How far the look at its files has come.
    pub(crate) progress: Progress,
}

/// The pages of a look-up.
#[derive(Default)]
pub(crate) struct Pages {
    /// From the request for the first one on.
    pub(crate) found: Option<Found>,
    /// Path and query of the next one; the first one's is made up from the work.
    pub(crate) next: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Look at the message's files, and then create it.
    Check,
    /// Create the message.
    Create,
    /// Find out whether it was created.
    LookUp,
}

/// What became of work, as `twilio.finish` takes it.
#[derive(Debug, Default)]
pub(crate) struct End {
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

/// Runs `body` in a transaction. An error of PostgreSQL's rolls it back and comes as its code.
pub(crate) fn transaction<R>(body: impl FnOnce() -> Result<R, ErrorReport>) -> Result<R, String> {
    let body = AssertUnwindSafe(body);
    let result = PgTryBuilder::new(AssertUnwindSafe(move || {
        // SAFETY: called on the worker's main thread, outside a transaction. The snapshot is popped by
        // the commit's path below or by the abort's.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let value = { body }.0().map_err(|report| report.message().to_owned())?;
        // SAFETY: as above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    }))
    .catch_others(|caught| Err(describe(&caught)))
    .execute();
    if result.is_err() {
        // SAFETY: as above; it undoes whatever stage was reached.
        unsafe { pg_sys::AbortCurrentTransaction() }
    }
    result
}

fn describe(caught: &CaughtError) -> String {
    match caught {
        // What PostgreSQL says may be a trigger of somebody's, which quotes the message.
        CaughtError::PostgresError(report) => format!("{:?}", report.sql_error_code()),
        CaughtError::ErrorReport(report)
        | CaughtError::RustPanic {
            ereport: report, ..
        } => format!("{} ({:?})", report.message(), report.sql_error_code()),
    }
}

/// The extension as it is installed.
pub(crate) struct Installed {
    pub(crate) version: String,
    pub(crate) schema: String,
}

/// The extension, if it is installed.
pub(crate) fn installed() -> Result<Option<Installed>, ErrorReport> {
    let query = "select e.extversion::text, n.nspname::text from pg_catalog.pg_extension e \
                 join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'twilio_callback'";
    let found = rows(query, &[], |row| {
        Ok(Installed {
            version: row.get(1)?.unwrap_or_default(),
            schema: row.get(2)?.unwrap_or_default(),
        })
    });
    found.map(|found| found.into_iter().next())
}

/// Calls a handler for the worker of that process id; says what came of it.
pub(crate) fn handler_step(
    worker_pid: i32,
    drafts_first: bool,
) -> Result<Option<String>, ErrorReport> {
    first(
        "select twilio.handler_step($1, $2)",
        &[worker_pid.into(), drafts_first.into()],
    )
}

/// Whether somebody is dropping this database, and has ended its processes for that.
pub(crate) fn is_database_dropped() -> Result<bool, ErrorReport> {
    let query = "select exists (select from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.objid \
                 where l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass and l.mode = 'AccessExclusiveLock' \
                 and l.granted and d.datname = pg_catalog.current_database())";
    first(query, &[]).map(|value| value.unwrap_or(false))
}

/// The transaction that keeps others from connecting to this database, if there is one.
pub(crate) fn database_holder() -> Result<Option<String>, ErrorReport> {
    let query = "select l.virtualtransaction from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.objid \
                 where l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass and l.granted \
                 and l.mode in ('AccessExclusiveLock', 'ShareLock') and d.datname = pg_catalog.current_database() \
                 and l.pid <> pg_catalog.pg_backend_pid()";
    first(query, &[])
}

/// Makes this process the worker: begun, busy or not wanted.
pub(crate) fn begin_work(pid: i32, is_asked_for: bool) -> Result<Option<String>, ErrorReport> {
    let arguments = [pid.into(), is_asked_for.into()];
    first("select twilio.begin_work($1, $2)", &arguments)
}

/// Whether this process is still to be the worker.
pub(crate) fn is_work_wanted(pid: i32) -> Result<bool, ErrorReport> {
    first("select twilio.is_work_wanted($1)", &[pid.into()]).map(|value| value.unwrap_or(false))
}

/// Ends what expired and what was settled, and takes back expired leases.
pub(crate) fn sweep() -> Result<(), ErrorReport> {
    first::<i32>("select twilio.sweep() + twilio.recover()", &[]).map(drop)
}

/// Corrects times that a clock that was ahead put into the future, if the clock was set back or a row is dated later
/// than `known`. `lease` is how long a lease lasts. Returns the time of the latest row from the future.
pub(crate) fn correct_future_times(
    lease: Duration,
    is_set_back: bool,
    known: Option<TimestampWithTimeZone>,
) -> Result<Option<TimestampWithTimeZone>, ErrorReport> {
    first(
        "select twilio.correct_future_times($1 * interval '1 second', $2, $3)",
        &[lease.as_secs_f64().into(), is_set_back.into(), known.into()],
    )
}

/// Has the rest of the transaction wait for locks for a moment only.
pub(crate) fn limit_lock_wait() -> Result<(), ErrorReport> {
    first::<String>("select set_config('lock_timeout', '100ms', true)", &[]).map(drop)
}

/// In how many seconds the next work is due.
pub(crate) fn next_due() -> Result<Option<f64>, ErrorReport> {
    first("select twilio.next_due()", &[])
}

/// Takes due work.
pub(crate) fn claim(at_most: usize, lease: Duration) -> Result<Vec<Work>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    let lease_end = Instant::now() + lease;
    rows(
        "select message_id, lease_token::text, state, tries, account_sid, api_url, from_address, to_address, \
         messaging_service_sid, body, media_urls, twilio_parameters, status_callback, validity_s, \
         (extract(epoch from started_at) * 1000)::bigint from twilio.claim($1, $2 * interval '1 second')",
        &[at_most.into(), lease.as_secs_f64().into()],
        |row| {
            let text = |column| row.get::<String>(column);
            let media_urls: Vec<_> = row
                .get::<Vec<Option<String>>>(11)?
                .unwrap_or_default()
                .into_iter()
                .flatten()
                .collect();
            Ok(Work {
                message_id: row.get(1)?.unwrap_or_default(),
                lease_token: text(2)?.unwrap_or_default(),
                task: match text(3)?.as_deref() {
                    Some("unknown") => Task::LookUp,
                    _ if setting::check_media() && !media_urls.is_empty() => Task::Check,
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

/// Which of these SIDs no message of ours has yet.
pub(crate) fn unbound(
    message_sids: Vec<String>,
    message_id: i64,
) -> Result<Vec<String>, ErrorReport> {
    rows(
        "select sid from twilio.unbound($1, $2) sid",
        &[message_sids.into(), message_id.into()],
        |row| row.get(1).map(Option::unwrap_or_default),
    )
}

/// Writes down what became of work.
pub(crate) fn finish(ends: &[End]) -> Result<(), ErrorReport> {
    if ends.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(ends: &'a [End], field: impl Fn(&'a End) -> T) -> Vec<T> {
        ends.iter().map(field).collect()
    }
    let arguments: [DatumWithOid<'_>; 11] = [
        column(ends, |e| e.message_id).into(),
        column(ends, |e| e.lease_token.as_str()).into(),
        column(ends, |e| e.outcome).into(),
        column(ends, |e| e.message_sid.as_deref()).into(),
        column(ends, |e| e.status.as_deref()).into(),
        column(ends, |e| e.http_status).into(),
        column(ends, |e| e.error_code).into(),
        column(ends, |e| e.reason.as_deref()).into(),
        column(ends, |e| e.response.as_deref()).into(),
        column(ends, |e| e.retry_after_ms).into(),
        column(ends, |e| e.is_away).into(),
    ];
    first::<i32>(
        "select twilio.finish($1, $2::uuid[], $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &arguments,
    )?;
    for end in ends {
        if let Some(account) = &end.account_at_fault {
            let arguments = [
                account.as_str().into(),
                end.reason.as_deref().into(),
                end.error_code.into(),
            ];
            rows(
                "select twilio.pause_account($1, $2, $3)",
                &arguments,
                |_| Ok(()),
            )?;
        }
    }
    Ok(())
}

/// The first column of the first row.
pub(crate) fn first<T: FromDatum + IntoDatum>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<T>, ErrorReport> {
    rows(query, arguments, |row| row.get::<T>(1)).map(|values| values.into_iter().next().flatten())
}

/// All rows, read one by one. The plan is kept: parsing and planning would cost more than most looks.
pub(crate) fn rows<T>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(pgrx::spi::SpiHeapTupleData<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, ErrorReport> {
    Spi::connect_mut(|client| {
        let plan = plan(client, query, arguments)?;
        let table: SpiTupleTable<'_> = client.update(plan.as_ref(), None, arguments)?;
        table.map(read).collect::<Result<Vec<_>, _>>()
    })
    .map_err(error::internal)
}

/// The statement's plan, made once in the life of the process. PostgreSQL makes it anew where what it
/// refers to has changed, even if the extension was dropped and created again.
fn plan(
    client: &SpiClient<'_>,
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Rc<OwnedPreparedStatement>, pgrx::spi::Error> {
    thread_local! {
        static PLANS: RefCell<HashMap<&'static str, Rc<OwnedPreparedStatement>>> = RefCell::default();
    }
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(query).cloned()) {
        return Ok(plan);
    }
    let types: Vec<_> = arguments.iter().map(|a| a.oid().into()).collect();
    let plan = Rc::new(client.prepare_mut(query, &types)?.keep());
    PLANS.with_borrow_mut(|plans| plans.insert(query, Rc::clone(&plan)));
    Ok(plan)
}
