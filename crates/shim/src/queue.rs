//! Requests that wait for a writer. They form batches by themselves: a writer takes all that have arrived while
//! another batch was running.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::item::{Item, Target};

/// Requests in the order of their arrival, one queue for each database function.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    is_closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    twilio: VecDeque<Item>,
    events: VecDeque<Item>,
    smsgate: VecDeque<Item>,
    under_way: Vec<Batch>,
}

/// A batch that is running at the database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Batch {
    items: usize,
    since: Instant,
}

/// Marks a batch as running until it is answered or put back.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    queue: &'a Queue,
    batch: Batch,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        // Equal batches are interchangeable.
        if let Some(place) = waiting.under_way.iter().position(|b| *b == self.batch) {
            waiting.under_way.swap_remove(place);
        }
        drop(waiting);
        // Waiting requests that were too few for another writer may be enough now.
        self.queue.arrived.notify_one();
    }
}

impl Queue {
    /// Adds a request. [`Admission`](crate::admission::Admission) limits how many there can be.
    pub(crate) fn push(&self, item: Item) {
        self.lock()
            .waiting_for(item.endpoint.into())
            .push_back(item);
        self.arrived.notify_one();
    }

    /// Puts requests that were not sent back to the front. Those that were answered 503 meanwhile are left out.
    pub(crate) fn put_back(&self, target: Target, items: impl DoubleEndedIterator<Item = Item>) {
        let mut waiting = self.lock();
        for item in items.rev().filter(|item| !item.answer.is_closed()) {
            waiting.waiting_for(target).push_front(item);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits until enough requests for a batch have arrived; false once the queue is closed and empty. Cancel safe.
    pub(crate) async fn arrival(&self) -> bool {
        loop {
            let state = self.lock().state(Instant::now());
            match state {
                _ if self.is_closed() => {
                    // The other writers wait on the same signal.
                    self.arrived.notify_one();
                    return state != State::Empty;
                }
                State::Due => return true,
                State::Empty => self.arrived.notified().await,
                State::TooFew => {
                    let _ = timeout(PATIENCE_STEP, self.arrived.notified()).await;
                }
            }
        }
    }

    /// Lets other connections read their requests as long as that adds some and there are few: a round costs
    /// microseconds, a further commit more. Beyond a few items, the database would only be idle meanwhile.
    pub(crate) async fn gather(&self) {
        let mut before = 0;
        let mut now = self.len();
        while now > before && now < ENOUGH_ITEMS {
            tokio::task::yield_now().await;
            before = now;
            now = self.len();
        }
    }

    /// Moves waiting requests into `batch`: those of the target whose first request has waited longest.
    pub(crate) fn take(&self, batch: &mut Vec<Item>) -> Option<(Target, Turn<'_>)> {
        let mut waiting = self.lock();
        let target = waiting.oldest()?;
        waiting.move_into(target, batch);
        let batch = Batch {
            items: batch.len(),
            since: Instant::now(),
        };
        waiting.under_way.push(batch);
        if waiting.oldest().is_some() {
            self.arrived.notify_one();
        }
        Some((target, Turn { queue: self, batch }))
    }

    /// Ends the writers once they have taken the remaining requests.
    pub(crate) fn close(&self) {
        self.is_closed.send_replace(true);
        self.arrived.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.is_closed.borrow()
    }

    /// Waits for `close`.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as self, so the wait cannot fail.
        let _ = self.is_closed.subscribe().wait_for(|&is| is).await;
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the queue for a writer without a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Empty,
    /// Waiting for more pays off: a batch beside the running one would be small, and a commit costs as much as
    /// about ten items.
    TooFew,
    Due,
}

impl Batch {
    /// Whether the batch takes longer than its work explains, so it waits for a lock or a disk.
    fn is_held_up(&self, now: Instant) -> bool {
        let items = u32::try_from(self.items).unwrap_or(u32::MAX);
        now.saturating_duration_since(self.since) >= PATIENCE + PATIENCE_PER_ITEM * items
    }
}

impl Waiting {
    fn state(&self, now: Instant) -> State {
        let at_work = self.under_way.iter().filter(|b| !b.is_held_up(now));
        let (batches, items) = at_work.fold((0, 0), |(n, items), b| (n + 1, items + b.items));
        let usual = items / batches.max(1);
        let enough = usual.max((2 * usual).saturating_sub(2 * ENOUGH_ITEMS));
        match self.len() {
            0 => State::Empty,
            // A full batch does not wait.
            waiting if waiting >= enough.min(MAX_ITEMS) => State::Due,
            _ => State::TooFew,
        }
    }

    fn len(&self) -> usize {
        self.twilio.len() + self.events.len() + self.smsgate.len()
    }

    fn waiting_for(&mut self, target: Target) -> &mut VecDeque<Item> {
        match target {
            Target::Twilio => &mut self.twilio,
            Target::Events => &mut self.events,
            Target::Smsgate => &mut self.smsgate,
        }
    }

    fn oldest(&self) -> Option<Target> {
        let queues = [
            (Target::Twilio, &self.twilio),
            (Target::Events, &self.events),
            (Target::Smsgate, &self.smsgate),
        ];
        let heads = queues
            .into_iter()
            .filter_map(|(target, queue)| Some((queue.front()?.received, target)));
        (heads.min_by_key(|(received, _)| *received)).map(|(_, target)| target)
    }

    fn move_into(&mut self, target: Target, batch: &mut Vec<Item>) {
        let waiting = self.waiting_for(target);
        let mut bytes = 0;
        while batch.len() < MAX_ITEMS {
            let Some(item) = waiting.front() else { break };
            bytes += item.size();
            if bytes > MAX_BYTES && !batch.is_empty() {
                break;
            }
            batch.extend(waiting.pop_front());
        }
    }
}

/// A larger batch gains little per item, and its first item waits for its last.
const MAX_ITEMS: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// A batch of this many items is sent without looking for more.
const ENOUGH_ITEMS: usize = 8;
/// A batch that runs for longer than this, plus a share for each item, does not hold up others.
const PATIENCE: Duration = Duration::from_millis(2);
const PATIENCE_PER_ITEM: Duration = Duration::from_micros(100);
const PATIENCE_STEP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use hyper::header::HeaderMap;
    use tokio::sync::oneshot;

    use super::*;
    use crate::admission::Admission;
    use crate::header::Head;
    use crate::request_id::RequestIds;
    use crate::route::Endpoint;

    fn item(endpoint: Endpoint, length: usize) -> Item {
        let admission = Arc::new(Admission::new(1, usize::MAX));
        Item {
            endpoint,
            method: "POST",
            head: Head::new("/", &HeaderMap::new(), endpoint),
            body: vec![b'x'; length].into(),
            source: None,
            id: RequestIds::new().of(&HeaderMap::new()),
            received: Instant::now(),
            answer: oneshot::channel().0,
            reservation: admission.reserve(0, false).unwrap(),
        }
    }

    async fn take(queue: &Queue) -> Option<(Target, usize)> {
        let mut batch = Vec::new();
        if !queue.arrival().await {
            return None;
        }
        queue.gather().await;
        let (target, _) = queue.take(&mut batch)?;
        Some((target, batch.len()))
    }

    #[tokio::test]
    async fn takes_all_that_waits_up_to_the_limits() {
        let queue = Queue::default();
        for _ in 0..MAX_ITEMS + 3 {
            queue.push(item(Endpoint::Status, 10));
        }
        assert_eq!(take(&queue).await, Some((Target::Twilio, MAX_ITEMS)));
        assert_eq!(take(&queue).await, Some((Target::Twilio, 3)));
        for _ in 0..5 {
            queue.push(item(Endpoint::Inbound, MAX_BYTES / 4));
        }
        assert_eq!(take(&queue).await, Some((Target::Twilio, 3)));
        assert_eq!(take(&queue).await, Some((Target::Twilio, 2)));
    }

    #[tokio::test]
    async fn an_item_over_the_limit_goes_alone() {
        let queue = Queue::default();
        queue.push(item(Endpoint::Status, MAX_BYTES + 1));
        queue.push(item(Endpoint::Status, 1));
        assert_eq!(take(&queue).await, Some((Target::Twilio, 1)));
        assert_eq!(take(&queue).await, Some((Target::Twilio, 1)));
    }

    #[tokio::test]
    async fn targets_are_not_mixed_and_the_older_goes_first() {
        let queue = Queue::default();
        queue.push(item(Endpoint::Smsgate, 1));
        queue.push(item(Endpoint::Status, 1));
        queue.push(item(Endpoint::Smsgate, 1));
        assert_eq!(queue.len(), 3);
        assert_eq!(take(&queue).await, Some((Target::Smsgate, 2)));
        assert_eq!(take(&queue).await, Some((Target::Twilio, 1)));
    }

    #[tokio::test]
    async fn requests_that_are_put_back_come_first_and_in_order() {
        let queue = Queue::default();
        queue.push(item(Endpoint::Status, 3));
        let (mut items, mut kept) = (Vec::new(), Vec::new());
        for length in [1, 9, 2] {
            let (sender, receiver) = oneshot::channel();
            let mut item = item(Endpoint::Status, length);
            item.answer = sender;
            items.push(item);
            if length != 9 {
                kept.push(receiver);
            }
        }
        queue.put_back(Target::Twilio, items.into_iter());
        let mut batch = Vec::new();
        queue.take(&mut batch);
        let lengths: Vec<_> = batch.iter().map(|item| item.body.len()).collect();
        assert_eq!(lengths, [1, 2, 3]);
    }

    #[tokio::test]
    async fn closing_ends_every_writer_after_the_remaining_requests() {
        let queue = Arc::new(Queue::default());
        queue.push(item(Endpoint::Status, 1));
        queue.close();
        assert_eq!(take(&queue).await, Some((Target::Twilio, 1)));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { take(&queue).await })
            })
            .collect();
        for writer in writers {
            assert_eq!(writer.await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_batch_beside_another_is_not_small() {
        let queue = Queue::default();
        let push = |count| (0..count).for_each(|_| queue.push(item(Endpoint::Status, 1)));
        // A fixed time, so that no batch counts as held up however long the test takes.
        let now = Instant::now();
        // Beside few items as many, beside many nearly twice as many, but never more than a batch holds.
        for (under_way, enough) in [(1, 1), (16, 16), (20, 24), (100, 184), (200, MAX_ITEMS)] {
            push(under_way);
            let turn = queue.take(&mut Vec::new()).unwrap().1;
            push(enough - 1);
            assert_ne!(queue.lock().state(now), State::Due, "{under_way}");
            push(1);
            assert_eq!(queue.lock().state(now), State::Due, "{under_way}");
            drop(turn);
            while queue.take(&mut Vec::new()).is_some() {}
        }
    }

    #[tokio::test]
    async fn waiting_requests_are_sent_when_the_batch_before_is_done() {
        let queue = Arc::new(Queue::default());
        let now = Instant::now();
        (0..20).for_each(|_| queue.push(item(Endpoint::Status, 1)));
        let turn = queue.take(&mut Vec::new()).unwrap().1;
        queue.push(item(Endpoint::Status, 1));
        assert_eq!(queue.lock().state(now), State::TooFew);
        let waiting = Arc::clone(&queue);
        let writer = tokio::spawn(async move { take(&waiting).await });
        tokio::task::yield_now().await;
        drop(turn);
        assert_ne!(queue.lock().state(now), State::TooFew);
        assert_eq!(writer.await.unwrap(), Some((Target::Twilio, 1)));
    }

    #[tokio::test]
    async fn a_batch_that_is_held_up_does_not_hold_up_others() {
        let queue = Queue::default();
        (0..20).for_each(|_| queue.push(item(Endpoint::Status, 1)));
        let _turn = queue.take(&mut Vec::new()).unwrap().1;
        let start = Instant::now();
        queue.push(item(Endpoint::Status, 1));
        assert_eq!(take(&queue).await, Some((Target::Twilio, 1)));
        assert!(start.elapsed() >= PATIENCE);
        // Nor does a batch that was begun and finished since.
        queue.push(item(Endpoint::Status, 1));
        assert_eq!(queue.lock().state(Instant::now()), State::Due);
    }

    #[tokio::test]
    async fn a_waiting_writer_is_woken() {
        let queue = Arc::new(Queue::default());
        let waiting = Arc::clone(&queue);
        let writer = tokio::spawn(async move { take(&waiting).await });
        tokio::task::yield_now().await;
        queue.push(item(Endpoint::Status, 1));
        assert_eq!(writer.await.unwrap(), Some((Target::Twilio, 1)));
    }
}
