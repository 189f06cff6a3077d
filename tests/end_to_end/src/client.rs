//! Clients and their requests: Twilio's and SMSGate's callbacks, well-formed, altered, and many at once.

pub mod alteration;
pub mod callback;
pub mod flow;
pub mod http;
pub mod library;
pub mod load;
pub mod request;
pub mod shape;
