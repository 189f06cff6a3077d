//! The bound of a call of a user's function: once its time is over it is canceled, and where it goes on
//! nevertheless, its process ends. A function may catch the first; the second it cannot.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::setting;

/// A call, and what it is made for, as `twilio_internal.record_overrun` takes it.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) function: String,
    pub(super) purpose: Option<String>,
    pub(super) subject: Option<i64>,
    pub(super) detail: Option<String>,
}

/// The bound while a call runs.
pub(super) struct Limit {
    cancels: bool,
    ends: bool,
}

/// A call under way and the role that makes it, which may do what the owner may.
struct UnderWay {
    call: Call,
    caller: pg_sys::Oid,
}

thread_local! {
    static UNDER_WAY: RefCell<Option<UnderWay>> = const { RefCell::new(None) };
}

/// Whether this process ends because of the call under way.
static IS_OVERRUN: AtomicBool = AtomicBool::new(false);
/// The timeout that ends the process, once it is registered.
static END_TIMEOUT: AtomicU32 = AtomicU32::new(0);

impl Limit {
    /// Called by the role that makes the call, before it becomes the function's. A session that has a statement
    /// timeout keeps its own; a call within a call has the bound of the outer one.
    pub(super) fn start(call: &Call, caller: pg_sys::Oid) -> Self {
        let limit = setting::handler_timeout();
        // SAFETY: on the main thread of a process that has a database, where these timeouts are registered. Neither
        // that is enabled here is active.
        unsafe {
            let id = end_timeout();
            let has_own = get_timeout_active(STATEMENT_TIMEOUT);
            let cancels = !limit.is_zero() && !has_own;
            if cancels {
                let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
                enable_timeout_after(STATEMENT_TIMEOUT, millis);
            }
            let ends = (cancels || has_own) && !get_timeout_active(id);
            if ends {
                UNDER_WAY.set(Some(UnderWay {
                    call: call.clone(),
                    caller,
                }));
                enable_timeout_at(id, get_timeout_finish_time(STATEMENT_TIMEOUT) + GRACE);
            }
            Self { cancels, ends }
        }
    }

    pub(super) fn end(&self) {
        // SAFETY: they may have fired already, which disabling survives. A cancel that came too late to be seen is
        // forgotten; one that somebody else asked for is not.
        unsafe {
            if self.ends {
                disable_timeout(end_timeout(), false);
                if !IS_OVERRUN.load(Ordering::Relaxed) {
                    UNDER_WAY.set(None);
                }
            }
            if self.cancels {
                disable_timeout(STATEMENT_TIMEOUT, true);
                if get_timeout_indicator(STATEMENT_TIMEOUT, true) {
                    pg_sys::QueryCancelPending = 0;
                }
            }
        }
    }
}

/// The timeout that ends the process.
fn end_timeout() -> u32 {
    static REGISTERED: Once = Once::new();
    // SAFETY: once in the life of a process, on its main thread. Callbacks that are registered for the end run before
    // the process gives up its place in the database, as it was registered after that.
    REGISTERED.call_once(|| unsafe {
        END_TIMEOUT.store(
            RegisterTimeout(USER_TIMEOUT, Some(overrun)),
            Ordering::Relaxed,
        );
        pg_sys::before_shmem_exit(Some(note_overrun), pg_sys::Datum::from(0));
    });
    END_TIMEOUT.load(Ordering::Relaxed)
}

/// Called in a signal handler: asks for the end of this process as SIGTERM does in a session. No handler for
/// exceptions catches that, in whatever language.
unsafe extern "C-unwind" fn overrun() {
    IS_OVERRUN.store(true, Ordering::Relaxed);
    // SAFETY: what PostgreSQL's own handlers of timeouts do.
    unsafe {
        pg_sys::ProcDiePending = 1;
        pg_sys::InterruptPending = 1;
        SetLatch(pg_sys::MyLatch);
    }
}

/// Runs while the process ends: what the function did is undone, and the try counts.
#[pg_guard]
unsafe extern "C-unwind" fn note_overrun(_code: i32, _argument: pg_sys::Datum) {
    if !IS_OVERRUN.swap(false, Ordering::Relaxed) {
        return;
    }
    let Some(UnderWay { call, caller }) = UNDER_WAY.take() else {
        return;
    };
    log!(
        "twilio_callback ended a server process: {} did not stop within one second of its cancel",
        call.function
    );
    let Some(purpose) = call.purpose else {
        return;
    };
    // SAFETY: as PostgreSQL removes temporary tables at this point: it has begun the end of the process, and
    // transactions are still possible. An error ends the process at once, with the transaction undone.
    unsafe {
        pg_sys::AbortOutOfAnyTransaction();
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactReadOnly = false;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::SetUserIdAndSecContext(caller, 0);
        let arguments = [purpose.into(), call.subject.into(), call.detail.into()];
        if let Err(error) = Spi::run_with_args(NOTE_OVERRUN, &arguments) {
            log!("could not record an ended attempt: {error}");
        }
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
}

const NOTE_OVERRUN: &str = "select twilio_internal.record_overrun($1, $2, $3)";

/// From the cancel to the end of the process, in microseconds.
const GRACE: i64 = 1_000_000;

/// `STATEMENT_TIMEOUT` of utils/timeout.h, which pgrx does not bind; the same from 15 to 18.
const STATEMENT_TIMEOUT: u32 = 3;
/// `USER_TIMEOUT`, which asks for a number of one's own.
#[cfg(feature = "pg15")]
const USER_TIMEOUT: u32 = 12;

unsafe extern "C-unwind" {
    fn RegisterTimeout(id: u32, handler: Option<unsafe extern "C-unwind" fn()>) -> u32;
    fn enable_timeout_after(id: u32, delay_ms: i32);
    fn enable_timeout_at(id: u32, at: pg_sys::TimestampTz);
    fn disable_timeout(id: u32, keep_indicator: bool);
    fn get_timeout_active(id: u32) -> bool;
    fn get_timeout_indicator(id: u32, reset: bool) -> bool;
    fn get_timeout_finish_time(id: u32) -> pg_sys::TimestampTz;
    /// As the server has it; the binding's wrapper is not made for use in a signal handler.
    fn SetLatch(latch: *mut pg_sys::Latch);
}
