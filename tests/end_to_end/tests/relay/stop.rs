//! RabbitMQ and PostgreSQL stopped and started under the relay: nothing is lost, nothing is sent twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use end_to_end::peer::broker::{Broker, Shared};
use end_to_end::peer::relay::{self, Relay};
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::environment::free_port;
use end_to_end::server::gate::Gate;
use end_to_end::server::outbox;
use end_to_end::wait::{holds_within, wait_until};
use serde_json::Value;

use crate::{OUTGOING, patience, tick};

#[test]
fn both_sides_may_stop_while_events_flow() {
    let messages = sized(240, 5_000);
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let mut broker = shared.lock();
    broker.bind("recorded", "source.twilio.sms.status.#");
    relay::set_up(&database);
    let sandbox = Sandbox::start(free_port(), &[]);
    outbox::set_up(&database, &sandbox);
    let queueing = Gate::before(&database, ("insert", "twilio_internal.outbox"), "true", 1);
    // Repeats of the worker's own events are not counted.
    let is_recorded = format!(
        "exists (select from twilio.message_event e where e.event_id = old.event_id and {IS_RECORDED})"
    );
    let acknowledging = Gate::before(
        &database,
        ("delete", "twilio_internal.feed_delivery"),
        &is_recorded,
        2,
    );
    let mut relay = Relay::start(&database, &broker, &["--batch", "100"]);
    let quarter = messages / 4;

    record(&database, 0..quarter, &STATUSES[..2]);
    let ordered = lose_broker(&database, &mut broker, &mut relay, &queueing, || {
        record(&database, quarter..2 * quarter, &STATUSES[..2]);
    });
    order(&broker, ordered..quarter);
    // Those are counted twice that were queued, but not acknowledged, and so delivered again.
    let taken = || relay.metric("messages_queued_total");
    wait_until(patience(), "a message to be delivered again", || {
        queued(&database) == quarter && taken() > quarter
    });

    // PostgreSQL goes between RabbitMQ's confirmation and the acknowledgement, the relay does not.
    order(&broker, quarter..2 * quarter);
    let shut = acknowledging.shut(&database);
    record(&database, 0..2 * quarter, &STATUSES[2..]);
    acknowledging.wait_for(&database, (relay::ROLE, "feed_ack"), || tick(&database));
    cluster.stop("fast");
    drop(shut);
    order(&broker, 2 * quarter..3 * quarter);
    cluster.start_again();
    outbox::start_worker(&database);
    relay.wait_until_ready();

    let struck = lose_relay(&database, relay, &acknowledging, || {
        record(&database, 2 * quarter..messages, &STATUSES);
    });
    let mut relay = Relay::start(&database, &broker, &["--batch", "100"]);
    // Each start of RabbitMQ takes seconds.
    if sized(false, true) {
        broker.stop();
        broker.start_again();
        relay.wait_until_ready();
    }
    // All of them again, as a publisher does that got no answer.
    order(&broker, 0..messages);

    let is_done = holds_within(patience(), || {
        tick(&database);
        left(&database, &broker, messages).is_empty()
    });
    assert!(
        is_done,
        "{}\n{}",
        left(&database, &broker, messages),
        relay.read_log()
    );
    check_events(&broker, messages, &struck);
    check_sent(&sandbox, messages);
    assert_eq!(broker.count("twilio_dead_letter"), 0);
    assert!(relay.stop().success(), "{}", relay.read_log());
}

/// Kills RabbitMQ while a message that it has delivered is being queued, so that it delivers that again;
/// gives the number of messages that were ordered for it.
fn lose_broker(
    database: &Database<'_>,
    broker: &mut Broker,
    relay: &mut Relay,
    queueing: &Gate,
    while_away: impl FnOnce(),
) -> usize {
    let mut while_away = Some(while_away);
    for number in 0..5 {
        let shut = queueing.shut(database);
        order(broker, number..number + 1);
        queueing.wait_for(database, (relay::ROLE, "send_message"), || {});
        broker.kill();
        drop(shut);
        // A relay that had to wait at the gate for too long has given up, and queues it only later.
        let is_queued = holds_within(Duration::from_secs(5), || queued(database) > number);
        if let Some(action) = while_away.take() {
            action();
        }
        broker.start_again();
        relay.wait_until_ready();
        if is_queued {
            return number + 1;
        }
        wait_until(patience(), "the message to be queued", || {
            queued(database) > number
        });
    }
    panic!("no message was queued while RabbitMQ was away");
}

/// Kills the relay between RabbitMQ's confirmation and the acknowledgement of what was recorded; gives the
/// events that it had in hand then.
fn lose_relay(
    database: &Database<'_>,
    relay: Relay,
    acknowledging: &Gate,
    record: impl FnOnce(),
) -> Vec<i64> {
    let shut = acknowledging.shut(database);
    record();
    acknowledging.wait_for(database, (relay::ROLE, "feed_ack"), || tick(database));
    relay.kill_with_sessions(database);
    let sql = format!(
        "select array_agg(d.event_id) from twilio_internal.feed_delivery d \
         join twilio.message_event e using (event_id) where d.tries > 0 and {IS_RECORDED}"
    );
    let struck = database.value(&sql, &[]);
    drop(shut);
    // They are leased to it; after a real crash they wait for the lease's end.
    let sql = "update twilio_internal.feed_delivery set due_at = twilio.now()";
    database.connect().batch_execute(sql).unwrap();
    struck
}

