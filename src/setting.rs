//! The settings (GUCs) and what they mean to the rest of the code.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// Where `file:name` secrets are read. Empty by default: then such secrets are refused, so that a role
/// that may add an account cannot make the server read any file.
static SECRET_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Shifts `twilio.now()`, so that tests of windows and deadlines need not wait.
static CLOCK_OFFSET: GucSetting<i32> = GucSetting::<i32>::new(0);

/// How long a message may wait before it is not sent any more, so that an outage does not deliver
/// stale codes in the morning.
static DEFAULT_EXPIRY: GucSetting<i32> = GucSetting::<i32>::new(4 * 3600);

/// What happens if it is unknown whether a message was sent. By default it is sent at most once.
static DELIVERY: GucSetting<Delivery> = GucSetting::<Delivery>::new(Delivery::AtMostOnce);

/// By how much a phone's clock may differ from ours. Phones sign anew for each of their retries, so this
/// need not cover those.
static SMSGATE_CLOCK_TOLERANCE: GucSetting<i32> = GucSetting::<i32>::new(300);

/// Largest body, URL or other value that a function of ours takes, in kB. The least trusted roles choose what they
/// pass, so only a superuser may raise it.
static MAX_REQUEST_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);

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

/// Where messages of software that keeps them in tables of its own are looked up, before Twilio is asked.
static MESSAGE_SOURCE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Databases that get a worker of their own when the library is preloaded.
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// How many requests may be under way at once, each on a thread: enough for 4,000 a second at 50 ms.
static MAX_IN_FLIGHT: GucSetting<i32> = GucSetting::<i32>::new(200);

/// How long one request may take. Twilio answers within a second or two; who waits longer learns the
/// outcome from the callback.
static REQUEST_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(20_000);

/// How long a worker that is told to end waits for requests under way: each that it leaves behind has
/// an unknown outcome.
static STOP_GRACE: GucSetting<i32> = GucSetting::<i32>::new(5_000);

/// Whether files of messages to send are looked at first: it takes a request for each.
static CHECK_MEDIA: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Whether files of incoming messages are fetched: they take room, and not everybody wants them here.
static FETCH_MEDIA: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Largest file that is fetched. WhatsApp allows 16 MB for pictures, sounds and films, MMS less.
static MEDIA_SIZE_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// How long a message may have no final status before its state is fetched: callbacks come within minutes.
static RECONCILE_AFTER: GucSetting<i32> = GucSetting::<i32>::new(15 * 60);

/// How many states a second are fetched of an account: far below what Twilio allows.
static RECONCILE_RATE: GucSetting<i32> = GucSetting::<i32>::new(5);

