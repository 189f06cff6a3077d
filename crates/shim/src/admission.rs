//! Limits the requests in flight and their bytes, counted before a body is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The limits and how much of them is used.
#[derive(Debug)]
pub(crate) struct Admission {
    max_items: usize,
    max_bytes: usize,
    items: AtomicUsize,
    bytes: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self {
            max_items,
            max_bytes,
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Reserves room for one request of `bytes`, or returns none if it does not fit.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        // Created first, so that its drop releases a reservation that does not fit.
        let reservation = Reservation {
            admission: Arc::clone(self),
            bytes,
        };
        let items = self.items.fetch_add(1, Ordering::Relaxed);
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        (items < self.max_items && taken.saturating_add(bytes) <= self.max_bytes)
            .then_some(reservation)
    }

    pub(crate) fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Room held by one request until its batch has ended.
#[derive(Debug)]
pub(crate) struct Reservation {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Reservation {
    /// Releases what a body of unknown length turned out not to need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(surplus) = self.bytes.checked_sub(bytes) {
            self.admission.bytes.fetch_sub(surplus, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.admission.items.fetch_sub(1, Ordering::Relaxed);
        self.admission
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_one_item_too_many_and_takes_it_later() {
        let admission = Arc::new(Admission::new(2, 1_000));
        let first = admission.reserve(1).unwrap();
        let _second = admission.reserve(1).unwrap();
        assert!(admission.reserve(1).is_none());
        assert_eq!((admission.items(), admission.bytes()), (2, 2));
        drop(first);
        assert!(admission.reserve(1).is_some());
    }

    #[test]
    fn refuses_one_byte_too_many() {
        let admission = Arc::new(Admission::new(10, 100));
        let mut held = admission.reserve(60).unwrap();
        assert!(admission.reserve(41).is_none());
        held.shrink(10);
        assert_eq!(admission.bytes(), 10);
        held.shrink(50);
        assert_eq!(admission.bytes(), 10);
        drop(held);
        assert_eq!((admission.items(), admission.bytes()), (0, 0));
    }
}
