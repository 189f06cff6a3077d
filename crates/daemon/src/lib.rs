//! The parts that the shim and the relay share: log, listeners, operations pages and connections to the
//! database.

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod address;
pub mod aux_connection;
pub mod backoff;
pub mod connect_options;
pub mod database;
pub mod error;
pub mod explain;
mod host;
pub mod listener;
pub mod log;
pub mod logfmt;
pub mod operations;
pub mod patience;
pub mod prometheus;
pub mod room;
pub mod signals;
pub mod tls;
pub mod unit;
