//! The worker sends what was committed, once, and finds out what became of it.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod foreign_locks;
mod media_check;
mod provider_away;
mod reconcile;
mod reconciliation;
mod sending;
mod sending_killed;
mod twilio_api;
mod unanswered;
mod unknown_outcome;
mod worker_settings;
