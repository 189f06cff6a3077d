//! twilio-callback-relay: the feed to RabbitMQ, and requests to send and acknowledgements from there.

#![forbid(unsafe_code)]

mod arguments;
mod broker;
mod config;
mod consumer;
mod database;
mod event;
mod letter;
mod metrics;
mod process;
mod publisher;
mod relay;
mod request;
mod route;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    match config::Config::load().and_then(process::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("twilio-callback-relay: error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
