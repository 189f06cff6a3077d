//! Calls to the database.

use std::time::Duration;

use daemon::aux_connection::AuxConnection;
use daemon::connect_options::ConnectOptions;
use daemon::error::Error;
use daemon::explain::{Privilege, check_version, describe, explain_version, lacks_privilege};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::dead_letter::Reason;
use crate::event::Event;
use crate::relay::Relay;
use crate::request::Outgoing;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is invalid: it fails now and later.
    Invalid(Reason),
    /// The call may succeed later.
    Later(String),
}

/// Opens a connection for a task and runs the SQL of `setup` on it. Version and privileges are checked each time,
/// because the extension may have been updated since the last connection.
pub(crate) async fn open(relay: &Relay, setup: &str) -> Result<AuxConnection, String> {
    let opened = connect(&relay.config.database, setup).await;
    relay.look(opened.as_ref().map(drop));
    opened.map_err(|error| match error {
        Error::Configuration { message, .. } => message,
        error => error.to_string(),
    })
}

/// Connects and checks the extension's version and the role's privileges.
pub(crate) async fn connect(target: &ConnectOptions, setup: &str) -> Result<AuxConnection, Error> {
    let connection = AuxConnection::open(target, setup).await?;
    match timeout(CHECK_TIMEOUT, inspect(&connection.client, target)).await {
        Ok(inspected) => inspected.map(|()| connection),
        Err(_) => Err(Error::DatabaseAway("no answer during the set-up".into())),
    }
}

async fn inspect(client: &Client, target: &ConnectOptions) -> Result<(), Error> {
    let version = client.query_one("select twilio.version()", &[]).await;
    let version = version.map_err(|error| explain_version(target, &WANTED, &error))?;
    check_version("twilio-callback-relay", version.try_get(0).unwrap_or(""))?;
    let row = client.query_one(PRIVILEGES, &[]).await;
    let row = row.map_err(|error| Error::DatabaseAway(describe(&error)))?;
    match row.try_get(0) {
        Ok(true) => Ok(()),
        _ => Err(lacks_privilege(target, &WANTED)),
    }
}

/// Reads up to `n` events of the consumer.
pub(crate) async fn read(client: &Client, consumer: &str, n: i32) -> Result<Vec<Event>, String> {
    let rows = client.query(READ, &[&consumer, &n]).await;
    let rows = rows.map_err(|error| describe(&error))?;
    let events = rows.into_iter().map(|row| {
        Ok(Event::new(
            (row.try_get(0)?, row.try_get(1)?),
            row.try_get(2)?,
            row.try_get(3)?,
            row.try_get(4)?,
            row.try_get(5)?,
        ))
    });
    let events: Result<_, tokio_postgres::Error> = events.collect();
    events.map_err(|error| describe(&error))
}

/// Acknowledges events that are published.
pub(crate) async fn acknowledge_events(
    client: &Client,
    consumer: &str,
    ids: &[i64],
) -> Result<(), String> {
    let done = client
        .execute(
            "select twilio.feed_ack($1::text, $2::bigint[])",
            &[&consumer, &ids],
        )
        .await;
    done.map(drop).map_err(|error| describe(&error))
}

/// Releases events, as if they had not been read.
pub(crate) async fn release(client: &Client, consumer: &str, ids: &[i64]) -> Result<(), String> {
    let done = client
        .execute(
            "select twilio.feed_release($1::text, $2::bigint[])",
            &[&consumer, &ids],
        )
        .await;
    done.map(drop).map_err(|error| describe(&error))
}

/// Queues a message and returns its id.
pub(crate) async fn send(client: &Client, message: &Outgoing, key: &str) -> Result<i64, Failure> {
    let metadata = message.metadata.as_ref().map(ToString::to_string);
    let parameters = message.twilio_parameters.as_ref().map(ToString::to_string);
    let arguments: [&(dyn ToSql + Sync); 11] = [
        &message.to_address,
        &message.body,
        &message.from_address,
        &message.media_urls,
        &key,
        &message.send_at,
        &message.expires_after,
        &message.status_callback,
        &metadata,
        &parameters,
        &message.account_sid,
    ];
    let row = client.query_one(SEND, &arguments).await;
    let row = row.map_err(|error| classify(&error))?;
    row.try_get(0)
        .map_err(|error| Failure::Later(describe(&error)))
}

/// Acknowledges an incoming message; false if no request waits for it.
pub(crate) async fn acknowledge(client: &Client, message_id: i64) -> Result<bool, Failure> {
    let row = client
        .query_one("select twilio.acknowledge_inbound($1)", &[&message_id])
        .await;
    let row = row.map_err(|error| classify(&error))?;
    row.try_get(0)
        .map_err(|error| Failure::Later(describe(&error)))
}

fn classify(error: &tokio_postgres::Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        return Failure::Later(describe(error));
    };
    if is_final(database.code().code()) {
        return Failure::Invalid(Reason {
            sqlstate: database.code().code().to_owned(),
            message: database.message().to_owned(),
            detail: database.detail().map(str::to_owned),
            hint: database.hint().map(str::to_owned),
        });
    }
    Failure::Later(describe(error))
}

/// Whether an error concerns the message. Other errors concern the server (stopped, full, read-only, timed out)
/// or its set-up (privileges, a missing function), which an operator corrects.
fn is_final(sqlstate: &str) -> bool {
    ![
        "08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX",
    ]
    .iter()
    .any(|class| sqlstate.starts_with(class))
}

const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
const WANTED: Privilege = Privilege {
    function: "twilio.feed_read",
    grant: "twilio.grant_relay",
};
const PRIVILEGES: &str = "\
select coalesce(has_function_privilege(to_regprocedure('twilio.feed_read(text, int)'), 'execute'), false)
    and coalesce(has_function_privilege(to_regprocedure('twilio.feed_release(text, bigint[])'), 'execute'), false)";
const READ: &str = "\
select event_id, message_id, kind, tries,
    coalesce(extract(epoch from (event ->> 'received_at')::timestamptz)::bigint, 0), event::text
from twilio.feed_read($1, $2)";
const SEND: &str = "\
select twilio.send_message(
    to_address => $1, body => $2, from_address => $3, media_urls => $4, idempotency_key => $5,
    send_at => $6::text::timestamptz, expires_after => $7::text::interval, status_callback => $8,
    metadata => $9::text::jsonb, twilio_parameters => $10::text::jsonb, account_sid => $11)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_message_and_of_the_server_are_distinguished() {
        for state in [
            "22023", "22P02", "22021", "23514", "23505", "0A000", "54000", "P0002",
        ] {
            assert!(is_final(state), "{state}");
        }
        for state in [
            "08006", "25006", "40001", "42501", "42883", "53300", "57014", "57P01", "XX000",
        ] {
            assert!(!is_final(state), "{state}");
        }
    }
}
