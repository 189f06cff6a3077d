//! The operations listener: `/live`, `/ready` and `/metrics`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::front::Front;
use crate::listener::{Accepted, Listener};
use crate::metrics::Gauges;
use crate::server::builder;

/// Answers until the process ends.
pub(crate) async fn serve(front: Arc<Front>, listener: Listener) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok(accepted) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let front = Arc::clone(&front);
        tokio::spawn(async move {
            match accepted {
                Accepted::Tcp(stream, _) => connection(&front, stream).await,
                Accepted::Unix(stream) => connection(&front, stream).await,
            }
            drop(permit);
        });
    }
}

async fn connection(front: &Front, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(front, &request)) });
    // What goes wrong here is the scraper's affair.
    let _ = builder(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(front: &Front, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/live" => (StatusCode::OK, "live\n".to_owned()),
        "/ready" => match front.health.problem() {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
        },
        "/metrics" => (StatusCode::OK, front.metrics.render(&gauges(front))),
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

fn gauges(front: &Front) -> Gauges {
    Gauges {
        queue_depth: front.queue.len(),
        requests_in_flight: front.budget.items(),
        bytes_in_flight: front.budget.bytes(),
        writers_connected: front.health.writers_connected(),
        unacknowledged: front.handover.len(),
        log_lines_dropped: front.log.dropped(),
    }
}

const MAX_CONNECTIONS: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
