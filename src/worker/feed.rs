//! The worker's part of the feed: a tick about once a second, after which handlers are called.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::error;
use crate::extension::is_installed;
use crate::spi::log_once_a_minute;
use crate::spi::transaction;
use crate::worker::handler::Handler;

/// The times at which the feed is processed next.
pub(crate) struct Feed {
    next_tick: Instant,
    /// The process that calls handlers.
    handler: Handler,
    /// Whether handlers may have more to do, and there is no such process.
    has_more: bool,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            next_tick: Instant::now(),
            handler: Handler::default(),
            has_more: false,
        }
    }

    /// Ticks if it is time, and sees to it that handlers are called. Returns when it wants to run again;
    /// never, if the feed has no consumer.
    pub(crate) fn run(&mut self) -> Option<Duration> {
        let is_tick_due = self.next_tick <= Instant::now();
        if !is_tick_due && !self.has_more {
            return Some(self.next_tick.saturating_duration_since(Instant::now()));
        }
        match self.work(is_tick_due) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                log_once_a_minute(&format!(
                    "twilio_callback worker cannot serve the feed: {error}"
                ));
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

    /// Ends the process that calls handlers.
    pub(crate) fn end(&mut self) {
        self.handler.end();
    }

    /// Whether there are consumers.
    fn work(&mut self, is_tick_due: bool) -> Result<bool, String> {
        if is_tick_due {
            self.next_tick = Instant::now() + INTERVAL;
            let has_consumers = transaction(|| Ok(is_installed()? && ask(HAS_CONSUMER)?))?;
            if !has_consumers {
                self.has_more = false;
                return Ok(false);
            }
            transaction(|| ask(TICK))?;
            self.has_more = transaction(|| ask(HAS_HANDLER))? && !self.handler.wake();
        }
        let end = Instant::now() + SHARE;
        // Texts and events take turns.
        for statement in RUN_FUNCTION.into_iter().cycle() {
            if !self.has_more || Instant::now() >= end {
                break;
            }
            self.has_more = transaction(|| ask(statement))?;
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

const HAS_CONSUMER: &str = "select twilio_internal.has_consumer()";
const HAS_HANDLER: &str = "select twilio_internal.has_handler()";
const TICK: &str = "select twilio.feed_tick() is not null";
const RUN_FUNCTION: [&str; 2] = [
    "select twilio_internal.run_function(drafts_first => true)",
    "select twilio_internal.run_function(drafts_first => false)",
];
const INTERVAL: Duration = Duration::from_secs(1);
/// How long handlers may keep the worker from sending before it looks at the outbox again.
const SHARE: Duration = Duration::from_millis(250);
