//! Callbacks of purged messages that are sent again start nothing and change no other message.

use std::time::Duration;

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::load::send_all;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::free_port;
use end_to_end::wait::wait_until;

/// The callbacks of a message: one of these lists, in order. Each ends in a final status.
const COURSES: [&[(&str, Option<i32>)]; 4] = [
    &[("sent", None), ("delivered", None), ("read", None)],
    &[("sent", None), ("failed", Some(63049))],
    &[
        ("sent", None),
        ("undelivered", Some(63016)),
        ("failed", Some(63016)),
    ],
    &[
        ("sent", None),
        ("undelivered", Some(30003)),
        ("delivered", None),
    ],
];
const PATIENCE: Duration = Duration::from_secs(30);
const FROM: &str = "whatsapp:+12025550100";
const TO: &str = "whatsapp:+12025550123";

#[test]
fn callbacks_of_purged_messages_change_nothing() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut client = database.connect();
    prepare(&database);
    let count = sized(500, 20_000);
    let (old, living): (Vec<_>, Vec<_>) = (requests(0, count), requests(count, count / 5));
    let shift = |offset: &str| {
        let sql = format!(
            "alter role front in database {} set twilio_callback.clock_offset = '{offset}'",
            database.name()
        );
        database.connect().batch_execute(&sql).unwrap();
    };
    shift("-100 d");
    deliver(&database, &old);
    shift("0");
    deliver(&database, &living);
    // These wait to be sent, to the same recipient.
    let sql =
        "select twilio.send_message('whatsapp:+12025550123', 'x') from generate_series(1, 10)";
    client.batch_execute(sql).unwrap();
    let all = i64::try_from(count).unwrap();
    let (events, messages) = database.counts();
    assert_eq!(messages, all + all / 5 + 10);
    client
        .batch_execute("call twilio.purge('30 days')")
        .unwrap();
    assert_eq!(database.counts().1, all / 5 + 10, "after the purge");
    client.batch_execute(SNAPSHOT).unwrap();

    // Each of them twice, in any order, as an attacker may send them who recorded them.
    let mut again = [old.clone(), old].concat();
    Random::new().shuffle(&mut again);
    deliver(&database, &again);
    assert_eq!(
        database.value::<i64>(CHANGED, &[]),
        0,
        "other messages that changed"
    );
    assert_eq!(
        database.value::<i64>(PLANNED, &[]),
        0,
        "messages that were planned"
    );
    let sql = "select count(*) from twilio.message m \
        where not exists (select from living l where l.message_id = m.message_id)";
    assert_eq!(
        database.value::<i64>(sql, &[]),
        all,
        "messages of the repeated callbacks"
    );
    assert_eq!(database.counts().0, events, "each event once");
    assert_eq!(
        database.value::<i64>("select count(*) from twilio.replay()", &[]),
        0
    );
    cluster.assert_no_errors();
}

#[test]
fn captured_messages_change_no_consent_after_a_purge() {
    const WORDS: [&str; 5] = ["START", "STOP", "yes", "hello", "Unsubscribe"];
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut client = database.connect();
    client
        .batch_execute(
            "create table public.heard (message_id bigint); \
             create function public.on_event(event jsonb) returns void language sql \
             as $$ insert into public.heard values (($1 ->> 'message_id')::bigint) $$; \
             select twilio.create_consumer('app', 'public.on_event')",
        )
        .unwrap();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let mut random = Random::new();
    let mut number = 0;
    let mut say = |person: usize, word: &str| {
        number += 1;
        let channel = if number % 3 == 0 { "whatsapp:" } else { "" };
        let mut pairs = callback::inbound(&sid(number), word);
        let from = format!("{channel}+1202555010{person}");
        callback::set(&mut pairs, "From", &from);
        callback::set(&mut pairs, "To", &format!("{channel}+12025550100"));
        Request::form(callback::INBOUND_PATH, &pairs).signed()
    };
    let mut captured = Vec::new();
    for _ in 0..4 {
        let spoken: Vec<_> = (0..50)
            .map(|_| say(random.below(9), WORDS[random.below(5)]))
            .collect();
        for answer in send_all(&shim.address(), &spoken, 4) {
            assert_eq!(answer.unwrap().status, 200);
        }
        captured.extend(spoken);
        // Some are redacted before they go.
        if random.one_in(2) {
            client
                .batch_execute("call twilio.redact('0 s', effort => 1)")
                .unwrap();
        }
        client
            .batch_execute("call twilio.purge('0 s', include_pending => true, effort => 1)")
            .unwrap();
    }
    assert_eq!(database.counts(), (0, 0));
    let last: Vec<_> = (0..9)
        .map(|person| say(person, WORDS[random.below(5)]))
        .collect();
    for answer in send_all(&shim.address(), &last, 1) {
        assert_eq!(answer.unwrap().status, 200);
    }
    let mut look = || {
        for sql in [
            "select twilio.feed_tick(is_forced => true)",
            "call twilio.run_handlers(1000)",
        ] {
            client.batch_execute(sql).unwrap();
        }
        let row = client.query_one(
            "select (select array_agg(s::text order by s.suppression_id) from twilio.suppression s), \
                (select count(*) from public.heard), (select count(*) from twilio_internal.feed_event), \
                (select count(*) from twilio.message), (select count(*) from twilio.message_event)",
            &[],
        );
        let row = row.unwrap();
        let counts: Vec<i64> = (1..5).map(|column| row.get(column)).collect();
        (row.get::<_, Option<Vec<String>>>(0), counts)
    };
    let before = look();
    assert!(before.1[0] > 0, "handlers were called");
    // Each of them twice, in any order.
    let mut again = [captured.clone(), captured].concat();
    random.shuffle(&mut again);
    for answer in send_all(&shim.address(), &again, 4) {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().ends_with("<Response/>"), "{}", answer.text());
    }
    let after = look();
    assert_eq!(after.1, before.1);
    assert!(after.0 == before.0, "the suppressions changed");
    cluster.assert_no_errors();
}

