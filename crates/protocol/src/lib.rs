//! The rules of Twilio's and SMSGate's protocols, without I/O, clock, randomness or database.
//!
//! A request goes through here in this order: [`request`] names its parts, [`form`] decodes its
//! parameters, [`signature`] says whether a key vouches for it, and [`callback`] turns the parameters
//! into typed fields. [`spelling`] knows in which other forms a URL may have been signed. If no key does, [`explain`]
//! finds out what would have verified;
//! [`foreign`] names what is signed and not about a message. [`status`] is the lattice that
//! orders what is said about a message.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
pub mod ambiguity;
pub mod callback;
mod date;
pub mod destination;
pub mod error_code;
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
