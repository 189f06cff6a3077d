//! The programs around the database: our own shim, relay and sandbox, and those of others.

pub mod broker;
pub mod nginx;
pub mod openapi;
pub mod postgrest;
pub mod prism;
pub mod recorder;
pub mod relay;
pub mod sandbox;
pub mod shim;
pub mod signer;
pub mod tools;
pub mod tunnel;