#[test]
fn a_failure_of_a_purged_message_leads_to_no_fallback() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let port = free_port();
    let flags = ["--listen", &format!("127.0.0.1:{port}")];
    let mut shim = Shim::start(&database, &flags);
    let sandbox = Sandbox::start(port, &["--callback-delay", "5", "--late-delay", "20"]);
    prepare(&database);
    let mut client = database.connect();
    client
        .execute("update twilio.account set api_url = $1", &[&sandbox.url()])
        .unwrap();
    client
        .batch_execute("select twilio.enable_whatsapp_to_sms(), twilio.start_worker()")
        .unwrap();

    // The first report of the failure leads to a fallback.
    let created = sandbox.create(FROM, "whatsapp:+150000000163049", STATUS_PATH);
    let sql = "select count(*) from twilio.message where step = 1 and status = 'delivered'";
    wait_until(PATIENCE, "the fallback", || {
        database.value::<i64>(sql, &[]) == 1
    });
    assert_eq!(creates(&sandbox), 2);

    // A hundred days later all of it is purged, and the callback comes again.
    let sql = format!(
        "alter database {} set twilio_callback.clock_offset = '100 d'",
        database.name()
    );
    client.batch_execute(&sql).unwrap();
    client.batch_execute("select twilio.stop_worker()").unwrap();
    let running =
        "select count(*) from twilio_internal.worker w join pg_stat_activity a on a.pid = w.pid";
    wait_until(PATIENCE, "the worker to end", || {
        database.value::<i64>(running, &[]) == 0
    });
    shim.kill();
    shim.start_again();
    database
        .connect()
        .batch_execute("call twilio.purge('30 days')")
        .unwrap();
    assert_eq!(database.counts(), (0, 0));
    database
        .connect()
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    let sid = created["sid"].as_str().unwrap();
    let pairs = callback::status_between(
        sid,
        "undelivered",
        Some(63049),
        FROM,
        "whatsapp:+150000000163049",
    );
    assert_eq!(
        shim.send(&Request::form(STATUS_PATH, &pairs).signed())
            .status,
        204
    );

    // The message is not known any more, so Twilio is asked how old it is.
    wait_until(PATIENCE, "the fallback to end", || {
        database.value::<i64>("select count(*) from twilio_internal.outbox", &[]) == 0
    });
    let sql = "select array_agg(status order by step) from twilio.message";
    assert_eq!(
        database.value::<Vec<String>>(sql, &[]),
        ["undelivered", "expired"]
    );
    assert_eq!(creates(&sandbox), 2, "something was sent");
    cluster.assert_no_errors();
}

/// How many messages the sandbox was asked to make.
fn creates(sandbox: &Sandbox) -> u64 {
    sandbox
        .counts()
        .values()
        .map(|(requests, _)| requests)
        .sum()
}

/// Messages with their events, and the outbox, as they are before the callbacks are sent again.
const SNAPSHOT: &str = "create table living as \
        select m.message_id, m::text as message, (select array_agg(e::text order by e.event_id) \
            from twilio.message_event e where e.message_id = m.message_id) as events \
        from twilio.message m; \
    create table queue as table twilio_internal.outbox";
const CHANGED: &str = "select (select count(*) from living l where not exists ( \
        select from twilio.message m where m.message_id = l.message_id and m::text = l.message \
            and l.events is not distinct from (select array_agg(e::text order by e.event_id) \
                from twilio.message_event e where e.message_id = m.message_id))) \
    + (select count(*) from (table queue except table twilio_internal.outbox) x)";
/// Rows that do not come from a callback: work, fallbacks, messages without a SID.
const PLANNED: &str = "select (select count(*) from (table twilio_internal.outbox except table queue) x) \
    + (select count(*) from twilio.message m where (m.step > 0 or m.root_id <> m.message_id \
        or m.message_sid is null) and not exists (select from living l where l.message_id = m.message_id))";

/// Senders on both channels, and keys that were live long ago too.
fn prepare(database: &Database<'_>) {
    let sql = "update twilio.signing_key set not_before = '-infinity'; \
        select twilio.add_sender('whatsapp:+12025550100'), twilio.add_sender('+12025550100')";
    database.connect().batch_execute(sql).unwrap();
}

fn requests(first: usize, count: usize) -> Vec<Request> {
    (first..first + count)
        .flat_map(|number| {
            COURSES[number % COURSES.len()]
                .iter()
                .map(move |said| (number, said))
        })
        .map(|(number, (status, code))| {
            let pairs = callback::status_between(&sid(number), status, *code, FROM, TO);
            Request::form(STATUS_PATH, &pairs).signed()
        })
        .collect()
}

fn deliver(database: &Database<'_>, requests: &[Request]) {
    let shim = Shim::start(database, &["--log-callbacks", "off"]);
    let answers = send_all(&shim.address(), requests, 8);
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().status == 204)
    );
}
