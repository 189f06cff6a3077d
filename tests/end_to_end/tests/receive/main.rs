//! Callbacks and incoming messages: what is accepted, refused, kept, repaired, and recorded once.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod altered_table;
mod event_sink;
mod event_stream;
mod flood;
mod inbound_shapes;
mod key_rotation;
mod malformed;
mod ordering;
mod outage;
mod quarantine;
mod random_requests;
mod refusal;
mod replayed_callback;
mod twilio_signature;
mod wrong_url;
