//! Detects commands that need exclusive access to the database (drop, rename, copy as template, move), so that the
//! worker disconnects in time.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::spi::first;
use crate::spi::transaction;
use pgrx::pg_sys::panic::ErrorReport;

/// Whether a command waits for the worker to disconnect.
pub(crate) struct ExclusiveAccess {
    next_check: Instant,
    /// The transaction that held the lock at the last check.
    holder: Option<String>,
}

impl ExclusiveAccess {
    pub(crate) fn new() -> Self {
        Self {
            next_check: Instant::now() + INTERVAL,
            holder: None,
        }
    }

    /// Checks if a check is due. Returns the time until the next check, or `None` if the worker must disconnect.
    pub(crate) fn check(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.next_check > now {
            return Some(self.next_check - now);
        }
        let holder = transaction(|| {
            if can_connect() {
                Ok(None)
            } else {
                database_holder()
            }
        });
        let holder = holder.unwrap_or_default();
        // A command that is refused for lack of rights has the lock for a moment too, so one look says nothing.
        if holder.is_some() && holder == self.holder {
            return None;
        }
        let pause = if holder.is_some() { SOON } else { INTERVAL };
        self.holder = holder;
        self.next_check = now + pause;
        Some(pause)
    }
}

/// Whether a process could connect to this database now: it takes this lock for that.
fn can_connect() -> bool {
    let tag = pg_sys::LOCKTAG {
        // Databases are shared objects.
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        // SAFETY: PostgreSQL sets it before our code runs in the process, and changes it no more.
        locktag_field3: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: on the main thread, in a transaction, whose end releases the lock. The tag is copied.
    let result = unsafe {
        let mode = pg_sys::RowExclusiveLock.cast_signed();
        pg_sys::LockAcquire(&raw const tag, mode, false, true)
    };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

const INTERVAL: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_millis(500);

/// The transaction that keeps others from connecting to this database, if there is one.
fn database_holder() -> Result<Option<String>, ErrorReport> {
    let query = "select l.virtualtransaction from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.objid \
                 where l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass and l.granted \
                 and l.mode in ('AccessExclusiveLock', 'ShareLock') and d.datname = pg_catalog.current_database() \
                 and l.pid <> pg_catalog.pg_backend_pid()";
    first(query, &[])
}

/// Whether this database is being dropped.
pub(crate) fn is_database_dropped() -> Result<bool, ErrorReport> {
    let query = "select exists (select from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.objid \
                 where l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass and l.mode = 'AccessExclusiveLock' \
                 and l.granted and d.datname = pg_catalog.current_database())";
    first(query, &[]).map(|value| value.unwrap_or(false))
}
