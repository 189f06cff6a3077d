//! Requests of a queue that cannot be carried out.

use std::thread;
use std::time::Duration;

use end_to_end::client::callback::{sid, signed_inbound};
use end_to_end::peer::broker::{Broker, Shared};
use end_to_end::peer::relay::{self, Relay};
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::wait::{wait_for, wait_until};

use crate::{OUTGOING, add_sender, patience, tick_until};

#[test]
fn a_request_that_cannot_be_carried_out_is_kept_with_its_reason_and_the_rest_is_done() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    broker.bind("bans", "source.twilio.*");
    relay::set_up(&database);
    add_sender(&database);
    let check = Relay::command(&database, &broker).arg("--check").status();
    assert!(check.unwrap().success());
    let mut relay = Relay::start(&database, &broker, &[]);

    let text =
        |to: &str, body: &str| format!(r#"{{"recipient_number": "{to}", "body": "{body}"}}"#);
    let good = text("+12025550123", "without an id");
    let blocked = "select twilio.block('+12025550199')";
    database.connect().batch_execute(blocked).unwrap();
    broker.publish(&[
        (OUTGOING, None, "no JSON".to_owned()),
        (OUTGOING, Some("bad"), text("12", "no number")),
        (OUTGOING, None, good.clone()),
        (OUTGOING, Some("blocked"), text("+12025550199", "blocked")),
        (OUTGOING, None, good),
        (OUTGOING, Some("order-1"), text("+12025550123", "one")),
        (OUTGOING, Some("order-1"), text("+12025550123", "another")),
        (ACKNOWLEDGE, None, r#"{"message_id": 999999}"#.to_owned()),
    ]);
    wait_until(patience(), "five dead letters", || {
        broker.count("twilio_dead_letter") == 5
    });
    let letters = broker.drain("twilio_dead_letter");
    let mut reasons: Vec<_> = letters
        .iter()
        .map(|letter| {
            assert!(letter["headers"]["x-twilio-message"].is_string());
            let state = letter["headers"]["x-twilio-sqlstate"].as_str().unwrap();
            (letter["id"].as_str().unwrap_or(""), state)
        })
        .collect();
    reasons.sort_unstable();
    let expected = [
        ("", "22P02"),
        ("", "P0002"),
        ("bad", "22P02"),
        ("blocked", "23514"),
        ("order-1", "23505"),
    ];
    assert_eq!(reasons, expected);
    assert!(letters.iter().any(|letter| letter["content"] == "no JSON"));
    let sent = "select count(*) from twilio.message where idempotency_key like 'amqp:%'";
    assert_eq!(database.value::<i64>(sent, &[]), 2);

    acknowledge_in_time(&database, &broker);
    tick_until(&database, &|| broker.count("bans") > 0);
    assert_eq!(broker.drain("bans")[0]["key"], "source.twilio.ban");
    let metrics = relay.metrics();
    for line in [
        "acknowledged_total 1",
        "dead_letters_total 5",
        "flows_working 3",
    ] {
        let line = format!("twilio_callback_relay_{line}\n");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    assert!(!relay.read_log().contains("guest"), "{}", relay.read_log());
    assert!(relay.stop().success(), "{}", relay.read_log());
}

#[test]
fn a_request_too_long_to_be_quoted_stops_no_queue() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    relay::set_up(&database);
    add_sender(&database);
    let relay = Relay::start(&database, &broker, &[]);

    // PostgreSQL and the reader of JSON name what they cannot read in full.
    let long = "x".repeat(200_000);
    let at = format!(r#"{{"to": "+12025550123", "body": "hi", "send_at": "{long}"}}"#);
    let id = format!(r#"{{"message_id": "{long}"}}"#);
    let good = r#"{"to": "+12025550123", "body": "hi"}"#.to_owned();
    broker.publish_padded(OUTGOING, "padded", "no JSON", 130_900);
    broker.publish_padded(OUTGOING, "kept", "no JSON", 100_000);
    broker.publish(&[
        (OUTGOING, Some("at"), at),
        (ACKNOWLEDGE, Some("id"), id),
        (OUTGOING, Some("good"), good),
    ]);
    wait_until(patience(), "four dead letters", || {
        broker.count("twilio_dead_letter") == 4
    });
    for letter in broker.drain("twilio_dead_letter") {
        let text = |name: &str| letter["headers"][name].as_str().unwrap_or("").to_owned();
        let (state, padding) = (text("x-twilio-sqlstate"), text("padding").len());
        let expected = match letter["id"].as_str().unwrap() {
            "at" => ("22007", 0),
            "kept" => ("22P02", 100_000),
            _ => ("22P02", 0),
        };
        assert_eq!((state.as_str(), padding), expected);
    }
    let queued = "select count(*) from twilio.message where idempotency_key = 'amqp:good'";
    wait_until(patience(), "the message to be queued", || {
        database.value::<i64>(queued, &[]) == 1
    });
    assert_eq!(relay.metric("disconnects_total"), 0, "{}", relay.read_log());
}

/// An incoming message whose request is held open is acknowledged through the queue.
fn acknowledge_in_time(database: &Database<'_>, broker: &Broker) {
    let shim = Shim::start(database, &[]);
    let rule = "select twilio.require_acknowledgement(wait_ms => 14000)";
    database.connect().batch_execute(rule).unwrap();
    thread::scope(|scope| {
        let answer = scope.spawn(|| shim.send(&signed_inbound(&sid(7), "hello")));
        let waiting = "select max(message_id) from twilio_internal.acknowledgement where acknowledged_at is null";
        let id = wait_for(Duration::from_secs(10), "a message that waits", || {
            database.value::<Option<i64>>(waiting, &[])
        });
        broker.publish(&[(ACKNOWLEDGE, None, format!(r#"{{"message_id": {id}}}"#))]);
        assert_eq!(answer.join().unwrap().status, 200);
    });
}

const ACKNOWLEDGE: &str = "source.twilio.sms.acknowledge";
