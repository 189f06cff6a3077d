//! Publishes the feed: reads events, publishes them, waits for the confirms and acknowledges them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemon::aux_connection::AuxConnection;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, confirmed};
use crate::database;
use crate::event::{Event, Subject};
use crate::relay::{Flow, Relay};
use crate::route;

/// Publishes until the process stops, and reconnects when needed.
pub(crate) async fn run(relay: Arc<Relay>) {
    let mut settlement = Settlement::default();
    let flow = Flow::new(Arc::clone(&relay), "feed");
    while flow
        .may_go_on(session(&relay, &flow, &mut settlement).await)
        .await
    {}
}

/// Results that still have to be reported to the database. It outlives a connection, so that a confirmed event is
/// not published again because the database was away.
#[derive(Debug, Default)]
struct Settlement {
    done: Vec<i64>,
    undone: Vec<i64>,
    /// Events that RabbitMQ may have received without confirming them.
    uncertain: HashSet<i64>,
}

impl Settlement {
    fn is_empty(&self) -> bool {
        self.done.is_empty() && self.undone.is_empty()
    }

    async fn report(&mut self, relay: &Relay, connection: &AuxConnection) -> Result<(), String> {
        let consumer = &relay.config.consumer;
        if !self.done.is_empty() {
            database::acknowledge_events(&connection.client, consumer, &self.done).await?;
            self.done.clear();
        }
        if !self.undone.is_empty() {
            database::release(&connection.client, consumer, &self.undone).await?;
            self.undone.clear();
        }
        Ok(())
    }

    /// RabbitMQ has confirmed the event.
    fn has(&mut self, event_id: i64) {
        self.uncertain.remove(&event_id);
        self.done.push(event_id);
    }

    /// RabbitMQ may have received the event, so it is published again.
    fn may_have(&mut self, event_id: i64) {
        // The set may grow because another relay may publish these events; forgetting only affects x-retry-count.
        if self.uncertain.len() >= MAX_UNCERTAIN {
            self.uncertain.clear();
        }
        self.uncertain.insert(event_id);
        self.undone.push(event_id);
    }
}

/// Publishes over one pair of connections. The error says why they ended.
async fn session(relay: &Relay, flow: &Flow, settlement: &mut Settlement) -> Result<(), String> {
    let opened = database::open(relay, "listen twilio_feed");
    let connection = match settlement.is_empty() {
        true => relay.unless_stopped(opened).await,
        // Reporting results to the database is worth the wait.
        false => Some(opened.await),
    };
    let Some(connection) = connection else {
        return Ok(());
    };
    let mut connection = connection?;
    settlement.report(relay, &connection).await?;
    // Events are not read while RabbitMQ is away, because each reading counts as a try.
    let broker = Broker::open(&relay.config, "feed").await?;
    flow.is_up();
    loop {
        if relay.is_stopping() {
            broker.close().await;
            return Ok(());
        }
        if !broker.is_open() {
            return Err("the connection to RabbitMQ has ended".into());
        }
        let config = &relay.config;
        let events = database::read(&connection.client, &config.consumer, config.batch).await?;
        if events.is_empty() {
            wait_for_events(relay, &mut connection).await?;
            continue;
        }
        let result = publish(relay, &broker, events, settlement).await;
        let reported = settlement.report(relay, &connection).await;
        result.and(reported)?;
        flow.works();
    }
}

async fn wait_for_events(relay: &Relay, connection: &mut AuxConnection) -> Result<(), String> {
    tokio::select! {
        hint = connection.notified.recv() => match hint {
            Some(_) => Ok(()),
            None => Err("the connection to the database was closed".into()),
        },
        () = sleep(relay.config.poll_interval) => Ok(()),
        () = relay.stopped() => Ok(()),
    }
}

