//! The worker as a process of PostgreSQL's: its settings, what it reports, how it ends.

use std::ffi::CStr;

use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::spi::first;

/// Sets the settings that every statement of the worker runs with.
pub(crate) fn prepare_session(name: &CStr) {
    let settings = [
        (c"application_name", name),
        (c"search_path", c"pg_catalog, pg_temp"),
        // Plans live as long as the process and may be made on empty tables: look-ups by index only.
        (c"enable_seqscan", c"off"),
        (c"enable_hashjoin", c"off"),
        (c"enable_mergejoin", c"off"),
        (c"plan_cache_mode", c"force_generic_plan"),
        (c"jit", c"off"),
        // A statement that waits longer for a lock is retried later.
        (c"lock_timeout", c"2s"),
        (c"statement_timeout", c"60s"),
    ];
    for (name, value) in settings {
        // SAFETY: constant C strings, on the main thread, outside a transaction.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Reads the configuration again after SIGHUP.
pub(crate) fn reload_if_asked() {
    if BackgroundWorker::sighup_received() {
        // SAFETY: on the main thread, outside a transaction.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
    }
}

/// Sets the worker's row of `pg_stat_activity`.
pub(crate) fn report_activity(text: &CStr, is_running: bool) {
    let state = if is_running {
        pg_sys::BackendState::STATE_RUNNING
    } else {
        pg_sys::BackendState::STATE_IDLE
    };
    // SAFETY: the text is terminated, and PostgreSQL copies it into shared memory.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) }
}

/// Autovacuum learns of a worker's writes only if the worker says so.
pub(crate) fn report_statistics() {
    // SAFETY: on the main thread, outside a transaction.
    unsafe {
        pg_sys::pgstat_report_stat(false);
    }
}

/// The worker's process id.
pub(crate) fn own_pid() -> i32 {
    // SAFETY: PostgreSQL sets it before our code runs in the process, and changes it no more.
    unsafe { pg_sys::MyProcPid }
}

/// Ends the process.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: on the main thread, outside a transaction. 0 means that the server starts it no more.
    unsafe { pg_sys::proc_exit(status) }
}

/// Makes this process the worker: begun, busy or not wanted.
pub(crate) fn begin_work(pid: i32, is_asked_for: bool) -> Result<Option<String>, ErrorReport> {
    let arguments = [pid.into(), is_asked_for.into()];
    first("select twilio_internal.begin_work($1, $2)", &arguments)
}

/// Whether this process is still to be the worker.
pub(crate) fn is_work_wanted(pid: i32) -> Result<bool, ErrorReport> {
    first("select twilio_internal.is_work_wanted($1)", &[pid.into()])
        .map(|value| value.unwrap_or(false))
}
