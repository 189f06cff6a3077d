//! A stand-in for SMSGate: its server's API below `/3rdparty/v1`, and the phones behind it.
//!
//! <https://docs.sms-gate.app/integration/api/>

mod api;
mod lifecycle;
mod message;
pub(crate) mod outcome;
mod phone;
mod phones;
mod queue;
mod submission;
mod token;
mod webhook;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use self::api::answer;
use self::message::Sms;
pub(crate) use self::message::hex;
use self::phone::Phone;
pub(crate) use self::phones::{answer as control, start};
use self::token::Tokens;
use self::webhook::Webhook;
use crate::arguments::Arguments;
use crate::clock::Moment;
use crate::random::Generator;

/// The gateway of one user.
pub(crate) struct Gateway {
    user: String,
    password: String,
    passphrase: Option<String>,
    queue_limit: usize,
    hash_after: Duration,
    retry: Duration,
    phones: Vec<Arc<Phone>>,
    state: Mutex<State>,
}

/// The state of the gateway.
struct State {
    last_number: u64,
    messages: BTreeMap<u64, Sms>,
    by_id: HashMap<String, Vec<u64>>,
    webhooks: Vec<Webhook>,
    tokens: Tokens,
    /// The messages that each device has not fetched yet.
    waiting: HashMap<String, BTreeSet<u64>>,
    tries: HashMap<String, u32>,
    sent: Vec<Sent>,
}

/// A text that a phone sent.
struct Sent {
    at: Moment,
    device_id: String,
    id: String,
    to: String,
    text: String,
    parts: usize,
}

type Result<T> = std::result::Result<T, Refused>;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    status: u16,
    message: String,
}

impl Refused {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl Gateway {
    /// The gateway of the command line; none without its options.
    pub(crate) fn new(
        options: &Arguments,
        random: &mut Generator,
    ) -> std::result::Result<Option<Self>, String> {
        let given = |option: &Option<String>| option.clone().filter(|text| !text.is_empty());
        let (user, password) = match (
            given(&options.smsgate_user),
            given(&options.smsgate_password),
        ) {
            (None, None) => return Ok(None),
            (Some(user), Some(password)) => (user, password),
            _ => return Err("--smsgate-user and --smsgate-password go together".to_owned()),
        };
        let phones = match options.devices.as_slice() {
            [] => vec![Phone::new("", random)?],
            devices => devices
                .iter()
                .map(|d| Phone::new(d, random))
                .collect::<std::result::Result<_, _>>()?,
        };
        Ok(Some(Self {
            user,
            password,
            passphrase: given(&options.smsgate_passphrase),
            queue_limit: options.smsgate_queue_limit,
            hash_after: Duration::from_millis(options.smsgate_hash_after),
            retry: Duration::from_millis(options.smsgate_retry),
            phones: phones.into_iter().map(Arc::new).collect(),
            state: Mutex::new(State {
                last_number: 0,
                messages: BTreeMap::new(),
                by_id: HashMap::new(),
                webhooks: Vec::new(),
                tokens: Tokens::new(random.next(), options.smsgate_token_ttl),
                waiting: HashMap::new(),
                tries: HashMap::new(),
                sent: Vec::new(),
            }),
        }))
    }

    /// Clears the sent texts and the counts of tries.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.tries.clear();
        state.sent.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phone(&self, id: &str) -> Option<&Arc<Phone>> {
        self.phones
            .iter()
            .find(|phone| phone.id == id && !phone.is_removed())
    }
}

impl State {
    fn insert(&mut self, mut sms: Sms) -> u64 {
        self.last_number += 1;
        sms.number = self.last_number;
        self.by_id
            .entry(sms.id.clone())
            .or_default()
            .push(sms.number);
        let waiting = self.waiting.entry(sms.device_id.clone()).or_default();
        waiting.insert(sms.number);
        self.messages.insert(sms.number, sms);
        self.last_number
    }

    /// The messages with this id: more than one if several devices took it.
    fn find(&self, id: &str) -> Vec<u64> {
        self.by_id.get(id).cloned().unwrap_or_default()
    }
}
