//! A database whose worker sends to a sandbox.

use std::time::Duration;

use crate::peer::sandbox::Sandbox;
use crate::server::database::{ACCOUNT_SID, AUTH_TOKEN, Database, PUBLIC_URL};
use crate::wait::wait_until;

/// The sender of all messages.
pub const SENDER: &str = "+12025550100";

/// Points the account at the sandbox, adds the sender and starts the worker.
pub fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    set_up_at(database, &sandbox.url());
}

/// The same with any other server in place of Twilio.
pub fn set_up_at(database: &Database<'_>, api_url: &str) {
    let mut client = database.connect();
    client
        .execute(
            "select twilio.add_account($1, auth_token => $2, public_url => $3, api_url => $4)",
            &[&ACCOUNT_SID, &AUTH_TOKEN, &PUBLIC_URL, &api_url],
        )
        .unwrap();
    client
        .execute("select twilio.add_sender($1)", &[&SENDER])
        .unwrap();
    start_worker(database);
}

/// Starts the worker if none runs, and waits until it does.
pub fn start_worker(database: &Database<'_>) {
    database
        .connect()
        .execute("select twilio.start_worker()", &[])
        .unwrap();
    wait_until(Duration::from_secs(20), "the worker to run", || {
        is_worker_running(database)
    });
}

/// Whether the worker runs.
pub fn is_worker_running(database: &Database<'_>) -> bool {
    database.value("select is_worker_running from twilio.queue_status", &[])
}

/// The worker's process id.
pub fn worker_pid(database: &Database<'_>) -> u32 {
    let pid: i32 = database.value("select pid from twilio_internal.worker", &[]);
    u32::try_from(pid).unwrap()
}

/// Queues a message and gives its id.
pub fn send(database: &Database<'_>, to: &str, body: &str) -> i64 {
    database.value("select twilio.send_message($1, $2)", &[&to, &body])
}

/// A message's status.
pub fn status(database: &Database<'_>, message_id: i64) -> String {
    database.value(
        "select status from twilio.message where message_id = $1",
        &[&message_id],
    )
}

/// Waits until nothing is left to do.
pub fn wait_until_empty(database: &Database<'_>, deadline: Duration) {
    wait_until(deadline, "the outbox to be empty", || {
        database.value::<i64>("select count(*) from twilio_internal.outbox", &[]) == 0
    });
}
