//! Accepts client connections and serves HTTP/1.1 on them until the process stops.

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

use crate::app::App;
use crate::listener::{Accepted, Listener};
use crate::logfmt::Level;
use crate::proxy::Peer;
use crate::{request, tool};
use daemon::operations::builder;
use daemon::patience::Patience;
use daemon::room::Place;

/// The purpose of a listener.
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

/// Accepts until the process stops; then the listener and its socket are closed.
pub(crate) async fn accept(app: Arc<App>, listener: Listener, purpose: Purpose) {
    let room = match (purpose, &app.tools) {
        (Purpose::Tools, Some(tools)) => Arc::clone(&tools.room),
        _ => Arc::clone(&app.room),
    };
    let mut stopped = pin!(app.stopped());
    let http = builder(app.config.header_timeout);
    let mut was_accepted = true;
    loop {
        let next = async {
            let accepted = listener.accept().await?;
            let peer = app.config.proxy.peer(accepted.address());
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
                spawn(&app, &http, purpose, accepted, Guest { peer, place });
            }
            // The client has reached its limit.
            Ok((_, _, None)) => was_accepted = true,
            Err(error) => {
                // Most likely there are no free file descriptors, so other connections must end first.
                if std::mem::replace(&mut was_accepted, false) {
                    let text = format!("cannot accept a connection: {error}");
                    app.log.message(Level::Warn, "accept_failed", &text);
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

fn spawn(app: &Arc<App>, http: &Builder, purpose: Purpose, accepted: Accepted, guest: Guest) {
    let app = Arc::clone(app);
    let http = http.clone();
    tokio::spawn(async move {
        app.metrics.connections.fetch_add(1, Ordering::Relaxed);
        match accepted {
            Accepted::Tcp(stream, _) => serve(&app, &http, purpose, stream, guest).await,
            Accepted::Unix(stream) => serve(&app, &http, purpose, stream, guest).await,
        }
        app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn serve(
    app: &Arc<App>,
    http: &Builder,
    purpose: Purpose,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    guest: Guest,
) {
    let refused_in_a_row = AtomicU32::new(0);
    let service = service_fn(|request| async {
        let mut response = match (purpose, &app.tools) {
            (Purpose::Tools, Some(tools)) => tool::answer(app, tools, &guest, request).await,
            _ => request::answer(app, &guest, request).await,
        };
        if !response.status().is_client_error() {
            refused_in_a_row.store(0, Ordering::Relaxed);
        } else if refused_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REFUSED_IN_A_ROW {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok::<_, Infallible>(response)
    });
    let stream = TokioIo::new(Patience::new(stream, app.config.write_timeout));
    let mut connection = pin!(http.serve_connection(stream, service));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = guest.place.displaced() => return,
        () = app.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if result.is_err() {
        app.metrics.broken_requests.fetch_add(1, Ordering::Relaxed);
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Limits how far a client gets that sends requests without waiting for responses.
const MAX_REFUSED_IN_A_ROW: u32 = 16;
