//! Messages that fail or stay unanswered go out another way, once.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod chain;
mod fallback_killed;
mod late;
mod quiet_hours;
mod retry;
mod text;
mod timed;
