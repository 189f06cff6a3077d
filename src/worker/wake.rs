//! Waking the worker at commit: no shared memory, no NOTIFY, one signal a transaction.

use std::cell::Cell;

use pgrx::prelude::*;
use pgrx::{PgXactCallbackEvent, register_xact_callback};

thread_local! {
    /// The process that this transaction will wake.
    static PLANNED: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Wakes a worker of this database once the transaction commits. False if that process is none.
#[pg_extern]
fn wake_at_commit(worker_pid: Option<i32>) -> bool {
    let Some(pid) = worker_pid.filter(|pid| is_worker(*pid)) else {
        return false;
    };
    if PLANNED.replace(Some(pid)) == Some(pid) {
        return true;
    }
    // A commit callback must not fail, so all that could is done by now.
    register_xact_callback(PgXactCallbackEvent::Commit, || {
        if let Some(pid) = PLANNED.take() {
            wake(pid);
        }
    });
    register_xact_callback(PgXactCallbackEvent::Abort, || PLANNED.set(None));
    true
}

/// Whether a process is a background worker of this database.
#[pg_extern]
pub(crate) fn is_worker(pid: i32) -> bool {
    // SAFETY: the process array is shared memory that outlives us; the entry is read, and at worst
    // belongs to a later process by now.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        !process.is_null()
            && (*process).databaseId == pg_sys::MyDatabaseId
            && (*process).isBackgroundWorker
    }
}

/// Sets the latch of a process, if it is still there. Another process that has the pid by now wakes up once without effect.
pub(crate) fn wake(pid: i32) {
    // SAFETY: the process array is shared memory that outlives us, and any process may set a latch in it.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}
