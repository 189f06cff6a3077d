//! No genuine callback is lost in an outage of hours: callbacks that were refused because of a wrong token, a retired key
//! or a slow clock are recorded afterwards. If the quarantine's bounds are too low, the loss is reported until it is
//! acknowledged.

use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::flow::{Pace, flow_during, summary, wait_for_more};
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use end_to_end::wait::wait_until;
use protocol::signature::Algorithm;

/// As many as Twilio sends an application of some size.
const A_THOUSAND_A_SECOND: Pace = Pace {
    connections: 8,
    interval: Duration::from_millis(8),
};

/// An account, the token that Twilio signs with, what makes its callbacks fail, and what repairs that.
struct Cause {
    name: &'static str,
    account: &'static str,
    token: &'static str,
    outage: &'static str,
    repair: &'static str,
}

const CAUSES: [Cause; 3] = [
    Cause {
        name: "a wrong token",
        account: ACCOUNT_SID,
        token: "a token that was rotated at Twilio",
        outage: "select 1",
        repair: "select twilio.rotate_auth_token('AC00000000000000000000000000000e2e', 'a token that was rotated at Twilio')",
    },
    Cause {
        name: "a retired key",
        account: "AC00000000000000000000000000000002",
        token: "the only token",
        outage: "select twilio.add_account('AC00000000000000000000000000000002', 'the only token'), \
            twilio.retire_signing_key('AC00000000000000000000000000000002', 'auth_token_1')",
        repair: "select twilio.rotate_auth_token('AC00000000000000000000000000000002', 'the only token')",
    },
    Cause {
        name: "a clock behind not_before",
        account: "AC00000000000000000000000000000003",
        token: "a token from now on",
        outage: "select twilio.add_account('AC00000000000000000000000000000003', 'a token from now on'); \
            alter database DATABASE set twilio_callback.clock_offset = '-1 h'",
        repair: "alter database DATABASE reset twilio_callback.clock_offset",
    },
];

#[test]
fn callbacks_refused_in_an_outage_are_recorded_afterwards() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let share = sized(3_000, 300_000) / CAUSES.len();
    let (mut first, mut total, mut messages, mut delivered) = (0, 0, 0, 0);
    for cause in &CAUSES {
        run(&database, cause.outage);
        // Its connections are new, so the clock is theirs.
        let shim = Shim::start(&database, &["--log-callbacks", "off"]);
        let sent = refuse(&shim, cause, first, share);
        eprintln!("{}: {sent} refused", cause.name);
        // No message has callbacks of two accounts.
        first += sent.next_multiple_of(2);
        let sent = i64::try_from(sent).unwrap();
        total += sent;
        messages += (sent + 1) / 2;
        delivered += sent / 2;
    }
    assert_eq!(database.counts(), (0, 0));
    let sql = "select kept_rows, kept_bytes, lost, pg_total_relation_size('twilio_internal.rejected_callback') \
        from twilio.quarantine_status where kind = 'callback'";
    let row = database.connect().query_one(sql, &[]).unwrap();
    let [kept, bytes, lost, on_disk] = [0, 1, 2, 3].map(|i| row.get::<_, i64>(i));
    eprintln!(
        "{kept} kept: {bytes} bytes counted, {on_disk} on disk, {} a callback",
        on_disk / kept
    );
    assert_eq!((kept, lost), (total, 0));
    // The counted bytes bound the used ones.
    assert!(on_disk <= bytes + bytes / 4, "{on_disk} on disk");

    for cause in &CAUSES {
        run(&database, cause.repair);
    }
    let began = Instant::now();
    while take_in(&database) > 0 {}
    eprintln!("{total} taken in within {:.1?}", began.elapsed());
    assert_eq!(database.counts(), (total, messages));
    let sql = "select count(*) from twilio.message where status = 'delivered'";
    assert_eq!(database.value::<i64>(sql, &[]), delivered);
    let sql = "select sum(kept_rows)::bigint from twilio.quarantine";
    assert_eq!(database.value::<i64>(sql, &[]), 0);
    assert!(losses(&database).starts_with("ok: "));
    cluster.assert_no_errors();
}