/// Publishes a batch in rounds with at most one event of each subject. The next round follows once RabbitMQ has
/// confirmed the previous one, so that no event overtakes another, whatever is lost.
async fn publish(
    relay: &Relay,
    broker: &Broker,
    events: Vec<Event>,
    settlement: &mut Settlement,
) -> Result<(), String> {
    let end = Instant::now() + BATCH_TIME;
    let mut rounds = rounds(events).into_iter();
    let mut result = Ok(());
    for round in rounds.by_ref() {
        result = match Instant::now() < end && !relay.is_stopping() {
            true => publish_round(relay, broker, round, settlement).await,
            false => {
                settlement
                    .undone
                    .extend(round.iter().map(|event| event.event_id));
                break;
            }
        };
        if result.is_err() {
            break;
        }
    }
    settlement
        .undone
        .extend(rounds.flatten().map(|event| event.event_id));
    result
}

async fn publish_round(
    relay: &Relay,
    broker: &Broker,
    round: Vec<Event>,
    settlement: &mut Settlement,
) -> Result<(), String> {
    let config = &relay.config;
    let mut result = Ok(());
    let mut waiting = Vec::with_capacity(round.len());
    for event in round {
        let key = route::key(&config.routes, &event.kind, &event.facts);
        let content = event.json.as_bytes();
        let properties = event.properties(settlement.uncertain.contains(&event.event_id));
        if result.is_ok() {
            match broker
                .publish(&config.exchange, &key, content, properties)
                .await
            {
                Ok(confirm) => {
                    waiting.push((event.event_id, confirm));
                    continue;
                }
                Err(error) => {
                    result = Err(error);
                    settlement.may_have(event.event_id);
                    continue;
                }
            }
        }
        settlement.undone.push(event.event_id);
    }
    let end = Instant::now() + config.confirm_timeout;
    for (event_id, confirm) in waiting {
        let left = end.saturating_duration_since(Instant::now());
        match confirmed(confirm, left).await {
            Ok(()) => {
                settlement.has(event_id);
                relay.metrics.published.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                settlement.may_have(event_id);
                result = Err(error);
            }
        }
    }
    result
}

/// Spreads events over rounds, so that each round has at most one event of each subject, the earliest one that
/// is left.
fn rounds(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut next: HashMap<Subject, usize> = HashMap::new();
    let mut rounds: Vec<Vec<Event>> = Vec::new();
    for event in events {
        let number = next.entry(event.subject.clone()).or_default();
        if *number == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*number].push(event);
        *number += 1;
    }
    rounds
}

/// Less than a consumer's default lease, after which other relays get the events too.
const BATCH_TIME: Duration = Duration::from_secs(20);
const MAX_UNCERTAIN: usize = 100_000;

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;

    use super::*;

    #[test]
    fn uncertain_events_are_marked_as_repeats_until_they_are_confirmed() {
        let mut settlement = Settlement::default();
        settlement.may_have(1);
        settlement.may_have(2);
        settlement.has(1);
        assert_eq!(
            (&settlement.done[..], &settlement.undone[..]),
            (&[1][..], &[1, 2][..])
        );
        let retries = |event_id| {
            let properties =
                event(event_id, None, "{}").properties(settlement.uncertain.contains(&event_id));
            properties.headers().as_ref().unwrap().inner()["x-retry-count"].clone()
        };
        assert_eq!(retries(1), AMQPValue::LongInt(0));
        assert_eq!(retries(2), AMQPValue::LongInt(1));
    }

    fn event(event_id: i64, message_id: Option<i64>, json: &str) -> Event {
        let ids = (event_id, message_id);
        Event::new(ids, "message.sent".into(), 1, 0, json.into())
    }

    #[test]
    fn a_round_has_one_event_of_a_message_and_rounds_keep_their_order() {
        let events = vec![
            event(1, Some(7), "{}"),
            event(2, Some(8), "{}"),
            event(3, Some(7), "{}"),
            event(4, None, r#"{"address": "+1"}"#),
            event(5, None, r#"{"address": "+1"}"#),
            event(6, None, "{}"),
            event(7, Some(7), "{}"),
        ];
        let rounds: Vec<Vec<i64>> = rounds(events)
            .iter()
            .map(|round| round.iter().map(|event| event.event_id).collect())
            .collect();
        assert_eq!(rounds, [vec![1, 2, 4, 6], vec![3, 5], vec![7]]);
    }
}
