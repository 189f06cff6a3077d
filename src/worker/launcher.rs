//! Starting workers: by the server for the databases of a setting, or by `start_worker()`.

use std::time::{Duration, Instant};

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime,
    DynamicBackgroundWorker, SignalWakeFlags,
};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::worker::process;

use crate::{error, setting};

/// Registers the launcher, if the server is loading the library at its start.
pub(crate) fn register() {
    // SAFETY: both are flags that the server sets before it loads libraries.
    let is_preload =
        unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade };
    if is_preload {
        BackgroundWorkerBuilder::new("twilio_callback launcher")
            .set_library("twilio_callback")
            .set_function("twilio_callback_launcher_main")
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(Some(Duration::from_secs(5)))
            .load();
    }
}

/// The main function of the launcher. It is connected to no database, so it blocks no command that needs a database alone.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn twilio_callback_launcher_main(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let mut charges: Vec<Charge> = Vec::new();
    loop {
        let names = setting::databases();
        charges.retain(|charge| names.contains(&charge.database) || charge.is_running());
        for name in names {
            if !charges.iter().any(|charge| charge.database == name) {
                charges.push(Charge::new(name));
            }
        }
        charges.iter_mut().for_each(Charge::look_after);
        if !BackgroundWorker::wait_latch(Some(Duration::from_secs(1))) {
            // The server starts an ended worker again unless it says 0.
            // SAFETY: called on the main thread of a worker, at its end.
            unsafe { pg_sys::proc_exit(1) }
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: on the main thread, outside a transaction, where the server's own processes read their settings again.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
        }
    }
}

/// A database and its worker. Workers do not restart by themselves, so that the wait can grow.
struct Charge {
    database: String,
    worker: Option<DynamicBackgroundWorker>,
    started_at: Instant,
    wait: Duration,
}

impl Charge {
    fn new(database: String) -> Self {
        Self {
            database,
            worker: None,
            started_at: Instant::now(),
            wait: Duration::ZERO,
        }
    }

    fn is_running(&self) -> bool {
        let status = self.worker.as_ref().map(DynamicBackgroundWorker::pid);
        matches!(
            status,
            Some(Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted))
        )
    }

    fn look_after(&mut self) {
        if self.is_running() {
            return;
        }
        if self.worker.take().is_some() {
            let has_lived = self.started_at.elapsed() > LONG_LIFE;
            self.wait = if has_lived {
                MIN_WAIT
            } else {
                (self.wait * 2).clamp(MIN_WAIT, MAX_WAIT)
            };
            self.started_at = Instant::now();
        }
        if self.started_at.elapsed() >= self.wait {
            self.started_at = Instant::now();
            // SAFETY: the launcher's own process id does not change.
            let own_pid = unsafe { pg_sys::MyProcPid };
            self.worker = builder()
                .set_extra(&self.database)
                .set_notify_pid(own_pid)
                .load_dynamic()
                .ok();
            if self.worker.is_none() {
                self.wait = MAX_WAIT;
            }
        }
    }
}

#[pg_extern]
fn launch_worker() -> Result<(), ErrorReport> {
    // SAFETY: both are set for the life of a session.
    let (database, own_pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    let worker = builder()
        .set_argument(Some(database.into()))
        .set_restart_time(Some(RESTART_TIME))
        .set_notify_pid(own_pid)
        .load_dynamic()
        .map_err(|_| error::no_worker_slot())?;
    worker
        .wait_for_startup()
        .map(drop)
        .map_err(|_| error::no_worker_slot())
}

/// Starts a process that starts the worker again once this database can be connected to; false if the server has no
/// room for it. If there is no such database by then, that process alone fails, and once.
pub(crate) fn launch_successor() -> bool {
    // SAFETY: PostgreSQL sets it before our code runs in the process, and changes it no more.
    let database = unsafe { pg_sys::MyDatabaseId };
    let successor = builder()
        .set_argument(Some(database.into()))
        .set_extra(SUCCESSOR);
    successor.load_dynamic().is_ok()
}

/// Whether this process is such a one.
pub(crate) fn is_successor() -> bool {
    BackgroundWorker::get_extra() == SUCCESSOR
}

/// Does the work of such a process.
pub(crate) fn succeed() {
    // SAFETY: PostgreSQL sets it before our code runs in the process, and changes it no more.
    let database = unsafe { pg_sys::MyDatabaseId };
    let worker = builder()
        .set_argument(Some(database.into()))
        .set_restart_time(Some(RESTART_TIME));
    if worker.load_dynamic().is_err() {
        log!("could not restart the twilio_callback worker: all max_worker_processes are in use");
    }
}

/// Starts the process that calls handlers for a worker, which is the one that asks.
pub(crate) fn launch_handler() -> Option<DynamicBackgroundWorker> {
    // SAFETY: PostgreSQL sets it before our code runs in the process, and changes it no more.
    let database = unsafe { pg_sys::MyDatabaseId };
    BackgroundWorkerBuilder::new("twilio_callback handler")
        .set_library("twilio_callback")
        .set_function("twilio_callback_handler_main")
        .enable_spi_access()
        .set_argument(Some(database.into()))
        .set_extra(&process::own_pid().to_string())
        .load_dynamic()
        .ok()
}

fn builder() -> BackgroundWorkerBuilder {
    BackgroundWorkerBuilder::new("twilio_callback worker")
        .set_library("twilio_callback")
        .set_function("twilio_callback_worker_main")
        .enable_spi_access()
}

const SUCCESSOR: &str = "successor";
const RESTART_TIME: Duration = Duration::from_secs(1);
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A worker that ran so long ended for a reason of its own.
const LONG_LIFE: Duration = Duration::from_secs(60);
