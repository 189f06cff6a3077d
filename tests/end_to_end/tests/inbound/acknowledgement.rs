//! Incoming messages are answered once they are acknowledged, or by what a user's function returns.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, sid};
use end_to_end::client::http::Connection;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::peer::tools::Tools;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{Database, FRONT_ROLE};
use end_to_end::wait::{PATIENCE, wait_until};
use postgres::Client;
use serde_json::json;

/// A number whose messages are acknowledged.
const TAKEN: &str = "+12025550100";
/// One whose messages are not.
const LEFT: &str = "+12025550101";
const ACKNOWLEDGE: &str =
    "select twilio.acknowledge_inbound(message_id) from twilio.message where message_sid = $1";
const TOO_LATE: &str = "a reply was not made: it came too late";
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

#[test]
fn thousands_wait_for_acknowledgement_on_two_connections() {
    // At full size all wait at once and for as long; at the short one, the machine may be as slow as it likes.
    let (acknowledged, late) = sized((20, 80), (1_000, 1_000));
    let (long, short) = sized((14_000, 2_000), (12_000, 12_000));
    let all = acknowledged + late;
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "select twilio.require_acknowledgement('{TAKEN}', wait_ms => {long}), \
             twilio.require_acknowledgement('{LEFT}', wait_ms => {short})"
        ))
        .unwrap();
    let tools = Tools::start(&database, &["--writers", "1", "--max-connections", "2100"]);
    let open = |n: usize| {
        let to = if n < acknowledged { TAKEN } else { LEFT };
        (Instant::now(), open_to(&tools.shim, n, to))
    };
    let mut left: Vec<_> = (acknowledged..all).map(open).collect();
    let mut taken: Vec<_> = (0..acknowledged).map(open).collect();
    let wanted = sized(acknowledged, all);
    wait_until(PATIENCE, "all requests to wait", || {
        database.counts().1 == all as i64 && waiting(&tools.shim) >= wanted
    });
    let sql = format!(
        "select count(*) from pg_stat_activity \
         where usename = '{FRONT_ROLE}' and datname = current_database()"
    );
    assert_eq!(database.value::<i64>(&sql, &[]), 2);

    let mut latencies = Vec::new();
    for (n, (_, connection)) in taken.iter_mut().enumerate() {
        let acknowledged = acknowledge(&mut client, &tools, n);
        let answer = connection.read("POST").unwrap();
        latencies.push(acknowledged.elapsed());
        assert_eq!((answer.status, answer.text().as_str()), (200, EMPTY));
    }
    for (sent, connection) in &mut left {
        let answer = connection.read("POST").unwrap();
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("1"))
        );
        assert!(sent.elapsed() >= Duration::from_millis(short));
    }
    let late_answer = client.query_one(ACKNOWLEDGE, &[&sid(all - 1)]).unwrap();
    assert!(!late_answer.get::<_, bool>(0));
    assert_eq!(waiting(&tools.shim), 0);
    let stored: (i64, i64) = (
        database.value("select count(*) from twilio.inbound_message", &[]),
        database.value(
            "select count(acknowledged_at) from twilio_internal.acknowledgement",
            &[],
        ),
    );
    assert_eq!(stored, (all as i64, acknowledged as i64));

    latencies.sort();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    let (p50, p99, max) = (at(50), at(99), at(100));
    eprintln!(
        "{all} waited; answered after acknowledgement: p50 {p50:?}, p99 {p99:?}, max {max:?}"
    );
    if all == 2_000 {
        assert!(p99 < Duration::from_millis(20), "p99 is {p99:?}");
    }
}

