//! The process that calls users' handlers. It is not the one that sends, so a slow function delays no message.

use std::time::Duration;

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerStatus, DynamicBackgroundWorker, SignalWakeFlags,
};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension::is_installed;
use crate::spi::transaction;
use crate::spi::{first, log_once_a_minute};
use crate::worker::launcher;
use crate::worker::process;
use crate::worker::wake;

/// The main function of the process. It ends with the worker that started it, or when there is no handler.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn twilio_callback_handler_main(argument: pg_sys::Datum) {
    // The server's own handler for the end: it interrupts a function that is running, whose effect and
    // whose note that it was called go together.
    // SAFETY: on the main thread, before signals are let in.
    unsafe { pg_sys::pqsignal(libc::SIGTERM, Some(die)) };
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
    let database = pg_sys::Oid::from(u32::try_from(argument.value()).unwrap_or(0));
    let worker_pid = BackgroundWorker::get_extra().parse().unwrap_or(0);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    process::prepare_session(c"twilio_callback handler");
    run(worker_pid);
    process::exit(0)
}

unsafe extern "C-unwind" {
    /// As the server has it; the binding's wrapper is not made for use in a signal handler.
    fn die(signal: libc::c_int);
}

/// The outcome of a poll for an event.
enum Step {
    Called,
    Idle,
    End,
}

fn run(worker_pid: i32) {
    let mut drafts_first = false;
    loop {
        process::report_activity(c"calling handlers", true);
        // Neither texts nor events wait for a backlog of the other.
        drafts_first = !drafts_first;
        let step = transaction(|| step(worker_pid, drafts_first));
        process::report_statistics();
        process::report_activity(c"idle", false);
        match step {
            Ok(Step::Called) => {
                check_for_interrupts!();
            }
            Ok(Step::Idle) => nap(),
            Ok(Step::End) => return,
            Err(error) => {
                log_once_a_minute(&format!(
                    "twilio_callback handler failed and retries: {error}"
                ));
                nap();
            }
        }
        process::reload_if_asked();
    }
}

/// Waits for the worker's hint or a while; a signal to end is followed here.
fn nap() {
    BackgroundWorker::wait_latch(Some(NAP));
}

/// Calls a handler with the next event that is due, in the transaction that is open.
fn step(worker_pid: i32, drafts_first: bool) -> Result<Step, ErrorReport> {
    if !is_installed()? {
        return Ok(Step::End);
    }
    let answer = handler_step(worker_pid, drafts_first)?;
    Ok(match answer.as_deref() {
        Some("called") => Step::Called,
        Some("idle") => Step::Idle,
        _ => Step::End,
    })
}

/// The worker's end of it.
#[derive(Default)]
pub(crate) struct Handler {
    process: Option<DynamicBackgroundWorker>,
    is_missed: bool,
}

impl Handler {
    /// Ends the process: what it is at is undone and comes again.
    pub(crate) fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }

    /// Sees to it that the process runs and looks for work; false if the server has no room for it.
    pub(crate) fn wake(&mut self) -> bool {
        match self.process.as_ref().map(DynamicBackgroundWorker::pid) {
            Some(Ok(pid)) => wake::wake(pid),
            Some(Err(BackgroundWorkerStatus::NotYetStarted)) => {}
            _ => self.process = launcher::launch_handler(),
        }
        let is_missing = self.process.is_none();
        if is_missing && !self.is_missed {
            log!(
                "twilio_callback worker calls handlers itself, between sends: max_worker_processes leaves no room"
            );
        }
        self.is_missed = is_missing;
        !is_missing
    }
}

/// The worker wakes it once a tick, so this is for events that come due in between.
const NAP: Duration = Duration::from_secs(1);

/// Calls a handler for the worker of that process id; says what came of it.
fn handler_step(worker_pid: i32, drafts_first: bool) -> Result<Option<String>, ErrorReport> {
    first(
        "select twilio_internal.handler_step($1, $2)",
        &[worker_pid.into(), drafts_first.into()],
    )
}
