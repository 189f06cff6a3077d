//! Incoming messages: acknowledgements and replies, media, opt-out and consent.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod acknowledgement;
mod consent;
mod media;
mod opt_out;
mod twiml;
