//! Errors as problem details (RFC 9457).

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value};

use crate::status;

/// Why a request was refused or failed.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// What is wrong with this request.
    pub(crate) detail: String,
    pub(crate) explanation: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) sqlstate: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// The methods that are allowed.
    pub(crate) allow: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>, hint: &str) -> Self {
        Self {
            status,
            detail: detail.into(),
            explanation: None,
            hint: Some(hint.to_owned()),
            sqlstate: None,
            retry_after: None,
            allow: None,
        }
    }

    /// The request cannot be read.
    pub(crate) fn unreadable(detail: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail, hint)
    }

    /// The request may work a little later.
    pub(crate) fn unavailable(detail: &str, hint: &str) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail, hint);
        problem.retry_after = Some(Duration::from_secs(1));
        problem
    }

    /// An error that the database raised. Its text is passed on if it concerns the request; otherwise it is left
    /// out, since it may name internals.
    pub(crate) fn raised(error: &tokio_postgres::error::DbError) -> Self {
        let code = error.code().code();
        let mut problem = match status::of_tool(code) {
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(
                "the database cannot do it now; nothing was done",
                "Try again.",
            ),
            StatusCode::INTERNAL_SERVER_ERROR => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the database refuses the call; nothing was done",
                "The log of this program has the reason.",
            ),
            status => Self {
                explanation: error.detail().map(str::to_owned),
                hint: error.hint().map(str::to_owned),
                ..Self::new(status, error.message(), "")
            },
        };
        problem.sqlstate = Some(code.to_owned());
        problem
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut members = Map::new();
        members.insert("type".into(), "about:blank".into());
        let title = self.status.canonical_reason().unwrap_or_default();
        members.insert("title".into(), title.into());
        members.insert("status".into(), self.status.as_u16().into());
        members.insert("detail".into(), self.detail.into());
        for (name, value) in [
            ("sqlstate", self.sqlstate),
            ("explanation", self.explanation),
            ("hint", self.hint),
        ] {
            if let Some(value) = value {
                members.insert(name.into(), value.into());
            }
        }
        let mut response = json(self.status, "application/problem+json", &members.into());
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"twilio_callback tools\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A response of JSON that is not cached.
pub(crate) fn json(
    status: StatusCode,
    content_type: &'static str,
    value: &Value,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(format!("{value}\n").into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
