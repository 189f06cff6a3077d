//! Users' functions that catch the cancel at their time limit: the process that calls them ends soon after, the try is
//! counted, and all other work goes on.

use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, sid};
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, FRONT_ROLE};
use end_to_end::server::outbox::{is_worker_running, start_worker};
use end_to_end::wait::{holds_within, wait_until};
use postgres::error::SqlState;

/// Of a call: its time, and a second until its process ends.
const LIMIT: Duration = Duration::from_millis(1_300);
/// How long a loaded machine may take for what follows.
const PATIENCE: Duration = Duration::from_secs(30);
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";
const PROBLEM: &str =
    "function did not stop within one second of its cancel; its process was ended";
/// Goes on whatever is done about it, but for the end of its process.
const STUBBORN: &str = "create sequence public.call; \
    create function public.stubborn(event jsonb) returns text language plpgsql as $$ \
    begin \
        perform nextval('public.call'); \
        loop \
            begin loop perform pg_sleep(3600); end loop; exception when query_canceled then null; end; \
        end loop; \
    end $$";
/// Whether such a function runs.
const IS_SLEEPING: &str = "select exists (select from pg_stat_activity \
    where datname = current_database() and wait_event = 'PgSleep')";
const STARTED_AT: &str = "select pg_postmaster_start_time()::text";

#[test]
fn a_handler_that_catches_its_cancel_is_ended_and_its_tries_count() {
    let cluster = cluster();
    let database = cluster.database();
    let started_at: String = database.value(STARTED_AT, &[]);
    prepare(
        &database,
        "create table public.effect (event_id bigint); \
         create function public.on_event(event jsonb) returns void language sql as $$ \
             insert into public.effect values (($1 ->> 'event_id')::bigint) $$; \
         select twilio.create_consumer('stubborn', 'public.stubborn', max_tries => 2), \
             twilio.create_consumer('app', 'public.on_event')",
    );
    record(&database, 1..=1);
    start_worker(&database);

    let letter = "select exists (select from twilio.feed_dead_letter \
        where consumer = 'stubborn' and tries = 2 and error = $1)";
    wait_until(PATIENCE, "two tries to end in a dead letter", || {
        database.value(letter, &[&PROBLEM])
    });
    let calls: i64 = database.value("select last_value from public.call", &[]);
    assert_eq!(calls, 2);
    // The other consumer has had its turns meanwhile.
    let effects = "select count(*) from public.effect";
    wait_until(PATIENCE, "the other handler to be called", || {
        database.value::<i64>(effects, &[]) == 1
    });
    assert!(is_worker_running(&database));
    assert!(
        cluster.read_log().contains("public.stubborn did not stop"),
        "the log says why the process ended"
    );

    // A stopped worker takes along what it has running.
    record(&database, 2..=2);
    wait_until(PATIENCE, "the function to be called again", || {
        database.value(IS_SLEEPING, &[])
    });
    database
        .connect()
        .batch_execute("select twilio.stop_worker()")
        .unwrap();
    wait_until(PATIENCE, "the function to be ended", || {
        !database.value::<bool>(IS_SLEEPING, &[])
    });
    assert!(!is_worker_running(&database));
    check_survival(&cluster, &database, &started_at);
}

#[test]
fn a_worker_that_calls_such_a_handler_itself_restarts_and_counts_the_try() {
    // One process for the server's own use, one for the worker.
    let cluster = Cluster::start(&Options {
        fsync: false,
        lines: &[
            "twilio_callback.handler_timeout = '300ms'",
            "max_worker_processes = 2",
        ],
    });
    let database = cluster.database();
    let started_at: String = database.value(STARTED_AT, &[]);
    prepare(
        &database,
        "select twilio.create_consumer('stubborn', 'public.stubborn', max_tries => 1)",
    );
    record(&database, 1..=1);
    start_worker(&database);
    let letter =
        "select exists (select from twilio.feed_dead_letter where tries = 1 and error = $1)";
    wait_until(PATIENCE, "the try to be counted", || {
        database.value(letter, &[&PROBLEM])
    });
    wait_until(PATIENCE, "the worker to be back", || {
        is_worker_running(&database)
    });
    assert!(cluster.read_log().contains("calls handlers itself"));
    check_survival(&cluster, &database, &started_at);
}