#[test]
fn a_loss_is_reported_until_it_is_acknowledged() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    run(
        &database,
        "select twilio.set_quarantine('callback', max_rows => 100), twilio.create_consumer('reader')",
    );
    let sent = refuse(&shim, &CAUSES[0], 0, sized(1_000, 30_000));
    let expected = i64::try_from(sent).unwrap() - 100;
    let lost = || database.value::<i64>("select twilio.lost_requests()", &[]);
    assert_eq!(lost(), expected);
    run(&database, CAUSES[0].repair);
    assert_eq!(take_in(&database), 100);

    // There is room again, but the losses are still reported everywhere.
    let text = losses(&database);
    let start = format!("error: {expected} refused requests of kind callback were lost between 2");
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("select twilio.set_quarantine('callback', "));
    assert!(text.ends_with("select twilio.acknowledge_losses();"));
    let log = cluster.read_log();
    let warnings = (log.lines())
        .filter(|line| line.contains("refused requests of kind callback were lost since"))
        .count();
    assert!((1..=3).contains(&warnings), "{warnings} warnings");
    run(&database, "select twilio.feed_tick(true)");
    let sql = "select count(*) from twilio.feed_read('reader', 1000) where kind = 'requests.lost'";
    assert_eq!(
        database.value::<i64>(sql, &[]),
        i64::try_from(warnings).unwrap()
    );
    let metric = |value: i64| format!("\ntwilio_callback_shim_lost_requests {value}\n");
    let shows = |value: i64| shim.ask("/metrics").text().contains(&metric(value));
    wait_until(Duration::from_secs(30), "the shim to count them", || {
        shows(expected)
    });

    let sql = "select twilio.acknowledge_losses()";
    assert_eq!(database.value::<i64>(sql, &[]), expected);
    assert_eq!(
        losses(&database),
        "ok: no refused request that looks genuine was lost; "
    );
    assert_eq!(lost(), 0);
    wait_until(Duration::from_secs(30), "the shim to count none", || {
        shows(0)
    });
    cluster.assert_no_errors();
}

/// Sends at least `count` callbacks from the number `first` on, all of which are refused; returns how many.
fn refuse(shim: &Shim, cause: &Cause, first: usize, count: usize) -> usize {
    let make = |number: usize| {
        let number = first + number;
        let status = ["sent", "delivered"][number % 2];
        let mut pairs = callback::status(&sid(number / 2), status, None);
        callback::set(&mut pairs, "AccountSid", cause.account);
        let token = cause.token;
        Request::form(STATUS_PATH, &pairs).signed_by(Algorithm::HmacSha1, token, PUBLIC_URL)
    };
    let (exchanges, ()) = flow_during(&shim.address(), A_THOUSAND_A_SECOND, make, |answered| {
        wait_for_more(answered, count);
    });
    eprintln!("{}", summary(&exchanges));
    assert!(exchanges.iter().all(|e| e.status == Some(403)));
    exchanges.len()
}

/// Records all requests that verify now, and returns how many.
fn take_in(database: &Database<'_>) -> i64 {
    let sql = "select verified from twilio.reverify_rejected(100000)";
    database.value(sql, &[])
}

/// The doctor's finding about losses.
fn losses(database: &Database<'_>) -> String {
    let sql = "select concat(verdict, ': ', detail, '; ', remedy) from twilio.doctor() where \"check\" = 'losses'";
    database.value(sql, &[])
}

fn run(database: &Database<'_>, sql: &str) {
    let mut client = database.connect();
    // A call that loads the library makes its settings known.
    client.batch_execute("select twilio.now()").unwrap();
    for statement in sql.replace("DATABASE", database.name()).split("; ") {
        client.batch_execute(statement).unwrap();
    }
}
