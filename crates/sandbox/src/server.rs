//! Accepts connections and serves them until they close, or until SIGINT or SIGTERM.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::answer::{Answer, How};
use crate::clock::Moment;
use crate::http_request::HttpRequest;
use crate::route;
use crate::sandbox::Sandbox;

/// Serves until a signal comes.
pub(crate) async fn serve(listener: TcpListener, sandbox: Arc<Sandbox>) {
    tokio::select! {
        () = accept(listener, sandbox) => {}
        () = stop() => {}
    }
}

async fn accept(listener: TcpListener, sandbox: Arc<Sandbox>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, sandbox.clone()));
            }
            // Out of file descriptors: the next connection that closes frees one.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, sandbox: Arc<Sandbox>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| handle(sandbox.clone(), request));
    // An error is a client that went away, or a connection closed on purpose.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(120))
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(
    sandbox: Arc<Sandbox>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let at = Moment::now();
    let (head, body) = request.into_parts();
    let answer = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => {
            let asked = HttpRequest {
                at,
                head,
                body: body.to_bytes(),
            };
            route::answer(&sandbox, asked).await
        }
        Err(_) => Answer::text(413, "text/plain", "request too large\n"),
    };
    tokio::time::sleep(answer.wait).await;
    match answer.how {
        How::Send(response) => Ok(response),
        How::Close => Err(Closed),
        How::Hang => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    }
}

async fn stop() {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Makes hyper close the connection without a response.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

const MAX_BODY: usize = 1 << 20;
