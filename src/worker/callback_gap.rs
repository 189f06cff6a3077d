//! Once a minute, the worker looks whether reports still come about the messages of each sender.

use std::time::{Duration, Instant};

use crate::extension::is_installed;
use crate::spi::{first, log_once_a_minute, transaction};

/// When it is looked for gaps next.
pub(crate) struct CallbackGaps {
    next: Instant,
}

impl CallbackGaps {
    pub(crate) fn new() -> Self {
        Self {
            next: Instant::now(),
        }
    }

    /// Looks if it is time to.
    pub(crate) fn run(&mut self) {
        if self.next > Instant::now() {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        let detected = transaction(|| match is_installed()? {
            true => first::<i32>("select twilio_internal.detect_gaps()", &[]).map(drop),
            false => Ok(()),
        });
        if let Err(error) = detected {
            log_once_a_minute(&format!(
                "twilio_callback worker cannot look for missing callbacks: {error}"
            ));
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(60);
