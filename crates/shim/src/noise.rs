//! Log lines about requests that may be anybody's: so many a second, and how many were left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::front::Front;
use crate::limit::Bucket;
use crate::line::Level;

/// The lines' limit and those beyond it.
#[derive(Debug)]
pub(crate) struct Noise {
    bucket: Bucket,
    left_out: AtomicU64,
}

impl Noise {
    pub(crate) fn new(lines_per_second: u16) -> Self {
        Self {
            bucket: Bucket::new(lines_per_second),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether one more line may be written; otherwise it is counted.
    pub(crate) fn admits(&self) -> bool {
        let is_within = self.bucket.take(Instant::now()).is_ok();
        if !is_within {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }

    /// How many lines were left out since the process began.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

/// Logs once a second how many lines were left out, if any were.
pub(crate) async fn report(front: Arc<Front>) {
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = 0;
    loop {
        second.tick().await;
        let left_out = front.noise.left_out();
        if left_out > reported {
            let text = format!("{} lines about refused requests", left_out - reported);
            front.log.message(Level::Warn, "left_out", &text);
            reported = left_out;
        }
    }
}
