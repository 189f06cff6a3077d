//! The settings (GUCs) and what they mean to the rest of the code.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// Where `file:name` secrets are read. Empty by default: then such secrets are refused, so that nobody
/// who may add an account can make the server read a file of his choice.
static SECRET_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Shifts `twilio.now()`, so that tests of windows and deadlines need not wait.
static CLOCK_OFFSET: GucSetting<i32> = GucSetting::<i32>::new(0);

/// How long a message may wait before it is not sent any more, so that an outage does not deliver
/// stale codes in the morning.
static DEFAULT_EXPIRY: GucSetting<i32> = GucSetting::<i32>::new(4 * 3600);

/// What is done when nobody can say whether a message went out. Rather never than twice by default.
static DELIVERY: GucSetting<Delivery> = GucSetting::<Delivery>::new(Delivery::AtMostOnce);

/// The policies of [`DELIVERY`].
#[derive(Clone, Copy, PostgresGucEnum)]
enum Delivery {
    #[name = c"at_most_once"]
    AtMostOnce,
    #[name = c"at_least_once"]
    AtLeastOnce,
}

/// Longest run of a user's function: one that hangs must not stop all others.
static HANDLER_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// Defines all settings, once in each process.
pub(crate) fn define() {
    GucRegistry::define_string_guc(
        c"twilio_callback.secret_directory",
        c"Directory from which secrets given as file:name are read.",
        c"An absolute path that the server's account can read. Empty refuses such secrets.",
        &SECRET_DIRECTORY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.clock_offset",
        c"Shifts the time that twilio_callback goes by.",
        c"For tests of key windows, expiry and retention. 0 in operation.",
        &CLOCK_OFFSET,
        i32::MIN / 2,
        i32::MAX / 2,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.default_expiry",
        c"How long a message may wait before it is not sent any more.",
        c"Holds for messages that are queued without expires_after.",
        &DEFAULT_EXPIRY,
        1,
        30 * 24 * 3600,
        GucContext::Userset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_enum_guc(
        c"twilio_callback.delivery",
        c"What is done when nobody can say whether a message went out.",
        c"at_most_once lists it as unknown; at_least_once sends it again once Twilio's list does not show it.",
        &DELIVERY,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.handler_timeout",
        c"Longest run of a user's function that handles an event.",
        c"A longer one is canceled and tried again later. 0 for no bound.",
        &HANDLER_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    // SAFETY: the prefix is a constant C string, and settings of it are all defined by now.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"twilio_callback".as_ptr()) };
}

/// The directory of secrets, if one is set.
pub(crate) fn secret_directory() -> Option<PathBuf> {
    let directory = SECRET_DIRECTORY.get()?.into_string().ok()?;
    (!directory.is_empty()).then(|| PathBuf::from(directory))
}

/// By how much the clock is shifted, and whether forward.
pub(crate) fn clock_offset() -> (Duration, bool) {
    let seconds = CLOCK_OFFSET.get();
    (
        Duration::from_secs(seconds.unsigned_abs().into()),
        seconds >= 0,
    )
}

/// How long a user's function may run; zero for as long as it likes.
pub(crate) fn handler_timeout() -> Duration {
    Duration::from_millis(u64::try_from(HANDLER_TIMEOUT.get()).unwrap_or(0))
}
