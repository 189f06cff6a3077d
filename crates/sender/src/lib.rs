//! Sends prepared HTTP requests under deadlines and says what became of each.
//!
//! [`Sender`] owns a pool of threads. Requests are pushed without blocking, outcomes are collected
//! without blocking, and a file descriptor becomes readable when there are some, so that an event
//! loop that waits on descriptors (a database's background worker) can own it.
//!
//! What matters to a caller who must not send a message twice is *how far* a failed request came:
//! [`Outcome::NotProcessed`] means that no server can have acted on it, [`Outcome::Unknown`] that
//! one may have. Whatever is in doubt is `Unknown`.
#![warn(missing_docs)]

mod address;
mod agent;
mod config;
mod exchange;
mod memory;
mod outcome;
mod proxy;
mod request;
mod resolve;
mod sender;
mod signal;
mod tls;
mod wake;
mod watch;

pub use address::is_public;
pub use config::{AddressCheck, Config, Lookup, Roots, Timeouts};
pub use outcome::{BodyEnd, Failure, FailureKind, Outcome, Report, Response};
pub use proxy::Proxies;
pub use request::{Authorization, Method, Reach, Request};
pub use sender::{PushError, Sender, Stopped};

/// Why a [`Sender`] could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A proxy address cannot be used; its value may hold a password and is not repeated.
    #[error("{0} is not a usable proxy address")]
    Proxy(&'static str),
    /// A setting is outside its range.
    #[error("{0}")]
    Setting(&'static str),
    /// The wake-up descriptor could not be made.
    #[error("could not make a wake-up descriptor: {0}")]
    Wake(std::io::Error),
}
