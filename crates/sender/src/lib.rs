//! Sends prepared HTTP requests with deadlines and reports the outcome of each.
//!
//! [`Sender`] owns a pool of threads. Pushing requests and collecting outcomes does not block, and a file descriptor
//! becomes readable when there are outcomes, so that an event loop that waits on descriptors (PostgreSQL's background
//! worker) can own it.
//!
//! A caller that must not send a message twice has to know *how far* a failed request came:
//! [`Outcome::NotProcessed`] means that no server can have acted on it, [`Outcome::Unknown`] that a server may have.
//! In doubt, the outcome is `Unknown`.
//!
//! ```
//! use std::time::Duration;
//!
//! use protocol::destination::Destination;
//! use sender::{Config, Method, Outcome, Proxies, Request, Sender};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sender = Sender::start(Config {
//!     proxies: Proxies::none(),
//!     ..Config::default()
//! })?;
//! // Port 1 refuses the connection, so the server cannot have acted on the request.
//! let to = Destination::parse("http://127.0.0.1:1/")?;
//! sender.push(Request::new(7, Method::Get, to))?;
//! let report = loop {
//!     // An event loop waits for the descriptor instead of sleeping.
//!     std::thread::sleep(Duration::from_millis(1));
//!     if let Some(report) = sender.receive().pop() {
//!         break report;
//!     }
//! };
//! assert_eq!(report.id, 7);
//! assert!(matches!(report.outcome, Outcome::NotProcessed(_)));
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs, clippy::missing_errors_doc)]

mod address;
mod agent;
mod config;
mod exchange;
mod memory;
mod outcome;
mod progress;
mod proxy;
mod request;
mod resolve;
mod sender;
mod signal;
mod tls;
mod wake;

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
