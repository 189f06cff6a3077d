//! Requests held open until a consumer acknowledges their message: one connection listens for all of
//! them, and a request that waits costs a map's entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::front::Front;
use crate::line::Level;
use crate::side::Side;

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    waiting: Mutex<Waiting>,
    registered: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<i64, Vec<oneshot::Sender<()>>>,
    /// Messages that may be acknowledged: the database is to be asked.
    unchecked: Vec<i64>,
}

impl Handover {
    /// Waits until the message is acknowledged; false if the time is over first.
    pub(crate) async fn wait(&self, message_id: i64, limit: Duration) -> bool {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.lock();
            waiting.requests.entry(message_id).or_default().push(sender);
            waiting.unchecked.push(message_id);
        }
        self.registered.notify_one();
        // The database counts from the receipt, this from the commit: what was acknowledged at the
        // last moment still arrives.
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

    /// How many messages are waited for.
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
            // One whose time is over meanwhile has been answered.
            let _ = sender.send(());
        }
    }

    /// Has the database asked for a message that a notification names, if a request waits for it.
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

/// Listens for acknowledgements from when the first request waits, and connects again when it must.
pub(crate) async fn run(front: Arc<Front>) {
    let handover = &front.handover;
    loop {
        if handover.len() == 0 {
            handover.registered.notified().await;
        }
        let reason = match Side::open(&front.config.database, LISTEN).await {
            Ok(side) => {
                // What was said while nobody listened.
                handover.check_all();
                listen(handover, side).await
            }
            Err(error) => error.to_string(),
        };
        let text = format!("acknowledgements are not heard: {reason}");
        front.log.message(Level::Warn, "not_listening", &text);
        sleep(PAUSE).await;
    }
}

/// Hands acknowledgements to whoever waits; returns why it ended.
async fn listen(handover: &Handover, mut side: Side) -> String {
    loop {
        let unchecked = handover.take_unchecked();
        if !unchecked.is_empty() {
            match timeout(ASK_TIMEOUT, side.client.query(ACKNOWLEDGED, &[&unchecked])).await {
                Ok(Ok(rows)) => rows
                    .iter()
                    .filter_map(|row| row.try_get(0).ok())
                    .for_each(|id| handover.release(id)),
                Ok(Err(error)) => return crate::explain::describe(&error),
                Err(_) => return "the database does not answer".to_owned(),
            }
        }
        tokio::select! {
            payload = side.notified.recv() => match payload {
                // Any user of the database can notify the channel, so only the table says what is acknowledged.
                // What has come by now is asked for at once.
                Some(payload) => {
                    handover.suspect(&payload);
                    while let Ok(payload) = side.notified.try_recv() {
                        handover.suspect(&payload);
                    }
                    if side.has_missed() {
                        handover.check_all();
                    }
                }
                None => return "the connection was closed".to_owned(),
            },
            () = handover.registered.notified() => {}
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

    fn wait(handover: &Arc<Handover>, id: i64, ms: u64) -> tokio::task::JoinHandle<bool> {
        let handover = Arc::clone(handover);
        tokio::spawn(async move { handover.wait(id, Duration::from_millis(ms)).await })
    }

    #[tokio::test]
    async fn an_acknowledgement_releases_all_who_wait_for_it_and_nobody_else() {
        let handover = Arc::new(Handover::default());
        let (first, again) = (wait(&handover, 1, 60_000), wait(&handover, 1, 60_000));
        let other = wait(&handover, 2, 1);
        while handover.lock().unchecked.len() < 3 {
            tokio::task::yield_now().await;
        }
        handover.release(1);
        handover.release(3);
        assert!(first.await.unwrap() && again.await.unwrap());
        assert!(!other.await.unwrap());
        assert_eq!(handover.len(), 0);
    }

    #[tokio::test]
    async fn a_notification_releases_nobody_and_only_has_the_database_asked() {
        let handover = Arc::new(Handover::default());
        let waiter = wait(&handover, 7, 60_000);
        while handover.take_unchecked().is_empty() {
            tokio::task::yield_now().await;
        }
        for payload in ["7", "8", "", "7", "seven"] {
            handover.suspect(payload);
        }
        assert_eq!(handover.take_unchecked(), [7]);
        assert_eq!(handover.len(), 1);
        handover.release(7);
        assert!(waiter.await.unwrap());
    }

    #[tokio::test]
    async fn after_a_reconnect_everybody_is_asked_for_again() {
        let handover = Arc::new(Handover::default());
        let waiter = wait(&handover, 7, 60_000);
        while handover.take_unchecked().is_empty() {
            tokio::task::yield_now().await;
        }
        handover.check_all();
        assert_eq!(handover.take_unchecked(), [7]);
        handover.release(7);
        assert!(waiter.await.unwrap());
    }
}
