//! The rules of Twilio's and SMSGate's protocols, without I/O, clock, randomness or database.
//!
//! A request is handled in this order: [`request`] names its parts, [`form`] decodes its parameters, [`signature`] checks
//! which key signed it, and [`callback`] turns the parameters into typed fields. [`spelling`] lists other forms in which
//! the URL may have been signed, and [`ambiguity`] refuses signed text with more than one meaning. If no key matches,
//! [`explain`] finds out what would have verified. [`event_stream`] reads the events of Event Streams, and [`foreign`] recognizes
//! other signed requests that are not about a message.
//! [`status`] orders the statuses of a message.

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod address;
pub mod ambiguity;
pub mod callback;
pub mod callback_url;
pub mod change;
mod date;
pub mod destination;
pub mod error_code;
pub mod event_stream;
pub mod explain;
pub mod foreign;
pub mod form;
mod json;
pub mod keyword;
pub mod media;
pub mod message;
pub mod person;
pub mod request;
pub mod retry;
pub mod segment;
pub mod sid;
pub mod signature;
pub mod smsgate;
pub mod source;
pub mod spelling;
pub mod status;
pub mod trust;
pub mod twiml;
pub mod url;
pub mod xml;
pub mod zone;
