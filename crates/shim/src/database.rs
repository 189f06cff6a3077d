//! One connection to the database, with its checks and prepared statements.

use std::pin::pin;
use std::time::Duration;

use daemon::connect_options::{ConnectOptions, Secured};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage, Socket, Statement};

use crate::error::Error;
use crate::explain::{Privilege, check_version, describe, explain_version, lacks_privilege};
use crate::item::{Item, Target};

/// A connection on which batches are called.
pub(crate) struct Connection {
    client: Client,
    link: Link,
    receive: Statement,
    smsgate: Option<Statement>,
    lost: Option<Statement>,
}

impl Connection {
    /// Connects, and makes sure that callbacks can be delivered here.
    pub(crate) async fn open(config: &ConnectOptions) -> Result<Self, Error> {
        let (client, driver) = config.connect().await?;
        let mut link = Link {
            driver: Some(driver),
            error: None,
        };
        let prepared = timeout(SETUP_TIMEOUT, link.drive(prepare(&client, config)))
            .await
            .map_err(|_| Error::DatabaseAway("no answer during the set-up".into()))?;
        let (receive, smsgate, lost) = prepared?;
        Ok(Self {
            client,
            link,
            receive,
            smsgate,
            lost,
        })
    }

    /// Whether the database has the target's function.
    pub(crate) fn serves(&self, target: Target) -> bool {
        match target {
            Target::Twilio | Target::Events => true,
            Target::Smsgate => self.smsgate.is_some(),
        }
    }

    /// Calls the target's function once for all items. Returns after the whole result, so after the
    /// commit; no rows if the database lacks the function.
    pub(crate) async fn call(
        &mut self,
        target: Target,
        items: &[Item],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let headers: Vec<&str> = items.iter().map(|item| item.head.headers()).collect();
        let bodies: Vec<&[u8]> = items.iter().map(|item| &item.body[..]).collect();
        let sources: Vec<Option<&str>> = items.iter().map(|item| item.source.as_deref()).collect();
        match (target, &self.smsgate) {
            (Target::Twilio | Target::Events, _) => {
                let methods: Vec<&str> = items.iter().map(|item| item.method).collect();
                let urls: Vec<&str> = items.iter().map(|item| item.head.url()).collect();
                let parameters: [&(dyn ToSql + Sync); 5] =
                    [&methods, &urls, &headers, &bodies, &sources];
                let query = self.client.query(&self.receive, &parameters);
                self.link.drive(query).await
            }
            (Target::Smsgate, Some(statement)) => {
                let parameters: [&(dyn ToSql + Sync); 3] = [&headers, &bodies, &sources];
                let query = self.client.query(statement, &parameters);
                self.link.drive(query).await
            }
            (Target::Smsgate, None) => Ok(Vec::new()),
        }
    }

    /// Runs an empty query to check that the database still answers.
    pub(crate) async fn probe(&mut self) -> Result<(), String> {
        let probe = self.client.batch_execute("");
        match timeout(PROBE_TIMEOUT, self.link.drive(probe)).await {
            Ok(result) => result.map_err(|error| describe(&self.cause(error))),
            Err(_) => Err("the database did not answer a probe".into()),
        }
    }

    /// The number of refused requests that are lost and not acknowledged; none if the database lacks the function or
    /// the role may not call it.
    pub(crate) async fn count_lost(&mut self) -> Result<Option<u64>, String> {
        let Some(statement) = &self.lost else {
            return Ok(None);
        };
        let query = self.client.query_one(statement, &[]);
        match timeout(PROBE_TIMEOUT, self.link.drive(query)).await {
            Ok(Ok(row)) => Ok(row
                .try_get::<_, i64>(0)
                .ok()
                .and_then(|n| n.try_into().ok())),
            Ok(Err(error)) if error.code().is_some() => Ok(None),
            Ok(Err(error)) => Err(describe(&self.cause(error))),
            Err(_) => Err("the database did not say how many requests are lost".into()),
        }
    }

