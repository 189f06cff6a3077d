//! The configuration, from checked flags and environment variables.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use daemon::address::Address;
use daemon::connect_options::ConnectOptions;
use daemon::error::Error;
use daemon::logfmt::Format;
use daemon::tls::Files;
use lapin::uri::{AMQPScheme, AMQPUri};

use crate::arguments::Arguments;
use crate::route::Route;

/// The checked configuration.
pub(crate) struct Config {
    pub(crate) database: ConnectOptions,
    pub(crate) amqp: AMQPUri,
    pub(crate) amqp_tls: Option<Files>,
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
        check_work(&arguments)?;
        let timeouts = (arguments.statement_timeout, LOCK_TIMEOUT);
        let authorities = arguments.database_ca_file.as_deref();
        let program = "twilio-callback-relay";
        let mut database = daemon::database::config(program, database_url, authorities, timeouts)?;
        daemon::database::check_use(authorities, &[("--database-url", &database)])?;
        if let Some(file) = &arguments.database_password_file {
            database.set_password(&secret(file)?);
        }
        let (mut amqp, is_tls) = amqp(&arguments.amqp_url)?;
        let amqp_tls = tls(&arguments, is_tls)?;
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
            amqp_tls,
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

fn check_work(arguments: &Arguments) -> Result<(), Error> {
    let all = [
        &arguments.consumer,
        &arguments.outgoing_queue,
        &arguments.acknowledge_queue,
    ];
    match all.iter().all(|name| *name == "none") {
        true => Err(Error::configuration(
            "--consumer, --outgoing-queue and --acknowledge-queue are all none: nothing is left to do",
            "name at least one of them",
        )),
        false => Ok(()),
    }
}

/// The URL of RabbitMQ, and whether it asks for TLS.
fn amqp(url: &str) -> Result<(AMQPUri, bool), Error> {
    // The parser's message may quote a part of a password.
    let mut uri: AMQPUri = url.parse().map_err(|_| {
        Error::configuration(
            "the URL of RabbitMQ cannot be read",
            "write amqp://user@host:5672/vhost, with %2f for the vhost /",
        )
    })?;
    let is_tls = uri.scheme == AMQPScheme::AMQPS;
    // TLS is added below lapin, so lapin itself must not start it.
    uri.scheme = AMQPScheme::AMQP;
    // The parser does not read an IPv6 address as a host, and replaces a missing host by localhost.
    if let Some(address) = address_in_brackets(url) {
        uri.authority.host = address.to_owned();
    }
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_SECONDS));
    uri.query.connection_timeout = uri.query.connection_timeout.or(Some(CONNECT_MILLISECONDS));
    Ok((uri, is_tls))
}

fn address_in_brackets(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let (address, _) = host.strip_prefix('[')?.split_once(']')?;
    Some(address)
}

fn tls(arguments: &Arguments, is_tls: bool) -> Result<Option<Files>, Error> {
    let (certificate, key) = (&arguments.amqp_certificate_file, &arguments.amqp_key_file);
    let files = Files {
        authorities: arguments.amqp_ca_file.clone(),
        identity: certificate.clone().zip(key.clone()),
    };
    if is_tls {
        let hint = "name PEM files that this program may read";
        let read = files.read();
        read.map_err(|text| Error::configuration(text, hint))?;
        return Ok(Some(files));
    }
    if files.authorities.is_some() || files.identity.is_some() {
        return Err(Error::configuration(
            "a file for TLS is given, but the URL of RabbitMQ does not ask for TLS",
            "write amqps:// and the port for TLS, often 5671, or leave the file out",
        ));
    }
    Ok(None)
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
    fn invalid_configurations_are_refused_without_repeating_a_password() {
        for (arguments, expected) in [
            (["--amqp-ca-file", "/a"], "does not ask for TLS"),
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
    fn tls_is_what_the_url_says_and_an_ipv6_address_is_a_host() {
        for (url, host, port, is_tls) in [
            (
                "amqp://broker.example.com",
                "broker.example.com",
                5672,
                false,
            ),
            (
                "amqps://u@broker.example.com/v",
                "broker.example.com",
                5671,
                true,
            ),
            ("amqps://u:p@[::1]:5673/v", "::1", 5673, true),
            (
                "amqp://[2001:db8::7]?heartbeat=5",
                "2001:db8::7",
                5672,
                false,
            ),
        ] {
            let config = check(&["--amqp-url", url]).unwrap();
            let authority = &config.amqp.authority;
            assert_eq!(
                (authority.host.as_str(), authority.port),
                (host, port),
                "{url}"
            );
            assert_eq!(config.amqp_tls.is_some(), is_tls, "{url}");
        }
    }

    #[test]
    fn files_for_tls_are_read_at_the_start() {
        let url = ["--amqp-url", "amqps://broker.example.com"];
        for (file, expected) in [
            ("/nowhere", "cannot read certificates in /nowhere"),
            ("/dev/null", "there is no certificate in /dev/null"),
        ] {
            let error = check(&[&url[..], &["--amqp-ca-file", file]].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{error}");
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
        let flags = ["--consumer", "--outgoing-queue", "--acknowledge-queue"];
        let error = check(&flags.map(|flag| [flag, "none"]).concat()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("nothing is left to do"),
            "{error}"
        );
    }
}
