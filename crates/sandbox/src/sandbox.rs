//! The state of the sandbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::account::Accounts;
use crate::arguments::Arguments;
use crate::clock::Moment;
use crate::debugger::Debugger;
use crate::delivery::Client;
use crate::events::Streams;
use crate::fault::{Effect, Faults, Scope};
use crate::outcome::{Disruption, Outcome};
use crate::random::{self, Generator};
use crate::record::{Called, Heard, Log};
use crate::smsgate::{self, Gateway};
use crate::store::Store;
use crate::target::Targets;

/// The state that all requests and callbacks share.
pub(crate) struct Sandbox {
    pub(crate) seed: u64,
    pub(crate) accounts: Accounts,
    pub(crate) targets: Targets,
    pub(crate) client: Client,
    pub(crate) callback_delay: Duration,
    pub(crate) late_delay: Duration,
    pub(crate) latency: Duration,
    pub(crate) retry_after: Option<u64>,
    pub(crate) scheduled_after: Option<Duration>,
    pub(crate) channel_install_sid: String,
    /// Twilio API requests that may run at once.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) max_concurrent: usize,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) streams: Streams,
    pub(crate) debugger: Debugger,
    senders: Vec<String>,
    random: Mutex<Generator>,
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    requests: Mutex<Log<Heard>>,
    calls: Mutex<Log<Called>>,
}

impl Sandbox {
    pub(crate) fn new(options: Arguments) -> Result<Self, String> {
        let seed = options.seed.unwrap_or_else(random::fresh_seed);
        let mut generator = Generator::new(seed);
        Ok(Self {
            seed,
            accounts: Accounts::new(&options)?,
            targets: Targets::new(&options.deliver)?,
            client: Client::new(options.callback_connections),
            callback_delay: Duration::from_millis(options.callback_delay),
            late_delay: Duration::from_millis(options.late_delay),
            latency: Duration::from_millis(options.latency),
            retry_after: options.retry_after,
            scheduled_after: options.scheduled_after.map(Duration::from_millis),
            channel_install_sid: generator.sid("XE"),
            streams: Streams::new(&options),
            debugger: Debugger::new(options.debugger.as_deref()),
            gateway: Gateway::new(&options, &mut generator)?,
            senders: options.senders,
            random: Mutex::new(generator),
            store: Mutex::new(Store::new(options.keep)),
            faults: Mutex::default(),
            permits: Arc::new(Semaphore::new(options.max_concurrent)),
            max_concurrent: options.max_concurrent,
            requests: Mutex::new(Log::new(options.keep)),
            calls: Mutex::new(Log::new(options.keep)),
        })
    }

    /// Whether messages may be sent from `from`.
    pub(crate) fn owns(&self, from: &str) -> bool {
        self.senders.is_empty() || self.senders.iter().any(|sender| sender == from)
    }

    /// The sender that a messaging service chooses for `to`: the first of the same channel.
    pub(crate) fn service_sender(&self, to: &str) -> String {
        let channel = |address: &str| protocol::address::split_channel(address).0.to_owned();
        let own = self
            .senders
            .iter()
            .find(|sender| channel(sender) == channel(to));
        own.cloned().unwrap_or_else(|| match channel(to).as_str() {
            "sms" => SERVICE_NUMBER.to_owned(),
            other => format!("{other}:{SERVICE_NUMBER}"),
        })
    }

    /// How long a message waits that is to be sent at `send_at`.
    pub(crate) fn pause_until(&self, send_at: Option<Moment>) -> Duration {
        let Some(send_at) = send_at else {
            return Duration::ZERO;
        };
        let until = send_at
            .0
            .saturating_sub(Moment::now().0)
            .max(0)
            .unsigned_abs();
        self.scheduled_after.unwrap_or(Duration::from_micros(until))
    }

    /// The fault that applies to a request, if any.
    pub(crate) fn fault(&self, scope: Scope, to: Option<&str>) -> Option<Outcome> {
        match self.faults().take(scope, to, &mut self.random()) {
            Some(Effect::Twilio(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// The fault that applies to a message for an SMSGate phone, if any.
    pub(crate) fn phone_fault(&self, to: &str) -> Option<smsgate::outcome::Outcome> {
        match self
            .faults()
            .take(Scope::SmsGate, Some(to), &mut self.random())
        {
            Some(Effect::SmsGate(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// The fault that applies to a report about a message to `to`, if any.
    pub(crate) fn disruption(&self, scope: Scope, to: &str) -> Option<Disruption> {
        match self.faults().take(scope, Some(to), &mut self.random()) {
            Some(Effect::Disruption(disruption)) => Some(disruption),
            _ => None,
        }
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(crate) fn random(&self) -> MutexGuard<'_, Generator> {
        lock(&self.random)
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Log<Heard>> {
        lock(&self.requests)
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, Log<Called>> {
        lock(&self.calls)
    }

    pub(crate) fn record_call(&self, called: Called) {
        self.calls().push(called);
    }
}

/// A panic in another task cannot leave a value half changed: all changes under these locks are short.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Twilio's own test number that may send.
const SERVICE_NUMBER: &str = "+15005550006";
