//! The worker's watch over the server's clock: after a clock that was ahead is corrected, times in the future are repaired.

use pgrx::prelude::*;

use crate::clock::now;
use crate::extension::is_installed;
use crate::spi::first;
use crate::spi::log_once_a_minute;
use crate::spi::transaction;
use crate::worker::poll;
use pgrx::pg_sys::panic::ErrorReport;
use std::time::Duration;

/// The clock as the worker has seen it.
#[derive(Default)]
pub(crate) struct Clock {
    /// Milliseconds since 1970 at the last poll.
    last: i64,
    /// How many more corrections follow, since other sessions may have locked some of the rows.
    corrections_left: u8,
    /// Time of the latest row from the future that was found.
    known: Option<TimestampWithTimeZone>,
}

impl Clock {
    /// Called before each poll. It has a transaction of its own, so that an error or a lock here does not stop sending.
    pub(crate) fn run(&mut self, is_sweep_due: bool) {
        let now = now().unix_ms;
        let is_set_back = now < self.last - TOLERANCE;
        if is_set_back {
            log!(
                "twilio_callback worker: the clock was set back by {} s",
                (self.last - now) / 1000
            );
            self.corrections_left = CORRECTIONS;
        }
        self.last = now;
        if is_set_back || is_sweep_due {
            self.correct();
        }
    }

    fn correct(&mut self) {
        let is_set_back = self.corrections_left > 0;
        self.corrections_left = self.corrections_left.saturating_sub(1);
        let corrected = transaction(|| {
            if is_installed()? {
                correct_future_times(poll::lease(), is_set_back, self.known)
            } else {
                Ok(None)
            }
        });
        match corrected {
            // The clock was ahead and corrected between two polls or before this worker started.
            Ok(Some(latest)) if self.known.is_none_or(|known| latest > known) => {
                self.known = Some(latest);
                self.corrections_left = self.corrections_left.max(CORRECTIONS - 1);
            }
            Ok(_) => {}
            Err(error) => log_once_a_minute(&format!(
                "twilio_callback worker cannot correct times in the future: {error}"
            )),
        }
    }
}

/// Milliseconds by which a clock may be set back without a correction, as time synchronization does.
const TOLERANCE: i64 = 1_000;
/// Corrections after a clock was set back.
const CORRECTIONS: u8 = 3;

/// Corrects times that a clock that was ahead put into the future, if the clock was set back or a row is dated later
/// than `known`. `lease` is how long a lease lasts. Returns the time of the latest row from the future.
fn correct_future_times(
    lease: Duration,
    is_set_back: bool,
    known: Option<TimestampWithTimeZone>,
) -> Result<Option<TimestampWithTimeZone>, ErrorReport> {
    first(
        "select twilio_internal.correct_future_times($1 * interval '1 second', $2, $3)",
        &[lease.as_secs_f64().into(), is_set_back.into(), known.into()],
    )
}
