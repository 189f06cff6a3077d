//! Runs one request on the calling thread and reports its outcome.

use std::io::{self, ErrorKind, Read};
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderMap, HeaderName, HeaderValue, header};
use ureq::{Body, Timeout};

use crate::agent::Agents;
use crate::outcome::{BodyEnd, Failure, FailureKind, Outcome, Report, Response};
use crate::progress;
use crate::request::{Authorization, Method, Request};
use crate::resolve::{self, NameError};

/// Sends a request that was pushed at `pushed_at` and waits for its end.
pub(crate) fn run(
    agents: &Agents,
    request: Request,
    pushed_at: Instant,
    body_limit: usize,
) -> Report {
    let started = Instant::now();
    progress::begin();
    resolve::begin();
    let id = request.id;
    let body_limit = request.body_limit.unwrap_or(body_limit);
    // A request gets its report even after a panic: a missing report would occupy its place forever.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let left = request.timeout.saturating_sub(pushed_at.elapsed());
        exchange(agents, request, left, body_limit)
    }))
    .unwrap_or_else(|_| Err(Failure::new(FailureKind::Internal, "the sender panicked")))
    .unwrap_or_else(|failure| {
        if progress::may_be_written() {
            Outcome::Unknown(failure)
        } else {
            Outcome::NotProcessed(failure)
        }
    });
    Report {
        id,
        outcome,
        elapsed: started.elapsed(),
    }
}

fn exchange(
    agents: &Agents,
    request: Request,
    left: Duration,
    body_limit: usize,
) -> Result<Outcome, Failure> {
    if left.is_zero() {
        return Err(Failure::new(FailureKind::Timeout, "before its turn came"));
    }
    let (reach, body_timeout) = (request.reach, request.body_timeout);
    let is_https = request.to.is_https();
    let prepared = prepare(request)?;
    let agent = agents
        .get(is_https, reach)
        .ok_or_else(|| Failure::new(FailureKind::Stopped, "the sender is stopped"))?;
    let configured = agent.configure_request(prepared).timeout_global(Some(left));
    let prepared = match body_timeout {
        Some(timeout) => configured.timeout_recv_body(Some(timeout)).build(),
        None => configured.build(),
    };
    let result = if prepared.body().is_empty() && prepared.method() != http::Method::POST {
        agent.run(prepared.map(drop))
    } else {
        agent.run(prepared)
    };
    match result {
        Ok(response) => Ok(Outcome::Response(receive(response, body_limit))),
        Err(error) => Err(failure(&error)),
    }
}

fn prepare(request: Request) -> Result<http::Request<Vec<u8>>, Failure> {
    if matches!(request.method, Method::Get | Method::Head) && !request.body.is_empty() {
        return Err(invalid("a body with a method that carries none"));
    }
    let mut prepared = http::Request::new(request.body);
    *prepared.method_mut() = match request.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Delete => http::Method::DELETE,
        Method::Head => http::Method::HEAD,
    };
    *prepared.uri_mut() = request.to.uri().clone();
    *prepared.headers_mut() = headers(&request.headers, request.authorization.as_ref())?;
    Ok(prepared)
}

