//! The worker and the server are killed at every step of a fallback: each recipient is reached once.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use end_to_end::client::callback::{STATUS_PATH, status_between};
use end_to_end::client::load::deliver_all;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::outbox::{start_worker, worker_pid};
use end_to_end::server::process::signal;
use end_to_end::wait::wait_until;

const WHATSAPP: &str = "whatsapp:+12025550100";
const ROUNDS: [&str; 3] = ["the worker is killed", "an immediate stop", "all is killed"];

/// The phases of a fallback, and the rows that show each.
const PHASES: [(&str, &str); 6] = [
    ("planned", "f.is_preparing and f.lease_token is null"),
    ("asking", "f.is_preparing and f.lease_token is not null"),
    (
        "queued",
        "not f.is_preparing and o.lease_token is null and o.message_id is not null",
    ),
    ("sending", "o.lease_token is not null"),
    ("accepted", "p.is_open and m.status = 'pending'"),
    (
        "reporting",
        "p.is_open and m.status in ('processed', 'sent')",
    ),
];

#[test]
fn each_recipient_gets_one_fallback_whatever_is_killed() {
    let cluster = Cluster::start(&Options {
        fsync: true,
        lines: &[],
    });
    let database = cluster.database();
    let (shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    set_up(&database, &sandbox);

    // Undelivered without a callback: the test reports the failures until they are accepted.
    let total: usize = sized(100, 1000);
    let rounds = sized(3, 40);
    let size = total.div_ceil(rounds);
    let mut recipients = Vec::new();
    let mut random = Random::new();
    let done = AtomicUsize::new(0);
    let mut hits: BTreeMap<&str, usize> = PHASES.iter().map(|(phase, _)| (*phase, 0)).collect();
    // A short run strikes too seldom for each phase; a full one goes on until it struck all of them.
    for round in 0..sized(rounds, 5 * rounds) {
        if round >= rounds && hits.values().all(|count| *count > 0) {
            break;
        }
        let numbers: Vec<_> = (recipients.len()..recipients.len() + size)
            .map(|n| format!("+1500{n:05}863049"))
            .collect();
        let reports: Vec<_> = numbers
            .iter()
            .map(|number| report(&sandbox, number))
            .collect();
        recipients.extend(numbers);
        let part: Vec<_> = reports.iter().collect();
        thread::scope(|scope| {
            scope.spawn(|| deliver_all(&shim.address(), &part, 4, &done));
            // Anywhere in what follows the reports, not after any part of it.
            thread::sleep(Duration::from_millis(10 + random.below(250) as u64));
            strike(&cluster, &database, round);
            count_hits(&database, &mut hits);
            start_worker(&database);
        });
    }
    eprintln!(
        "{} strikes in {} messages; messages by phase when struck: {hits:?}",
        recipients.len() / size,
        recipients.len()
    );

    wait_until(
        Duration::from_secs(120),
        "every chain to end at the phone",
        || {
            let sql = "select count(*) from twilio.message_chain where reached_by = 'smsgate' and not double_delivered";
            database.value::<i64>(sql, &[]) == i64::try_from(recipients.len()).unwrap()
        },
    );
    let mut sent = BTreeMap::new();
    for (to, _) in sandbox.sent() {
        *sent.entry(to).or_insert(0) += 1;
    }
    let expected: BTreeMap<_, _> = recipients.into_iter().map(|to| (to, 1)).collect();
    assert_eq!(sent, expected);
    let missed: Vec<_> = hits.iter().filter(|(_, count)| **count == 0).collect();
    assert!(
        sized(true, missed.is_empty()),
        "phases without a kill: {missed:?}"
    );
}

/// Has a message to the number sent by others, and returns the callback that reports its failure.
fn report(sandbox: &Sandbox, number: &str) -> Request {
    let to = format!("whatsapp:{number}");
    let message = sandbox.create(WHATSAPP, &to, STATUS_PATH);
    let sid = message["sid"].as_str().unwrap();
    let pairs = status_between(sid, "undelivered", Some(63049), WHATSAPP, &to);
    Request::form(STATUS_PATH, &pairs).signed()
}

/// Adds what each message was in the middle of when the server went down, as it finds itself afterwards.
fn count_hits(database: &Database<'_>, hits: &mut BTreeMap<&str, usize>) {
    let mut client = database.connect();
    for (phase, condition) in PHASES {
        let sql = format!(
            "select count(*) from twilio.message m \
             left join twilio_internal.fallback f using (message_id) \
             left join twilio_internal.outbox o using (message_id) \
             left join twilio_internal.smsgate_message p using (message_id) \
             where m.step = 1 and {condition}"
        );
        let count: i64 = client.query_one(&sql, &[]).unwrap().get(0);
        *hits.get_mut(phase).unwrap() += usize::try_from(count).unwrap();
    }
}

/// Kills something and gets the server going again.
fn strike(cluster: &Cluster, database: &Database<'_>, round: usize) {
    const READY: &str = "ready to accept connections";
    match ROUNDS[round % ROUNDS.len()] {
        "the worker is killed" => {
            let starts = cluster.read_log().matches(READY).count();
            signal(worker_pid(database), "KILL");
            // The server restarts all its processes with it.
            wait_until(Duration::from_secs(30), "the server to be back", || {
                cluster.read_log().matches(READY).count() > starts
            });
        }
        "an immediate stop" => {
            cluster.stop("immediate");
            cluster.start_again();
        }
        _ => {
            cluster.kill();
            cluster.start_again();
        }
    }
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    let url = sandbox.url();
    database
        .connect()
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_sender('{WHATSAPP}'); \
             select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
                 device_id => 'phone-1', signing_key => 'key-1'); \
             select twilio.add_fallback_rule('phone', from_channel => 'whatsapp', error_codes => '{{63049}}', \
                 to_provider => 'smsgate')"
        ))
        .unwrap();
    start_worker(database);
    sandbox.register_webhooks();
}