/// Whether the list of messages is read once a day: prices come in no callback.
static DAILY_SWEEP: GucSetting<bool> = GucSetting::<bool>::new(true);

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
        c"What happens if it is unknown whether a message was sent.",
        c"at_most_once lists it as unknown; at_least_once sends it again once Twilio's list does not show it.",
        &DELIVERY,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.handler_timeout",
        c"Longest run of a user's function that handles an event.",
        c"A longer one is canceled and tried again later; one that catches the cancel ends with its process a second later. 0 for no bound.",
        &HANDLER_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"twilio_callback.message_source",
        c"Function or view that knows the messages of other software.",
        c"With its schema: a function of one jsonb that returns one, or a view with message_sid, body and created_at. Runs as its owner.",
        &MESSAGE_SOURCE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"twilio_callback.databases",
        c"Databases whose messages a worker sends, separated by commas.",
        c"Counts if twilio_callback is in shared_preload_libraries; elsewhere there is start_worker().",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.max_in_flight",
        c"How many requests a worker may have under way at once.",
        c"Each takes a thread and a connection. Counts when the worker starts.",
        &MAX_IN_FLIGHT,
        1,
        2000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.request_timeout",
        c"How long a request of the worker may take.",
        c"A create that takes longer has an unknown outcome, which is then looked up.",
        &REQUEST_TIMEOUT,
        100,
        600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.stop_grace",
        c"How long a worker that is to end waits for its requests.",
        c"What is under way then has an unknown outcome, which is looked up later.",
        &STOP_GRACE,
        0,
        600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.smsgate_clock_tolerance",
        c"By how much the clock of an SMSGate phone may differ.",
        c"Webhooks that are signed for another time are refused.",
        &SMSGATE_CLOCK_TOLERANCE,
        1,
        7 * 24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"twilio_callback.check_media",
        c"Whether the worker looks at the files of a message before it is sent.",
        c"By HEAD, at public addresses only: a file of another type or size than can be sent, or that is not there, refuses the message.",
        &CHECK_MEDIA,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"twilio_callback.fetch_media",
        c"Whether the worker fetches the files of incoming messages.",
        c"They are put into twilio.message_media. Messages received while it is off are fetched by fetch_media(message_id).",
        &FETCH_MEDIA,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.media_size_limit",
        c"Largest file of an incoming message that is fetched.",
        c"A larger one is given up. The worker holds up to four files at once in memory.",
        &MEDIA_SIZE_LIMIT,
        1,
        512 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.reconcile_after",
        c"How long a message at Twilio may have no final status before the worker fetches its state.",
        c"At least a minute; 0 turns reconciliation off.",
        &RECONCILE_AFTER,
        0,
        24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.reconcile_rate",
        c"Most requests a second that fetch states of messages, for each account.",
        c"Requests that send do not count.",
        &RECONCILE_RATE,
        1,
        100,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"twilio_callback.daily_sweep",
        c"Whether the worker reads Twilio's lists of yesterday's and today's messages once a day.",
        c"For prices, lost statuses and messages that are not known here: a request for each thousand messages.",
        &DAILY_SWEEP,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"twilio_callback.max_request_size",
        c"Largest body, URL or other value that a function of twilio_callback accepts.",
        c"A larger argument raises 54000 before memory is allocated for it; a larger request in a batch is answered with 413. A batch may have 64 times as much in all.",
        &MAX_REQUEST_SIZE,
        64,
        128 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
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

/// The databases that the launcher starts workers for.
pub(crate) fn databases() -> Vec<String> {
    let list = DATABASES.get().and_then(|list| list.into_string().ok());
    let names = list.iter().flat_map(|list| list.split(','));
    names
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// How many requests may be under way.
pub(crate) fn max_in_flight() -> usize {
    usize::try_from(MAX_IN_FLIGHT.get()).unwrap_or(1)
}

/// How long a request may take.
pub(crate) fn request_timeout() -> Duration {
    milliseconds(REQUEST_TIMEOUT.get())
}

/// Whether files of messages to send are looked at first.
pub(crate) fn check_media() -> bool {
    CHECK_MEDIA.get()
}

/// Whether files of incoming messages are fetched.
pub(crate) fn fetch_media() -> bool {
    FETCH_MEDIA.get()
}

/// The largest file that is fetched, in bytes.
pub(crate) fn media_size_limit() -> usize {
    usize::try_from(MEDIA_SIZE_LIMIT.get()).map_or(usize::MAX, |limit| limit.saturating_mul(1024))
}

/// The largest value that a function takes, in bytes.
pub(crate) fn max_request_size() -> usize {
    usize::try_from(MAX_REQUEST_SIZE.get()).unwrap_or(0) * 1024
}

/// The largest array of requests that a function takes, in bytes.
pub(crate) fn max_batch_size() -> usize {
    64 * max_request_size()
}

/// How long the requests under way are waited for at the end.
pub(crate) fn stop_grace() -> Duration {
    milliseconds(STOP_GRACE.get())
}

fn milliseconds(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

/// By how many seconds a phone's clock may differ.
pub(crate) fn smsgate_clock_tolerance() -> u32 {
    SMSGATE_CLOCK_TOLERANCE.get().unsigned_abs()
}
