//! Operation: backups, purges, repairs, limits, plans, clocks, and secrets in logs.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

mod clock;
mod declarations;
mod doctor;
mod documentation;
mod dump_restore;
mod from_env;
mod held_snapshot;
mod limits;
mod monitoring_queries;
mod plans;
mod ports;
mod purge;
mod readme;
mod replay;
mod secrets;
mod standby;
mod unanalyzed;
mod worker;
