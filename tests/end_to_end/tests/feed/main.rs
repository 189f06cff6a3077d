//! Consumers of the feed, and users' functions that it calls.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod handler;
mod time_limit;
