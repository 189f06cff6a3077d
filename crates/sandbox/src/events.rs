//! Event Streams: sinks and subscriptions at the Events API, and the events that sinks are sent.
//!
//! <https://www.twilio.com/docs/events>

mod delivery;
mod event;
mod page;
mod queue;
mod sink;
mod subscription;

use std::sync::{Arc, Mutex, MutexGuard};

use hyper::Method;
use serde_json::{Value, json};

use self::delivery::Delivery;
use self::event::{Draft, Kind};
use self::sink::Sink;
use self::subscription::Subscription;
use crate::arguments::Arguments;
use crate::clock::Moment;
use crate::debugger::Alert;
use crate::delivery::Client;
use crate::error::Refusal;
use crate::http_request::HttpRequest;
use crate::message::Message;
use crate::record::Log;
use crate::resource::Done;
use crate::sandbox::{Sandbox, lock};

/// All sinks with their subscriptions, and what they were sent.
pub(crate) struct Streams {
    /// How much faster the time of retries passes.
    speed: u32,
    /// Its own, so that sinks that do not answer delay no callback.
    client: Client,
    state: Mutex<State>,
    deliveries: Mutex<Log<Delivery>>,
}

#[derive(Default)]
struct State {
    sinks: Vec<Sink>,
    subscriptions: Vec<Subscription>,
}

impl Streams {
    pub(crate) fn new(options: &Arguments) -> Self {
        Self {
            speed: options.sink_speed,
            client: Client::new(options.callback_connections),
            state: Mutex::default(),
            deliveries: Mutex::new(Log::new(options.keep)),
        }
    }

    pub(crate) fn deliveries(&self) -> MutexGuard<'_, Log<Delivery>> {
        lock(&self.deliveries)
    }

    /// The sinks with counts of their events.
    pub(crate) fn to_json(&self) -> Value {
        let state = self.state();
        let list: Vec<Value> = state.sinks.iter().map(Sink::counts_json).collect();
        json!({ "count": list.len(), "sinks": list })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn sink(&mut self, sid: &str) -> Option<&mut Sink> {
        self.sinks.iter_mut().find(|sink| sink.sid == sid)
    }

    fn is_in_use(&self, sink_sid: &str) -> bool {
        let mut all = self.subscriptions.iter();
        all.any(|subscription| subscription.sink_sid == sink_sid)
    }

    /// The sinks that are sent events of `kind` about the account, and the versions of the schema they want.
    fn subscribers(&self, account_sid: &str, kind: &str) -> Vec<(String, u32)> {
        let own = self
            .subscriptions
            .iter()
            .filter(|subscription| subscription.account_sid == account_sid);
        own.filter_map(|subscription| {
            let (_, version) = subscription.types.iter().find(|(name, _)| name == kind)?;
            Some((subscription.sink_sid.clone(), *version))
        })
        .collect()
    }
}

/// Answers requests below `/v1` for an account.
pub(crate) fn answer(
    sandbox: &Arc<Sandbox>,
    request: &HttpRequest,
    account_sid: &str,
    resource: &[&str],
) -> Result<Done, Refusal> {
    match resource {
        ["Sinks"] => sink::all(sandbox, request, account_sid),
        ["Sinks", sid] => sink::one(sandbox, request, account_sid, sid),
        ["Sinks", sid, action @ ("Test" | "Validate")] if request.head.method == Method::POST => {
            sink::act(sandbox, request, account_sid, sid, action)
        }
        ["Sinks", _, "Test" | "Validate"] => Err(Refusal::new(20004)),
        ["Subscriptions"] => subscription::all(sandbox, request, account_sid),
        ["Subscriptions", sid] => subscription::one(sandbox, request, account_sid, sid),
        ["Subscriptions", sid, "SubscribedEvents", name @ ..] if name.len() < 2 => {
            subscription::types(sandbox, request, account_sid, sid, name.first().copied())
        }
        _ => Err(request.not_found()),
    }
}

/// Sends the event of a message's new status, whatever becomes of its callbacks.
pub(crate) fn status(sandbox: &Arc<Sandbox>, message: &Message) {
    if let Some(kind) = Kind::of_status(message.status) {
        publish(sandbox, kind, &message.account_sid, |id| {
            Draft::status(kind, id, message)
        });
    }
}

/// Sends the event of a message that came in: `extra` are further parameters of its webhook.
pub(crate) fn inbound(
    sandbox: &Arc<Sandbox>,
    message: &Message,
    recipients: &[String],
    extra: &[(String, String)],
) {
    let kind = &event::INBOUND;
    publish(sandbox, kind, &message.account_sid, |id| {
        let mut opt_out = extra.iter().filter(|(name, _)| name == "OptOutType");
        let opt_out = opt_out.next().map(|(_, value)| value.as_str());
        Draft::inbound(id, message, recipients, opt_out)
    });
}

/// Sends the event of an alert of the debugger.
pub(crate) fn alert(
    sandbox: &Arc<Sandbox>,
    alert: &Alert,
    (sid, at): (&str, Moment),
    payload: &str,
) {
    publish(sandbox, &event::ERROR, &alert.account_sid, |_| {
        Draft::alert(alert, sid, at, payload)
    });
}

fn publish(
    sandbox: &Arc<Sandbox>,
    kind: &Kind,
    account_sid: &str,
    draft: impl FnOnce(String) -> Draft,
) {
    let subscribers = sandbox.streams.state().subscribers(account_sid, kind.name);
    if subscribers.is_empty() {
        return;
    }
    let id = sandbox.random().sid("EZ");
    let draft = draft(id);
    for (sink_sid, version) in subscribers {
        queue::add(sandbox, &sink_sid, draft.event(version));
    }
}
