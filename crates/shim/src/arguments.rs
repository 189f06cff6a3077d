//! The command line and its environment variables, as `--help` shows them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hyper::header::HeaderName;

use crate::address::Address;
use crate::logfmt::Format;
use crate::proxy::Trusted;
use crate::tool::ToolArguments;
use crate::unit::{parse_duration, parse_size};

/// Receives Twilio's and SMSGate's callbacks over HTTP and stores them in PostgreSQL.
///
/// Each request is passed unchanged to the extension twilio_callback, in batches, and answered with the
/// extension's response once the transaction is durable. Signatures are checked in the
/// database: this process holds no secret but its own access to it.
#[derive(Debug, Parser)]
#[command(name = "twilio-callback-shim", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Database: postgres://user@host/database, or host=/run/postgresql user=… dbname=…
    /// [required; DATABASE_URL is read too; better set in the environment than on the command line]
    #[arg(
        long,
        value_name = "URL",
        env = "TWILIO_CALLBACK_SHIM_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database_url: Option<String>,

    /// PEM file of the authorities to trust instead of the system's if a URL has sslmode=require; also
    /// for the tools' database
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_SHIM_DATABASE_CA_FILE"
    )]
    pub(crate) database_ca_file: Option<PathBuf>,

    /// Address for callbacks, ip:port or unix:/path; may be repeated
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TWILIO_CALLBACK_SHIM_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: Vec<Address>,

    /// Permissions of Unix sockets that are listened on, octal
    #[arg(long, value_name = "MODE", env = "TWILIO_CALLBACK_SHIM_SOCKET_MODE", value_parser = parse_mode, default_value = "660")]
    pub(crate) socket_mode: u32,

    /// Address for /live, /ready and /metrics, ip:port or unix:/path, or "none"
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TWILIO_CALLBACK_SHIM_OPS_LISTEN",
        default_value = "127.0.0.1:9464"
    )]
    pub(crate) ops_listen: Operations,

    /// Further path for status callbacks, beside /twilio/status; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_STATUS_PATH",
        value_delimiter = ','
    )]
    pub(crate) status_path: Vec<String>,

    /// Further path for inbound messages, beside /twilio/inbound; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_INBOUND_PATH",
        value_delimiter = ','
    )]
    pub(crate) inbound_path: Vec<String>,

    /// Further path for Event Streams and the debugger's webhook, beside /twilio/events and /twilio/debugger; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_EVENTS_PATH",
        value_delimiter = ','
    )]
    pub(crate) events_path: Vec<String>,

    /// Further path for SMSGate's webhooks, beside /smsgate; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        env = "TWILIO_CALLBACK_SHIM_SMSGATE_PATH",
        value_delimiter = ','
    )]
    pub(crate) smsgate_path: Vec<String>,

    /// Header in which a trusted proxy lists client addresses, such as X-Forwarded-For;
    /// used for logs and the stored source address only
    #[arg(long, value_name = "NAME", env = "TWILIO_CALLBACK_SHIM_PROXY_HEADER")]
    pub(crate) proxy_header: Option<HeaderName>,

    /// Proxy whose header counts: address, range such as 10.0.0.0/8, or "unix"; may be repeated
    #[arg(
        long,
        value_name = "RANGE",
        env = "TWILIO_CALLBACK_SHIM_TRUSTED_PROXY",
        value_delimiter = ','
    )]
    pub(crate) trusted_proxy: Vec<Trusted>,

    /// Connections to the database, 1 to 16
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_WRITERS", value_parser = clap::value_parser!(u8).range(1..=16), default_value = "2")]
    pub(crate) writers: u8,

    /// Requests in flight at once; more are answered 503
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_MAX_IN_FLIGHT", value_parser = clap::value_parser!(u16).range(1..), default_value = "4096")]
    pub(crate) max_in_flight: u16,

    /// Bytes of the requests in flight; more are answered 503
    #[arg(long, value_name = "SIZE", env = "TWILIO_CALLBACK_SHIM_MAX_IN_FLIGHT_BYTES", value_parser = parse_size, default_value = "16MiB")]
    pub(crate) max_in_flight_bytes: usize,

    /// Open client connections; beyond that, a new one ends the one that has been idle for longest
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_MAX_CONNECTIONS", value_parser = clap::value_parser!(u16).range(1..), default_value = "1024")]
    pub(crate) max_connections: u16,

    /// Open connections of one client address, or of one /64 of IPv6; trusted proxies and Unix sockets have no such limit
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_MAX_CONNECTIONS_PER_CLIENT", value_parser = clap::value_parser!(u16).range(1..), default_value = "256")]
    pub(crate) max_connections_per_client: u16,

    /// Time for a request's head, and for an idle connection; a proxy's keep-alive must be shorter
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_HEADER_TIMEOUT", value_parser = parse_duration, default_value = "5s")]
    pub(crate) header_timeout: Duration,

    /// Time for a request's body; then 408
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_BODY_TIMEOUT", value_parser = parse_duration, default_value = "5s")]
    pub(crate) body_timeout: Duration,

    /// Time that a client has to read an answer; then its connection ends
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_WRITE_TIMEOUT", value_parser = parse_duration, default_value = "10s")]
    pub(crate) write_timeout: Duration,

    /// Time from a request's head to its answer; then 503
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_DEADLINE", value_parser = parse_duration, default_value = "8s")]
    pub(crate) deadline: Duration,

    /// Time that a user's function has for a reply; then the message is answered with nothing
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_REPLY_TIMEOUT", value_parser = parse_duration, default_value = "3s")]
    pub(crate) reply_timeout: Duration,

    /// statement_timeout of the database connections
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_STATEMENT_TIMEOUT", value_parser = parse_duration, default_value = "7s")]
    pub(crate) statement_timeout: Duration,

    /// lock_timeout of the database connections
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_LOCK_TIMEOUT", value_parser = parse_duration, default_value = "2s")]
    pub(crate) lock_timeout: Duration,

    /// Time for the first connection to the database; then the process ends with status 1
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_STARTUP_TIMEOUT", value_parser = parse_duration, default_value = "30s")]
    pub(crate) startup_timeout: Duration,

    /// Time for open requests after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_SHIM_GRACE", value_parser = parse_duration, default_value = "20s")]
    pub(crate) grace: Duration,

    /// Form of the log on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TWILIO_CALLBACK_SHIM_LOG_FORMAT",
        default_value = "logfmt"
    )]
    pub(crate) log_format: Format,

    /// Callbacks that get a log line
    #[arg(
        long,
        value_name = "WHICH",
        env = "TWILIO_CALLBACK_SHIM_LOG_CALLBACKS",
        default_value = "all"
    )]
    pub(crate) log_callbacks: LogCallbacks,

    /// Log lines a second about requests without a valid signature; more are only counted
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_LOG_REFUSED_RATE", value_parser = clap::value_parser!(u16).range(1..), default_value = "100")]
    pub(crate) log_refused_rate: u16,

    #[command(flatten)]
    pub(crate) tools: ToolArguments,
}

#[derive(Clone, Debug)]
pub(crate) struct Operations(pub(crate) Option<Address>);

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

/// Which callbacks get a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogCallbacks {
    Off,
    Refused,
    All,
}

const AFTER_HELP: &str = "\
Durations are written 500ms, 8s or 2m, sizes 64KiB or 16MiB. In the environment, values that may be
repeated are separated by commas. A body may have 64 KiB, a head 32 KiB and 64 headers.

Ends with 0 after SIGTERM or SIGINT, 2 if its configuration or the database's set-up must be
corrected, 1 for everything else.";
