//! The clock that rules go by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgrx::pg_sys;

use crate::setting;

/// The time and a random number, as rules take them.
pub(crate) struct Now {
    /// Milliseconds since 1970.
    pub(crate) unix_ms: i64,
    /// A random share, 0 to 1.
    pub(crate) jitter: f64,
}

/// Seconds since 1970 of the same clock.
pub(crate) fn unix_seconds() -> i64 {
    now().unix_ms.div_euclid(1000)
}

/// Now, by the clock that `twilio.now()` goes by, and a random share.
pub(crate) fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let (shift, is_forward) = setting::clock_offset();
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let shift = milliseconds(shift);
    Now {
        unix_ms: since_1970
            .map_or(0, milliseconds)
            .saturating_add(if is_forward { shift } else { -shift }),
        // SAFETY: the main thread's own generator, seeded when the process started.
        jitter: unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) },
    }
}

/// Milliseconds since 1970 in microseconds of PostgreSQL's calendar.
pub(crate) fn microseconds(unix_ms: i64) -> i64 {
    (unix_ms - UNIX_MS_OF_2000).saturating_mul(1000)
}

const UNIX_MS_OF_2000: i64 = 946_684_800_000;
