//! A phone, which fetches messages, sends them and reports their states.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::{Mutex, Notify};

use super::Gateway;
use super::lifecycle::{self, EXPIRED};
use super::message::{Sms, State};
use crate::clock::Moment;
use crate::random::Generator;
use crate::sandbox::Sandbox;

/// A device of the user.
pub(crate) struct Phone {
    pub(crate) id: String,
    pub(crate) key: String,
    /// Whether the sandbox generated the key, so that it may be shown.
    pub(crate) is_key_own: bool,
    pub(crate) number: String,
    /// Held while a webhook is called: phones call one after the other.
    pub(crate) line: Mutex<()>,
    pub(crate) wake: Notify,
    is_online: AtomicBool,
    is_removed: AtomicBool,
    clock_skew: AtomicI64,
    last_seen: AtomicI64,
}

impl Phone {
    /// A phone from `ID[:signing-key]`; a missing key is generated.
    pub(crate) fn new(option: &str, random: &mut Generator) -> Result<Self, String> {
        let (id, key) = option.split_once(':').unwrap_or((option, ""));
        if id.len() > 21 {
            return Err(format!("--device {id} has more than 21 characters"));
        }
        let own_id = random.nanoid(21);
        let own_key = random.nanoid(8);
        let number = format!("+1500555{:04}", 1000 + random.below(9000));
        Ok(Self {
            id: if id.is_empty() { own_id } else { id.to_owned() },
            key: if key.is_empty() {
                own_key
            } else {
                key.to_owned()
            },
            is_key_own: key.is_empty(),
            number,
            line: Mutex::new(()),
            wake: Notify::new(),
            is_online: AtomicBool::new(true),
            is_removed: AtomicBool::new(false),
            clock_skew: AtomicI64::new(0),
            last_seen: AtomicI64::new(Moment::now().0),
        })
    }

    pub(crate) fn is_online(&self) -> bool {
        self.is_online.load(Ordering::Relaxed)
    }

    pub(crate) fn set_online(&self, is_online: bool) {
        if self.is_online() {
            self.last_seen.store(Moment::now().0, Ordering::Relaxed);
        }
        self.is_online.store(is_online, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Relaxed)
    }

    pub(crate) fn remove(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
    }

    /// When the phone was last active.
    pub(crate) fn last_seen(&self) -> Moment {
        match self.is_online() {
            true => Moment::now(),
            false => Moment(self.last_seen.load(Ordering::Relaxed)),
        }
    }

    /// Seconds by which the phone's clock is ahead.
    pub(crate) fn clock_skew(&self) -> i64 {
        self.clock_skew.load(Ordering::Relaxed)
    }

    pub(crate) fn set_clock_skew(&self, seconds: i64) {
        self.clock_skew.store(seconds, Ordering::Relaxed);
    }

    /// The phone's clock as its events show it.
    pub(crate) fn time(&self) -> String {
        Moment(Moment::now().0 + self.clock_skew() * 1_000_000).phone()
    }
}

/// Fetches and sends for as long as the program runs.
pub(crate) async fn work(sandbox: Arc<Sandbox>, phone: Arc<Phone>) {
    loop {
        phone.wake.notified().await;
        tokio::time::sleep(sandbox.callback_delay).await;
        let Some(gateway) = &sandbox.gateway else {
            return;
        };
        if !phone.is_online() || phone.is_removed() {
            continue;
        }
        for sms in fetch(gateway, &phone) {
            lifecycle::begin(&sandbox, &phone, &sms);
        }
    }
}

/// Takes what waits for this phone: the most urgent first, then the oldest.
fn fetch(gateway: &Gateway, phone: &Phone) -> Vec<Sms> {
    let now = Moment::now();
    let mut state = gateway.state();
    let mut fetched = Vec::new();
    let state = &mut *state;
    let waiting = state.waiting.entry(phone.id.clone()).or_default();
    for number in waiting.clone() {
        let Some(sms) = state.messages.get_mut(&number) else {
            continue;
        };
        match sms.state() {
            State::Cancelling => sms.set_all(State::Cancelled, None, now),
            State::Pending if sms.due.is_none_or(|due| due > now) => continue,
            State::Pending if sms.is_expired(now) => sms.set_all(State::Failed, Some(EXPIRED), now),
            State::Pending => sms.set_all(State::Processed, None, now),
            _ => continue,
        }
        waiting.remove(&number);
        fetched.push(sms.clone());
    }
    fetched.sort_by_key(|sms| (std::cmp::Reverse(sms.priority), sms.number));
    fetched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_makes_up_what_is_not_given() {
        let mut random = Generator::new(1);
        let phone = Phone::new("", &mut random).unwrap();
        assert_eq!(
            (phone.id.len(), phone.key.len(), phone.is_key_own),
            (21, 8, true)
        );
        let phone = Phone::new("abc:key", &mut random).unwrap();
        assert_eq!(
            (phone.id.as_str(), phone.key.as_str(), phone.is_key_own),
            ("abc", "key", false)
        );
        assert!(Phone::new(&"x".repeat(22), &mut random).is_err());
    }
}