fn headers(
    given: &[(String, String)],
    authorization: Option<&Authorization>,
) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::try_from(name).map_err(|_| invalid("malformed header name"))?;
        if OWN_HEADERS.contains(&name) {
            return Err(invalid("a header that the sender sets"));
        }
        let value = HeaderValue::try_from(value).map_err(|_| invalid("malformed header value"))?;
        headers.append(name, value);
    }
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::try_from(authorization.value())
            .map_err(|_| invalid("malformed credentials"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

fn invalid(what: &str) -> Failure {
    Failure::new(FailureKind::InvalidRequest, what)
}

fn receive(response: http::Response<Body>, body_limit: usize) -> Response {
    let (head, body) = response.into_parts();
    let headers = KEPT_HEADERS
        .iter()
        .filter_map(|name| {
            let value = head.headers.get(*name)?.as_bytes();
            // A part of an address would lead elsewhere, so it is kept whole or not at all.
            let end = match *name {
                "location" if value.len() > MAX_LOCATION_BYTES => return None,
                "location" => value.len(),
                _ => value.len().min(MAX_HEADER_BYTES),
            };
            Some((*name, String::from_utf8_lossy(&value[..end]).into_owned()))
        })
        .collect();
    let mut kept = Vec::new();
    // One byte more than is kept tells a body that just fits from one that does not.
    let result = body
        .into_reader()
        .take(body_limit as u64 + 1)
        .read_to_end(&mut kept);
    let body_end = if kept.len() > body_limit {
        kept.truncate(body_limit);
        BodyEnd::Truncated
    } else if result.is_err() {
        BodyEnd::Broken
    } else {
        BodyEnd::Complete
    };
    Response {
        status: head.status.as_u16(),
        headers,
        body: kept,
        body_end,
    }
}

// Texts are our own or the operating system's, because ureq's may repeat the URL.
fn failure(error: &ureq::Error) -> Failure {
    use ureq::Error;
    let (kind, detail) = match error {
        Error::Io(error) => return io_failure(error),
        Error::Timeout(stage) => (FailureKind::Timeout, stage_name(*stage).to_owned()),
        Error::Other(error) => match error.downcast_ref::<NameError>() {
            Some(NameError::NotFound(text)) => (FailureKind::NameNotFound, text.clone()),
            Some(refused) => (FailureKind::AddressRefused, refused.to_string()),
            None => (FailureKind::Internal, "unexpected error".to_owned()),
        },
        Error::HostNotFound => (FailureKind::NameNotFound, "host not found".to_owned()),
        Error::Tls(text) => (FailureKind::Tls, (*text).to_owned()),
        Error::TlsRequired => (FailureKind::Tls, "no secure connection".to_owned()),
        Error::InvalidProxyUrl => (FailureKind::Proxy, "invalid address".to_owned()),
        Error::ConnectProxyFailed(text) => (FailureKind::Proxy, text.clone()),
        Error::ConnectionFailed => (FailureKind::Connect, "no connection".to_owned()),
        Error::Protocol(_) => (FailureKind::Protocol, "not an HTTP answer".to_owned()),
        Error::LargeResponseHeader(..) => (FailureKind::Protocol, "headers too large".to_owned()),
        Error::BadUri(_) => (FailureKind::InvalidRequest, "malformed URL".to_owned()),
        Error::Http(_) => (FailureKind::InvalidRequest, "malformed request".to_owned()),
        _ => (FailureKind::Internal, "unexpected error".to_owned()),
    };
    Failure::new(kind, detail)
}

fn io_failure(error: &io::Error) -> Failure {
    if let Some(tls) = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
    {
        return Failure::new(FailureKind::Tls, tls.to_string());
    }
    if let Some(inner) = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<ureq::Error>())
    {
        return failure(inner);
    }
    let kind = match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => FailureKind::Timeout,
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => FailureKind::Closed,
        _ => FailureKind::Connect,
    };
    Failure::new(kind, error.to_string())
}

fn stage_name(stage: Timeout) -> &'static str {
    match stage {
        Timeout::Resolve => "resolving the name",
        Timeout::Connect => "connecting",
        Timeout::SendRequest | Timeout::SendBody => "writing the request",
        Timeout::RecvResponse => "waiting for the response",
        Timeout::RecvBody => "reading the response",
        _ => "the whole request",
    }
}

/// Response headers that callers act on or that help to find a request at the provider.
const KEPT_HEADERS: [&str; 6] = [
    "content-length",
    "content-type",
    "date",
    "location",
    "retry-after",
    "twilio-request-id",
];

/// Headers that the sender sets itself. With a second value, a request could be read in two ways.
const OWN_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::EXPECT,
    header::TE,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
];

const MAX_HEADER_BYTES: usize = 1024;
const MAX_LOCATION_BYTES: usize = 8 * 1024;
