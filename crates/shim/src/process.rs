//! Start and graceful stop of the process.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::App;
use crate::config::Config;
use crate::error::Error;
use crate::listener::Listener;
use crate::log::Log;
use crate::logfmt::Level;
use crate::server::Purpose;
use crate::signals::Signals;
use crate::writer::{self, Startup};
use crate::{acknowledgement, noise, reply, server};

/// Runs until a signal ends it or it cannot go on.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    // One thread: the work between two system calls is short, and waking a task is cheapest on one thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::system("cannot start", &error))?;
    let log = Log::start(config.log_format)
        .map_err(|error| Error::system("cannot start the log's thread", &error))?;
    let (reply_requests, requested_replies) = mpsc::unbounded_channel();
    let app = Arc::new(App::new(config, log, reply_requests));
    let result = runtime.block_on(async {
        tokio::spawn(acknowledgement::run(Arc::clone(&app)));
        tokio::spawn(noise::report(Arc::clone(&app)));
        tokio::spawn(reply::run(Arc::clone(&app), requested_replies));
        serve(&app).await
    });
    app.log.flush();
    result
}

async fn serve(app: &Arc<App>) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let listeners = bind(app).await?;
    if let Some(address) = &app.config.operations {
        let listener = Listener::bind(address, app.config.socket_mode).await?;
        announce(app, "operations", &listener);
        tokio::spawn(daemon::operations::serve(Arc::clone(app), listener));
    }
    let mut acceptors = Vec::new();
    for (purpose, listener) in listeners {
        announce(app, purpose.name(), &listener);
        let accepting = server::accept(Arc::clone(app), listener, purpose);
        acceptors.push(tokio::spawn(accepting));
    }
    let (startup, mut writers) = start_writers(app);
    let outcome = tokio::select! {
        outcome = attend(app, startup, &mut signals) => outcome,
        _ = writers.join_next() => Err(Error::TaskEnded("a writer")),
    };
    let text = match &outcome {
        Ok(signal) => format!("{signal}, finishing open requests"),
        Err(error @ Error::TaskEnded(_)) => error.to_string(),
        Err(_) => return outcome.map(|_| ()),
    };
    app.log.message(Level::Info, "stopping", &text);
    let stopped = timeout(app.config.grace, stop(app, acceptors, writers)).await;
    outcome.and_then(|_| finish(app, stopped.is_ok()))
}

/// Waits for the database and then for the signal to stop. The signal ends the first wait too.
async fn attend(
    app: &App,
    startup: watch::Receiver<Startup>,
    signals: &mut Signals,
) -> Result<&'static str, Error> {
    tokio::select! {
        started = wait_for_database(app, startup) => started?,
        signal = signals.next() => return Ok(signal),
    }
    report_smsgate(app);
    check_tools(app).await?;
    Ok(signals.next().await)
}

async fn bind(app: &App) -> Result<Vec<(Purpose, Listener)>, Error> {
    let mode = app.config.socket_mode;
    let mut listeners = Vec::new();
    for address in &app.config.listen {
        listeners.push((Purpose::Callbacks, Listener::bind(address, mode).await?));
    }
    if let Some(tools) = &app.config.tools {
        let listener = Listener::bind(&tools.listen, mode).await?;
        listeners.push((Purpose::Tools, listener));
    }
    Ok(listeners)
}

/// Ends the process if the tools' role lacks what it needs. If the database is away now, the first request
/// connects again.
async fn check_tools(app: &App) -> Result<(), Error> {
    let Some(tools) = &app.tools else {
        return Ok(());
    };
    match tools.check().await {
        Err(error @ Error::Configuration { .. }) => Err(error),
        Err(error) => {
            let text = error.to_string();
            app.log.message(Level::Warn, "no_tools", &text);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn announce(app: &App, what: &str, listener: &Listener) {
    let text = format!("{what} on {}", listener.address());
    app.log.message(Level::Info, "listening", &text);
}

fn start_writers(app: &Arc<App>) -> (watch::Receiver<Startup>, JoinSet<()>) {
    let (sender, receiver) = watch::channel(Startup::Connecting);
    let sender = Arc::new(sender);
    let mut writers = JoinSet::new();
    for number in 1..=app.config.writers {
        writers.spawn(writer::run(Arc::clone(app), number, Arc::clone(&sender)));
    }
    (receiver, writers)
}

/// Waits for the first connection. It waits for a database that is away, but not for one that is set up wrongly,
/// which an operator must correct.
async fn wait_for_database(app: &App, mut startup: watch::Receiver<Startup>) -> Result<(), Error> {
    let limit = app.config.startup_timeout;
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

fn report_smsgate(app: &App) {
    if app.health.lacks_smsgate() {
        let text = "the database has no twilio.smsgate_receive that this role may call: \
                    SMSGate's paths are answered 404";
        app.log.message(Level::Info, "no_smsgate", text);
    }
}

/// Stops accepting, lets open requests finish, then lets the writers end.
async fn stop(app: &App, acceptors: Vec<JoinHandle<()>>, mut writers: JoinSet<()>) {
    app.health.stop();
    app.stop.send_replace(true);
    for acceptor in acceptors {
        let _ = acceptor.await;
    }
    app.room.emptied().await;
    if let Some(tools) = &app.tools {
        tools.room.emptied().await;
    }
    app.queue.close();
    while writers.join_next().await.is_some() {}
}

fn finish(app: &App, is_complete: bool) -> Result<(), Error> {
    if is_complete {
        app.log
            .message(Level::Info, "stopped", "all requests are answered");
        return Ok(());
    }
    let open = app.room.len();
    Err(Error::GraceExceeded(format!("{open} connections")))
}
