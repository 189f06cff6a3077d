//! One connection to the database: opened, checked and prepared.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, Statement};

use crate::error::Error;
use crate::queue::{Item, Lane};

/// A connection on which batches are called.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    receive: Statement,
    smsgate: Option<Statement>,
    /// Resolves with the reason when the connection ends.
    pub(crate) ended: oneshot::Receiver<String>,
}

impl Connection {
    /// Connects, and makes sure that callbacks can be delivered here.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let (client, connection) = config
            .connect(NoTls)
            .await
            .map_err(|error| explain_connect(config, &error))?;
        let (sender, ended) = oneshot::channel();
        tokio::spawn(async move {
            let reason = match connection.await {
                Ok(()) => "closed".to_owned(),
                Err(error) => describe(&error),
            };
            let _ = sender.send(reason);
        });
        match timeout(SETUP_TIMEOUT, prepare(&client, config)).await {
            Ok(Ok((receive, smsgate))) => Ok(Self {
                client,
                receive,
                smsgate,
                ended,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::DatabaseAway("no answer during the set-up".into())),
        }
    }

    /// The lane's function, if the database has it.
    pub(crate) fn statement(&self, lane: Lane) -> Option<&Statement> {
        match lane {
            Lane::Twilio => Some(&self.receive),
            Lane::Smsgate => self.smsgate.as_ref(),
        }
    }

    /// Calls a lane's function once for all its items. Returns after the whole result, so after
    /// the commit.
    pub(crate) async fn call(
        &self,
        statement: &Statement,
        items: &[Item],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let headers: Vec<&str> = items.iter().map(|item| item.headers.as_str()).collect();
        let bodies: Vec<&[u8]> = items.iter().map(|item| &item.body[..]).collect();
        let sources: Vec<Option<&str>> = items.iter().map(|item| item.source.as_deref()).collect();
        if statement.params().len() == 3 {
            let parameters: [&(dyn ToSql + Sync); 3] = [&headers, &bodies, &sources];
            return self.client.query(statement, &parameters).await;
        }
        let methods: Vec<&str> = items.iter().map(|item| item.method).collect();
        let urls: Vec<&str> = items.iter().map(|item| item.url.as_str()).collect();
        self.client
            .query(statement, &[&methods, &urls, &headers, &bodies, &sources])
            .await
    }

    /// Asks for nothing, to see that the database still answers.
    pub(crate) async fn probe(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("").await
    }
}

async fn prepare(
    client: &Client,
    config: &Config,
) -> Result<(Statement, Option<Statement>), Error> {
    let version = client
        .simple_query(VERSION)
        .await
        .map_err(|error| explain_version(config, &error))?
        .into_iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap_or_default();
    check_version(&version)?;
    let away = |error| Error::DatabaseAway(describe(&error));
    let allowed = client.query_one(PRIVILEGES, &[]).await.map_err(away)?;
    match allowed.try_get(0).map_err(away)? {
        Some(true) => {}
        Some(false) => return Err(lacks_privilege(config)),
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
    Ok((receive, smsgate))
}

/// The functions keep their shape within a minor version.
fn check_version(theirs: &str) -> Result<(), Error> {
    let ours = env!("CARGO_PKG_VERSION");
    if minor(theirs) == minor(ours) {
        return Ok(());
    }
    Err(Error::configuration(
        format!("the database has twilio_callback {theirs:.40}, but this program is of {ours}"),
        "run \"alter extension twilio_callback update\" in the database, or start the \
         twilio-callback-shim of the database's version",
    ))
}

fn minor(version: &str) -> Option<(&str, &str)> {
    let mut parts = version.split('.');
    Some((parts.next()?, parts.next()?))
}

fn explain_version(config: &Config, error: &tokio_postgres::Error) -> Error {
    match error.code().map(|state| state.code()) {
        // The schema or the function is not there.
        Some("3F000" | "42883") => Error::configuration(
            format!(
                "database \"{}\" does not have the extension twilio_callback",
                config
                    .get_dbname()
                    .or(config.get_user())
                    .unwrap_or_default()
            ),
            "connect to it as a superuser and run \"create extension twilio_callback\", or name \
             the right database in DATABASE_URL",
        ),
        Some("42501") => lacks_privilege(config),
        _ => Error::DatabaseAway(describe(error)),
    }
}

fn lacks_privilege(config: &Config) -> Error {
    let role = config.get_user().unwrap_or("the connecting role");
    Error::configuration(
        format!("role \"{role}\" may not call twilio.receive"),
        format!("run \"select twilio.grant_front('{role}')\" as the extension's owner"),
    )
}

fn explain_connect(config: &Config, error: &tokio_postgres::Error) -> Error {
    let code = error.code().map_or("", |state| state.code());
    let text = describe(error);
    // Authentication that this side refuses (a missing password, an unknown method) has no
    // SQLSTATE, and tokio-postgres tells its kind by its text alone.
    let is_refused_here = [
        "invalid configuration",
        "authentication error",
        "error performing TLS",
    ]
    .iter()
    .any(|start| text.starts_with(start));
    match code {
        "28000" | "28P01" => Error::configuration(
            format!("the database refuses the connection: {text}"),
            "check user and password in DATABASE_URL, and pg_hba.conf",
        ),
        "3D000" => Error::configuration(
            text,
            "create the database, or name the right one in DATABASE_URL",
        ),
        "42501" => Error::configuration(text, "grant connect on the database to this role"),
        _ if is_refused_here => Error::configuration(
            format!("cannot log in to the database: {text}"),
            "check user, password and sslmode in DATABASE_URL, and pg_hba.conf",
        ),
        _ => Error::DatabaseAway(format!("{}: {text}", target(config))),
    }
}

/// Where the connection goes, without who connects.
fn target(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    hosts.collect::<Vec<_>>().join(",")
}

/// An error in one line: the server's primary message alone, since its detail may quote a request.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(database) = error.as_db_error() {
        return format!("{} ({})", database.message(), database.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
const VERSION: &str = "select twilio.version()";
const PRIVILEGES: &str = "\
select
    has_function_privilege(to_regprocedure(
        'twilio.receive(text[], text[], text[], bytea[], text[])'), 'execute'),
    has_function_privilege(to_regprocedure(
        'twilio.smsgate_receive(text[], bytea[], text[])'), 'execute')";
const RECEIVE: &str = "\
select http_status, content_type, response_body, reason, message_id, event_id, is_new, wait_ms
from twilio.receive($1, $2, $3, $4, $5)";
const SMSGATE_RECEIVE: &str = "\
select http_status, content_type, response_body, reason, message_id, event_id, is_new, wait_ms
from twilio.smsgate_receive($1, $2, $3)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_up_to_their_minor_number() {
        let ours = env!("CARGO_PKG_VERSION");
        let (major, minor) = minor(ours).unwrap();
        assert!(check_version(ours).is_ok());
        assert!(check_version(&format!("{major}.{minor}.999")).is_ok());
        for other in ["", "x", "999.0.0", &format!("{major}.{minor}9.0"), major] {
            let error = check_version(other).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("alter extension"), "{error}");
        }
    }
}
