//! When to try again: an explicit schedule, jitter that only adds, and what the server asked for.

use crate::date;

/// How often and how soon something is tried. All times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy<'a> {
    /// Delay after the first, second, … try. The last one repeats.
    pub delays: &'a [u32],
    /// How many tries there are at most.
    pub most_tries: u32,
    /// How much jitter may add, as a share of the delay, 0 to 1.
    pub spread: f64,
}

impl Policy<'static> {
    /// 5 seconds, 30 seconds, 2 minutes, 10 minutes, half an hour, 2 hours; then over.
    pub const DEFAULT: Self = Self {
        delays: &[5_000, 30_000, 120_000, 600_000, 1_800_000, 7_200_000],
        most_tries: 7,
        spread: 0.25,
    };
}

/// The time of the next try, or `None` if there is to be none.
///
/// `tries` counts those made, `now` is when the last one ended, and `jitter` is a random share
/// between 0 and 1. `retry_after` is the time before which the server does not want to be asked,
/// read by [`retry_after`]. A try at or after `expires_at` would be in vain, so there is none. The
/// next try is never earlier than schedule and server say.
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
    // What is not a number becomes 0.
    let extra = (f64::from(delay) * policy.spread.clamp(0.0, 1.0) * jitter.clamp(0.0, 1.0)) as i64;
    // Jitter comes on top of the server's time too, or all would be back in the same moment.
    let at = now
        .saturating_add(delay.into())
        .max(retry_after.unwrap_or(now))
        .saturating_add(extra);
    expires_at.is_none_or(|end| at < end).then_some(at)
}

/// Reads the header Retry-After: seconds from `now` on, or a date. `None` if it is neither, or a number
/// that is too large to be read; a date that is past means now. A server that asks for more than an hour
/// is asked again after an hour: most messages still have time then.
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
    Some(at.clamp(now, now.saturating_add(LONGEST_RETRY_AFTER)))
}

const LONGEST_RETRY_AFTER: i64 = 3_600_000;
