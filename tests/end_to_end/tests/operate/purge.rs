//! While old messages are purged, callbacks are answered as before, and no open work is touched.

use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, sid};
use end_to_end::client::flow::{Exchange, Pace, flow_during, percentile, summary, wait_for_more};
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};

/// Of each hundred old messages 92 go.
const PURGED_OF_HUNDRED: usize = 92;
const SLOW: Duration = Duration::from_millis(100);
/// Well below what the shim can take: what is measured is the purge, not a queue before it.
const STEADY: Pace = Pace {
    connections: 4,
    interval: Duration::from_millis(10),
};

#[test]
fn a_purge_delays_no_callback_and_leaves_open_work_alone() {
    let old = sized(20_000, 1_100_000);
    let cluster = Cluster::start(&Options {
        fsync: true,
        // Some belong to either half, as none must be taken for the purge's doing.
        lines: &["checkpoint_timeout = 60s"],
    });
    let database = cluster.database();
    let start = Instant::now();
    fill(&database, old);
    eprintln!("{old} old messages made in {:.1?}", start.elapsed());
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let address = shim.address();
    // One in ten repeats a callback of an old message, so that it meets the purge at that message.
    let make = |number: usize| match number % 10 {
        9 => callback::signed_status(&sid(100 * (number % (old / 100)) + 50), "delivered", None),
        _ => living(number),
    };
    let (alone, ()) = flow_during(&address, STEADY, make, |answered| {
        // At full size about as long as the purge takes.
        wait_for_more(answered, sized(600, 70_000));
    });
    let shifted = |number: usize| match number % 10 {
        9 => make(number),
        _ => living(number + 100_000_000),
    };
    let (beside, elapsed) = flow_during(&address, STEADY, shifted, |_| {
        let start = Instant::now();
        // More than the default, so that the test is over sooner.
        let purge = "call twilio.purge('100 days', effort => 0.4)";
        database.connect().batch_execute(purge).unwrap();
        start.elapsed()
    });
    let count = old / 100 * PURGED_OF_HUNDRED;
    eprintln!("{count} messages purged in {elapsed:.1?}");
    eprintln!(
        "without purge: {}, p99.9 {:.1?}, {:.3} % slow",
        summary(&alone),
        percentile(&alone, 999),
        slow(&alone)
    );
    eprintln!(
        "with purge: {}, p99.9 {:.1?}, {:.3} % slow",
        summary(&beside),
        percentile(&beside, 999),
        slow(&beside)
    );

    let all = || alone.iter().chain(&beside);
    assert!(all().all(|exchange| exchange.status == Some(204)));
    // Checkpoints and other work on the machine make single callbacks slow with and without a purge; at
    // full size a pause of the server shows as a handful in 70,000. A purge in the way holds up more.
    assert!(
        slow(&beside) <= slow(&alone) + sized(5.0, 0.05),
        "callbacks were held up"
    );
    check_open_work(&database);
    assert_eq!(database.value::<i64>(PASSED_OVER, &[]), 0, "passed over");
    // Messages that a callback held at that moment are purged now.
    let again = "call twilio.purge('100 days', effort => 1)";
    database.connect().batch_execute(again).unwrap();
    check_open_work(&database);
    check_what_is_gone(&database, old);
    cluster.assert_no_errors();
}

/// Finished messages that are still there though no callback is about them.
const PASSED_OVER: &str = "select count(*) from twilio.message m \
    where m.created_at < now() - interval '100 days' \
        and not exists (select from open o where o.message_id = m.message_id) \
        and ('x' || right(m.message_sid, 8))::bit(32)::int % 100 <> 50";

/// A callback about a message that is not old: each gets two.
fn living(number: usize) -> Request {
    let status = if number.is_multiple_of(2) {
        "sent"
    } else {
        "delivered"
    };
    callback::signed_status(&sid(1_000_000_000 + number / 2), status, None)
}

/// The percentage of exchanges that took long.
fn slow(exchanges: &[Exchange]) -> f64 {
    let is_slow = |exchange: &&Exchange| exchange.latency() > SLOW;
    100.0 * exchanges.iter().filter(is_slow).count() as f64 / exchanges.len() as f64
}

