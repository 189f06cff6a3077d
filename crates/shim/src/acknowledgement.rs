//! Requests held open until a consumer acknowledges their message. One connection listens for all of them, so
//! a waiting request costs only an entry of a map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::aux_connection::AuxConnection;
use crate::logfmt::Level;

/// The requests that wait, by message.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    waiting: Mutex<Waiting>,
    registered: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<i64, Vec<oneshot::Sender<()>>>,
    /// Messages that may be acknowledged; the database has to be asked.
    unchecked: Vec<i64>,
}

impl Acknowledgements {
    /// Waits until the message is acknowledged; false after `limit`.
    pub(crate) async fn wait(&self, message_id: i64, limit: Duration) -> bool {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.lock();
            waiting.requests.entry(message_id).or_default().push(sender);
            waiting.unchecked.push(message_id);
        }
        self.registered.notify_one();
        // The database counts from the receipt, this from the commit, and a bit longer, so that an
        // acknowledgement at the last moment still arrives.
        let is_acknowledged = matches!(timeout(limit + LATE, receiver).await, Ok(Ok(())));
        if !is_acknowledged {
            let mut waiting = self.lock();
            if let Some(senders) = waiting.requests.get_mut(&message_id) {
                senders.retain(|sender| !sender.is_closed());
                if senders.is_empty() {
                    waiting.requests.remove(&message_id);
                }
            }
        }
        is_acknowledged
    }

    /// The number of messages that requests wait for.
    pub(crate) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    fn release(&self, message_id: i64) {
        for sender in self
            .lock()
            .requests
            .remove(&message_id)
            .into_iter()
            .flatten()
        {
            // A request whose time is over has been answered and dropped its receiver.
            let _ = sender.send(());
        }
    }

    /// Marks a message that a notification names for a check in the database, if a request waits for it.
    fn suspect(&self, payload: &str) {
        let mut waiting = self.lock();
        if let Ok(id) = payload.parse()
            && waiting.requests.contains_key(&id)
        {
            waiting.unchecked.push(id);
        }
    }

    fn take_unchecked(&self) -> Vec<i64> {
        let mut unchecked = std::mem::take(&mut self.lock().unchecked);
        unchecked.sort_unstable();
        unchecked.dedup();
        unchecked
    }

    fn check_all(&self) {
        let mut waiting = self.lock();
        waiting.unchecked = waiting.requests.keys().copied().collect();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens for acknowledgements as soon as a request waits, and reconnects when needed.
pub(crate) async fn run(app: Arc<App>) {
    let acknowledgements = &app.acknowledgements;
    loop {
        if acknowledgements.len() == 0 {
            acknowledgements.registered.notified().await;
        }
        let reason = match AuxConnection::open(&app.config.database, LISTEN).await {
            Ok(connection) => {
                // Acknowledgements may have come while there was no connection.
                acknowledgements.check_all();
                listen(acknowledgements, connection).await
            }
            Err(error) => error.to_string(),
        };
        let text = format!("cannot listen for acknowledgements: {reason}");
        app.log.message(Level::Warn, "not_listening", &text);
        sleep(PAUSE).await;
    }
}

/// Releases requests whose message is acknowledged, until the connection ends; returns the reason.
async fn listen(acknowledgements: &Acknowledgements, mut connection: AuxConnection) -> String {
    loop {
        let unchecked = acknowledgements.take_unchecked();
        if !unchecked.is_empty() {
            match timeout(
                ASK_TIMEOUT,
                connection.client.query(ACKNOWLEDGED, &[&unchecked]),
            )
            .await
            {
                Ok(Ok(rows)) => rows
                    .iter()
                    .filter_map(|row| row.try_get(0).ok())
                    .for_each(|id| acknowledgements.release(id)),
                Ok(Err(error)) => return crate::explain::describe(&error),
                Err(_) => return "the database does not answer".to_owned(),
            }
        }
        tokio::select! {
            payload = connection.notified.recv() => match payload {
                // Any user of the database can notify the channel, so only the table says what is acknowledged.
                // Notifications that have arrived by now are checked with one query.
                Some(payload) => {
                    acknowledgements.suspect(&payload);
                    while let Ok(payload) = connection.notified.try_recv() {
                        acknowledgements.suspect(&payload);
                    }
                    if connection.has_missed() {
                        acknowledgements.check_all();
                    }
                }
                None => return "the connection was closed".to_owned(),
            },
            () = acknowledgements.registered.notified() => {}
        }
    }
}

const LISTEN: &str = "listen twilio_acknowledged";
const ACKNOWLEDGED: &str = "select twilio.acknowledged($1)";
const LATE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(
        acknowledgements: &Arc<Acknowledgements>,
        id: i64,
        ms: u64,
    ) -> tokio::task::JoinHandle<bool> {
        let acknowledgements = Arc::clone(acknowledgements);
        tokio::spawn(async move { acknowledgements.wait(id, Duration::from_millis(ms)).await })
    }

    #[tokio::test]
    async fn an_acknowledgement_releases_all_who_wait_for_it_and_nobody_else() {
        let acknowledgements = Arc::new(Acknowledgements::default());
        let (first, again) = (
            wait(&acknowledgements, 1, 60_000),
            wait(&acknowledgements, 1, 60_000),
        );
        let other = wait(&acknowledgements, 2, 1);
        while acknowledgements.lock().unchecked.len() < 3 {
            tokio::task::yield_now().await;
        }
        acknowledgements.release(1);
        acknowledgements.release(3);
        assert!(first.await.unwrap() && again.await.unwrap());
        assert!(!other.await.unwrap());
        assert_eq!(acknowledgements.len(), 0);
    }

    #[tokio::test]
    async fn a_notification_releases_nobody_and_only_has_the_database_asked() {
        let acknowledgements = Arc::new(Acknowledgements::default());
        let waiter = wait(&acknowledgements, 7, 60_000);
        while acknowledgements.take_unchecked().is_empty() {
            tokio::task::yield_now().await;
        }
        for payload in ["7", "8", "", "7", "seven"] {
            acknowledgements.suspect(payload);
        }
        assert_eq!(acknowledgements.take_unchecked(), [7]);
        assert_eq!(acknowledgements.len(), 1);
        acknowledgements.release(7);
        assert!(waiter.await.unwrap());
    }

    #[tokio::test]
    async fn after_a_reconnect_everybody_is_asked_for_again() {
        let acknowledgements = Arc::new(Acknowledgements::default());
        let waiter = wait(&acknowledgements, 7, 60_000);
        while acknowledgements.take_unchecked().is_empty() {
            tokio::task::yield_now().await;
        }
        acknowledgements.check_all();
        assert_eq!(acknowledgements.take_unchecked(), [7]);
        acknowledgements.release(7);
        assert!(waiter.await.unwrap());
    }
}
