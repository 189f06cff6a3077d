//! twilio-callback-shim: passes HTTP callbacks to the database in batches and returns its responses.

#![forbid(unsafe_code)]

mod acknowledgement;
mod admission;
mod answer;
mod app;
mod arguments;
mod batch;
mod body;
mod config;
mod database;
mod header;
mod health;
mod item;
mod limit;
mod message_sid;
mod metrics;
mod noise;
mod operations;
mod process;
mod proxy;
mod queue;
mod refusal;
mod reply;
mod request;
mod request_id;
mod route;
mod server;
mod status;
mod tool;
mod writer;

use std::process::ExitCode;

use daemon::{
    address, aux_connection, backoff, error, explain, listener, log, logfmt, signals, unit,
};

fn main() -> ExitCode {
    match config::Config::load().and_then(process::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("twilio-callback-shim: error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
