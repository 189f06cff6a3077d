//! A connection to the database beside the writers', for what happens after a commit.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use crate::error::Error;
use crate::explain::describe;
use crate::target::Target;

/// A connection that lives in a task of its own, and what the server notifies on it.
pub struct Side {
    /// For calls.
    pub client: Client,
    /// Payloads of notifications; ends with the connection. Any user of the database can notify any channel, so
    /// they are hints, and only so many are kept.
    pub notified: mpsc::Receiver<String>,
    has_missed: Arc<AtomicBool>,
}

impl Side {
    /// Connects and runs `setup`, or says why that is not possible.
    pub async fn open(target: &Target, setup: &str) -> Result<Self, Error> {
        // That has a limit of its own, by the settings.
        let (client, mut connection) = target.connect().await?;
        let (sender, notified) = mpsc::channel(MAX_NOTIFICATIONS);
        let has_missed = Arc::new(AtomicBool::new(false));
        let missed = Arc::clone(&has_missed);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // Whoever no longer listens has dropped the connection's client, too.
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

    /// Whether notifications were dropped since the last call, as there were too many.
    pub fn has_missed(&self) -> bool {
        self.has_missed.swap(false, Ordering::AcqRel)
    }
}

const MAX_NOTIFICATIONS: usize = 1024;
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
