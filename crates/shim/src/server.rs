//! Accepts client connections and serves HTTP/1.1 on them, until told to stop.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use crate::front::Front;
use crate::line::Level;
use crate::listener::{Accepted, Listener};
use crate::proxy::Peer;
use crate::{request, tool};
use service::operations::builder;
use service::patience::Patience;
use service::room::Place;

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
    let room = match (purpose, &front.tools) {
        (Purpose::Tools, Some(tools)) => Arc::clone(&tools.room),
        _ => Arc::clone(&front.room),
    };
    let mut stopped = pin!(front.stopped());
    let http = builder(front.config.header_timeout);
    let mut was_accepted = true;
    loop {
        let next = async {
            let accepted = listener.accept().await?;
            let peer = front.config.proxy.peer(accepted.address());
            let place = room.enter(peer.client).await;
            Ok((accepted, peer, place))
        };
        let next: io::Result<_> = tokio::select! {
            biased;
            () = &mut stopped => return,
            next = next => next,
        };
        match next {
            Ok((accepted, peer, Some(place))) => {
                was_accepted = true;
                spawn(&front, &http, purpose, accepted, Guest { peer, place });
            }
            // Its client has as many as it may.
            Ok((_, _, None)) => was_accepted = true,
            Err(error) => {
                // Most likely out of file descriptors, so other connections must end first.
                if std::mem::replace(&mut was_accepted, false) {
                    let text = format!("cannot accept a connection: {error}");
                    front.log.message(Level::Warn, "accept_failed", &text);
                }
                if !room.make_room().await {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The other end of a connection, and its place among the connections.
pub(crate) struct Guest {
    pub(crate) peer: Peer,
    pub(crate) place: Place,
}

fn spawn(front: &Arc<Front>, http: &Builder, purpose: Purpose, accepted: Accepted, guest: Guest) {
    let front = Arc::clone(front);
    let http = http.clone();
    tokio::spawn(async move {
        front.metrics.connections.fetch_add(1, Ordering::Relaxed);
        match accepted {
            Accepted::Tcp(stream, _) => serve(&front, &http, purpose, stream, guest).await,
            Accepted::Unix(stream) => serve(&front, &http, purpose, stream, guest).await,
        }
        front.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn serve(
    front: &Arc<Front>,
    http: &Builder,
    purpose: Purpose,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    guest: Guest,
) {
    let refused_in_a_row = AtomicU32::new(0);
    let service = service_fn(|request| async {
        let mut response = match (purpose, &front.tools) {
            (Purpose::Tools, Some(tools)) => tool::answer(front, tools, &guest, request).await,
            _ => request::answer(front, &guest, request).await,
        };
        if !response.status().is_client_error() {
            refused_in_a_row.store(0, Ordering::Relaxed);
        } else if refused_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REFUSED_IN_A_ROW {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok::<_, Infallible>(response)
    });
    let stream = TokioIo::new(Patience::new(stream, front.config.write_timeout));
    let mut connection = pin!(http.serve_connection(stream, service));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = guest.place.displaced() => return,
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
/// A client that sends one request after another without waiting for answers gets no further with them.
const MAX_REFUSED_IN_A_ROW: u32 = 16;
