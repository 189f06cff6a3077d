//! How much may be in hand at once: requests and bytes, counted before a body is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The limits and what is taken of them.
#[derive(Debug)]
pub(crate) struct Budget {
    max_items: usize,
    max_bytes: usize,
    items: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self {
            max_items,
            max_bytes,
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes room for one request, or nothing if it does not fit.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        // Made first, so that what does not fit is given back by its drop.
        let reservation = Reservation {
            budget: Arc::clone(self),
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
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Gives back what a body of unknown length turned out not to need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(surplus) = self.bytes.checked_sub(bytes) {
            self.budget.bytes.fetch_sub(surplus, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.items.fetch_sub(1, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_one_item_too_many_and_takes_it_later() {
        let budget = Arc::new(Budget::new(2, 1_000));
        let first = budget.reserve(1).unwrap();
        let _second = budget.reserve(1).unwrap();
        assert!(budget.reserve(1).is_none());
        assert_eq!((budget.items(), budget.bytes()), (2, 2));
        drop(first);
        assert!(budget.reserve(1).is_some());
    }

    #[test]
    fn refuses_one_byte_too_many() {
        let budget = Arc::new(Budget::new(10, 100));
        let mut held = budget.reserve(60).unwrap();
        assert!(budget.reserve(41).is_none());
        held.shrink(10);
        assert_eq!(budget.bytes(), 10);
        held.shrink(50);
        assert_eq!(budget.bytes(), 10);
        drop(held);
        assert_eq!((budget.items(), budget.bytes()), (0, 0));
    }
}
