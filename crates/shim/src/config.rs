//! Flags and environment variables, checked and turned into what the rest works with.

use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hyper::header::HeaderName;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use crate::address::Address;
use crate::error::Error;
use crate::line::Format;
use crate::measure::{parse_duration, parse_size};
use crate::proxy::{Proxy, Trusted};
use crate::route::{Endpoint, Routes};

/// Which callbacks get a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogCallbacks {
    Off,
    Refused,
    All,
}

/// Everything that was asked for, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) database: tokio_postgres::Config,
    pub(crate) listen: Vec<Address>,
    pub(crate) socket_mode: u32,
    pub(crate) operations: Option<Address>,
    pub(crate) routes: Routes,
    pub(crate) proxy: Proxy,
    pub(crate) writers: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) startup_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) log_format: Format,
    pub(crate) log_callbacks: LogCallbacks,
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
        if arguments.statement_timeout >= arguments.deadline {
            return Err(Error::configuration(
                "--statement-timeout is not shorter than --deadline",
                "lower --statement-timeout, so that the database gives up before the client is told",
            ));
        }
        let more = [
            (arguments.status_path, Endpoint::Status),
            (arguments.inbound_path, Endpoint::Inbound),
            (arguments.smsgate_path, Endpoint::Smsgate),
        ];
        let more = more
            .into_iter()
            .flat_map(|(paths, endpoint)| paths.into_iter().map(move |path| (path, endpoint)));
        let routes = Routes::new(more)
            .map_err(|error| Error::configuration(error, "give each path once, such as /sms"))?;
        if arguments.proxy_header.is_some() && arguments.trusted_proxy.is_empty() {
            return Err(Error::configuration(
                "--proxy-header is given without --trusted-proxy",
                "name the addresses of your proxies, such as --trusted-proxy 127.0.0.1",
            ));
        }
        let timeouts = (arguments.statement_timeout, arguments.lock_timeout);
        Ok(Self {
            database: database(database_url, timeouts)?,
            listen: arguments.listen,
            socket_mode: arguments.socket_mode,
            operations: arguments.ops_listen.0,
            routes,
            proxy: Proxy {
                header: arguments.proxy_header,
                trusted: arguments.trusted_proxy,
            },
            writers: usize::from(arguments.writers),
            max_in_flight: usize::from(arguments.max_in_flight),
            max_in_flight_bytes: arguments.max_in_flight_bytes,
            max_connections: usize::from(arguments.max_connections),
            header_timeout: arguments.header_timeout,
            body_timeout: arguments.body_timeout,
            deadline: arguments.deadline,
            statement_timeout: arguments.statement_timeout,
            startup_timeout: arguments.startup_timeout,
            grace: arguments.grace,
            log_format: arguments.log_format,
            log_callbacks: arguments.log_callbacks,
        })
    }
}

