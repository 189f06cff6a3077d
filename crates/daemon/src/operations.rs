//! The operations listener: `/live`, `/ready` and `/metrics`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use crate::listener::{Accepted, Listener};
use crate::patience::Patience;
use crate::room::{Place, Room};

/// A program that reports whether it works.
pub trait Subject: Send + Sync + 'static {
    /// Why the program cannot work now; none if it can.
    fn problem(&self) -> Option<String>;

    /// The page of metrics.
    fn metrics(&self) -> String;
}

/// Serves the operations pages until the process ends.
pub async fn serve(subject: Arc<impl Subject>, listener: Listener) {
    let room = Room::new(MAX_CONNECTIONS, MAX_CONNECTIONS);
    loop {
        let Ok(accepted) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(place) = room.enter(None).await else {
            continue;
        };
        let subject = Arc::clone(&subject);
        tokio::spawn(async move {
            match accepted {
                Accepted::Tcp(stream, _) => connection(&*subject, stream, place).await,
                Accepted::Unix(stream) => connection(&*subject, stream, place).await,
            }
        });
    }
}

/// An HTTP/1.1 server with every limit set. `header_timeout` is the time for a request's head and for an idle
/// connection.
pub fn builder(header_timeout: Duration) -> Builder {
    let mut http = Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        // Responses are small: one buffer is cheaper to write than a list of buffers.
        .writev(false);
    http
}

async fn connection(
    subject: &impl Subject,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: Place,
) {
    let service = service_fn(|request| {
        // The response is ready at once, so the server waits for the client again.
        place.wait();
        async move { Ok::<_, Infallible>(answer(subject, &request)) }
    });
    let stream = TokioIo::new(Patience::new(stream, WRITE_TIMEOUT));
    // An error of a connection concerns only its client.
    tokio::select! {
        _ = builder(IDLE_TIMEOUT).serve_connection(stream, service) => {}
        () = place.displaced() => {}
    }
}

fn answer(subject: &impl Subject, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/live" => (StatusCode::OK, "live\n".to_owned()),
        "/ready" => match subject.problem() {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
        },
        "/metrics" => (StatusCode::OK, subject.metrics()),
        _ => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read && status != StatusCode::NOT_FOUND {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let methods = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, methods);
        return response;
    }
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

const MAX_CONNECTIONS: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Room for an inbound message of 1,600 characters, each percent-encoded in a GET's query.
const MAX_HEAD: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
