//! The outcome of a request.

use std::fmt;
use std::time::Duration;

/// The end of one request.
#[derive(Debug)]
pub struct Report {
    /// The request's [`id`](crate::Request::id).
    pub id: i64,
    /// The outcome.
    pub outcome: Outcome,
    /// Time from the start on a thread until the end.
    pub elapsed: Duration,
}

/// The outcome of a request, by the conclusions that it allows.
#[derive(Debug)]
pub enum Outcome {
    /// No server can have acted on the request: it was not written to the network in full. It can be sent again
    /// without risk.
    NotProcessed(Failure),
    /// The request was written to the network and no response came back. A server may have acted on it, so sending it
    /// again may have its effect twice.
    Unknown(Failure),
    /// A server responded. The caller decides what the status means.
    Response(Response),
}

/// An HTTP response whose headers are complete.
#[derive(Debug)]
pub struct Response {
    /// The status code, 200 to 999. Interim responses (1xx) are skipped.
    pub status: u16,
    /// The response headers that callers need, with names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body, at most [`Config::body_limit`](crate::Config::body_limit) bytes of it.
    pub body: Vec<u8>,
    /// Whether `body` is complete.
    pub body_end: BodyEnd,
}

impl Response {
    /// The value of a kept header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(kept, _)| *kept == name)
            .map(|(_, value)| value.as_str())
    }
}

/// How a response's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// All of it is there.
    Complete,
    /// It was longer than the limit and is cut there.
    Truncated,
    /// The connection failed or time ran out before the end; `body` has what came until then.
    Broken,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind, for decisions and counters.
    pub kind: FailureKind,
    /// A short text for the log, at most 200 characters, without secrets, headers or content.
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL_CHARACTERS) {
            detail.truncate(end);
        }
        Self { kind, detail }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The request cannot be sent because it is malformed, such as a header.
    InvalidRequest,
    /// The host has no address that the request may connect to.
    AddressRefused,
    /// The host's name could not be resolved.
    NameNotFound,
    /// The connection was refused or the host is unreachable.
    Connect,
    /// No secure connection: handshake failed, certificate not trusted.
    Tls,
    /// The proxy could not or would not connect.
    Proxy,
    /// Time ran out.
    Timeout,
    /// The connection was closed or reset.
    Closed,
    /// The response is not HTTP.
    Protocol,
    /// The sender was stopped before the request was sent.
    Stopped,
    /// A bug of the sender itself.
    Internal,
}

impl FailureKind {
    /// A stable name, for tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::AddressRefused => "address_refused",
            Self::NameNotFound => "name_not_found",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Stopped => "stopped",
            Self::Internal => "internal",
        }
    }
}

const MAX_DETAIL_CHARACTERS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_cut_between_characters() {
        let failure = Failure::new(FailureKind::Tls, "é".repeat(300));
        assert_eq!(failure.detail.chars().count(), MAX_DETAIL_CHARACTERS);
    }
}
