//! The worker's part of rules by time, in transactions of their own: whatever is in the way there keeps no
//! other message from being sent.

use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;

use crate::spi::log_once_a_minute;
use crate::spi::{first, transaction};

/// In how many seconds a message that a rule by time waits for is due.
pub(crate) fn next_due() -> Result<Option<f64>, ErrorReport> {
    first("select twilio_internal.next_timed_out()", &[])
}

/// Messages that have not succeeded in the time of a rule.
#[derive(Default)]
pub(crate) struct TimedRules {
    /// Until when to leave it alone, since the last attempt got nowhere.
    not_before: Option<Instant>,
}

impl TimedRules {
    /// Plans what is overdue, if something is by now. Returns when it wants to run again.
    pub(crate) fn run(&mut self, due: Option<f64>) -> Duration {
        let Some(due) = due else {
            return Duration::MAX;
        };
        if due > 0.0 {
            return Duration::try_from_secs_f64(due).map_or(Duration::MAX, |wait| wait + TICK);
        }
        if let Some(at) = self.not_before
            && at > Instant::now()
        {
            return at.saturating_duration_since(Instant::now());
        }
        let planned = transaction(|| first::<i32>("select twilio_internal.plan_timed_out()", &[]));
        let has_planned = match planned {
            Ok(count) => count.is_some_and(|count| count > 0),
            Err(error) => {
                log_once_a_minute(&format!(
                    "twilio_callback worker cannot plan what is overdue: {error}"
                ));
                false
            }
        };
        self.not_before = (!has_planned).then(|| Instant::now() + RETRY);
        if has_planned { Duration::ZERO } else { RETRY }
    }
}

const TICK: Duration = Duration::from_millis(1);
const RETRY: Duration = Duration::from_millis(500);
