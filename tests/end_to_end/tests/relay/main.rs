//! RabbitMQ and the database with the relay between them.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod broker_tls;
mod database;
mod dead_letter;
mod stop;

use std::time::Duration;

use end_to_end::scale::sized;
use end_to_end::server::database::Database;
use end_to_end::wait::wait_until;

fn add_sender(database: &Database<'_>) {
    let sql = "select twilio.add_sender('+12025550100')";
    database.connect().batch_execute(sql).unwrap();
}

/// The worker does this about once a second.
fn tick(database: &Database<'_>) {
    let sql = "select twilio.feed_tick()";
    database.connect().batch_execute(sql).unwrap();
}

fn tick_until(database: &Database<'_>, condition: &dyn Fn() -> bool) {
    wait_until(patience(), "the relay", || {
        tick(database);
        condition()
    });
}

fn patience() -> Duration {
    sized(Duration::from_secs(60), Duration::from_secs(300))
}

const OUTGOING: &str = "source.twilio.sms.outgoing";
