//! twilio-sandbox: a stateful stand-in for the APIs of Twilio and SMSGate on loopback, with signed callbacks.

#![forbid(unsafe_code)]

mod account;
mod answer;
mod arguments;
mod callback;
mod clock;
mod control;
mod create;
mod debugger;
mod delivery;
mod error;
mod events;
mod fault;
mod http_request;
mod inbound;
mod lifecycle;
mod list;
mod media;
mod message;
mod number;
mod outcome;
mod overrides;
mod random;
mod record;
mod request;
mod resource;
mod route;
mod sandbox;
mod scenario;
mod server;
mod signed;
mod smsgate;
mod store;
mod target;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::net::TcpListener;

use crate::arguments::Arguments;
use crate::sandbox::Sandbox;

// One thread is enough for tens of thousands of requests a second and leaves the rest of a small
// machine to what is being tried out.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("twilio-sandbox: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Arguments) -> Result<(), String> {
    let listen = options.listen;
    if !listen.ip().is_loopback() {
        return Err(format!("{listen} is not a loopback address"));
    }
    let sandbox = Arc::new(Sandbox::new(options)?);
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    smsgate::start(&sandbox);
    announce(&listener, &sandbox).map_err(|error| format!("cannot write: {error}"))?;
    server::serve(listener, sandbox).await;
    Ok(())
}

/// The URL comes first, on a line of its own, so that scripts can read it. Both lines are one write, so that a script
/// that reads only the first line and closes the pipe does not stop the sandbox.
fn announce(listener: &TcpListener, sandbox: &Sandbox) -> io::Result<()> {
    let url = listener.local_addr()?;
    let text = format!("http://{url}\nseed {}\n", sandbox.seed);
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