#[test]
fn a_consumer_can_be_dropped_while_its_handler_catches_its_cancel() {
    let cluster = cluster();
    let database = cluster.database();
    let started_at: String = database.value(STARTED_AT, &[]);
    prepare(
        &database,
        "select twilio.create_consumer('stubborn', 'public.stubborn')",
    );
    record(&database, 1..=1);
    start_worker(&database);
    wait_until(PATIENCE, "the function to be called", || {
        database.value(IS_SLEEPING, &[])
    });
    let start = Instant::now();
    let mut client = database.connect();
    client
        .batch_execute("select twilio.drop_consumer('stubborn')")
        .unwrap();
    assert!(start.elapsed() < LIMIT + PATIENCE, "{:?}", start.elapsed());
    let left: i64 = database.value(
        "select (select count(*) from twilio_internal.feed_delivery) \
            + (select count(*) from twilio.feed_dead_letter)",
        &[],
    );
    assert_eq!(left, 0);
    check_survival(&cluster, &database, &started_at);
}

#[test]
fn a_reply_that_catches_its_cancel_costs_no_other_reply_and_is_called_once() {
    let cluster = cluster();
    let database = cluster.database();
    let started_at: String = database.value(STARTED_AT, &[]);
    prepare(
        &database,
        "create function public.prompt(message jsonb) returns text language sql as $$ select 'at once' $$; \
         select twilio.add_reply_rule(function => 'public.stubborn', keyword => 'hang'), \
             twilio.add_reply_rule(function => 'public.prompt', keyword => 'hello')",
    );
    let shim = Shim::start(&database, &["--reply-timeout", "500ms"]);
    let sessions = format!(
        "select count(*) from pg_stat_activity \
         where usename = '{FRONT_ROLE}' and datname = current_database() and wait_event = 'PgSleep'"
    );
    for number in 1..=3 {
        let request = callback::signed_inbound(&sid(number), "hang");
        let start = Instant::now();
        let answer = shim.send(&request);
        assert_eq!((answer.status, answer.text().as_str()), (200, EMPTY));
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let kept = "select exists (select from twilio.reply r join twilio.message m using (message_id) \
            where m.message_sid = $1 and r.error = $2)";
        wait_until(PATIENCE, "the failure to be kept", || {
            database.value(kept, &[&sid(number), &PROBLEM])
        });
        assert_eq!(database.value::<i64>(&sessions, &[]), 0, "hung sessions");
        // A repeated request does not call the function again.
        let answer = shim.send(&request);
        assert_eq!((answer.status, answer.text().as_str()), (200, EMPTY));
    }
    assert_eq!(
        database.value::<i64>("select last_value from public.call", &[]),
        3
    );
    let is_answered = holds_within(PATIENCE, || {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(100);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let answer = shim.send(&callback::signed_inbound(&sid(number), "hello"));
        answer.text().contains("<Body>at once</Body>")
    });
    assert!(is_answered, "{}", shim.read_log());
    check_survival(&cluster, &database, &started_at);
}

#[test]
fn a_session_that_asks_for_a_reply_is_ended_with_it() {
    let cluster = cluster();
    let database = cluster.database();
    let started_at: String = database.value(STARTED_AT, &[]);
    prepare(
        &database,
        "select twilio.add_reply_rule(function => 'public.stubborn')",
    );
    let sql = "select message_id from twilio.sms_callback('/twilio/inbound', $1, $2)";
    let request = callback::signed_inbound(&sid(1), "hang");
    let signature = (request.headers.iter())
        .find_map(|(name, value)| (name == "X-Twilio-Signature").then_some(value));
    let id: i64 = database.value(sql, &[&request.body, &signature]);
    let start = Instant::now();
    let mut client = postgres::Client::connect(&database.url(FRONT_ROLE), postgres::NoTls).unwrap();
    let error = client
        .query("select * from twilio.answer(array[$1::bigint])", &[&id])
        .unwrap_err();
    assert!(is_ended(&error), "{error}");
    assert!(start.elapsed() < LIMIT + PATIENCE, "{:?}", start.elapsed());
    let error: Option<String> = database.value(
        "select error from twilio.reply where message_id = $1",
        &[&id],
    );
    assert_eq!(error.as_deref(), Some(PROBLEM));
    check_survival(&cluster, &database, &started_at);
}

