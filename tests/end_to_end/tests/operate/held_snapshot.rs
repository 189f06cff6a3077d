//! While another session holds a snapshot open, ingest slows down no more than gradually.

use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::flow::{Exchange, Pace, flow_during, percentile, summary};
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::wait::{PATIENCE, wait_until};
use postgres::IsolationLevel;

const FULL_RATE: Pace = Pace {
    connections: 8,
    interval: Duration::ZERO,
};
const STATUSES: [&str; 4] = ["queued", "sending", "sent", "delivered"];
/// The run is looked at in so many parts.
const PARTS: u32 = 6;

#[test]
fn ingest_goes_on_beside_a_snapshot_that_is_held_open() {
    // One after the other: they would take the processors from each other.
    measure("callbacks", callback_of);
    // Every refusal is counted in one of two rows, whose old versions cannot be cleaned up meanwhile.
    measure("callbacks and refusals", |number| match number % 2 {
        0 => callback_of(number / 2),
        _ => Request::form(STATUS_PATH, &callback::status(&sid(number), "sent", None)),
    });
}

fn measure(what: &str, make: impl Fn(usize) -> Request + Sync) {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let length = Duration::from_secs(sized(4, 120));
    let (exchanges, start) = flow_during(&shim.address(), FULL_RATE, make, |_| {
        let mut holder = database.connect();
        let mut snapshot = (holder.build_transaction())
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()
            .unwrap();
        let events = "select count(*) from twilio.message_event";
        let seen: i64 = snapshot.query_one(events, &[]).unwrap().get(0);
        let start = Instant::now();
        wait_until(length + PATIENCE, "the time to pass", || {
            start.elapsed() >= length
        });
        let again: i64 = snapshot.query_one(events, &[]).unwrap().get(0);
        assert_eq!(seen, again, "the snapshot was held");
        start
    });
    assert!(
        exchanges
            .iter()
            .all(|e| matches!(e.status, Some(204 | 403)))
    );
    let parts: Vec<_> = (0..PARTS)
        .map(|part| part_of(&exchanges, start, length / PARTS, part))
        .collect();
    let rates: Vec<_> = parts.iter().map(Vec::len).collect();
    let medians: Vec<_> = parts.iter().map(|part| percentile(part, 500)).collect();
    eprintln!("{what}: {}; held for {length:?}", summary(&exchanges));
    eprintln!("answers in each sixth: {rates:?}, median latency: {medians:.1?}");
    print_dead_tuples(&database);
    // The first part may be slow too: caches are cold, and tables are empty.
    let best = rates[..2].iter().max().unwrap();
    assert!(rates[5] * 3 > *best, "from {best} to {} answers", rates[5]);
    let taken = exchanges.iter().filter(|e| e.status == Some(204)).count();
    assert_eq!(database.counts().0, i64::try_from(taken).unwrap());
    cluster.assert_no_errors();
}

/// The exchanges that ended in one part of the time.
fn part_of(all: &[Exchange], start: Instant, length: Duration, part: u32) -> Vec<Exchange> {
    let begin = start + length * part;
    let is_in = |exchange: &&Exchange| exchange.ended >= begin && exchange.ended < begin + length;
    all.iter().filter(is_in).copied().collect()
}

fn print_dead_tuples(database: &Database<'_>) {
    // Backends report at least once a minute, and at once when they become idle.
    let sql = "select format('%s: %s rows, %s dead, %s updates (%s HOT)', s.relname, s.n_live_tup, s.n_dead_tup, \
            s.n_tup_upd, s.n_tup_hot_upd), coalesce(sum(s.n_tup_ins) over (), 0)::bigint \
        from pg_stat_user_tables s \
        where s.schemaname in ('twilio', 'twilio_internal') and s.n_tup_ins > 0 and s.relname in \
            ('message', 'message_event', 'quarantine', 'rejected_callback') \
        order by s.relname";
    let mut client = database.connect();
    let events = database.counts().0;
    wait_until(PATIENCE, "the statistics", || {
        let rows = client.query(sql, &[]).unwrap();
        rows.first()
            .is_some_and(|row| row.get::<_, i64>(1) >= events)
    });
    for row in client.query(sql, &[]).unwrap() {
        eprintln!("{}", row.get::<_, String>(0));
    }
}

/// Four callbacks a message, one soon after the other.
fn callback_of(number: usize) -> Request {
    // Eight connections take the numbers in turn, so that a message's callbacks meet now and then.
    let (message, said) = (number / 32 * 8 + number % 8, number / 8 % 4);
    callback::signed_status(&sid(message), STATUSES[said], None)
}
