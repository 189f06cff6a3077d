//! All messages of this run.

use std::collections::HashMap;

use crate::message::Message;

/// Messages by SID, in the order of creation and by recipient.
#[derive(Default)]
pub(crate) struct Store {
    last_number: u64,
    messages: HashMap<String, Message>,
    order: Vec<String>,
    tries: HashMap<String, u32>,
}

impl Store {
    /// Adds a message and numbers it.
    pub(crate) fn insert(&mut self, mut message: Message) {
        self.last_number += 1;
        message.number = self.last_number;
        self.order.push(message.sid.clone());
        self.messages.insert(message.sid.clone(), message);
    }

    pub(crate) fn find(&self, sid: &str) -> Option<&Message> {
        self.messages.get(sid)
    }

    pub(crate) fn find_mut(&mut self, sid: &str) -> Option<&mut Message> {
        self.messages.get_mut(sid)
    }

    /// Counts a create for `to`, this one included.
    pub(crate) fn count_try(&mut self, to: &str) -> u32 {
        let tries = self.tries.entry(to.to_owned()).or_default();
        *tries += 1;
        *tries
    }
}
