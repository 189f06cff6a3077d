//! Limits client connections, in total and for each client. If the limit is reached, the connection that has
//! been idle for longest is closed to make room for a new one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The connections of one or several listeners.
#[derive(Debug)]
pub struct Room {
    max: usize,
    max_of_client: usize,
    permits: Arc<Semaphore>,
    open: Mutex<Open>,
    displaced: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    guests: Vec<Option<Guest>>,
    /// For each connection, the turn since which the server has waited for its client, to send a request or to
    /// read the response. Kept apart from the guests because it is searched for the minimum.
    waiting_since: Vec<u64>,
    unused: Vec<usize>,
    /// The number of connections of each client.
    clients: HashMap<IpAddr, usize>,
    /// Counts how often the server began to wait for a client.
    turns: u64,
}

#[derive(Debug)]
struct Guest {
    client: Option<IpAddr>,
    permit: OwnedSemaphorePermit,
    has_to_leave: Arc<Notify>,
}

/// A connection's place in the room, released when dropped.
#[derive(Debug)]
pub struct Place {
    number: usize,
    has_to_leave: Arc<Notify>,
    room: Arc<Room>,
}

impl Room {
    /// Room for `max` connections, at most `max_of_client` of them from one client.
    pub fn new(max: usize, max_of_client: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_of_client,
            permits: Arc::new(Semaphore::new(max)),
            open: Mutex::default(),
            displaced: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Admits a new connection. If there is no room, the connection that has been idle for longest ends; if the
    /// client has reached its own limit, one of that client's. Returns none if all connections of that client are
    /// being answered. If all connections of all clients are, the call waits for one.
    ///
    /// A connection without a client, such as a proxy's, counts against the total only.
    pub async fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Place> {
        let mut permit = None;
        if client.is_some_and(|client| self.lock().count(client) >= self.max_of_client) {
            permit = self.displace(client).await;
            if permit.is_none() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        while permit.is_none() {
            permit = Arc::clone(&self.permits).try_acquire_owned().ok();
            if permit.is_none() {
                permit = self.displace(None).await;
            }
            if permit.is_none() {
                let freed = Arc::clone(&self.permits).acquire_owned();
                permit = timeout(LOOK_AGAIN, freed).await.ok().and_then(Result::ok);
            }
        }
        let has_to_leave = Arc::new(Notify::new());
        let number = self.lock().add(Guest {
            client,
            permit: permit?,
            has_to_leave: Arc::clone(&has_to_leave),
        });
        Some(Place {
            number,
            has_to_leave,
            room: Arc::clone(self),
        })
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.lock().guests.iter().flatten().count()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the connection that has been idle for longest, when something other than places has run out, such as
    /// file descriptors. Returns whether there was one.
    pub async fn make_room(&self) -> bool {
        self.displace(None).await.is_some()
    }

    /// Waits until all connections have ended. The caller must not admit new ones meanwhile.
    pub async fn emptied(&self) {
        let all = u32::try_from(self.max).unwrap_or(u32::MAX);
        let _ = self.permits.acquire_many(all).await;
    }

    /// The number of connections that were ended to make room.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// The number of connections that were refused because their client had reached its limit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends the connection that has been idle for longest, of this client if one is given, and returns its
    /// permit.
    async fn displace(&self, client: Option<IpAddr>) -> Option<OwnedSemaphorePermit> {
        let guest = self.lock().remove_longest(client)?;
        guest.has_to_leave.notify_one();
        let displaced = self.displaced.fetch_add(1, Ordering::Relaxed);
        // New connections get to handle what they sent before further ones displace them.
        let at_once = (self.max.min(self.max_of_client) / 2).clamp(1, MAX_AT_ONCE);
        if displaced.is_multiple_of(at_once as u64) {
            tokio::task::yield_now().await;
        }
        Some(guest.permit)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code that can panic runs under the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn count(&self, client: IpAddr) -> usize {
        self.clients.get(&client).copied().unwrap_or(0)
    }

    fn add(&mut self, guest: Guest) -> usize {
        if let Some(client) = guest.client {
            *self.clients.entry(client).or_default() += 1;
        }
        let number = self.unused.pop().unwrap_or_else(|| {
            self.guests.push(None);
            self.waiting_since.push(NOT_WAITING);
            self.guests.len() - 1
        });
        self.guests[number] = Some(guest);
        self.wait(number);
        number
    }

    fn wait(&mut self, number: usize) {
        self.turns += 1;
        self.waiting_since[number] = self.turns;
    }

    fn remove_longest(&mut self, client: Option<IpAddr>) -> Option<Guest> {
        let waiting = self.waiting_since.iter().enumerate();
        let (number, since) = match client {
            None => waiting.min_by_key(|(_, since)| **since)?,
            Some(_) => waiting
                .zip(&self.guests)
                .filter(|(_, guest)| guest.as_ref().is_some_and(|guest| guest.client == client))
                .map(|(waiting, _)| waiting)
                .min_by_key(|(_, since)| **since)?,
        };
        if *since == NOT_WAITING {
            return None;
        }
        // The number stays taken until the place is dropped.
        self.leave(number)
    }

    fn leave(&mut self, number: usize) -> Option<Guest> {
        self.waiting_since[number] = NOT_WAITING;
        let guest = self.guests[number].take()?;
        if let Some(client) = guest.client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
        Some(guest)
    }
}

impl Place {
    /// Marks the connection as busy: its request is complete, so it is not displaced until [`Self::wait`].
    pub fn work(&self) {
        self.room.lock().waiting_since[self.number] = NOT_WAITING;
    }

    /// Marks the connection as idle: the server waits for the client from now on.
    pub fn wait(&self) {
        let mut open = self.room.lock();
        if open.guests[self.number].is_some() {
            open.wait(self.number);
        }
    }

    /// Returns when the connection has to end to make room.
    pub async fn displaced(&self) {
        self.has_to_leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.room.lock();
        open.leave(self.number);
        open.unused.push(self.number);
    }
}

const NOT_WAITING: u64 = u64::MAX;
/// How often a new connection without room looks again for an idle one.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The number of connections that may be displaced before other tasks get to run.
const MAX_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    async fn has_to_leave(place: &Place) -> bool {
        timeout(Duration::ZERO, place.displaced()).await.is_ok()
    }

    #[tokio::test]
    async fn the_connection_that_is_idle_for_longest_makes_room() {
        let room = Room::new(3, 3);
        let first = room.enter(ONE).await.unwrap();
        let second = room.enter(OTHER).await.unwrap();
        let third = room.enter(None).await.unwrap();
        first.work();
        first.wait();
        let fourth = room.enter(OTHER).await.unwrap();
        assert!(has_to_leave(&second).await);
        third.work();
        let _fifth = room.enter(None).await.unwrap();
        assert!(has_to_leave(&first).await && !has_to_leave(&third).await);
        assert!(!has_to_leave(&fourth).await);
        assert_eq!((room.len(), room.displaced(), room.refused()), (3, 2, 0));
    }

    #[tokio::test]
    async fn a_client_at_its_limit_makes_room_itself() {
        let room = Room::new(10, 2);
        let oldest = room.enter(OTHER).await.unwrap();
        let first = room.enter(ONE).await.unwrap();
        let second = room.enter(ONE).await.unwrap();
        let third = room.enter(ONE).await.unwrap();
        assert!(has_to_leave(&first).await && !has_to_leave(&oldest).await);
        second.work();
        third.work();
        assert!(room.enter(ONE).await.is_none());
        assert!(room.enter(OTHER).await.is_some());
        for _ in 0..5 {
            std::mem::forget(room.enter(None).await.unwrap());
        }
        assert_eq!(room.refused(), 1);
    }

    #[tokio::test]
    async fn a_busy_connection_stays_until_it_is_answered() {
        let room = Room::new(1, 1);
        let only = room.enter(None).await.unwrap();
        only.work();
        let mut next = std::pin::pin!(room.enter(None));
        assert!(timeout(LOOK_AGAIN * 3, next.as_mut()).await.is_err());
        only.wait();
        assert!(next.await.is_some() && has_to_leave(&only).await);
        drop(only);
        assert_eq!(room.len(), 0);
        room.emptied().await;
    }
}
