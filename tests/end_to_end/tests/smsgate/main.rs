//! Android phones by SMSGate: their API, tokens, encryption and signatures.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod access_token;
mod encryption;
mod smsgate_api;
mod webhook_signature;
