//! PostgreSQL's servers, what runs beside them, and what the tests put into their databases.

pub mod cluster;
pub mod database;
pub mod environment;
pub mod gate;
pub mod outbox;
pub mod process;
pub mod tls;