/// Puts callbacks of some messages into the log.
fn record(database: &Database<'_>, messages: Range<usize>, statuses: &[&str]) {
    let numbers: Vec<i64> = messages.map(|n| i64::try_from(n).unwrap()).collect();
    let mut client = database.connect();
    for status in statuses {
        for some in numbers.chunks(100) {
            client
                .execute(
                    "select count(*) from unnest($1::bigint[]) n cross join lateral twilio_internal.record(array[ \
                         twilio_internal.make_report($3, account_sid => $2, message_sid => 'SM' || lpad(n::text, 32, '0'), \
                             params => '{\"MessageStatus\": \"x\"}')])",
                    &[&some, &ACCOUNT_SID, status],
                )
                .unwrap();
        }
    }
}

/// Asks for messages to be sent, each to a phone of its own and with an id of its own.
fn order(broker: &Broker, messages: Range<usize>) {
    let ids: Vec<String> = messages.clone().map(|n| format!("order-{n}")).collect();
    let messages: Vec<_> = messages
        .zip(&ids)
        .map(|(n, id)| {
            let to = phone(n);
            let content = format!(r#"{{"recipient_number": "{to}", "body": "{id}"}}"#);
            (OUTGOING, Some(id.as_str()), content)
        })
        .collect();
    broker.publish(&messages);
}

fn phone(number: usize) -> String {
    format!("+1202{:07}", 2_000_000 + number)
}

/// A description of the work that is left.
fn left(database: &Database<'_>, broker: &Broker, messages: usize) -> String {
    let count = |table: &str| database.value::<i64>(&format!("select count(*) from {table}"), &[]);
    let (recorded, wanted) = (broker.count("recorded"), messages * STATUSES.len());
    let lag = "select numbers_behind + waiting + given_out from twilio.feed_lag";
    let (lag, outbox): (i64, _) = (database.value(lag, &[]), count("twilio_internal.outbox"));
    let (waiting, queued) = (broker.count("outgoing_sms"), queued(database));
    if recorded >= wanted && lag + outbox == 0 && waiting == 0 && queued == messages {
        return String::new();
    }
    format!(
        "{recorded} of {wanted} events published, {lag} behind; \
         {waiting} messages in the queue, {queued} of {messages} taken from it, {outbox} to be sent"
    )
}

fn queued(database: &Database<'_>) -> usize {
    let sql = "select count(*) from twilio.message where idempotency_key like 'amqp:order-%'";
    usize::try_from(database.value::<i64>(sql, &[])).unwrap()
}

/// Every event is there, repeats are the same under the same id, and no status comes first after a later
/// one. Of the events that were `struck`, which RabbitMQ had confirmed, some came again.
fn check_events(broker: &Broker, messages: usize, struck: &[i64]) {
    let mut contents: HashMap<String, String> = HashMap::new();
    let mut courses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut repeated = BTreeSet::new();
    for item in broker.drain("recorded") {
        assert_eq!(item["delivery_mode"], 2);
        let content = item["content"].as_str().unwrap();
        let event: Value = serde_json::from_str(content).unwrap();
        // The worker's own events are there too.
        if event["params"]["MessageStatus"] != "x" {
            continue;
        }
        let id = item["id"].as_str().unwrap().to_owned();
        assert_eq!(id, format!("twilio-event-{}", event["event_id"]));
        let status = event["status"].as_str().unwrap().to_owned();
        assert_eq!(item["key"], format!("source.twilio.sms.status.{status}"));
        let sid = event["message_sid"].as_str().unwrap().to_owned();
        match contents.insert(id.clone(), content.to_owned()) {
            None => courses.entry(sid).or_default().push(status),
            Some(before) => {
                assert_eq!(before, content);
                assert_ne!(item["headers"]["x-retry-count"], 0);
                repeated.insert(id);
            }
        }
    }
    assert_eq!(contents.len(), messages * STATUSES.len());
    assert_eq!(courses.len(), messages);
    for (sid, course) in courses {
        assert_eq!(course, STATUSES, "{sid}");
    }
    let (all, again) = (contents.len(), repeated.len());
    eprintln!("{all} events, of which {again} came again");
    let struck = struck.iter().map(|id| format!("twilio-event-{id}"));
    let again = struck.filter(|id| repeated.contains(id)).count();
    assert!(again > 0, "what was confirmed was not published again");
}

/// The phones got one message each.
fn check_sent(sandbox: &Sandbox, messages: usize) {
    let counts = sandbox.counts();
    let phones: BTreeSet<_> = (0..messages).map(phone).collect();
    assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), phones);
    let not_once: Vec<_> = counts.iter().filter(|(_, n)| **n != (1, 1)).collect();
    assert!(not_once.is_empty(), "{not_once:?}");
}

const STATUSES: [&str; 4] = ["queued", "sent", "delivered", "read"];
/// The mark of events that the test recorded; the worker's have none.
const IS_RECORDED: &str = "e.params ->> 'MessageStatus' = 'x'";
