//! The stand-in for Twilio as a process.
