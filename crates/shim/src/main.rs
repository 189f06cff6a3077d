//! twilio-callback-shim: hands HTTP callbacks to the database in batches and answers what it says.

#![forbid(unsafe_code)]

mod address;
mod answer;
mod arguments;
mod batch;
mod budget;
mod config;
mod database;
mod error;
mod explain;
mod front;
mod handover;
mod header;
mod health;
mod item;
mod line;
mod listener;
mod log;
mod measure;
mod message_sid;
mod metrics;
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
mod side;
mod status;
mod writer;

use std::process::ExitCode;

fn main() -> ExitCode {
    match config::Config::load().and_then(process::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("twilio-callback-shim: error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