/// Acknowledges a message in one of both ways and gives the moment when that was done.
fn acknowledge(client: &mut Client, tools: &Tools, number: usize) -> Instant {
    if number.is_multiple_of(2) {
        let row = client.query_one(ACKNOWLEDGE, &[&sid(number)]).unwrap();
        let done = Instant::now();
        assert!(row.get::<_, bool>(0), "message {number} is late");
        return done;
    }
    let sql = "select message_id from twilio.message where message_sid = $1";
    let id: i64 = client.query_one(sql, &[&sid(number)]).unwrap().get(0);
    let answer = tools.post("/acknowledge", &json!({"message_id": id}));
    let done = Instant::now();
    assert_eq!(answer.text().trim(), r#"{"acknowledged":true}"#);
    done
}

/// How many requests the shim holds back.
fn waiting(shim: &Shim) -> usize {
    metric(shim, "unacknowledged")
}

fn metric(shim: &Shim, name: &str) -> usize {
    let metrics = shim.ask("/metrics").text();
    let start = format!("twilio_callback_shim_{name} ");
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(&start));
    line.unwrap().parse().unwrap()
}

#[test]
fn an_acknowledgement_without_a_listener_is_found_by_asking() {
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute("select twilio.require_acknowledgement(wait_ms => 12000)")
        .unwrap();
    let shim = Shim::start(&database, &["--writers", "1"]);
    let mut connection = open(&shim, 1, "hello");
    let listeners = "select count(*) from pg_stat_activity \
        where datname = current_database() and query like '%acknowledged%' and usename = 'front'";
    wait_until(PATIENCE, "the shim listens", || {
        database.value::<i64>(listeners, &[]) == 1
    });
    // In one transaction, so that there is no listener when it commits.
    client
        .batch_execute(
            "begin; \
             select pg_terminate_backend(pid, 5000) from pg_stat_activity \
             where datname = current_database() and query like '%acknowledged%' and usename = 'front'; \
             select twilio.acknowledge_inbound(1); \
             commit",
        )
        .unwrap();
    let answer = connection.read("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, EMPTY));
}

#[test]
fn a_notification_by_a_user_without_rights_acknowledges_nothing() {
    let database = cluster().database();
    database
        .connect()
        .batch_execute(
            "select twilio.require_acknowledgement(wait_ms => 2500); create role stranger login",
        )
        .unwrap();
    let shim = Shim::start(&database, &["--writers", "1"]);
    let mut connections = [open(&shim, 1, "hello"), open(&shim, 2, "hello")];
    wait_until(PATIENCE, "both requests to wait", || waiting(&shim) == 2);
    let mut stranger = cluster().connect_as("stranger", database.name());
    // More than the shim keeps, in between what is to be heard all the same.
    stranger
        .batch_execute(
            "select count(pg_notify('twilio_acknowledged', n::text)) from generate_series(1, 5000) n; \
             select pg_notify('twilio_acknowledged', 'one')",
        )
        .unwrap();
    let acknowledge = "select twilio.acknowledge_inbound(2)";
    database.connect().batch_execute(acknowledge).unwrap();
    let answers = connections.each_mut().map(|c| c.read("POST").unwrap());
    assert_eq!(answers.map(|answer| answer.status), [503, 200]);
}

#[test]
fn a_function_answers_and_a_slow_or_failing_one_costs_the_reply_only() {
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "create function public.reply(message jsonb) returns text language plpgsql as $$ \
             begin \
                 if message ->> 'body' = 'slow' then perform pg_sleep(60); end if; \
                 if message ->> 'body' = 'bad' then raise 'broken'; end if; \
                 return 'You said: ' || (message ->> 'body') || ' & more'; \
             end $$; \
             select twilio.add_reply_rule(function => 'public.reply')",
        )
        .unwrap();
    let shim = Shim::start(&database, &["--reply-timeout", "500ms"]);
    let text = |n, body| {
        let answer = shim.send(&callback::signed_inbound(&sid(n), body));
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("text/xml")
        );
        answer.text()
    };
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Message>\
        <Body>You said: hello &amp; more</Body></Message></Response>";
    assert_eq!(text(1, "hello"), expected);
    // Told again, it is not made again.
    client
        .batch_execute("create or replace function public.reply(message jsonb) returns text language sql as $$ select 'another' $$")
        .unwrap();
    assert_eq!(text(1, "hello"), expected);
    client
        .batch_execute(
            "create or replace function public.reply(message jsonb) returns text language plpgsql as $$ \
             begin \
                 if message ->> 'body' = 'slow' then perform pg_sleep(60); end if; \
                 raise 'broken'; \
             end $$",
        )
        .unwrap();
    assert_eq!(text(2, "bad"), EMPTY);
    let start = Instant::now();
    assert_eq!(text(3, "slow"), EMPTY);
    assert!(start.elapsed() < Duration::from_secs(20));
    let stored: i64 = database.value("select count(*) from twilio.inbound_message", &[]);
    assert_eq!(stored, 3);
}

