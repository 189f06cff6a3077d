//! What is sent to Twilio and SMSGate, and how their responses are read.

pub(crate) mod job;
pub(crate) mod media;
pub(crate) mod queue;
pub(crate) mod request_id;
pub(crate) mod sweep;
pub(crate) mod twilio;
