//! A writer: takes batches from the queue and sends them over its own connection to the database.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::app::App;
use crate::backoff::Backoff;
use crate::batch;
use crate::database::Connection;
use crate::error::Error;
use crate::item::Target;
use crate::logfmt::Level;

/// The state of the first connection.
#[derive(Clone, Debug)]
pub(crate) enum Startup {
    Connecting,
    Connected,
    Failed(Error),
}

/// Connects, serves the queue and reconnects, until the queue is closed.
pub(crate) async fn run(app: Arc<App>, number: usize, startup: Arc<watch::Sender<Startup>>) {
    let mut backoff = Backoff::default();
    let mut is_first = true;
    loop {
        let opened = tokio::select! {
            opened = Connection::open(&app.config.database) => opened,
            () = app.queue.closed() => return,
        };
        match opened {
            Ok(connection) => {
                app.health.connected(connection.serves(Target::Smsgate));
                startup.send_replace(Startup::Connected);
                if !std::mem::replace(&mut is_first, false) {
                    app.metrics.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                let text = format!("writer {number} is connected to the database");
                app.log.message(Level::Info, "connected", &text);
                match serve(&app, connection, &mut backoff).await {
                    Ok(()) => return,
                    Err(reason) => {
                        app.health.lost(&reason);
                        let text = format!("writer {number} lost its connection: {reason}");
                        app.log.message(Level::Warn, "disconnected", &text);
                    }
                }
            }
            Err(error) => report(&app, error, &startup),
        }
        tokio::select! {
            () = sleep(backoff.pause()) => {}
            () = app.queue.closed() => return,
        }
        if app.queue.is_closed() {
            return;
        }
    }
}

/// Reports an error to the start-up, if it still waits, and to the log, unless the last error was the same.
fn report(app: &App, error: Error, startup: &watch::Sender<Startup>) {
    let text = match &error {
        Error::DatabaseAway(cause) => cause.clone(),
        error => error.to_string(),
    };
    // A fatal error at start-up ends the process, which prints it.
    let is_fatal = matches!(error, Error::Configuration { .. });
    let is_waiting = startup.send_if_modified(|startup| {
        let is_waiting = !matches!(startup, Startup::Connected);
        if is_waiting {
            *startup = Startup::Failed(error);
        }
        is_waiting
    });
    let is_new = app.health.failed(&text);
    if is_new && !(is_waiting && is_fatal) {
        app.log.message(Level::Warn, "cannot_connect", &text);
    }
}

/// Serves the queue. The error says why the connection cannot be used any more.
async fn serve(app: &App, mut connection: Connection, backoff: &mut Backoff) -> Result<(), String> {
    let mut items = Vec::new();
    let mut counted: Option<Instant> = None;
    loop {
        if counted.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            if let Some(lost) = connection.count_lost().await? {
                app.metrics.lost_requests.store(lost, Ordering::Relaxed);
            }
            counted = Some(Instant::now());
        }
        tokio::select! {
            biased;
            reason = connection.ended() => return Err(reason),
            has_more = app.queue.arrival() => {
                if !has_more {
                    return Ok(());
                }
            }
            () = sleep(PROBE_INTERVAL) => {
                connection.probe().await?;
                app.health.good();
                backoff.reset();
                continue;
            }
        }
        app.queue.gather().await;
        // Another writer may have taken the requests.
        if let Some((target, turn)) = app.queue.take(&mut items) {
            let result = batch::run(app, &mut connection, target, &mut items).await;
            drop(turn);
            result?;
            backoff.reset();
        }
    }
}

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two queries for the number of lost requests.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
