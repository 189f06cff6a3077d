//! The command line and its environment variables, as `--help` shows them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use daemon::address::Address;
use daemon::logfmt::Format;
use daemon::unit::parse_duration;

use crate::route::Route;

/// Publishes the feed of the extension twilio_callback to RabbitMQ. From RabbitMQ it takes messages to send and
/// acknowledgements of incoming messages.
///
/// Every event is published at least once, with the same message id each time, and the events of one
/// message in their order. A message to send is queued once, however often it is delivered.
#[derive(Debug, Parser)]
#[command(name = "twilio-callback-relay", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Database: postgres://user@host/database, or host=/run/postgresql user=… dbname=…
    /// [required; DATABASE_URL is read too; better set in the environment than on the command line]
    #[arg(
        long,
        value_name = "URL",
        env = "TWILIO_CALLBACK_RELAY_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database_url: Option<String>,

    /// File that holds the database's password
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_RELAY_DATABASE_PASSWORD_FILE"
    )]
    pub(crate) database_password_file: Option<PathBuf>,

    /// PEM file of the authorities to trust instead of the system's if the URL has sslmode=require
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_RELAY_DATABASE_CA_FILE"
    )]
    pub(crate) database_ca_file: Option<PathBuf>,

    /// RabbitMQ: amqp://user@host:5672/vhost, or amqps://user@host:5671/vhost for TLS
    #[arg(
        long,
        value_name = "URL",
        env = "TWILIO_CALLBACK_RELAY_AMQP_URL",
        hide_env_values = true,
        default_value = "amqp://127.0.0.1:5672/%2f"
    )]
    pub(crate) amqp_url: String,

    /// File that holds RabbitMQ's password
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_RELAY_AMQP_PASSWORD_FILE"
    )]
    pub(crate) amqp_password_file: Option<PathBuf>,

    /// PEM file of the authorities to trust instead of the system's if the URL has amqps
    #[arg(long, value_name = "FILE", env = "TWILIO_CALLBACK_RELAY_AMQP_CA_FILE")]
    pub(crate) amqp_ca_file: Option<PathBuf>,

    /// PEM file of the client certificate for RabbitMQ, followed by its intermediate certificates
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_RELAY_AMQP_CERTIFICATE_FILE",
        requires = "amqp_key_file"
    )]
    pub(crate) amqp_certificate_file: Option<PathBuf>,

    /// PEM file of the certificate's key
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_RELAY_AMQP_KEY_FILE",
        requires = "amqp_certificate_file"
    )]
    pub(crate) amqp_key_file: Option<PathBuf>,

    /// Consumer of the feed, made with twilio.create_consumer(name), or "none"
    #[arg(
        long,
        value_name = "NAME",
        env = "TWILIO_CALLBACK_RELAY_CONSUMER",
        default_value = "relay"
    )]
    pub(crate) consumer: String,

    /// Durable topic exchange that events are published to and requests come from
    #[arg(
        long,
        value_name = "NAME",
        env = "TWILIO_CALLBACK_RELAY_EXCHANGE",
        default_value = "source_exchange"
    )]
    pub(crate) exchange: String,

    /// Routing key of a kind of event, as KIND=KEY; may be repeated; the first that matches counts
    #[arg(
        long,
        value_name = "KIND=KEY",
        env = "TWILIO_CALLBACK_RELAY_ROUTE",
        value_delimiter = ','
    )]
    pub(crate) route: Vec<Route>,

    /// Queue of messages to send, or "none"
    #[arg(
        long,
        value_name = "NAME",
        env = "TWILIO_CALLBACK_RELAY_OUTGOING_QUEUE",
        default_value = "outgoing_sms"
    )]
    pub(crate) outgoing_queue: String,

    /// Routing key by which messages to send reach their queue
    #[arg(
        long,
        value_name = "KEY",
        env = "TWILIO_CALLBACK_RELAY_OUTGOING_KEY",
        default_value = "source.twilio.sms.outgoing"
    )]
    pub(crate) outgoing_key: String,

    /// Queue of acknowledgements of incoming messages, or "none"
    #[arg(
        long,
        value_name = "NAME",
        env = "TWILIO_CALLBACK_RELAY_ACKNOWLEDGE_QUEUE",
        default_value = "acknowledge_sms"
    )]
    pub(crate) acknowledge_queue: String,

    /// Routing key by which acknowledgements reach their queue
    #[arg(
        long,
        value_name = "KEY",
        env = "TWILIO_CALLBACK_RELAY_ACKNOWLEDGE_KEY",
        default_value = "source.twilio.sms.acknowledge"
    )]
    pub(crate) acknowledge_key: String,

    /// Queue of deliveries that cannot be processed, with the reason
    #[arg(
        long,
        value_name = "NAME",
        env = "TWILIO_CALLBACK_RELAY_DEAD_LETTER_QUEUE",
        default_value = "twilio_dead_letter"
    )]
    pub(crate) dead_letter_queue: String,

    /// Events that are read, published and acknowledged together, 1 to 10000
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_RELAY_BATCH", value_parser = clap::value_parser!(i32).range(1..=10000), default_value = "500")]
    pub(crate) batch: i32,

    /// Messages that RabbitMQ delivers before the first is acknowledged
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_RELAY_PREFETCH", value_parser = clap::value_parser!(u16).range(1..), default_value = "32")]
    pub(crate) prefetch: u16,

    /// How often the feed is polled if no notification arrives
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_RELAY_POLL_INTERVAL", value_parser = parse_duration, default_value = "1s")]
    pub(crate) poll_interval: Duration,

    /// Time for RabbitMQ to confirm what was published; after that the relay reconnects
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_RELAY_CONFIRM_TIMEOUT", value_parser = parse_duration, default_value = "10s")]
    pub(crate) confirm_timeout: Duration,

    /// statement_timeout of the database connections
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_RELAY_STATEMENT_TIMEOUT", value_parser = parse_duration, default_value = "10s")]
    pub(crate) statement_timeout: Duration,

    /// Time to finish work in progress after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", env = "TWILIO_CALLBACK_RELAY_GRACE", value_parser = parse_duration, default_value = "15s")]
    pub(crate) grace: Duration,

    /// Address for /live, /ready and /metrics, ip:port or unix:/path
    #[arg(long, value_name = "ADDRESS", env = "TWILIO_CALLBACK_RELAY_OPS_LISTEN")]
    pub(crate) ops_listen: Option<Address>,

    /// Form of the log on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TWILIO_CALLBACK_RELAY_LOG_FORMAT",
        default_value = "logfmt"
    )]
    pub(crate) log_format: Format,

    /// Connect to the database and to RabbitMQ, declare exchange and queues, and exit
    #[arg(long)]
    pub(crate) check: bool,
}

const AFTER_HELP: &str = "\
A KIND is a kind of event of the feed and may end with * for anything; suppressions have theirs
appended, such as suppression.began.block. In a KEY, {provider}, {channel}, {status} and {kind} stand
for what the event says. Without --route:
  message.received             source.{provider}.{channel}.incoming
  message.handler_failed       source.{provider}.{channel}.handler_failed
  message.*                    source.{provider}.{channel}.status.{status}
  suppression.began.block      source.twilio.ban
  suppression.ended.block      source.twilio.unban
  suppression.began.*          source.twilio.opt_out
  suppression.ended.*          source.twilio.opt_in
  *                            source.twilio.{kind}
Durations are written 500ms, 8s or 2m. In the environment, values that may be repeated are separated
by commas.

Ends with 0 after SIGTERM or SIGINT, 2 if its configuration or the database's set-up must be
corrected, 1 for everything else.";
