//! Pauses between attempts that keep failing.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Pauses that double from 0.1 to 5 seconds, each shortened at random by up to half so that clients do not retry
/// at the same time.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let longest = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_PAUSE);
        self.failures += 1;
        let random = RandomState::new().build_hasher().finish();
        let share = 0.5 + 0.5 * (random % 1_024) as f64 / 1_024.0;
        longest.mul_f64(share)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_until_something_works() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let pause = backoff.pause();
            let longest = Duration::from_millis(longest);
            assert!(
                pause >= longest / 2 && pause <= longest,
                "{pause:?} {longest:?}"
            );
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST_PAUSE);
    }
}
