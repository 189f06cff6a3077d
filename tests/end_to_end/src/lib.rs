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

pub mod alteration;
pub mod broker;
pub mod callback;
pub mod client;
pub mod cluster;
pub mod database;
pub mod environment;
pub mod flow;
pub mod gate;
pub mod http;
pub mod load;
pub mod nginx;
pub mod openapi;
pub mod outbox;
pub mod postgrest;
pub mod prism;
pub mod process;
pub mod random;
pub mod recorder;
pub mod relay;
pub mod request;
pub mod sandbox;
pub mod scale;
pub mod shape;
pub mod shim;
pub mod signer;
pub mod tls;
pub mod tools;
pub mod tunnel;
pub mod wait;
