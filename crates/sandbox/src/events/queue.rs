//! Gathers a sink's events, and delivers them until the sink takes them, refuses them or hours have passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::delivery::{Delivery, Outcome, pause};
use super::event::Event;
use super::sink::Status;
use crate::clock::Moment;
use crate::delivery::{Failure, Limits};
use crate::fault::Scope;
use crate::outcome::Disruption;
use crate::random::Generator;
use crate::record::Attempt;
use crate::sandbox::Sandbox;
use crate::signed::Signed;

/// Gives a sink an event, unless a fault applies.
pub(super) fn add(sandbox: &Arc<Sandbox>, sink_sid: &str, event: Event) {
    match sandbox.disruption(Scope::Event, &event.to) {
        None => push(sandbox, sink_sid, event),
        Some(Disruption::Repeated) => (0..3).for_each(|_| push(sandbox, sink_sid, event.clone())),
        Some(Disruption::Late) => {
            let (sandbox, sink_sid) = (sandbox.clone(), sink_sid.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(sandbox.late_delay).await;
                push(&sandbox, &sink_sid, event);
            });
        }
        Some(Disruption::Drop) => {
            let streams = &sandbox.streams;
            let dropped = streams.state().sink(sink_sid).map(|sink| {
                let place = (sink.method.clone(), sink.destination.as_str());
                let owner = (sink_sid, sink.account_sid.as_str());
                Delivery::new(owner, place, false, vec![event])
            });
            if let Some(dropped) = dropped {
                dropped.progress().outcome = Outcome::Dropped;
                streams.deliveries().push(dropped);
            }
        }
    }
}

/// Gives a sink an event.
pub(super) fn push(sandbox: &Arc<Sandbox>, sink_sid: &str, event: Event) {
    let mut state = sandbox.streams.state();
    let Some(sink) = state.sink(sink_sid) else {
        return;
    };
    sink.counts.pending += 1;
    sink.waiting.push(event);
    if sink.waiting.len() == 1 {
        tokio::spawn(gather(sandbox.clone(), sink_sid.to_owned()));
    }
}

/// Delivers what came together in a short time, in no order.
async fn gather(sandbox: Arc<Sandbox>, sink_sid: String) {
    tokio::time::sleep(GATHERING).await;
    let mut deliveries = Vec::new();
    if let Some(sink) = sandbox.streams.state().sink(&sink_sid) {
        let mut events = std::mem::take(&mut sink.waiting);
        shuffle(&mut events, &mut sandbox.random());
        let size = if sink.is_batched { MAX_BATCH } else { 1 };
        for events in events.chunks(size) {
            let place = (sink.method.clone(), sink.destination.as_str());
            let owner = (sink_sid.as_str(), sink.account_sid.as_str());
            let delivery = Delivery::new(owner, place, sink.is_batched, events.to_vec());
            deliveries.push(Arc::new(delivery));
        }
    }
    for delivery in deliveries {
        sandbox.streams.deliveries().push(delivery.clone());
        tokio::spawn(deliver(sandbox.clone(), delivery));
    }
}

async fn deliver(sandbox: Arc<Sandbox>, delivery: Arc<Delivery>) {
    let outcome = match sandbox.targets.find(&delivery.url) {
        Ok(target) => {
            let place = (delivery.method.clone(), delivery.url.as_str());
            let body = delivery.body();
            let signed = Signed::json(&sandbox, &delivery.account_sid, place, body, target);
            attempts(&sandbox, &delivery, &signed).await
        }
        Err(reason) => Outcome::Refused(reason),
    };
    if let Some(sink) = sandbox.streams.state().sink(&delivery.sink_sid) {
        let count = delivery.events.len() as u64;
        let counts = &mut sink.counts;
        counts.pending -= count;
        match outcome {
            Outcome::Delivered => counts.delivered += count,
            Outcome::Discarded => counts.discarded += count,
            _ => counts.given_up += count,
        }
        let has_test = delivery.events.iter().any(Event::is_test);
        if has_test && outcome != Outcome::Delivered && sink.status == Status::Validating {
            sink.status = Status::Failed;
        }
    }
    delivery.progress().outcome = outcome;
}

async fn attempts(sandbox: &Sandbox, delivery: &Delivery, signed: &Signed) -> Outcome {
    let streams = &sandbox.streams;
    let started = Instant::now();
    let mut tries = 0;
    loop {
        if streams.state().sink(&delivery.sink_sid).is_none() {
            return Outcome::Deleted;
        }
        let at = Moment::now();
        // The URL's user is sent unasked.
        let result = match signed.request(signed.target.user.as_deref()) {
            Ok(request) => {
                let address = signed.target.address;
                streams.client.exchange(address, request, LIMITS).await
            }
            Err(error) => Err(Failure::Connect(error.to_string())),
        };
        let outcome = Outcome::of(&result);
        delivery.progress().attempts.push(Attempt::new(at, &result));
        if outcome != Outcome::Pending {
            return outcome;
        }
        let wait = pause(tries, &mut sandbox.random());
        if started.elapsed() * streams.speed + wait > RETRIED_FOR {
            return Outcome::GivenUp;
        }
        tries += 1;
        tokio::time::sleep(wait / streams.speed).await;
    }
}

fn shuffle(events: &mut [Event], random: &mut Generator) {
    for last in (1..events.len()).rev() {
        events.swap(last, random.below(last + 1));
    }
}

const GATHERING: Duration = Duration::from_millis(100);
const MAX_BATCH: usize = 100;
const RETRIED_FOR: Duration = Duration::from_secs(4 * 3600);
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    read: Duration::from_secs(5),
};
