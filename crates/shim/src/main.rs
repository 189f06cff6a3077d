//! twilio-callback-shim: hands HTTP callbacks to the database in batches and answers what it says.

#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod batch;
mod body;
mod budget;
mod config;
mod database;
mod front;
mod handover;
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

use service::{address, backoff, error, explain, line, listener, log, measure, side, signals};

fn main() -> ExitCode {
    match config::Config::load().and_then(process::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("twilio-callback-shim: error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
