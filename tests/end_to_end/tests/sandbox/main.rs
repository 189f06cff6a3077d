//! The sandbox behaves as the providers do.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod events;
mod outcomes;
mod smsgate_client;
mod twilio_client;
