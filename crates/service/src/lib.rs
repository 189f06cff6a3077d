//! What the project's long-running programs share: their log, listeners, operations pages and way to
//! the database.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
pub mod backoff;
pub mod database;
pub mod error;
pub mod explain;
mod host;
pub mod line;
pub mod listener;
pub mod log;
pub mod measure;
pub mod operations;
pub mod page;
pub mod patience;
pub mod room;
pub mod side;
pub mod signals;
pub mod target;
pub mod tls;
