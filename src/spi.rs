//! Statements, whose plans are kept for the life of the process, and transactions of the worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, PreparedStatement, SpiTupleTable};

use crate::error;

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
        // SAFETY: the snapshot and the transaction are those that were begun above, and SPI has left no other snapshot.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    }))
    .catch_others(|caught| Err(describe(&caught)))
    .execute();
    if result.is_err() {
        // SAFETY: on the worker's main thread; the abort undoes whatever stage was reached.
        unsafe { pg_sys::AbortCurrentTransaction() }
    }
    result
}

fn describe(caught: &CaughtError) -> String {
    match caught {
        // The text may come from a user's trigger and quote the message, so only the code is shown.
        CaughtError::PostgresError(report) => format!("{:?}", report.sql_error_code()),
        CaughtError::ErrorReport(report)
        | CaughtError::RustPanic {
            ereport: report, ..
        } => format!("{} ({:?})", report.message(), report.sql_error_code()),
    }
}

/// Limits each wait for a lock to 0.1 s for the rest of the transaction.
pub(crate) fn limit_lock_wait() -> Result<(), ErrorReport> {
    first::<String>("select set_config('lock_timeout', '100ms', true)", &[]).map(drop)
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
        let plan = plan(query, arguments, |types| client.prepare_mut(query, types))?;
        let table: SpiTupleTable<'_> = client.update(plan.as_ref(), None, arguments)?;
        table.map(read).collect::<Result<Vec<_>, _>>()
    })
    .map_err(error::internal)
}

/// All rows of a query that changes nothing. Unlike `rows` it assigns no transaction id, so it also runs on a standby.
pub(crate) fn read<T>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(pgrx::spi::SpiHeapTupleData<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, ErrorReport> {
    Spi::connect(|client| {
        let plan = plan(query, arguments, |types| client.prepare(query, types))?;
        let table = client.select(plan.as_ref(), None, arguments)?;
        table.map(read).collect::<Result<Vec<_>, _>>()
    })
    .map_err(error::internal)
}

/// The statement's plan, made once in the life of the process. PostgreSQL makes it anew where what it
/// refers to has changed, even if the extension was dropped and created again.
fn plan<'c>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
    prepare: impl FnOnce(&[PgOid]) -> Result<PreparedStatement<'c>, pgrx::spi::Error>,
) -> Result<Rc<OwnedPreparedStatement>, pgrx::spi::Error> {
    thread_local! {
        static PLANS: RefCell<HashMap<&'static str, Rc<OwnedPreparedStatement>>> = RefCell::default();
    }
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(query).cloned()) {
        return Ok(plan);
    }
    let types: Vec<_> = arguments.iter().map(|a| a.oid().into()).collect();
    let plan = Rc::new(prepare(&types)?.keep());
    PLANS.with_borrow_mut(|plans| plans.insert(query, Rc::clone(&plan)));
    Ok(plan)
}

/// Logs a text, but each text at most once a minute.
pub(crate) fn log_once_a_minute(text: &str) {
    thread_local! {
        static LOGGED: RefCell<HashMap<String, Instant>> = RefCell::default();
    }
    let is_new = LOGGED.with_borrow_mut(|logged| {
        logged.retain(|_, at| at.elapsed() < PAUSE);
        let is_new = !logged.contains_key(text);
        if is_new {
            logged.insert(text.to_owned(), Instant::now());
        }
        is_new
    });
    if is_new {
        log!("{text}");
    }
}

/// How long a text is not logged again.
const PAUSE: Duration = Duration::from_secs(60);
