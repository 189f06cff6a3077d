//! The harness: clusters, processes and clients that the tests of the whole share.
//!
//! Servers are real and private: each lives in a fresh directory, listens on sockets there or on free
//! loopback ports, and dies with the test program, however that ends.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness fails a test by panicking"
)]

pub mod client;
#[cfg(test)]
mod index;
pub mod peer;
pub mod random;
pub mod scale;
pub mod server;
pub mod turn;
pub mod wait;
