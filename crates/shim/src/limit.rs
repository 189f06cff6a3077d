//! Limits the number of requests per second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token bucket that fills with `rate` tokens per second and holds as many as one second brings.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The tokens that were left at `at`.
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    pub(crate) fn new(rate: u16) -> Self {
        let rate = f64::from(rate);
        Self {
            rate,
            state: Mutex::new(State {
                left: rate,
                at: None,
            }),
        }
    }

    /// Admits one request, or returns the time after which one may come.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = state
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        state.left = (state.left + passed * self.rate).min(self.rate);
        state.at = Some(now);
        if state.left >= 1.0 {
            state.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - state.left) / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_goes_at_once_and_then_the_rate() {
        let bucket = Bucket::new(4);
        let start = Instant::now();
        for _ in 0..4 {
            assert!(bucket.take(start).is_ok());
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(250)));
        assert!(bucket.take(start + Duration::from_millis(250)).is_ok());
        assert!(bucket.take(start + Duration::from_millis(300)).is_err());
        let later = start + Duration::from_secs(3_600);
        for _ in 0..4 {
            assert!(bucket.take(later).is_ok());
        }
        assert!(bucket.take(later).is_err());
    }
}