#[test]
fn a_message_whose_function_is_not_called_in_time_is_reported() {
    let database = cluster().database();
    let shim = replying(&database, "2s", "pg_sleep(60)");
    let earlier = metric(&shim, "missed_replies_total");
    let messages = 6;
    let connections: Vec<_> = (1..=messages).map(|n| open(&shim, n, "hello")).collect();
    for mut connection in connections {
        let answer = connection.read("POST").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, EMPTY));
    }
    // A request that came before the other function was called has waited for 2 s when that function ends.
    let timed_out = "select count(*) from twilio.reply where error like '%statement timeout%'";
    wait_until(PATIENCE, "each message to be accounted for", || {
        let asked = database.value::<i64>(timed_out, &[]) as usize;
        let missed = metric(&shim, "missed_replies_total") - earlier;
        // A function that was called, and then longer than anybody waited, is counted in both ways.
        let late = shim.read_log().matches(TOO_LATE).count();
        assert!(asked < 4, "{asked}");
        asked >= 1 && asked + missed - late == messages
    });
    let text = "a reply was not made: its turn did not come in time";
    assert!(shim.read_log().contains(text), "{}", shim.read_log());
}

#[test]
fn an_answer_that_comes_too_late_is_reported() {
    let database = cluster().database();
    let shim = replying(&database, "4s", "pg_sleep(3)");
    let earlier = metric(&shim, "missed_replies_total");
    // The second is called in time, but too late for as long as it takes.
    let connections = [1, 2].map(|n| open(&shim, n, "hello"));
    let mut texts = connections.map(|mut connection| connection.read("POST").unwrap().text());
    texts.sort();
    assert_eq!(texts[0], EMPTY);
    assert!(texts[1].contains("<Body>done</Body>"), "{}", texts[1]);
    wait_until(PATIENCE, "the late answer to be counted", || {
        metric(&shim, "missed_replies_total") == earlier + 1
    });
    assert!(shim.read_log().contains(TOO_LATE), "{}", shim.read_log());
}

/// A shim that answers messages by a function, which says "done" after `delay`, and "ready" at once to who asks for
/// that. It has been asked: on a slow machine, connecting and loading the extension may take longer than `timeout`.
fn replying(database: &Database<'_>, timeout: &str, delay: &str) -> Shim {
    database
        .connect()
        .batch_execute(&format!(
            "create function public.reply(message jsonb) returns text language plpgsql as $$ \
             begin \
                 if message ->> 'body' = 'ready?' then return 'ready'; end if; \
                 perform {delay}; \
                 return 'done'; \
             end $$; \
             select twilio.add_reply_rule(function => 'public.reply')"
        ))
        .unwrap();
    let shim = Shim::start(database, &["--reply-timeout", timeout]);
    let mut number = 100;
    wait_until(PATIENCE, "the function to answer", || {
        number += 1;
        let answer = shim.send(&callback::signed_inbound(&sid(number), "ready?"));
        answer.text().contains("<Body>ready</Body>")
    });
    shim
}

/// The same for a message to one of our numbers.
fn open_to(shim: &Shim, number: usize, to: &str) -> Connection {
    let mut pairs = callback::inbound(&sid(number), "hello");
    callback::set(&mut pairs, "To", to);
    let request = Request::form(callback::INBOUND_PATH, &pairs).signed();
    let mut connection = shim.address().connect().unwrap();
    connection.write(&request.to_bytes()).unwrap();
    connection
}

/// A connection on which a message was sent and not answered yet.
fn open(shim: &Shim, number: usize, body: &str) -> Connection {
    let mut connection = shim.address().connect().unwrap();
    let request = callback::signed_inbound(&sid(number), body);
    connection.write(&request.to_bytes()).unwrap();
    connection
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
