//! Start and graceful stop of the process.

use std::sync::Arc;

use daemon::error::Error;
use daemon::listener::Listener;
use daemon::log::Log;
use daemon::logfmt::Level;
use daemon::signals::Signals;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::config::Config;
use crate::consumer::{self, Task};
use crate::relay::Relay;
use crate::{database, publisher};

/// Runs until a signal or a fatal error ends the process.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::system("cannot start", &error))?;
    if config.is_check {
        return runtime.block_on(check(&config));
    }
    let log = Log::start(config.log_format)
        .map_err(|error| Error::system("cannot start the log's thread", &error))?;
    let relay = Arc::new(Relay::new(config, log));
    let result = runtime.block_on(serve(&relay));
    relay.log.flush();
    result
}

/// Checks that the database and RabbitMQ can be reached and are set up.
async fn check(config: &Config) -> Result<(), Error> {
    database::connect(&config.database, "").await?;
    let broker = Broker::open(config, "check").await.map_err(|text| {
        Error::configuration(
            text,
            "start RabbitMQ, or correct --amqp-url, the user's rights or the files for TLS",
        )
    })?;
    broker.close().await;
    Ok(())
}

async fn serve(relay: &Arc<Relay>) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    if let Some(address) = &relay.config.operations {
        let listener = Listener::bind(address, 0o660).await?;
        let text = format!("operations on {}", listener.address());
        relay.log.message(Level::Info, "listening", &text);
        tokio::spawn(daemon::operations::serve(Arc::clone(relay), listener));
    }
    let mut flows = start(relay);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        error = relay.wrong_set_up() => return Err(error),
        _ = flows.join_next() => return Err(Error::TaskEnded("a flow")),
    };
    let text = format!("{signal}, finishing work in progress");
    relay.log.message(Level::Info, "stopping", &text);
    relay.stop.send_replace(true);
    let ended = async { while flows.join_next().await.is_some() {} };
    if timeout(relay.config.grace, ended).await.is_err() {
        return Err(Error::GraceExceeded(format!("{} flows", flows.len())));
    }
    relay
        .log
        .message(Level::Info, "stopped", "all work is finished");
    Ok(())
}

fn start(relay: &Arc<Relay>) -> JoinSet<()> {
    let mut flows = JoinSet::new();
    if relay.config.publishes {
        flows.spawn(publisher::run(Arc::clone(relay)));
    }
    if let Some(queue) = relay.config.outgoing.clone() {
        flows.spawn(consumer::run(Arc::clone(relay), Task::Send, queue));
    }
    if let Some(queue) = relay.config.acknowledge.clone() {
        flows.spawn(consumer::run(Arc::clone(relay), Task::Acknowledge, queue));
    }
    flows
}
