//! Runs the real program where no database answers: its command line, its HTTP and its end.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod command_line;
mod http;
mod operations;
mod shim;
mod shutdown;
mod slow;