    /// Waits, between calls, until the connection ends, and returns the reason.
    pub(crate) async fn ended(&mut self) -> String {
        self.link.ended().await;
        let error = self.link.error.take();
        error.map_or_else(|| "closed".into(), |error| describe(&error))
    }

    /// The error that made a call fail. The call's own error may only say that the connection ended, and not that
    /// the server closed it before it read the call.
    pub(crate) fn cause(&mut self, error: tokio_postgres::Error) -> tokio_postgres::Error {
        match error.code() {
            Some(_) => error,
            None => self.link.error.take().unwrap_or(error),
        }
    }
}

/// Reads and writes the connection's bytes within the task that calls, so that a call is sent at once and not
/// after other tasks.
struct Link {
    driver: Option<tokio_postgres::Connection<Socket, Secured>>,
    error: Option<tokio_postgres::Error>,
}

impl Link {
    async fn drive<T>(&mut self, request: impl Future<Output = T>) -> T {
        let mut request = pin!(request);
        tokio::select! {
            biased;
            result = &mut request => return result,
            () = self.ended() => {}
        }
        // A response that arrived before the end is still there; without one, the call says that it ended.
        request.await
    }

    async fn ended(&mut self) {
        if let Some(driver) = &mut self.driver
            && let Err(error) = driver.await
        {
            self.error = Some(error);
        }
        // Dropped, so that no call waits for a response that cannot come.
        self.driver = None;
    }
}

async fn prepare(
    client: &Client,
    config: &ConnectOptions,
) -> Result<(Statement, Option<Statement>, Option<Statement>), Error> {
    let version = client
        .simple_query(VERSION)
        .await
        .map_err(|error| explain_version(config, &WANTED, &error))?
        .into_iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap_or_default();
    check_version("twilio-callback-shim", &version)?;
    let away = |error| Error::DatabaseAway(describe(&error));
    let allowed = client.query_one(PRIVILEGES, &[]).await.map_err(away)?;
    match allowed.try_get(0).map_err(away)? {
        Some(true) => {}
        Some(false) => return Err(lacks_privilege(config, &WANTED)),
        None => {
            return Err(Error::configuration(
                format!("the database's twilio_callback {version} has no twilio.receive"),
                "install the extension and this program from the same release",
            ));
        }
    }
    let receive = client.prepare(RECEIVE).await.map_err(away)?;
    let smsgate = match allowed.try_get(1).map_err(away)? {
        Some(true) => Some(client.prepare(SMSGATE_RECEIVE).await.map_err(away)?),
        Some(false) | None => None,
    };
    let lost = match allowed.try_get(2).map_err(away)? {
        Some(true) => Some(client.prepare(LOST).await.map_err(away)?),
        Some(false) | None => None,
    };
    Ok((receive, smsgate, lost))
}

const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
const WANTED: Privilege = Privilege {
    function: "twilio.receive",
    grant: "twilio.grant_front",
};
const VERSION: &str = "select twilio.version()";
const PRIVILEGES: &str = "\
select
    has_function_privilege(to_regprocedure(
        'twilio.receive(text[], text[], text[], bytea[], text[])'), 'execute'),
    has_function_privilege(to_regprocedure(
        'twilio.smsgate_receive(text[], bytea[], text[])'), 'execute'),
    has_function_privilege(to_regprocedure('twilio.lost_requests()'), 'execute')";
const RECEIVE: &str = "\
select http_status, content_type, response_body, reason, message_id, event_id, is_new, wait_ms
from twilio.receive($1, $2, $3, $4, $5)";
const SMSGATE_RECEIVE: &str = "\
select http_status, content_type, response_body, reason, message_id, event_id, is_new, wait_ms
from twilio.smsgate_receive($1, $2, $3)";
const LOST: &str = "select twilio.lost_requests()";