/// Receives Twilio's and SMSGate's callbacks over HTTP and stores them in PostgreSQL.
///
/// Each request is handed as it came to the extension twilio_callback, in batches, and answered
/// with what the extension says once the transaction is durable. Signatures are checked in the
/// database: this process holds no secret but its own access to it.
#[derive(Debug, Parser)]
#[command(name = "twilio-callback-shim", version, after_help = AFTER_HELP)]
struct Arguments {
    /// Database: postgres://user@host/database, or host=/run/postgresql user=… dbname=…
    /// [required; DATABASE_URL is read too; better set in the environment than on the command line]
    #[arg(
        long,
        value_name = "URL",
        env = "TWILIO_CALLBACK_SHIM_DATABASE_URL",
        hide_env_values = true
    )]
    database_url: Option<String>,

    /// Address for callbacks, ip:port or unix:/path; may be repeated
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TWILIO_CALLBACK_SHIM_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:8080"
    )]
    listen: Vec<Address>,

    /// Permissions of Unix sockets that are listened on, octal
    #[arg(long, value_name = "MODE", env = "TWILIO_CALLBACK_SHIM_SOCKET_MODE", value_parser = parse_mode, default_value = "660")]
    socket_mode: u32,

    /// Address for /live, /ready and /metrics, ip:port or unix:/path, or "none"
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TWILIO_CALLBACK_SHIM_OPS_LISTEN",
        default_value = "127.0.0.1:9464"
    )]
    ops_listen: Operations,

    /// Further path for status callbacks, beside /twilio/status; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_STATUS_PATH",
        value_delimiter = ','
    )]
    status_path: Vec<String>,

    /// Further path for inbound messages, beside /twilio/inbound; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_INBOUND_PATH",
        value_delimiter = ','
    )]
    inbound_path: Vec<String>,

    /// Further path for SMSGate's webhooks, beside /smsgate; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_SMSGATE_PATH",
        value_delimiter = ','
    )]
    smsgate_path: Vec<String>,

    /// Header in which a trusted proxy lists client addresses, such as X-Forwarded-For;
    /// used for logs and the stored source address only
    #[arg(long, value_name = "NAME", env = "TWILIO_CALLBACK_SHIM_PROXY_HEADER")]
    proxy_header: Option<HeaderName>,

    /// Proxy whose header counts: address, range such as 10.0.0.0/8, or "unix"; may be repeated
    #[arg(
        long,
        value_name = "RANGE",
        env = "TWILIO_CALLBACK_SHIM_TRUSTED_PROXY",
        value_delimiter = ','
    )]
    trusted_proxy: Vec<Trusted>,

    /// Connections to the database, 1 to 16
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_WRITERS", value_parser = clap::value_parser!(u8).range(1..=16), default_value = "2")]
    writers: u8,

    /// Requests in hand at once; more are answered 503
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_MAX_IN_FLIGHT", value_parser = clap::value_parser!(u16).range(1..), default_value = "4096")]
    max_in_flight: u16,

    /// Bytes of the requests in hand; more are answered 503
    #[arg(long, value_name = "SIZE", env = "TWILIO_CALLBACK_SHIM_MAX_IN_FLIGHT_BYTES", value_parser = parse_size, default_value = "16MiB")]
    max_in_flight_bytes: usize,

    /// Open client connections; more wait to be accepted
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_MAX_CONNECTIONS", value_parser = clap::value_parser!(u16).range(1..), default_value = "1024")]
    max_connections: u16,

    /// Time for a request's head, and for an idle connection; a proxy's keep-alive must be shorter
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_HEADER_TIMEOUT", value_parser = parse_duration, default_value = "5s")]
    header_timeout: Duration,

    /// Time for a request's body; then 408
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_BODY_TIMEOUT", value_parser = parse_duration, default_value = "5s")]
    body_timeout: Duration,

    /// Time from a request's head to its answer; then 503
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_DEADLINE", value_parser = parse_duration, default_value = "8s")]
    deadline: Duration,

    /// statement_timeout of the database connections
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_STATEMENT_TIMEOUT", value_parser = parse_duration, default_value = "7s")]
    statement_timeout: Duration,

    /// lock_timeout of the database connections
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_LOCK_TIMEOUT", value_parser = parse_duration, default_value = "2s")]
    lock_timeout: Duration,

    /// Time for the first connection to the database; then the process ends with status 1
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_STARTUP_TIMEOUT", value_parser = parse_duration, default_value = "30s")]
    startup_timeout: Duration,

    /// Time for open requests after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_GRACE", value_parser = parse_duration, default_value = "20s")]
    grace: Duration,

    /// Form of the log on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TWILIO_CALLBACK_SHIM_LOG_FORMAT",
        default_value = "logfmt"
    )]
    log_format: Format,

    /// Callbacks that get a log line
    #[arg(
        long,
        value_name = "WHICH",
        env = "TWILIO_CALLBACK_SHIM_LOG_CALLBACKS",
        default_value = "all"
    )]
    log_callbacks: LogCallbacks,
}

#[derive(Clone, Debug)]
struct Operations(Option<Address>);

impl FromStr for Operations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|address| Self(Some(address))),
        }
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected octal permissions, such as 660".into()),
    }
}

