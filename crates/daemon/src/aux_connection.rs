//! A connection to the database beside those that write batches: for notifications and calls after a commit.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use crate::connect_options::ConnectOptions;
use crate::error::Error;
use crate::explain::describe;

/// A connection that runs in a task of its own, with the notifications that arrive on it.
pub struct AuxConnection {
    /// Runs queries on the connection.
    pub client: Client,
    /// Payloads of notifications; closed when the connection ends. Any user of the database can notify any
    /// channel, so a payload is only a hint, and at most 1,024 are kept.
    pub notified: mpsc::Receiver<String>,
    has_missed: Arc<AtomicBool>,
}

impl AuxConnection {
    /// Connects and runs the SQL of `setup`.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if the server refuses the role or the database, otherwise [`Error::DatabaseAway`].
    pub async fn open(target: &ConnectOptions, setup: &str) -> Result<Self, Error> {
        // Connecting has a time limit of its own, from the options.
        let (client, mut connection) = target.connect().await?;
        let (sender, notified) = mpsc::channel(MAX_NOTIFICATIONS);
        let has_missed = Arc::new(AtomicBool::new(false));
        let missed = Arc::clone(&has_missed);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // A closed channel is fine: its receiver is dropped together with the client.
                    if sender.try_send(notification.payload().to_owned()).is_err() {
                        missed.store(true, Ordering::Release);
                    }
                }
            }
        });
        match timeout(SETUP_TIMEOUT, client.batch_execute(setup)).await {
            Ok(Ok(())) => Ok(Self {
                client,
                notified,
                has_missed,
            }),
            Ok(Err(error)) => Err(Error::DatabaseAway(describe(&error))),
            Err(_) => Err(Error::DatabaseAway("no answer in time".to_owned())),
        }
    }

    /// Whether notifications were dropped since the last call because there were too many.
    pub fn has_missed(&self) -> bool {
        self.has_missed.swap(false, Ordering::AcqRel)
    }
}

const MAX_NOTIFICATIONS: usize = 1024;
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
