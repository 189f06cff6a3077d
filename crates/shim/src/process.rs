//! The process from its start to its graceful end.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Config;
use crate::error::Error;
use crate::front::Front;
use crate::line::Level;
use crate::listener::Listener;
use crate::log::Log;
use crate::server::Purpose;
use crate::signals::Signals;
use crate::writer::{self, Startup};
use crate::{handover, noise, reply, server};

/// Runs until a signal ends it or it cannot go on.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    // One thread: the work between two system calls is short, and waking tasks costs least.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::system("cannot start", &error))?;
    let log = Log::start(config.log_format)
        .map_err(|error| Error::system("cannot start the log's thread", &error))?;
    let (wishes, wished) = mpsc::unbounded_channel();
    let front = Arc::new(Front::new(config, log, wishes));
    let result = runtime.block_on(async {
        tokio::spawn(handover::run(Arc::clone(&front)));
        tokio::spawn(noise::report(Arc::clone(&front)));
        tokio::spawn(reply::run(Arc::clone(&front), wished));
        serve(&front).await
    });
    front.log.flush();
    result
}

async fn serve(front: &Arc<Front>) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let listeners = bind(front).await?;
    if let Some(address) = &front.config.operations {
        let listener = Listener::bind(address, front.config.socket_mode).await?;
        announce(front, "operations", &listener);
        tokio::spawn(service::operations::serve(Arc::clone(front), listener));
    }
    let mut acceptors = Vec::new();
    for (purpose, listener) in listeners {
        announce(front, purpose.name(), &listener);
        let accepting = server::accept(Arc::clone(front), listener, purpose);
        acceptors.push(tokio::spawn(accepting));
    }
    let (startup, mut writers) = start_writers(front);
    let outcome = tokio::select! {
        outcome = attend(front, startup, &mut signals) => outcome,
        _ = writers.join_next() => Err(Error::TaskEnded("a writer")),
    };
    let text = match &outcome {
        Ok(signal) => format!("{signal}, finishing what is open"),
        Err(error @ Error::TaskEnded(_)) => error.to_string(),
        Err(_) => return outcome.map(|_| ()),
    };
    front.log.message(Level::Info, "stopping", &text);
    let stopped = timeout(front.config.grace, stop(front, acceptors, writers)).await;
    outcome.and_then(|_| finish(front, stopped.is_ok()))
}

/// Waits for the database and then for the signal to stop, or for the signal alone.
async fn attend(
    front: &Front,
    startup: watch::Receiver<Startup>,
    signals: &mut Signals,
) -> Result<&'static str, Error> {
    tokio::select! {
        started = wait_for_database(front, startup) => started?,
        signal = signals.next() => return Ok(signal),
    }
    report_smsgate(front);
    check_tools(front).await?;
    Ok(signals.next().await)
}

async fn bind(front: &Front) -> Result<Vec<(Purpose, Listener)>, Error> {
    let mode = front.config.socket_mode;
    let mut listeners = Vec::new();
    for address in &front.config.listen {
        listeners.push((Purpose::Callbacks, Listener::bind(address, mode).await?));
    }
    if let Some(tools) = &front.config.tools {
        let listener = Listener::bind(&tools.listen, mode).await?;
        listeners.push((Purpose::Tools, listener));
    }
    Ok(listeners)
}

/// Ends the process where the tools' role cannot work. A database that has just gone away is asked
/// again with the first request.
async fn check_tools(front: &Front) -> Result<(), Error> {
    let Some(tools) = &front.tools else {
        return Ok(());
    };
    match tools.check().await {
        Err(error @ Error::Configuration { .. }) => Err(error),
        Err(error) => {
            let text = error.to_string();
            front.log.message(Level::Warn, "no_tools", &text);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn announce(front: &Front, what: &str, listener: &Listener) {
    let text = format!("{what} on {}", listener.address());
    front.log.message(Level::Info, "listening", &text);
}

fn start_writers(front: &Arc<Front>) -> (watch::Receiver<Startup>, JoinSet<()>) {
    let (sender, receiver) = watch::channel(Startup::Connecting);
    let sender = Arc::new(sender);
    let mut writers = JoinSet::new();
    for number in 1..=front.config.writers {
        writers.spawn(writer::run(Arc::clone(front), number, Arc::clone(&sender)));
    }
    (receiver, writers)
}

/// Waits for the first connection. A database that is away is waited for; one that is set up
/// wrongly is not, since only a human can help there.
async fn wait_for_database(
    front: &Front,
    mut startup: watch::Receiver<Startup>,
) -> Result<(), Error> {
    let limit = front.config.startup_timeout;
    let deadline = Instant::now() + limit;
    let mut cause = "no answer yet".to_owned();
    loop {
        match startup.borrow_and_update().clone() {
            Startup::Connecting => {}
            Startup::Connected => return Ok(()),
            Startup::Failed(error @ Error::Configuration { .. }) => return Err(error),
            Startup::Failed(Error::DatabaseAway(text)) => cause = text,
            Startup::Failed(error) => cause = error.to_string(),
        }
        if timeout_at(deadline, startup.changed()).await.is_err() {
            let seconds = limit.as_secs_f64();
            return Err(Error::StartupTimeout { seconds, cause });
        }
    }
}

fn report_smsgate(front: &Front) {
    if front.health.lacks_smsgate() {
        let text = "the database has no twilio.smsgate_receive that this role may call: \
                    SMSGate's paths are answered 404";
        front.log.message(Level::Info, "no_smsgate", text);
    }
}

/// Stops accepting, lets open requests finish, then lets the writers end.
async fn stop(front: &Front, acceptors: Vec<JoinHandle<()>>, mut writers: JoinSet<()>) {
    front.health.stop();
    front.stop.send_replace(true);
    for acceptor in acceptors {
        let _ = acceptor.await;
    }
    front.room.emptied().await;
    if let Some(tools) = &front.tools {
        tools.room.emptied().await;
    }
    front.queue.close();
    while writers.join_next().await.is_some() {}
}

fn finish(front: &Front, is_complete: bool) -> Result<(), Error> {
    if is_complete {
        front
            .log
            .message(Level::Info, "stopped", "all requests are answered");
        return Ok(());
    }
    let open = front.room.len();
    Err(Error::GraceExceeded(format!("{open} connections")))
}
