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
    /// The part of the bytes that requests of a large kind have.
    large_bytes: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self {
            max_items,
            max_bytes,
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            large_bytes: AtomicUsize::new(0),
        }
    }

    /// Reserves room for one request of `bytes`, or returns none if it does not fit. Requests that are large by their kind get at
    /// most half of the bytes, so that strangers who announce such requests keep out no callback.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, is_large: bool) -> Option<Reservation> {
        // Created first, so that its drop releases a reservation that does not fit.
        let reservation = Reservation {
            admission: Arc::clone(self),
            bytes,
            is_large,
        };
        let add = |counter: &AtomicUsize| {
            counter
                .fetch_add(bytes, Ordering::Relaxed)
                .saturating_add(bytes)
        };
        let items = self.items.fetch_add(1, Ordering::Relaxed);
        let taken = add(&self.bytes);
        let large = if is_large { add(&self.large_bytes) } else { 0 };
        let fits = items < self.max_items && taken <= self.max_bytes && large <= self.max_bytes / 2;
        fits.then_some(reservation)
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
    is_large: bool,
}

impl Reservation {
    /// Releases what a body of unknown length turned out not to need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(surplus) = self.bytes.checked_sub(bytes) {
            self.release(surplus);
            self.bytes = bytes;
        }
    }
}

impl Reservation {
    fn release(&self, bytes: usize) {
        self.admission.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.is_large {
            (self.admission.large_bytes).fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.admission.items.fetch_sub(1, Ordering::Relaxed);
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_one_item_too_many_and_takes_it_later() {
        let admission = Arc::new(Admission::new(2, 1_000));
        let first = admission.reserve(1, false).unwrap();
        let _second = admission.reserve(1, false).unwrap();
        assert!(admission.reserve(1, false).is_none());
        assert_eq!((admission.items(), admission.bytes()), (2, 2));
        drop(first);
        assert!(admission.reserve(1, false).is_some());
    }

    #[test]
    fn refuses_one_byte_too_many() {
        let admission = Arc::new(Admission::new(10, 100));
        let mut held = admission.reserve(60, false).unwrap();
        assert!(admission.reserve(41, false).is_none());
        held.shrink(10);
        assert_eq!(admission.bytes(), 10);
        held.shrink(50);
        assert_eq!(admission.bytes(), 10);
        drop(held);
        assert_eq!((admission.items(), admission.bytes()), (0, 0));
    }

    #[test]
    fn large_requests_leave_half_of_the_room_to_others() {
        let admission = Arc::new(Admission::new(10, 100));
        let large = admission.reserve(50, true).unwrap();
        assert!(admission.reserve(1, true).is_none());
        assert!(admission.reserve(50, false).is_some());
        drop(large);
        assert!(admission.reserve(50, true).is_some());
    }
}
