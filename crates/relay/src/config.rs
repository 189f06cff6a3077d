//! Flags and environment variables, checked and turned into what the rest works with.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use lapin::uri::{AMQPScheme, AMQPUri};
use service::address::Address;
use service::error::Error;
use service::line::Format;

use crate::arguments::Arguments;
use crate::route::Route;

/// Everything that was asked for, checked.
pub(crate) struct Config {
    pub(crate) database: tokio_postgres::Config,
    pub(crate) amqp: AMQPUri,
    pub(crate) consumer: String,
    pub(crate) publishes: bool,
    pub(crate) exchange: String,
    pub(crate) routes: Vec<Route>,
    pub(crate) outgoing: Option<Queue>,
    pub(crate) acknowledge: Option<Queue>,
    pub(crate) dead_letter_queue: String,
    pub(crate) batch: i32,
    pub(crate) prefetch: u16,
    pub(crate) poll_interval: Duration,
    pub(crate) confirm_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) operations: Option<Address>,
    pub(crate) log_format: Format,
    pub(crate) is_check: bool,
}

/// A queue and the routing key that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) key: String,
}

// The URI has a password, which must not get into a log.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the command line and the environment; `--help` and bad usage end the process here.
    pub(crate) fn load() -> Result<Self, Error> {
        let arguments = Arguments::parse();
        let database_url = arguments
            .database_url
            .clone()
            .or_else(|| std::env::var("DATABASE_URL").ok());
        Self::check(arguments, database_url.as_deref())
    }

    fn check(arguments: Arguments, database_url: Option<&str>) -> Result<Self, Error> {
        let timeouts = (arguments.statement_timeout, LOCK_TIMEOUT);
        let mut database =
            service::database::config("twilio-callback-relay", database_url, timeouts)?;
        if let Some(file) = &arguments.database_password_file {
            database.password(secret(file)?);
        }
        let mut amqp = amqp(&arguments.amqp_url)?;
        if let Some(file) = &arguments.amqp_password_file {
            amqp.authority.userinfo.password = secret(file)?;
        }
        let names = [
            ("--exchange", &arguments.exchange),
            ("--outgoing-queue", &arguments.outgoing_queue),
            ("--outgoing-key", &arguments.outgoing_key),
            ("--acknowledge-queue", &arguments.acknowledge_queue),
            ("--acknowledge-key", &arguments.acknowledge_key),
            ("--dead-letter-queue", &arguments.dead_letter_queue),
        ];
        for (flag, name) in names {
            if name.is_empty() || name.len() > 255 {
                return Err(Error::configuration(
                    format!("{flag} does not have 1 to 255 characters"),
                    "give a name that RabbitMQ can have",
                ));
            }
        }
        let queue = |name: String, key| (name != "none").then_some(Queue { name, key });
        Ok(Self {
            database,
            amqp,
            publishes: arguments.consumer != "none",
            consumer: arguments.consumer,
            exchange: arguments.exchange,
            routes: arguments
                .route
                .into_iter()
                .chain(Route::defaults())
                .collect(),
            outgoing: queue(arguments.outgoing_queue, arguments.outgoing_key),
            acknowledge: queue(arguments.acknowledge_queue, arguments.acknowledge_key),
            dead_letter_queue: arguments.dead_letter_queue,
            batch: arguments.batch,
            prefetch: arguments.prefetch,
            poll_interval: arguments.poll_interval,
            confirm_timeout: arguments.confirm_timeout,
            grace: arguments.grace,
            operations: arguments.ops_listen,
            log_format: arguments.log_format,
            is_check: arguments.check,
        })
    }
}

fn amqp(url: &str) -> Result<AMQPUri, Error> {
    // The parser's own words may quote a piece of a password.
    let mut uri: AMQPUri = url.parse().map_err(|_| {
        Error::configuration(
            "the URL of RabbitMQ cannot be read",
            "write amqp://user@host:5672/vhost, with %2f for the vhost /",
        )
    })?;
    if uri.scheme != AMQPScheme::AMQP {
        return Err(Error::configuration(
            "the URL of RabbitMQ demands TLS, which this program does not speak",
            "use amqp:// through a tunnel or on the same machine",
        ));
    }
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_SECONDS));
    uri.query.connection_timeout = uri.query.connection_timeout.or(Some(CONNECT_MILLISECONDS));
    Ok(uri)
}

/// A file's first line.
fn secret(file: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(file).map_err(|error| {
        Error::configuration(
            format!("cannot read {}: {error}", file.display()),
            "name a file with the password alone, which this program may read",
        )
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const HEARTBEAT_SECONDS: u16 = 10;
const CONNECT_MILLISECONDS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn check(arguments: &[&str]) -> Result<Config, Error> {
        let program = ["twilio-callback-relay"].iter().chain(arguments);
        let arguments = Arguments::try_parse_from(program).unwrap();
        Config::check(
            arguments,
            Some("host=/run/postgresql user=relay dbname=sms"),
        )
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_cannot_work_is_refused_without_repeating_a_password() {
        for (arguments, expected) in [
            (["--amqp-url", "amqps://u:hush@host/"], "demands TLS"),
            (["--amqp-url", "hush"], "cannot be read"),
            (["--amqp-url", "amqp://u:hush@host:port"], "cannot be read"),
            (["--exchange", ""], "--exchange does not have"),
            (["--amqp-password-file", "/nowhere"], "cannot read /nowhere"),
        ] {
            let error = check(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.contains(expected) && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn queues_can_be_left_out_and_no_password_is_shown() {
        let config = check(&[
            "--outgoing-queue",
            "none",
            "--amqp-url",
            "amqp://u:hush@h/v",
        ]);
        let config = config.unwrap();
        assert!(config.outgoing.is_none() && config.acknowledge.is_some() && config.publishes);
        assert!(!format!("{config:?}").contains("hush"));
    }
}
