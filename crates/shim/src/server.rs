//! Accepts client connections and serves HTTP/1.1 on them, until told to stop.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use crate::front::Front;
use crate::line::Level;
use crate::listener::{Accepted, Listener};
use crate::{request, tool};
use service::operations::builder;

/// What a listener's requests are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Callbacks,
    Tools,
}

impl Purpose {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Callbacks => "callbacks",
            Self::Tools => "tools",
        }
    }
}

/// Accepts until the process stops; then the listener is gone, and with it the socket.
pub(crate) async fn accept(front: Arc<Front>, listener: Listener, purpose: Purpose) {
    let connections = match (purpose, &front.tools) {
        (Purpose::Tools, Some(tools)) => Arc::clone(&tools.connections),
        _ => Arc::clone(&front.connections),
    };
    let mut stopped = pin!(front.stopped());
    let http = builder(front.config.header_timeout);
    let mut was_accepted = true;
    loop {
        // Taken first: what finds no permit waits in the kernel's queue.
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut stopped => return,
            next = next => next,
        };
        match (permit, accepted) {
            (Ok(permit), Ok(accepted)) => {
                was_accepted = true;
                spawn(&front, &http, purpose, permit, accepted);
            }
            (Ok(_), Err(error)) => {
                // Most likely out of file descriptors, so other connections must end first.
                if std::mem::replace(&mut was_accepted, false) {
                    let text = format!("cannot accept a connection: {error}");
                    front.log.message(Level::Warn, "accept_failed", &text);
                }
                sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => return,
        }
    }
}

fn spawn(
    front: &Arc<Front>,
    http: &Builder,
    purpose: Purpose,
    permit: OwnedSemaphorePermit,
    accepted: Accepted,
) {
    let front = Arc::clone(front);
    let http = http.clone();
    tokio::spawn(async move {
        front.metrics.connections.fetch_add(1, Ordering::Relaxed);
        match accepted {
            Accepted::Tcp(stream, address) => {
                serve(&front, &http, purpose, stream, Some(address)).await;
            }
            Accepted::Unix(stream) => serve(&front, &http, purpose, stream, None).await,
        }
        front.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        drop(permit);
    });
}

async fn serve(
    front: &Arc<Front>,
    http: &Builder,
    purpose: Purpose,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: Option<IpAddr>,
) {
    let peer = front.config.proxy.peer(address);
    let service = service_fn(|request| async {
        Ok::<_, Infallible>(match (purpose, &front.tools) {
            (Purpose::Tools, Some(tools)) => tool::answer(front, tools, &peer, request).await,
            _ => request::answer(front, &peer, request).await,
        })
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = front.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if result.is_err() {
        front
            .metrics
            .broken_requests
            .fetch_add(1, Ordering::Relaxed);
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
