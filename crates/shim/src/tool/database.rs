//! The tools' connection to the database, opened when it is needed and used by one call at a time.

use std::future::poll_fn;
use std::sync::{Arc, Mutex as Latch, PoisonError};
use std::time::Duration;

use daemon::connect_options::ConnectOptions;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::error::DbError;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, Statement};

use crate::error::Error;
use crate::explain::{Privilege, check_version, describe, explain_version, lacks_privilege};
use crate::tool::call::{Call, Message};

/// The connection, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Database(tokio::sync::Mutex<Option<Session>>);

/// Why a call failed or has an unknown outcome.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was done.
    Away(Error),
    /// Nothing was done, because other calls took all the time.
    Busy,
    /// The database raised an error.
    Raised(Box<DbError>),
    /// The connection or the time ended during the call, so its outcome is unknown.
    Unknown(String),
}

struct Session {
    client: Client,
    /// Notices that the database sent beside the result.
    notices: Arc<Latch<Vec<DbError>>>,
    send: Statement,
    block: Statement,
    unblock: Statement,
    acknowledge: Statement,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Database {
    /// Makes sure that there is a connection.
    pub(crate) async fn open(&self, config: &ConnectOptions) -> Result<(), Error> {
        let mut session = self.0.lock().await;
        if session.is_none() {
            *session = Some(Session::open(config).await?);
        }
        Ok(())
    }

    /// Performs the call and returns the members of the response.
    pub(crate) async fn perform(
        &self,
        config: &ConnectOptions,
        call: &Call,
        deadline: Instant,
    ) -> Result<Map<String, Value>, Failure> {
        let Ok(mut place) = timeout_at(deadline, self.0.lock()).await else {
            return Err(Failure::Busy);
        };
        // A server that shuts down in an orderly way closes the connection before it begins a call, so the
        // call is repeated.
        for _ in 0..2 {
            let session = match place.take().filter(|open| !open.client.is_closed()) {
                Some(open) => open,
                None => match timeout_at(deadline, Session::open(config)).await {
                    Ok(opened) => opened.map_err(Failure::Away)?,
                    Err(_) => return Err(Failure::Busy),
                },
            };
            let outcome = timeout_at(deadline, session.call(call)).await;
            let Ok(outcome) = outcome else {
                return Err(Failure::Unknown("no answer in time".to_owned()));
            };
            match outcome {
                Ok(members) => {
                    *place = Some(session);
                    return Ok(members);
                }
                Err(error) => match error.as_db_error() {
                    Some(raised) if is_terminated(raised) => {}
                    // A changed function needs new prepared statements: the next call opens a new session.
                    Some(raised) if is_stale(raised) => {
                        return Err(Failure::Raised(Box::new(raised.clone())));
                    }
                    Some(raised) => {
                        *place = Some(session);
                        return Err(Failure::Raised(Box::new(raised.clone())));
                    }
                    None => return Err(Failure::Unknown(describe(&error))),
                },
            }
        }
        Err(Failure::Busy)
    }
}

fn is_terminated(raised: &DbError) -> bool {
    raised.code().code() == "57P01"
}

fn is_stale(raised: &DbError) -> bool {
    matches!(
        raised.code().code(),
        "0A000" | "26000" | "3F000" | "42883" | "25006"
    )
}

impl Session {
    async fn open(config: &ConnectOptions) -> Result<Self, Error> {
        let (client, mut connection) = config.connect().await?;
        let notices = Arc::<Latch<Vec<DbError>>>::default();
        let heard = Arc::clone(&notices);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message {
                    lock(&heard).push(notice);
                }
            }
        });
        match timeout(SETUP_TIMEOUT, Self::prepare(client, config, notices)).await {
            Ok(prepared) => prepared,
            Err(_) => Err(Error::DatabaseAway("no answer during the set-up".into())),
        }
    }

    async fn prepare(
        client: Client,
        config: &ConnectOptions,
        notices: Arc<Latch<Vec<DbError>>>,
    ) -> Result<Self, Error> {
        let away = |error| Error::DatabaseAway(describe(&error));
        let version = client.query_one("select twilio.version()", &[]).await;
        let version = version.map_err(|error| explain_version(config, &WANTED, &error))?;
        let version: String = version.try_get(0).map_err(away)?;
        check_version("twilio-callback-shim", &version)?;
        let row = client.query_one(PRIVILEGES, &[]).await.map_err(away)?;
        if !row.try_get::<_, bool>(0).map_err(away)? {
            return Err(lacks_privilege(config, &WANTED));
        }
        Ok(Self {
            send: client.prepare(SEND).await.map_err(away)?,
            block: client.prepare(BLOCK).await.map_err(away)?,
            unblock: client.prepare(UNBLOCK).await.map_err(away)?,
            acknowledge: client.prepare(ACKNOWLEDGE).await.map_err(away)?,
            client,
            notices,
        })
    }

    async fn call(&self, call: &Call) -> Result<Map<String, Value>, tokio_postgres::Error> {
        lock(&self.notices).clear();
        let mut members = Map::new();
        let (name, value) = match call {
            Call::Send(message) => {
                let row = self.send(message).await?;
                ("message_id", Value::from(row.try_get::<_, i64>(0)?))
            }
            Call::Block {
                address,
                reason,
                account_sid,
                from_address,
            } => {
                let arguments: [&(dyn ToSql + Sync); 4] =
                    [address, reason, account_sid, from_address];
                let row = self.client.query_one(&self.block, &arguments).await?;
                ("suppression_id", Value::from(row.try_get::<_, i64>(0)?))
            }
            Call::Unblock {
                address,
                reason,
                including_opt_out,
            } => {
                let arguments: [&(dyn ToSql + Sync); 3] = [address, reason, including_opt_out];
                let row = self.client.query_one(&self.unblock, &arguments).await?;
                ("ended", Value::from(row.try_get::<_, i32>(0)?))
            }
            Call::Acknowledge { message_id } => {
                let row = self
                    .client
                    .query_one(&self.acknowledge, &[message_id])
                    .await?;
                ("acknowledged", Value::from(row.try_get::<_, bool>(0)?))
            }
        };
        members.insert(name.to_owned(), value);
        let notices: Vec<_> = lock(&self.notices).iter().map(to_json).collect();
        if !notices.is_empty() {
            members.insert("notices".to_owned(), notices.into());
        }
        Ok(members)
    }

    async fn send(&self, message: &Message) -> Result<Row, tokio_postgres::Error> {
        let arguments: [&(dyn ToSql + Sync); 11] = [
            &message.to_address,
            &message.body,
            &message.from_address,
            &message.media_urls,
            &message.idempotency_key,
            &message.send_at,
            &message.expires_after,
            &message.status_callback,
            &message.metadata,
            &message.twilio_parameters,
            &message.account_sid,
        ];
        self.client.query_one(&self.send, &arguments).await
    }
}

