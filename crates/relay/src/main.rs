//! twilio-callback-relay: publishes the feed to RabbitMQ, and takes messages to send and acknowledgements from it.

#![forbid(unsafe_code)]

mod arguments;
mod broker;
mod config;
mod consumer;
mod database;
mod dead_letter;
mod event;
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
