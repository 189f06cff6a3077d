//! A request on its way to the database, and the answer on its way back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use tokio::sync::oneshot;

use crate::admission::Reservation;
use crate::header::Head;
use crate::request_id::RequestId;
use crate::route::Endpoint;

/// The database function that a request is passed to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Twilio,
    /// The same function, in batches of their own: many events take longer than a callback may wait.
    Events,
    Smsgate,
}

impl From<Endpoint> for Target {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Status | Endpoint::Inbound => Self::Twilio,
            Endpoint::Events => Self::Events,
            Endpoint::Smsgate => Self::Smsgate,
        }
    }
}

/// One request on its way to the database.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) endpoint: Endpoint,
    pub(crate) method: &'static str,
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    pub(crate) source: Option<Arc<str>>,
    pub(crate) id: RequestId,
    pub(crate) received: Instant,
    pub(crate) answer: oneshot::Sender<Answer>,
    pub(crate) reservation: Reservation,
}

impl Item {
    pub(crate) fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// The response to the client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
    /// How long the database asks to wait for an acknowledgement of this message, if it does.
    pub(crate) wait: Option<(i64, Duration)>,
    /// The message for which a user's function still has to produce the body.
    pub(crate) to_be_made: Option<i64>,
}

impl Answer {
    pub(crate) const fn bare(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            body: Bytes::new(),
            wait: None,
            to_be_made: None,
        }
    }
}
