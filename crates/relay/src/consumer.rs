//! Queues to the database: each delivery is acknowledged when the database has done what it asks for,
//! or when the queue of dead letters holds it with the reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use service::line::Level;
use service::side::Side;
use tokio::time::{sleep, timeout};

use crate::broker::{self, Broker, confirmed, explain};
use crate::config::Queue;
use crate::database::{self, Failure, Reason};
use crate::letter;
use crate::relay::{Flow, Relay};
use crate::request::{Acknowledgement, Outgoing, idempotency_key, parse};

/// What a queue's messages ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    Send,
    Acknowledge,
}

/// Consumes until the process stops; connects again whenever it must.
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

/// Consumes over one pair of connections; an error says why that came to an end. What is not
/// acknowledged then is delivered again, here or to another relay.
async fn session(
    relay: &Relay,
    flow: &Flow,
    task: Task,
    queue: &Queue,
    name: &str,
) -> Result<(), String> {
    let opened = database::open(relay, "");
    let Some(side) = relay.unless_stopped(opened).await else {
        return Ok(());
    };
    let side = side?;
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
                probe(&broker, &side).await?;
                flow.works();
                continue;
            }
        };
        let delivery = delivery
            .ok_or("RabbitMQ has ended the delivery")?
            .map_err(|error| explain(&error))?;
        handle(relay, &broker, &side, task, &delivery).await?;
        broker::acknowledge(&delivery).await?;
        flow.works();
    }
}

/// A connection that ended unnoticed would leave messages waiting.
async fn probe(broker: &Broker, side: &Side) -> Result<(), String> {
    if !broker.is_open() {
        return Err("the connection to RabbitMQ has ended".into());
    }
    match timeout(PROBE_TIMEOUT, side.client.batch_execute("")).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(service::explain::describe(&error)),
        Err(_) => Err("the database did not answer a probe".into()),
    }
}

async fn handle(
    relay: &Relay,
    broker: &Broker,
    side: &Side,
    task: Task,
    delivery: &Delivery,
) -> Result<(), String> {
    let result = match task {
        Task::Send => send(relay, side, delivery).await,
        Task::Acknowledge => acknowledge(relay, side, delivery).await,
    };
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Later(text)) => Err(text),
        Err(Failure::Invalid(reason)) => bury(relay, broker, delivery, &reason).await,
    }
}

async fn send(relay: &Relay, side: &Side, delivery: &Delivery) -> Result<(), Failure> {
    let hint =
        "Publish JSON such as {\"recipient_number\": \"+12025550123\", \"body\": \"Hello\"}.";
    let message: Outgoing = parse(&delivery.data, hint).map_err(Failure::Invalid)?;
    database::send(&side.client, &message, &idempotency_key(delivery)).await?;
    relay.metrics.queued.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn acknowledge(relay: &Relay, side: &Side, delivery: &Delivery) -> Result<(), Failure> {
    let hint = "Publish JSON such as {\"message_id\": 42}, with the event's message_id.";
    let wanted: Acknowledgement = parse(&delivery.data, hint).map_err(Failure::Invalid)?;
    let is_in_time = database::acknowledge(&side.client, wanted.message_id).await?;
    let counter = match is_in_time {
        true => &relay.metrics.acknowledged,
        false => &relay.metrics.late,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Puts a delivery into the queue of dead letters as it came, with the reason in its headers.
async fn bury(
    relay: &Relay,
    broker: &Broker,
    delivery: &Delivery,
    reason: &Reason,
) -> Result<(), String> {
    let config = &relay.config;
    let (queue, content) = (config.dead_letter_queue.as_str(), &delivery.data);
    let properties = letter::properties(delivery, reason, broker.frame_size());
    let confirm = broker.publish("", queue, content, properties).await?;
    confirmed(confirm, config.confirm_timeout).await?;
    relay.metrics.dead.fetch_add(1, Ordering::Relaxed);
    let text = format!("{} ({})", letter::cut(&reason.message), reason.sqlstate);
    relay.log.message(Level::Warn, "dead_letter", &text);
    Ok(())
}

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
