//! The worker's part of the feed: a tick about once a second, and calls of users' handlers.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::error;
use crate::queue::{self, transaction};

/// When the feed is next looked after.
pub(crate) struct Feed {
    next_tick: Instant,
    /// Whether handlers may have more to do already.
    has_more: bool,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            next_tick: Instant::now(),
            has_more: false,
        }
    }

    /// Ticks if it is time, and calls handlers for a short while, each event in a transaction of its
    /// own. Returns when it wants to run again; never, if nobody consumes the feed.
    pub(crate) fn run(&mut self) -> Option<Duration> {
        let is_tick_due = self.next_tick <= Instant::now();
        if !is_tick_due && !self.has_more {
            return Some(self.next_tick.saturating_duration_since(Instant::now()));
        }
        match self.work(is_tick_due) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                log!("twilio_callback worker cannot serve the feed: {error}");
                self.has_more = false;
                self.next_tick = Instant::now() + INTERVAL;
            }
        }
        Some(if self.has_more {
            Duration::ZERO
        } else {
            self.next_tick.saturating_duration_since(Instant::now())
        })
    }

    /// Whether there are consumers.
    fn work(&mut self, is_tick_due: bool) -> Result<bool, String> {
        if is_tick_due {
            self.next_tick = Instant::now() + INTERVAL;
            let has_consumers =
                transaction(|| Ok(queue::installed_version()?.is_some() && ask(HAS_CONSUMERS)?))?;
            if !has_consumers {
                self.has_more = false;
                return Ok(false);
            }
            transaction(|| ask(TICK))?;
        }
        let end = Instant::now() + SHARE;
        self.has_more = true;
        while self.has_more && Instant::now() < end {
            self.has_more = transaction(|| ask(RUN_HANDLER))?;
        }
        Ok(true)
    }
}

/// The one boolean of a statement, null as false.
fn ask(statement: &str) -> Result<bool, pgrx::pg_sys::panic::ErrorReport> {
    Spi::connect_mut(|client| {
        client
            .update(statement, Some(1), &[])?
            .first()
            .get_one::<bool>()
    })
    .map(|answer| answer.unwrap_or(false))
    .map_err(error::internal)
}

const HAS_CONSUMERS: &str = "select exists (select from twilio.feed_consumer)";
const TICK: &str = "select twilio.feed_tick() is not null";
const RUN_HANDLER: &str = "select twilio.run_handler()";
const INTERVAL: Duration = Duration::from_secs(1);
/// How long handlers may keep the worker from sending before it looks at the outbox again.
const SHARE: Duration = Duration::from_millis(250);