/// Old messages with events and attempts. Of each hundred, number 0 is pending and 1 its final fallback;
/// 2 is final and 3 its pending fallback; 4 and 5 are a final chain; 10 to 12 wait, are unknown and are
/// dead in the outbox; of 20 something was heard yesterday. All others are final.
fn fill(database: &Database<'_>, count: usize) {
    let sql = format!(
        "select twilio.add_sender('+12025550100'); \
        create temp table n as \
            select g - 1 as n, nextval('twilio.message_message_id_seq') as id, (g - 1) % 100 as kind, \
                now() - interval '200 days' as at \
            from generate_series(1, {count}) g; \
        insert into twilio.message (message_id, root_id, step, message_sid, account_sid, from_address, \
            to_address, status, created_at, sent_at, delivered_at) overriding system value \
        select n.id, case when n.kind in (1, 3, 5) then n.id - 1 else n.id end, (n.kind in (1, 3, 5))::int, \
            'SM' || lpad(to_hex(n.n), 32, '0'), '{ACCOUNT_SID}', '+12025550100', '+12025550123', \
            case when n.kind in (0, 3) then 'sent' else 'delivered' end, n.at, n.at, \
            case when n.kind = 20 then now() - interval '1 day' when n.kind not in (0, 3) then n.at end \
        from n; \
        insert into twilio.message_event (message_id, status, source, is_advance, received_at, params) \
        select m.message_id, s.status, 'callback', true, m.created_at, '{{}}' \
        from twilio.message m cross join (values ('sent'), ('delivered')) s (status) \
        where s.status = 'sent' or m.status = 'delivered'; \
        insert into twilio_internal.attempt (attempt_id, message_id, started_at, finished_at, outcome) \
        select twilio_internal.new_attempt_id(), n.id, n.at, n.at, 'accepted' from n; \
        insert into twilio_internal.outbox (message_id, sender_id, state, is_repeatable, due_at, expires_at) \
        select n.id, 1, (array['waiting', 'unknown', 'dead'])[n.kind - 9], false, 'infinity', 'infinity' \
        from n where n.kind in (10, 11, 12); \
        create table open as \
            select m.*, e.events, (select a::text from twilio_internal.attempt a where a.message_id = m.message_id) as attempt \
            from twilio.message m \
            join n on n.id = m.message_id and n.kind in (0, 1, 2, 3, 10, 11, 12, 20) \
            cross join lateral (select array_agg(e::text order by e.event_id) as events \
                from twilio.message_event e where e.message_id = m.message_id) e; \
        create table open_outbox as table twilio_internal.outbox; \
        analyze"
    );
    database.connect().batch_execute(&sql).unwrap();
}

/// Checks that open messages are there with all that belongs to them.
fn check_open_work(database: &Database<'_>) {
    let sql = "select count(*) from open o where not exists ( \
            select from twilio.message m \
            where m.message_id = o.message_id \
                and to_jsonb(m) = to_jsonb(o) - array['events', 'attempt'] \
                and o.attempt = (select a::text from twilio_internal.attempt a where a.message_id = m.message_id) \
                and o.events = (select array_agg(e::text order by e.event_id) \
                    from twilio.message_event e where e.message_id = m.message_id))";
    assert_eq!(
        database.value::<i64>(sql, &[]),
        0,
        "open work that was touched"
    );
    let sql = "select count(*) from (table open_outbox except table twilio_internal.outbox) x";
    assert_eq!(
        database.value::<i64>(sql, &[]),
        0,
        "outbox rows that are gone"
    );
}

/// Checks that finished messages are gone with all that belonged to them.
fn check_what_is_gone(database: &Database<'_>, old: usize) {
    let kept = old / 100 * (100 - PURGED_OF_HUNDRED);
    let sql = "select (select count(*) from twilio.message where created_at < now() - interval '100 days'), \
            (select count(*) from open), (select count(*) from twilio_internal.attempt), \
            (select count(*) from twilio.message_event e \
                where not exists (select from twilio.message m where m.message_id = e.message_id))";
    let row = database.connect().query_one(sql, &[]).unwrap();
    let [messages, open, attempts, orphans] = [0, 1, 2, 3].map(|i| row.get::<_, i64>(i) as usize);
    assert_eq!((messages, open, attempts, orphans), (kept, kept, kept, 0));
}