#[test]
fn a_text_and_a_source_that_catch_their_cancel_do_not_hold_a_fallback_for_ever() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        lines: &[
            "twilio_callback.handler_timeout = '300ms'",
            "twilio_callback.message_source = 'public.stubborn_source'",
        ],
    });
    let database = cluster.database();
    let started_at: String = database.value(STARTED_AT, &[]);
    prepare(
        &database,
        "create function public.stubborn_source(message jsonb) returns jsonb language sql as \
             'select public.stubborn($1)::jsonb'; \
         select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100'); \
         select twilio.enable_whatsapp_to_sms(); \
         select twilio.set_fallback_text('whatsapp_to_sms', 'public.stubborn')",
    );
    // One message is ours, whose text a function makes; one is of other software, whose text is looked up.
    let ours: i64 = database.value(
        "select twilio.send_message('whatsapp:+12025550123', 'Hello')",
        &[],
    );
    let fail = "select twilio.simulate_callback($1, 'undelivered', 63049)";
    database.value::<i64>(fail, &[&ours]);
    let pairs = callback::status_between(
        &sid(1),
        "undelivered",
        Some(63049),
        "whatsapp:+12025550100",
        "whatsapp:+12025550124",
    );
    let shim = Shim::start(&database, &[]);
    let request = Request::form(callback::STATUS_PATH, &pairs).signed();
    assert_eq!(shim.send(&request).status, 204);

    let waiting = "select count(*) from twilio_internal.fallback where is_preparing and stage <> 'twilio' and problem is null";
    assert_eq!(database.value::<i64>(waiting, &[]), 2);
    for left in [1, 0] {
        let error = (database.connect())
            .query("select twilio_internal.run_text()", &[])
            .unwrap_err();
        assert!(is_ended(&error), "{error}");
        wait_until(PATIENCE, "the try to be counted", || {
            database.value::<i64>(waiting, &[]) == left
        });
    }
    let noted: Vec<String> = database.value(
        "select array_agg(concat_ws(' ', stage, tries, problem) order by stage) from twilio_internal.fallback",
        &[],
    );
    assert_eq!(
        noted,
        [format!("text 1 {PROBLEM}"), format!("twilio 0 {PROBLEM}")]
    );
    check_survival(&cluster, &database, &started_at);
}

fn cluster() -> Cluster {
    Cluster::start(&Options {
        fsync: false,
        lines: &["twilio_callback.handler_timeout = '300ms'"],
    })
}

fn prepare(database: &Database<'_>, sql: &str) {
    let mut client = database.connect();
    client.batch_execute(STUBBORN).unwrap();
    client.batch_execute(sql).unwrap();
}

/// Whether the session was ended: the client may notice the end of the connection before it has read why.
fn is_ended(error: &postgres::Error) -> bool {
    error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN)
}

/// Logs an event of each of these messages.
fn record(database: &Database<'_>, messages: std::ops::RangeInclusive<i64>) {
    let sql = "select count(*) from generate_series($1::bigint, $2::bigint) n cross join lateral twilio_internal.record(array[ \
            twilio_internal.make_report('sent', account_sid => $3, message_sid => 'SM' || lpad(n::text, 32, '0'))])";
    let count: i64 = database.value(sql, &[messages.start(), messages.end(), &ACCOUNT_SID]);
    assert_eq!(count, messages.end() - messages.start() + 1);
}

/// The server is the same, and lost nothing but the processes that were ended.
fn check_survival(cluster: &Cluster, database: &Database<'_>, started_at: &str) {
    assert_eq!(database.value::<String>(STARTED_AT, &[]), started_at);
    cluster.assert_no_errors();
}
