//! The shim as a process, what stands before and behind it, and its tools over HTTP.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod database_tls;
mod nginx;
mod postgrest;
mod process;
mod slow_clients;
mod tools;
mod tools_token;