fn to_json(notice: &DbError) -> Value {
    json!({"message": notice.message(), "hint": notice.hint()})
}

fn lock(notices: &Latch<Vec<DbError>>) -> std::sync::MutexGuard<'_, Vec<DbError>> {
    notices.lock().unwrap_or_else(PoisonError::into_inner)
}

const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
const WANTED: Privilege = Privilege {
    function: "twilio.send_message",
    grant: "twilio.grant_send",
};
const PRIVILEGES: &str = "\
select count(*) filter (where has_function_privilege(p.oid, 'execute')) = 4
from pg_catalog.pg_proc p
where p.pronamespace = 'twilio'::regnamespace
    and p.proname in ('send_message', 'block', 'unblock', 'acknowledge_inbound')";
const SEND: &str = "\
select twilio.send_message(
    to_address => $1, body => $2, from_address => $3, media_urls => $4, idempotency_key => $5,
    send_at => $6::text::timestamptz, expires_after => $7::text::interval, status_callback => $8,
    metadata => $9::text::jsonb, twilio_parameters => $10::text::jsonb, account_sid => $11)";
const BLOCK: &str = "\
select twilio.block(address => $1, reason => $2, account_sid => $3, from_address => $4)";
const UNBLOCK: &str = "select twilio.unblock(address => $1, reason => $2, including_opt_out => $3)";
const ACKNOWLEDGE: &str = "select twilio.acknowledge_inbound($1)";
