//! RabbitMQ over TLS: it must show that it is the right one, each time.

use std::fs;
use std::path::Path;
use std::process::Command;

use end_to_end::peer::broker::{Broker, Shared};
use end_to_end::peer::relay::{self, Relay};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::fresh_directory;
use end_to_end::server::tls::Certificate;
use end_to_end::wait::wait_until;

use crate::{OUTGOING, add_sender, patience, tick_until};

#[test]
fn only_the_right_broker_is_connected_to() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shared = Shared::get();
    let broker = shared.lock();
    relay::set_up(&database);
    add_sender(&database);
    let directory = fresh_directory();
    let stranger = Certificate::authority(&directory, "stranger");
    refuse(&database, &broker, &stranger, &directory);
    let ours = broker.authority().sign(&directory, "relay");
    for identity in [None, Some(&ours)] {
        let flags = flags(broker.authority(), identity);
        let mut check = over_tls(&database, &broker, &broker.tls_url("localhost"), &flags);
        let output = check.arg("--check").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{flags:?}: {text}");
    }

    // It goes on trying, and reads the file anew each time.
    let trusted = directory.join("trusted.pem");
    fs::copy(&stranger.certificate, &trusted).unwrap();
    let url = broker.tls_url("127.0.0.1");
    let flag = ["--amqp-ca-file".to_owned(), text(&trusted)];
    let relay = Relay::launch(over_tls(&database, &broker, &url, &flag));
    relay.wait_for_problem("signed by no authority that is trusted here");
    fs::copy(&broker.authority().certificate, &trusted).unwrap();
    relay.wait_for_problem("not valid for name");
    drop(relay);
    let url = broker.tls_url("localhost");
    let mut relay = Relay::launch(over_tls(&database, &broker, &url, &flag));
    relay.wait_until_ready();
    pass_both_ways(&database, &broker);
    assert!(!relay.read_log().contains("guest"), "{}", relay.read_log());
    assert!(relay.stop().success(), "{}", relay.read_log());
}

/// The relay sends nothing to a broker that it cannot verify, nor does RabbitMQ accept a client of another authority.
fn refuse(database: &Database<'_>, broker: &Broker, stranger: &Certificate, directory: &Path) {
    let impostor = stranger.sign(directory, "impostor");
    let right = broker.authority();
    let (by_name, by_number) = (broker.tls_url("localhost"), broker.tls_url("127.0.0.1"));
    let plain = broker.url().replace("amqp:", "amqps:");
    for (url, flags, expected) in [
        (
            &by_number,
            vec![],
            "signed by no authority that is trusted here",
        ),
        (
            &by_number,
            flags(stranger, None),
            "signed by no authority that is trusted here",
        ),
        (&by_number, flags(right, None), "not valid for name"),
        (&plain, flags(right, None), "no TLS with 127.0.0.1"),
        // RabbitMQ reports why and closes the connection, and the latter may be noticed first.
        (&by_name, flags(right, Some(&impostor)), "RabbitMQ: "),
    ] {
        let mut check = over_tls(database, broker, url, &flags);
        let output = check.arg("--check").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(expected) && !text.contains("guest"),
            "{flags:?}: {text}"
        );
    }
}

/// A message larger than a TLS record and an AMQP frame passes whole.
fn pass_both_ways(database: &Database<'_>, broker: &Broker) {
    broker.bind("bans", "source.twilio.*");
    let blocked = "select twilio.block('+12025550199')";
    database.connect().batch_execute(blocked).unwrap();
    let large: String = ('a'..='z').cycle().take(1_000_000).collect();
    let good = r#"{"recipient_number": "+12025550123", "body": "hello"}"#;
    broker.publish(&[
        (OUTGOING, Some("large"), large.clone()),
        (OUTGOING, Some("good"), good.to_owned()),
    ]);
    tick_until(database, &|| broker.count("bans") > 0);
    let queued = "select count(*) from twilio.message where idempotency_key = 'amqp:good'";
    wait_until(patience(), "the message to be queued", || {
        database.value::<i64>(queued, &[]) == 1
    });
    let letters = broker.drain("twilio_dead_letter");
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0]["content"] == large,
        "the dead letter has changed"
    );
}

fn over_tls(database: &Database<'_>, broker: &Broker, url: &str, flags: &[String]) -> Command {
    let mut command = Relay::command(database, broker);
    command
        .env("TWILIO_CALLBACK_RELAY_AMQP_URL", url)
        .args(flags);
    command
}

fn flags(authority: &Certificate, identity: Option<&Certificate>) -> Vec<String> {
    let mut flags = vec!["--amqp-ca-file".to_owned(), text(&authority.certificate)];
    if let Some(identity) = identity {
        flags.extend([
            "--amqp-certificate-file".to_owned(),
            text(&identity.certificate),
        ]);
        flags.extend(["--amqp-key-file".to_owned(), text(&identity.key)]);
    }
    flags
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
