//! Consumes queues: messages to send and acknowledgements. A delivery is acknowledged once the database has
//! committed it, or once the queue of dead letters holds it with the reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemon::aux_connection::AuxConnection;
use daemon::logfmt::Level;
use futures_util::StreamExt;
use lapin::message::Delivery;
use tokio::time::{sleep, timeout};

use crate::broker::{self, Broker, confirmed, explain};
use crate::config::Queue;
use crate::database::{self, Failure};
use crate::dead_letter::{self, Reason};
use crate::relay::{Flow, Relay};
use crate::request::{Acknowledgement, Outgoing, idempotency_key, parse};

/// The task of a queue's messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    Send,
    Acknowledge,
}

/// Consumes until the process stops, and reconnects when needed.
pub(crate) async fn run(relay: Arc<Relay>, task: Task, queue: Queue) {
    let name = match task {
        Task::Send => "outgoing",
        Task::Acknowledge => "acknowledge",
    };
    let flow = Flow::new(Arc::clone(&relay), name);
    while flow
        .may_go_on(session(&relay, &flow, task, &queue, name).await)
        .await
    {}
}

/// Consumes over one pair of connections. The error says why they ended. Deliveries that are not acknowledged
/// by then are delivered again, to this or another relay.
async fn session(
    relay: &Relay,
    flow: &Flow,
    task: Task,
    queue: &Queue,
    name: &str,
) -> Result<(), String> {
    let opened = database::open(relay, "");
    let Some(connection) = relay.unless_stopped(opened).await else {
        return Ok(());
    };
    let connection = connection?;
    let broker = Broker::open(&relay.config, name).await?;
    let mut deliveries = broker.consume(&queue.name, relay.config.prefetch).await?;
    flow.is_up();
    loop {
        let delivery = tokio::select! {
            biased;
            () = relay.stopped() => {
                broker.close().await;
                return Ok(());
            }
            delivery = deliveries.next() => delivery,
            () = sleep(PROBE_INTERVAL) => {
                probe(&broker, &connection).await?;
                flow.works();
                continue;
            }
        };
        let delivery = delivery
            .ok_or("RabbitMQ has ended the delivery")?
            .map_err(|error| explain(&error))?;
        handle(relay, &broker, &connection, task, &delivery).await?;
        broker::acknowledge(&delivery).await?;
        flow.works();
    }
}

/// Checks both connections: messages would wait behind one that ended unnoticed.
async fn probe(broker: &Broker, connection: &AuxConnection) -> Result<(), String> {
    if !broker.is_open() {
        return Err("the connection to RabbitMQ has ended".into());
    }
    match timeout(PROBE_TIMEOUT, connection.client.batch_execute("")).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(daemon::explain::describe(&error)),
        Err(_) => Err("the database did not answer a probe".into()),
    }
}

async fn handle(
    relay: &Relay,
    broker: &Broker,
    connection: &AuxConnection,
    task: Task,
    delivery: &Delivery,
) -> Result<(), String> {
    let result = match task {
        Task::Send => send(relay, connection, delivery).await,
        Task::Acknowledge => acknowledge(relay, connection, delivery).await,
    };
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Later(text)) => Err(text),
        Err(Failure::Invalid(reason)) => bury(relay, broker, delivery, &reason).await,
    }
}

async fn send(
    relay: &Relay,
    connection: &AuxConnection,
    delivery: &Delivery,
) -> Result<(), Failure> {
    let hint =
        "Publish JSON such as {\"recipient_number\": \"+12025550123\", \"body\": \"Hello\"}.";
    let message: Outgoing = parse(&delivery.data, hint).map_err(Failure::Invalid)?;
    database::send(&connection.client, &message, &idempotency_key(delivery)).await?;
    relay.metrics.queued.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn acknowledge(
    relay: &Relay,
    connection: &AuxConnection,
    delivery: &Delivery,
) -> Result<(), Failure> {
    let hint = "Publish JSON such as {\"message_id\": 42}, with the event's message_id.";
    let wanted: Acknowledgement = parse(&delivery.data, hint).map_err(Failure::Invalid)?;
    let is_in_time = database::acknowledge(&connection.client, wanted.message_id).await?;
    let counter = match is_in_time {
        true => &relay.metrics.acknowledged,
        false => &relay.metrics.late,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Puts a delivery into the queue of dead letters unchanged, with the reason in its headers.
async fn bury(
    relay: &Relay,
    broker: &Broker,
    delivery: &Delivery,
    reason: &Reason,
) -> Result<(), String> {
    let config = &relay.config;
    let (queue, content) = (config.dead_letter_queue.as_str(), &delivery.data);
    let properties = dead_letter::properties(delivery, reason, broker.frame_size());
    let confirm = broker.publish("", queue, content, properties).await?;
    confirmed(confirm, config.confirm_timeout).await?;
    relay.metrics.dead.fetch_add(1, Ordering::Relaxed);
    let text = format!(
        "{} ({})",
        dead_letter::cut(&reason.message),
        reason.sqlstate
    );
    relay.log.message(Level::Warn, "dead_letter", &text);
    Ok(())
}

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
