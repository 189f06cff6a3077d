//! All messages of this run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::message::Message;

/// Messages by SID, in the order of creation and by recipient; and who opted out.
pub(crate) struct Store {
    keep: usize,
    last_number: u64,
    messages: BTreeMap<u64, Message>,
    numbers: HashMap<String, u64>,
    by_recipient: HashMap<String, Vec<u64>>,
    tries: HashMap<String, u32>,
    opted_out: HashSet<(String, String)>,
}

impl Store {
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            last_number: 0,
            messages: BTreeMap::new(),
            numbers: HashMap::new(),
            by_recipient: HashMap::new(),
            tries: HashMap::new(),
            opted_out: HashSet::new(),
        }
    }

    /// Adds a message and numbers it. If there are too many, the oldest is removed.
    pub(crate) fn insert(&mut self, mut message: Message) {
        self.last_number += 1;
        let number = self.last_number;
        message.number = number;
        self.numbers.insert(message.sid.clone(), number);
        self.by_recipient
            .entry(message.to.clone())
            .or_default()
            .push(number);
        self.messages.insert(number, message);
        if self.messages.len() > self.keep {
            let oldest = self
                .messages
                .first_key_value()
                .map(|(_, message)| message.sid.clone());
            oldest.map(|sid| self.remove(&sid));
        }
    }

    pub(crate) fn find(&self, sid: &str) -> Option<&Message> {
        self.numbers
            .get(sid)
            .and_then(|number| self.messages.get(number))
    }

    pub(crate) fn find_mut(&mut self, sid: &str) -> Option<&mut Message> {
        self.numbers
            .get(sid)
            .and_then(|number| self.messages.get_mut(number))
    }

    pub(crate) fn remove(&mut self, sid: &str) -> Option<Message> {
        let message = self.messages.remove(&self.numbers.remove(sid)?)?;
        if let Some(numbers) = self.by_recipient.get_mut(&message.to) {
            numbers.retain(|number| *number != message.number);
            if numbers.is_empty() {
                self.by_recipient.remove(&message.to);
            }
        }
        Some(message)
    }

    /// Messages with a number in `range`, newest first; with `to` only those to that recipient.
    pub(crate) fn newest<'a>(
        &'a self,
        to: Option<&str>,
        range: Range<u64>,
    ) -> Box<dyn DoubleEndedIterator<Item = &'a Message> + 'a> {
        let Some(to) = to else {
            return Box::new(self.messages.range(range).map(|(_, message)| message).rev());
        };
        let numbers = self
            .by_recipient
            .get(to)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let place = |bound| numbers.partition_point(|number| *number < bound);
        let numbers = &numbers[place(range.start)..place(range.end)];
        let messages = numbers.iter().rev();
        Box::new(messages.filter_map(|number| self.messages.get(number)))
    }

    /// The place of a message in the order of creation.
    pub(crate) fn number(&self, sid: &str) -> Option<u64> {
        self.numbers.get(sid).copied()
    }

    /// Counts a create for `to`, this one included.
    pub(crate) fn count_try(&mut self, to: &str) -> u32 {
        let tries = self.tries.entry(to.to_owned()).or_default();
        *tries += 1;
        *tries
    }

    /// Clears the counts of tries.
    pub(crate) fn forget_tries(&mut self) {
        self.tries.clear();
    }

    /// Records that `recipient` opted out of messages from `sender`, an address or a messaging service, or opted in.
    pub(crate) fn set_opted_out(&mut self, recipient: &str, sender: &str, is_out: bool) {
        let pair = (recipient.to_owned(), sender.to_owned());
        match is_out {
            true => self.opted_out.insert(pair),
            false => self.opted_out.remove(&pair),
        };
    }

    pub(crate) fn is_opted_out(&self, recipient: &str, sender: &str) -> bool {
        let pair = (recipient.to_owned(), sender.to_owned());
        self.opted_out.contains(&pair)
    }
}
