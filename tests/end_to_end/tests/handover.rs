//! Incoming messages are answered once they are acknowledged, or by what a user's function returns.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use end_to_end::callback::{self, sid};
use end_to_end::cluster::{Cluster, Options};
use end_to_end::database::FRONT_ROLE;
use end_to_end::http::Connection;
use end_to_end::shim::Shim;
use end_to_end::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

#[test]
fn thousands_wait_for_acknowledgement_on_two_connections() {
    const MESSAGES: usize = 2_000;
    const ACKNOWLEDGED: usize = 1_000;
    const LIMIT: Duration = Duration::from_secs(12);
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute("select twilio.require_acknowledgement(wait_ms => 12000)")
        .unwrap();
    let shim = Shim::start(&database, &["--writers", "1", "--max-connections", "2100"]);

    let start = Instant::now();
    let mut waiting: Vec<_> = (0..MESSAGES).map(|n| open(&shim, n, "hello")).collect();
    wait_until(PATIENCE, "all messages are stored", || {
        database.counts().1 == MESSAGES as i64
    });
    let sql = format!("select count(*) from pg_stat_activity where usename = '{FRONT_ROLE}'");
    assert_eq!(database.value::<i64>(&sql, &[]), 2);

    let acknowledge = client
        .prepare("select twilio.acknowledge_inbound(message_id) from twilio.message where message_sid = $1")
        .unwrap();
    let mut latencies = Vec::new();
    for (n, connection) in waiting.iter_mut().take(ACKNOWLEDGED).enumerate() {
        let row = client.query_one(&acknowledge, &[&sid(n)]).unwrap();
        assert!(row.get::<_, bool>(0), "message {n} is late");
        let acknowledged = Instant::now();
        let answer = connection.read("POST").unwrap();
        latencies.push(acknowledged.elapsed());
        assert_eq!((answer.status, answer.text().as_str()), (200, EMPTY));
    }
    assert!(
        start.elapsed() < LIMIT,
        "the machine is too slow for this test"
    );
    for connection in &mut waiting[ACKNOWLEDGED..] {
        let answer = connection.read("POST").unwrap();
        assert_eq!(answer.status, 503);
    }
    // The last one was sent some seconds after the first.
    assert!(start.elapsed() >= LIMIT, "answered before the limit");
    latencies.sort();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    eprintln!(
        "answered after acknowledgement: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
    assert!(at(99) < Duration::from_millis(20), "p99 is {:?}", at(99));

    let late = client
        .query_one(&acknowledge, &[&sid(MESSAGES - 1)])
        .unwrap();
    assert!(!late.get::<_, bool>(0));
    let stored: i64 = database.value("select count(*) from twilio.inbound_message", &[]);
    assert_eq!(stored, MESSAGES as i64);
}

#[test]
fn an_acknowledgement_that_nobody_heard_is_asked_for() {
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
    // In one transaction, so that nobody listens when it commits.
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
    assert!(start.elapsed() < Duration::from_secs(3));
    let stored: i64 = database.value("select count(*) from twilio.inbound_message", &[]);
    assert_eq!(stored, 3);
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
