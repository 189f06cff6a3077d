//! Waiting for a condition instead of for a time.

use std::thread;
use std::time::{Duration, Instant};

/// For what takes a moment, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `condition` until it holds; after `deadline` it fails the test, saying what was awaited.
pub fn wait_until(deadline: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(deadline, condition),
        "waited {deadline:?} for {what}"
    );
}

/// Polls `condition` until it holds; `false` if it did not within `deadline`.
pub fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Polls `attempt` until it gives something; after `deadline` it fails the test.
pub fn wait_for<T>(deadline: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(deadline, what, || {
        found = attempt();
        found.is_some()
    });
    found.expect("the condition held")
}
