//! The state that all parts of the process share, and flows, which connect, work and reconnect.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daemon::backoff::Backoff;
use daemon::error::Error;
use daemon::log::Log;
use daemon::logfmt::Level;
use daemon::operations::Subject;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Config;
use crate::metrics::Metrics;

/// The shared state; one per process.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
    /// Becomes true when the process has to stop.
    pub(crate) stop: watch::Sender<bool>,
    /// Whether the database is set up, as the first connection found; an operator has to correct an error.
    set_up: watch::Sender<Option<Result<(), Error>>>,
    /// Why each flow does not work; an empty text if it works.
    problems: Mutex<BTreeMap<&'static str, String>>,
}

impl Relay {
    pub(crate) fn new(config: Config, log: Log) -> Self {
        Self {
            config,
            metrics: Metrics::default(),
            log,
            stop: watch::Sender::new(false),
            set_up: watch::Sender::new(None),
            problems: Mutex::default(),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the process has to stop.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as self, so the wait cannot fail.
        let _ = self.stop.subscribe().wait_for(|&is| is).await;
    }

    /// Runs `work` until it is done, or returns none if the process has to stop before.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            done = work => Some(done),
        }
    }

    /// Records whether the database is set up, at the first connection. A database that is away tells nothing.
    pub(crate) fn look(&self, found: Result<(), &Error>) {
        let is_away = matches!(found, Err(error) if !matches!(error, Error::Configuration { .. }));
        if !is_away && self.set_up.borrow().is_none() {
            self.set_up.send_replace(Some(found.map_err(Clone::clone)));
        }
    }

    /// Waits until the first connection finds something that an operator must correct.
    pub(crate) async fn wrong_set_up(&self) -> Error {
        let mut set_up = self.set_up.subscribe();
        let first = set_up.wait_for(Option::is_some).await;
        match first.ok().and_then(|first| first.clone()) {
            Some(Err(error)) => error,
            _ => pending().await,
        }
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject for Relay {
    fn problem(&self) -> Option<String> {
        if self.is_stopping() {
            return Some("stopping".into());
        }
        let problems = self.problems();
        let bad = problems.iter().find(|(_, problem)| !problem.is_empty());
        bad.map(|(flow, problem)| format!("{flow}: {problem}"))
    }

    fn metrics(&self) -> String {
        let working = self.problems().values().filter(|p| p.is_empty()).count();
        self.metrics.render(working, self.log.dropped())
    }
}

/// One direction of traffic, with its own connections to the database and to RabbitMQ.
pub(crate) struct Flow {
    relay: Arc<Relay>,
    name: &'static str,
    backoff: Mutex<Backoff>,
}

impl Flow {
    pub(crate) fn new(relay: Arc<Relay>, name: &'static str) -> Self {
        relay.problems().insert(name, "not connected yet".into());
        Self {
            relay,
            name,
            backoff: Mutex::default(),
        }
    }

    /// Logs why a session ended and waits before the next; false if the process stops.
    pub(crate) async fn may_go_on(&self, ended: Result<(), String>) -> bool {
        let Err(reason) = ended else {
            return false;
        };
        self.relay.metrics.lost.fetch_add(1, Ordering::Relaxed);
        let before = self.relay.problems().insert(self.name, reason.clone());
        // A repeated reason is logged once.
        if before.as_deref() != Some(reason.as_str()) {
            let text = format!("{}: {reason}", self.name);
            self.relay.log.message(Level::Warn, "disconnected", &text);
        }
        let pause = self.lock().pause();
        tokio::select! {
            () = sleep(pause) => true,
            () = self.relay.stopped() => false,
        }
    }

    /// Records that both connections are established.
    pub(crate) fn is_up(&self) {
        self.relay.problems().insert(self.name, String::new());
        let text = format!("{}: connected to the database and to RabbitMQ", self.name);
        self.relay.log.message(Level::Info, "connected", &text);
    }

    /// Records a success over the connections, which resets the backoff.
    pub(crate) fn works(&self) {
        self.lock().reset();
    }

    fn lock(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
