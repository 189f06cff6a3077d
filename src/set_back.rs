//! A clock that was ahead and is set right, noticed by the worker.

use pgrx::prelude::*;

use crate::look;
use crate::moment::moment;
use crate::queue::{self, transaction};
use crate::session::{complain, is_installed};

/// What the worker knows of the clock.
#[derive(Default)]
pub(crate) struct Clock {
    /// Milliseconds since 1970 at the last look.
    last: i64,
    /// How often it is still to be made up for, since others may hold some of the rows.
    rounds: u8,
    /// The latest row from the future that was made up for.
    known: Option<TimestampWithTimeZone>,
}

impl Clock {
    /// Before each look. In a transaction of its own: what is in its way keeps nothing from being sent.
    pub(crate) fn run(&mut self, is_sweep_due: bool) {
        let now = moment().now;
        let is_set_back = now < self.last - TOLERANCE;
        if is_set_back {
            log!(
                "twilio_callback worker: the clock was set back by {} s",
                (self.last - now) / 1000
            );
            self.rounds = ROUNDS;
        }
        self.last = now;
        if is_set_back || is_sweep_due {
            self.make_up();
        }
    }

    fn make_up(&mut self) {
        let is_known = self.rounds > 0;
        self.rounds = self.rounds.saturating_sub(1);
        let made_up = transaction(|| {
            if is_installed()? {
                queue::follow_clock(look::lease(), is_known, self.known)
            } else {
                Ok(None)
            }
        });
        match made_up {
            // It was ahead and right again between two looks, or before this worker started.
            Ok(Some(latest)) if self.known.is_none_or(|known| latest > known) => {
                self.known = Some(latest);
                self.rounds = self.rounds.max(ROUNDS - 1);
            }
            Ok(_) => {}
            Err(error) => complain(&format!(
                "twilio_callback worker cannot make up for the clock: {error}"
            )),
        }
    }
}

/// Clocks are set by so many milliseconds every day.
const TOLERANCE: i64 = 1_000;
const ROUNDS: u8 = 3;
