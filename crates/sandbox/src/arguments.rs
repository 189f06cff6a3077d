//! The command line.

use std::net::SocketAddr;

use clap::Parser;

use crate::scenario;

/// A stand-in for Twilio's Messages API and for SMSGate: it takes messages as they do and calls
/// webhooks with signed requests, on this machine only.
#[derive(Parser)]
#[command(name = "twilio-sandbox", version, after_long_help = scenario::help())]
pub(crate) struct Arguments {
    /// Loopback address to listen on; port 0 takes a free one. The URL is the first line printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// Account SID that requests name and callbacks carry
    #[arg(long, value_name = "AC…", env = "TWILIO_ACCOUNT_SID")]
    pub(crate) account_sid: String,

    /// The account's auth token: authorizes requests and signs callbacks
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TWILIO_AUTH_TOKEN",
        hide_env_values = true
    )]
    pub(crate) auth_token: String,

    /// API key that is accepted besides the auth token; may be repeated
    #[arg(long, value_name = "SK…:SECRET")]
    pub(crate) api_key: Vec<String>,

    /// A further account, whose callbacks its own token signs; may be repeated
    #[arg(long = "account", value_name = "AC…:TOKEN")]
    pub(crate) accounts: Vec<String>,

    /// Sign callbacks with this SharedKey and HMAC_SHA256 instead of the auth token
    #[arg(long, value_name = "ID:SECRET")]
    pub(crate) shared_key: Option<String>,

    /// Send callbacks for URLs below PUBLIC to LOCAL, signed for PUBLIC; may be repeated
    #[arg(long, value_name = "PUBLIC=LOCAL")]
    pub(crate) deliver: Vec<String>,

    /// Time between two steps of a message, callbacks included
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub(crate) callback_delay: u64,

    /// Time before late reports (outcomes late and corrected)
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    pub(crate) late_delay: u64,

    /// URL of the debugger's webhook, called when a webhook cannot be reached
    #[arg(long, value_name = "URL")]
    pub(crate) debugger: Option<String>,

    /// Let the time in which sinks are retried (4 hours) pass this many times faster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sink_speed: u32,

    /// Callbacks that may run at once
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) callback_connections: usize,

    /// Time before every API response
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency: u64,

    /// Answer 429 while this many API requests are running
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub(crate) max_concurrent: usize,

    /// Send Retry-After with answers 429; without it there is none, as at Twilio
    #[arg(long, value_name = "SECONDS")]
    pub(crate) retry_after: Option<u64>,

    /// Address that the account owns; others are refused as From (default: every address); may be repeated
    #[arg(long = "sender", value_name = "ADDRESS")]
    pub(crate) senders: Vec<String>,

    /// Send scheduled messages after this time instead of at their SendAt
    #[arg(long, value_name = "MS")]
    pub(crate) scheduled_after: Option<u64>,

    /// User of SMSGate's API; without one there is no gateway
    #[arg(long, value_name = "USER", env = "SMSGATE__USERNAME")]
    pub(crate) smsgate_user: Option<String>,

    /// The user's password
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "SMSGATE__PASSWORD",
        hide_env_values = true
    )]
    pub(crate) smsgate_password: Option<String>,

    /// Passphrase with which the phones decrypt messages; without one they cannot
    #[arg(
        long,
        value_name = "PASSPHRASE",
        env = "SMSGATE__PASSPHRASE",
        hide_env_values = true
    )]
    pub(crate) smsgate_passphrase: Option<String>,

    /// A phone of the gateway; without a key one is generated and shown at /_phones; may be repeated
    #[arg(long = "device", value_name = "ID[:SIGNING-KEY]")]
    pub(crate) devices: Vec<String>,

    /// Answer 503 while this many messages wait for a phone
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) smsgate_queue_limit: usize,

    /// Longest lifetime of an SMSGate access token
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) smsgate_token_ttl: i64,

    /// Time after which the server only has hashes of a message that left Pending
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub(crate) smsgate_hash_after: u64,

    /// Time before a phone retries a webhook; it doubles with every try
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    pub(crate) smsgate_retry: u64,

    /// Requests and callbacks to keep each; the oldest are removed first
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    pub(crate) keep: usize,

    /// Seed of all random choices; printed as the second line
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}
