//! The sender's settings and their defaults.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::address::is_public;
use crate::proxy::Proxies;

/// Decides whether a request with [`Reach::PublicOnly`](crate::Reach::PublicOnly) may connect to
/// an address.
pub type AddressCheck = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Resolves a host name and port to socket addresses. It may block, because it runs on a thread of its own.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Settings of a [`Sender`](crate::Sender).
#[derive(Clone)]
pub struct Config {
    /// The largest number of requests in flight and of threads, 1 to 10,000.
    pub in_flight: usize,
    /// Stack of each thread in bytes, at least 128 KiB. Only used pages take memory.
    pub stack_size: usize,
    /// How long an idle connection is kept for reuse. It must be shorter than any server's
    /// keep-alive time: a request written just as the server closes ends as
    /// [`Unknown`](crate::Outcome::Unknown). Common servers close after 5 seconds or more.
    pub idle_age: Duration,
    /// How long an idle thread lives.
    pub thread_idle: Duration,
    /// Limits of the single stages. Each request's own timeout limits the whole.
    pub timeouts: Timeouts,
    /// Bytes kept of a response's body.
    pub body_limit: usize,
    /// The User-Agent header.
    pub user_agent: String,
    /// Which certificate authorities are trusted.
    pub roots: Roots,
    /// Proxies to go through; those of the environment unless said otherwise.
    pub proxies: Proxies,
    /// The rule for [`Reach::PublicOnly`](crate::Reach::PublicOnly).
    pub address_check: AddressCheck,
    /// How names are resolved; `None` asks the system. Answers are kept for 30 seconds.
    pub lookup: Option<Lookup>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_flight: 200,
            stack_size: 256 * 1024,
            idle_age: Duration::from_secs(4),
            thread_idle: Duration::from_secs(10),
            timeouts: Timeouts::default(),
            body_limit: 64 * 1024,
            user_agent: concat!("twilio_callback/", env!("CARGO_PKG_VERSION")).to_owned(),
            roots: Roots::System,
            proxies: Proxies::from_environment(),
            address_check: Arc::new(is_public),
            lookup: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("in_flight", &self.in_flight)
            .field("stack_size", &self.stack_size)
            .field("idle_age", &self.idle_age)
            .field("thread_idle", &self.thread_idle)
            .field("timeouts", &self.timeouts)
            .field("body_limit", &self.body_limit)
            .field("user_agent", &self.user_agent)
            .field("roots", &self.roots)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

/// The longest each stage of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving the host's name.
    pub resolve: Duration,
    /// Connecting, including TLS and a proxy's part.
    pub connect: Duration,
    /// Writing the request.
    pub send: Duration,
    /// Waiting for the response's headers.
    pub response: Duration,
    /// Reading the response's body.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            send: Duration::from_secs(5),
            response: Duration::from_secs(20),
            body: Duration::from_secs(10),
        }
    }
}

/// Which certificate authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The system's, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    System,
    /// Exactly these certificates, in DER.
    Only(Vec<Vec<u8>>),
}
