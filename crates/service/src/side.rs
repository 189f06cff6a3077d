//! A connection to the database beside the writers', for what happens after a commit.

use std::future::poll_fn;
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
    /// Payloads of notifications; ends with the connection.
    pub notified: mpsc::UnboundedReceiver<String>,
}

impl Side {
    /// Connects and runs `setup`, or says why that is not possible.
    pub async fn open(target: &Target, setup: &str) -> Result<Self, Error> {
        // That has a limit of its own, by the settings.
        let (client, mut connection) = target.connect().await?;
        let (sender, notified) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // Whoever no longer listens has dropped the connection's client, too.
                    let _ = sender.send(notification.payload().to_owned());
                }
            }
        });
        match timeout(SETUP_TIMEOUT, client.batch_execute(setup)).await {
            Ok(Ok(())) => Ok(Self { client, notified }),
            Ok(Err(error)) => Err(Error::DatabaseAway(describe(&error))),
            Err(_) => Err(Error::DatabaseAway("no answer in time".to_owned())),
        }
    }
}

const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