/// The connection settings, with what the shim's promises rest on pinned.
fn database(
    url: Option<&str>,
    (statement_timeout, lock_timeout): (Duration, Duration),
) -> Result<tokio_postgres::Config, Error> {
    let url = url.ok_or_else(|| {
        Error::configuration(
            "no database is given",
            "set DATABASE_URL or --database-url, such as postgres://shim@localhost/sms or \
             \"host=/run/postgresql user=shim dbname=sms\"",
        )
    })?;
    // The parser's own words may quote a piece of a password.
    let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
        Error::configuration(
            "the database URL cannot be read",
            "write postgres://user@host:5432/database, or key=value pairs as for psql; \
             percent-encode special characters of a password",
        )
    })?;
    if config.get_hosts().is_empty() {
        return Err(Error::configuration(
            "the database URL names no host",
            "name a host, or the directory of PostgreSQL's Unix socket: host=/run/postgresql",
        ));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(Error::configuration(
            "the database URL demands TLS, which this program does not speak",
            "use the Unix socket, or a tunnel, and drop sslmode=require",
        ));
    }
    let options = format!(
        "{} -c synchronous_commit=on -c statement_timeout={} -c lock_timeout={} \
         -c idle_in_transaction_session_timeout=10000",
        config.get_options().unwrap_or_default(),
        statement_timeout.as_millis(),
        lock_timeout.as_millis(),
    );
    config.options(options.trim_start());
    if config.get_application_name().is_none() {
        config.application_name("twilio-callback-shim");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(CONNECT_TIMEOUT);
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    Ok(config)
}

/// For a server that is gone without a word, before a connection and on one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
Durations are written 500ms, 8s or 2m, sizes 64KiB or 16MiB. In the environment, values that may be
repeated are separated by commas. A body may have 64 KiB, a head 32 KiB and 64 headers.

Ends with 0 after SIGTERM or SIGINT, 2 if its configuration or the database's set-up must be
corrected, 1 for everything else.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const URL: &str = "host=/run/postgresql user=shim password=hush dbname=sms";

    fn check(arguments: &[&str], url: Option<&str>) -> Result<Config, Error> {
        let program = ["twilio-callback-shim"].iter().chain(arguments);
        Config::check(Arguments::try_parse_from(program).unwrap(), url)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durability_and_timeouts_are_pinned_after_the_users_options() {
        let url = format!("{URL} options='-c synchronous_commit=off -c work_mem=1MB'");
        let config = check(&["--lock-timeout", "500ms"], Some(&url)).unwrap();
        assert_eq!(
            config.database.get_options(),
            Some(
                "-c synchronous_commit=off -c work_mem=1MB -c synchronous_commit=on \
                 -c statement_timeout=7000 -c lock_timeout=500 \
                 -c idle_in_transaction_session_timeout=10000"
            )
        );
    }

    #[test]
    fn a_bad_url_is_never_repeated() {
        for url in [
            "password=hush x",
            "postgres://u:hush@host:port/",
            "hush=1 host=a",
        ] {
            let error = check(&[], Some(url)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_hint() {
        let cases: [(&[&str], Option<&str>, &str); 6] = [
            (&[], None, "no database is given"),
            (&[], Some("user=shim"), "names no host"),
            (&[], Some("host=a sslmode=require"), "demands TLS"),
            (
                &["--deadline", "7s"],
                Some(URL),
                "--statement-timeout is not shorter",
            ),
            (&["--status-path", "sms"], Some(URL), "must start with"),
            (
                &["--proxy-header", "X-Real-IP"],
                Some(URL),
                "without --trusted-proxy",
            ),
        ];
        for (arguments, url, expected) in cases {
            let error = check(arguments, url).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("hint: "), "{text}");
        }
    }

    #[test]
    fn lists_and_special_words_are_read() {
        let config = check(
            &[
                "--listen",
                "127.0.0.1:0,unix:/run/shim.sock",
                "--ops-listen",
                "none",
                "--inbound-path",
                "/sms",
                "--inbound-path",
                "/api/twilio",
                "--socket-mode",
                "600",
            ],
            Some(URL),
        )
        .unwrap();
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.operations, None);
        assert_eq!(config.socket_mode, 0o600);
        assert_eq!(config.routes.find("/sms"), Some(Endpoint::Inbound));
        assert_eq!(config.routes.find("/api/twilio"), Some(Endpoint::Inbound));
    }
}
