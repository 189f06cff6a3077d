//! A fresh or restored database keeps its rate before anything is analyzed, also where messages fail and a rule
//! looks at each of them.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::flow::{Exchange, Pace, flow_during, percentile, summary};
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use end_to_end::server::outbox::start_worker;

const OPTIONS: Options = Options {
    fsync: true,
    lines: &[
        "autovacuum = off",
        "max_wal_size = 4GB",
        "client_min_messages = warning",
    ],
};
const WHATSAPP: &str = "whatsapp:+12025550100";
/// Five hundred a second.
const PACE: Pace = Pace {
    connections: 16,
    interval: Duration::from_millis(32),
};

/// Held by each test, since tests that measure must not run at the same time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_fresh_database_keeps_its_rate() {
    measure(0);
}

#[test]
fn a_restored_database_keeps_its_rate() {
    // Rows that came by "copy" or "insert" and are not analyzed yet, into tables with their indexes, as the tables of
    // an extension are restored.
    measure(sized(60_000, 2_000_000));
}

fn measure(messages: u32) {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let cluster = Cluster::start(&OPTIONS);
    let database = cluster.database();
    let (shim, sandbox) = Sandbox::with_shim(&database, &[]);
    set_up(&database, &sandbox);
    fill(&database, messages);
    let before = run(&shim, 0);
    database.connect().batch_execute("analyze").unwrap();
    let after = run(&shim, before.len());
    for (name, exchanges) in [("not analyzed", &before), ("analyzed", &after)] {
        eprintln!("{messages} messages, {name}: {}", summary(exchanges));
        let taken = exchanges.iter().filter(|e| e.status == Some(204)).count();
        assert_eq!(taken, exchanges.len(), "{name}: refused or not answered");
    }
    let (slow, fast) = (before.len(), after.len());
    assert!(
        10 * slow >= 9 * fast,
        "{slow} answers, {fast} once analyzed"
    );
    let slowest = percentile(&before, 1000);
    let bound = Duration::from_secs(sized(3, 1));
    assert!(slowest <= bound, "the slowest answer took {slowest:?}");
    let planned: i64 = database.value("select count(*) from twilio_internal.fallback", &[]);
    let failures = i64::try_from(before.len() / 10).unwrap();
    assert!(planned >= failures, "{planned} fallbacks were planned");
    cluster.assert_no_errors();
}

/// Callbacks for some time, of which a tenth report a failure.
fn run(shim: &Shim, first: usize) -> Vec<Exchange> {
    let make = |number: usize| {
        let number = first + number;
        let (message, is_last) = (number / 2, number % 2 == 1);
        let (status, code) = match (is_last, message % 5) {
            (false, _) => ("sent", None),
            (true, 0) => ("undelivered", Some(63049)),
            (true, _) => ("delivered", None),
        };
        let to = format!("whatsapp:+1202{:07}", message % 10_000_000);
        let pairs = callback::status_between(&sid(message), status, code, WHATSAPP, &to);
        Request::form(STATUS_PATH, &pairs).signed()
    };
    let length = Duration::from_secs(sized(8, 120));
    let (exchanges, ()) = flow_during(&shim.address(), PACE, make, |_| thread::sleep(length));
    exchanges
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    database
        .connect()
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('{WHATSAPP}'); \
             select twilio.enable_whatsapp_to_sms()",
            sandbox.url()
        ))
        .unwrap();
    start_worker(database);
}

/// Adds this many messages with 2.5 events each on average; every tenth message failed.
fn fill(database: &Database<'_>, messages: u32) {
    let mut client = database.connect();
    client
        .batch_execute("set synchronous_commit = off")
        .unwrap();
    let step = 100_000;
    for low in (1..=messages).step_by(step) {
        let high = messages.min(low + u32::try_from(step).unwrap() - 1);
        let sql = FILL
            .replace("LOW", &low.to_string())
            .replace("HIGH", &high.to_string())
            .replace("ACCOUNT", ACCOUNT_SID)
            .replace("URL", PUBLIC_URL);
        client.batch_execute(&sql).unwrap();
    }
}

const FILL: &str = "
    with filled as (
        insert into twilio.message (
            message_id, root_id, message_sid, account_sid, channel, from_address, to_address, status, error_code,
            created_at, sent_at
        )
        overriding system value
        select
            n.id, n.id, 'SM' || md5('filled ' || n.i), 'ACCOUNT', 'whatsapp', 'whatsapp:+12025550100',
            'whatsapp:+1303' || lpad(n.i::text, 7, '0'), case when n.i % 10 = 0 then 'undelivered' else 'delivered' end,
            case when n.i % 10 = 0 then 63049 end, now(), now()
        from (select nextval('twilio.message_message_id_seq') as id, i from generate_series(LOW, HIGH) i) n
        returning message_id, message_sid, status, error_code, created_at
    )
    insert into twilio.message_event (
        message_id, status, error_code, source, is_advance, received_at, key_id, public_url, params
    )
    select
        f.message_id, s.status, case when s.status = 'undelivered' then f.error_code end, 'callback', true, f.created_at,
        'auth_token_1', 'URL', jsonb_build_object('MessageSid', f.message_sid, 'MessageStatus', s.status)
    from filled f
    cross join lateral unnest(array['sent', f.status] || case when f.message_id % 2 = 0 then array['queued'] end)
        s (status)";
