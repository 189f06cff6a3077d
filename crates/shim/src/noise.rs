//! Limits the log lines per second about requests without a valid signature, and counts those left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::app::App;
use crate::limit::Bucket;
use crate::logfmt::Level;

/// The limit, and the number of lines beyond it.
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

    /// Whether one more line may be written; if not, the line is counted as left out.
    pub(crate) fn admits(&self) -> bool {
        let is_within = self.bucket.take(Instant::now()).is_ok();
        if !is_within {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }

    /// The number of lines left out since the process started.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

/// Logs once a second how many lines were left out, if any were.
pub(crate) async fn report(app: Arc<App>) {
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = 0;
    loop {
        second.tick().await;
        let left_out = app.noise.left_out();
        if left_out > reported {
            let text = format!("{} lines about refused requests", left_out - reported);
            app.log.message(Level::Warn, "left_out", &text);
            reported = left_out;
        }
    }
}
