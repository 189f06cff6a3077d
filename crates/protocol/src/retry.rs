//! When to retry: an explicit schedule, jitter that only adds, and the server's Retry-After.

use crate::date;

/// How often and how soon to try. All times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy<'a> {
    /// Delay after the first, second, … try. The last one repeats.
    pub delays: &'a [u32],
    /// The largest number of tries.
    pub most_tries: u32,
    /// How much jitter may add, as a share of the delay, 0 to 1.
    pub spread: f64,
}

impl Policy<'static> {
    /// After 5 seconds, 30 seconds, 2 minutes, 10 minutes, 30 minutes and 2 hours.
    pub const DEFAULT: Self = Self {
        delays: &[5_000, 30_000, 120_000, 600_000, 1_800_000, 7_200_000],
        most_tries: 7,
        spread: 0.25,
    };
}

/// The time of the next try, in milliseconds since 1970; `None` if there is none.
///
/// `tries` is the number of tries so far, `now` the time when the last one ended, and `jitter` a random share from 0 to 1.
/// `retry_after` is the earliest time that the server asked for, read by [`retry_after`]. There is no try at or after
/// `expires_at`. The next try is never earlier than the schedule and the server allow.
pub fn next(
    policy: &Policy<'_>,
    tries: u32,
    now: i64,
    expires_at: Option<i64>,
    jitter: f64,
    retry_after: Option<i64>,
) -> Option<i64> {
    if tries >= policy.most_tries {
        return None;
    }
    let index = (tries.saturating_sub(1) as usize).min(policy.delays.len().saturating_sub(1));
    let delay = policy.delays.get(index).copied().unwrap_or(0);
    // A value that is not a number becomes 0.
    let extra = (f64::from(delay) * policy.spread.clamp(0.0, 1.0) * jitter.clamp(0.0, 1.0)) as i64;
    // Jitter is added to the server's time too, or all clients would return at the same time.
    let at = now
        .saturating_add(delay.into())
        .max(retry_after.unwrap_or(now))
        .saturating_add(extra);
    expires_at.is_none_or(|end| at < end).then_some(at)
}

/// Parses the header Retry-After: seconds from `now` on, or a date. Returns milliseconds since 1970; `None` if the header
/// is neither, or a number that is too large. A date in the past means now. More than an hour counts as an hour, because
/// most messages still have time then.
///
/// <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>
pub fn retry_after(header: &str, now: i64) -> Option<i64> {
    let header = header.trim();
    let is_seconds = !header.is_empty() && header.bytes().all(|b| b.is_ascii_digit());
    let at = if is_seconds {
        let seconds: i64 = header.parse().ok()?;
        now.saturating_add(seconds.saturating_mul(1000))
    } else {
        date::parse_mail(header)?
    };
    Some(at.clamp(now, now.saturating_add(MAX_RETRY_AFTER_MS)))
}

const MAX_RETRY_AFTER_MS: i64 = 3_600_000;
