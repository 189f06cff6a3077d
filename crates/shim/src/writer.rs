//! A writer: one connection to the database, kept open, fed from the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::batch;
use crate::database::Connection;
use crate::error::Error;
use crate::front::Front;
use crate::item::Lane;
use crate::line::Level;

/// How far the first connection has come.
#[derive(Clone, Debug)]
pub(crate) enum Startup {
    Connecting,
    Connected,
    Failed(Error),
}

/// Connects, serves the queue and connects again, until the queue is closed.
pub(crate) async fn run(front: Arc<Front>, number: usize, startup: Arc<watch::Sender<Startup>>) {
    let mut backoff = Backoff::default();
    let mut is_first = true;
    loop {
        let opened = tokio::select! {
            opened = Connection::open(&front.config.database) => opened,
            () = front.queue.closed() => return,
        };
        match opened {
            Ok(connection) => {
                front.health.connected(connection.serves(Lane::Smsgate));
                startup.send_replace(Startup::Connected);
                if !std::mem::replace(&mut is_first, false) {
                    front.metrics.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                let text = format!("writer {number} is connected to the database");
                front.log.message(Level::Info, "connected", &text);
                match serve(&front, connection, &mut backoff).await {
                    Ok(()) => return,
                    Err(reason) => {
                        front.health.lost(&reason);
                        let text = format!("writer {number} lost its connection: {reason}");
                        front.log.message(Level::Warn, "disconnected", &text);
                    }
                }
            }
            Err(error) => report(&front, error, &startup),
        }
        tokio::select! {
            () = sleep(backoff.pause()) => {}
            () = front.queue.closed() => return,
        }
        if front.queue.is_closed() {
            return;
        }
    }
}

/// Tells the start-up, if it still waits, and the log, unless it was told the same before.
fn report(front: &Front, error: Error, startup: &watch::Sender<Startup>) {
    let text = match &error {
        Error::DatabaseAway(cause) => cause.clone(),
        error => error.to_string(),
    };
    // The process ends with this one and prints it then.
    let is_fatal = matches!(error, Error::Configuration { .. });
    let is_waiting = startup.send_if_modified(|startup| {
        let is_waiting = !matches!(startup, Startup::Connected);
        if is_waiting {
            *startup = Startup::Failed(error);
        }
        is_waiting
    });
    let is_news = front.health.failed(&text);
    if is_news && !(is_waiting && is_fatal) {
        front.log.message(Level::Warn, "cannot_connect", &text);
    }
}

/// Serves the queue; an error says why the connection is of no more use.
async fn serve(
    front: &Front,
    mut connection: Connection,
    backoff: &mut Backoff,
) -> Result<(), String> {
    let mut items = Vec::new();
    let mut counted: Option<Instant> = None;
    loop {
        if counted.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            if let Some(lost) = connection.count_lost().await? {
                front.metrics.lost_requests.store(lost, Ordering::Relaxed);
            }
            counted = Some(Instant::now());
        }
        tokio::select! {
            biased;
            reason = connection.ended() => return Err(reason),
            has_more = front.queue.arrival() => {
                if !has_more {
                    return Ok(());
                }
            }
            () = sleep(PROBE_INTERVAL) => {
                connection.probe().await?;
                front.health.good();
                backoff.reset();
                continue;
            }
        }
        front.queue.gather().await;
        // Another writer may have been quicker.
        if let Some((lane, turn)) = front.queue.take(&mut items) {
            let result = batch::run(front, &mut connection, lane, &mut items).await;
            drop(turn);
            result?;
            backoff.reset();
        }
    }
}

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two queries for the number of lost requests.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
