//! The response to a client, or its absence.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::Refusal;
use crate::outcome::Breakage;

/// A response and the delay before it.
pub(crate) struct Answer {
    pub(crate) how: How,
    pub(crate) wait: Duration,
    /// Held until the response is sent.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

pub(crate) enum How {
    Send(Response<Full<Bytes>>),
    /// Close the connection.
    Close,
    /// Keep the connection open without a response.
    Hang,
}

/// An error of the sandbox's own endpoints.
pub(crate) fn error(status: u16, reason: &str) -> Answer {
    Answer::json(status, &json!({ "error": reason }))
}

impl Answer {
    /// JSON with `status`.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json;charset=utf-8", value.to_string())
    }

    /// A body of any type.
    pub(crate) fn text(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        Self::new(How::Send(response))
    }

    /// A status alone.
    pub(crate) fn empty(status: u16) -> Self {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NO_CONTENT);
        Self::new(How::Send(response))
    }

    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        let answer = Self::json(refusal.status(), &refusal.to_json());
        match refusal.code {
            20003 => answer.with_header("www-authenticate", "Basic realm=\"Twilio API\""),
            _ => answer,
        }
    }

    /// What a broken answer looks like; `created` is the body that should have come.
    pub(crate) fn broken(how: Breakage, created: &Value) -> Self {
        match how {
            Breakage::Close => Self::new(How::Close),
            Breakage::Hang => Self::new(How::Hang),
            Breakage::ServerError => Self::refusal(&Refusal::new(20500)),
            Breakage::Unavailable => Self::refusal(&Refusal::new(20503)),
            Breakage::Proxy => Self::text(502, "text/html", PROXY_PAGE),
            Breakage::Garbled => {
                let mut text = created.to_string();
                let half = (0..=text.len() / 2)
                    .rev()
                    .find(|at| text.is_char_boundary(*at));
                text.truncate(half.unwrap_or(0));
                Self::text(201, "application/json;charset=utf-8", text)
            }
        }
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let (How::Send(response), Ok(value)) = (&mut self.how, HeaderValue::from_str(value)) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// The HTTP status, if anything is sent.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.how {
            How::Send(response) => Some(response.status().as_u16()),
            How::Close | How::Hang => None,
        }
    }

    fn new(how: How) -> Self {
        Self {
            how,
            wait: Duration::ZERO,
            permit: None,
        }
    }
}

const PROXY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
