//! Reads pages of an account's messages, and finds in them the message whose response was lost.

use serde_json::Value;

use super::messages_path;
use super::response::Resource;
use crate::person::may_be_respelled;

/// One page of messages, latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages that could be read.
    pub messages: Vec<Resource>,
    /// Path and query of the next page, if there is one of the same account.
    pub next_page_uri: Option<String>,
    /// Whether there may be a next page that cannot be requested.
    pub is_cut: bool,
    /// Number of entries, also of those that were not messages.
    pub entries: usize,
    /// Whether an entry was not a message.
    pub has_unreadable: bool,
}

impl Page {
    /// Parses the response to a GET of [`super::list_path`] or of an earlier page's `next_page_uri`; `None` if it is not
    /// a list of messages. Entries that are not messages are left out.
    ///
    /// <https://www.twilio.com/docs/usage/twilios-response#response-formats-list-paging-information>
    pub fn parse(account_sid: &str, body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let entries = value.get("messages")?.as_array()?;
        // Credentials are sent to this URI, so it must be one of this account's messages.
        let is_ours = |uri: &&str| {
            uri.strip_prefix(messages_path(account_sid).as_str())
                .is_some_and(|rest| {
                    rest.starts_with('?') && uri.bytes().all(|b| b.is_ascii_graphic())
                })
        };
        let next = value.get("next_page_uri");
        let next_page_uri = next.and_then(Value::as_str).filter(is_ours);
        // The list ends only if the response says so.
        let is_end = next.is_some_and(|next| next.is_null() || next.as_str() == Some(""));
        let messages: Vec<_> = entries.iter().filter_map(Resource::from_value).collect();
        Some(Self {
            is_cut: next_page_uri.is_none() && !is_end,
            entries: entries.len(),
            has_unreadable: messages.len() < entries.len(),
            next_page_uri: next_page_uri.map(str::to_owned),
            messages,
        })
    }
}

/// Whether Twilio may list a message under another recipient than `to`: in another spelling, or not at all where
/// `parameters`, the message's own as a JSON object, hide it with `AddressRetention`.
///
/// <https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>
pub fn may_be_listed_elsewhere(to: &str, parameters: Option<&str>) -> bool {
    let parameters = parameters.and_then(|text| serde_json::from_str::<Value>(text).ok());
    may_be_respelled(to) || parameters.is_some_and(|value| value.get("AddressRetention").is_some())
}

/// What is known of a message that may have been created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Recipient, as it was sent.
    pub to: &'a str,
    /// Sender, as it was sent; none if a messaging service was to choose.
    pub from: Option<&'a str>,
    /// Messaging service, as it was sent.
    pub messaging_service_sid: Option<&'a str>,
    /// Text, as it was sent; none if a template produced it. Then it is not compared.
    pub body: Option<&'a str>,
    /// Number of media, as they were sent; none if a template may have added some.
    pub num_media: Option<u32>,
    /// Earliest time of its creation, in milliseconds since 1970: the start of the request, minus the difference of
    /// the clocks and the second that Twilio's dates are cut to.
    pub created_from: i64,
    /// Latest time of its creation, in milliseconds since 1970.
    pub created_until: i64,
    /// Whether the list may lack it, because Twilio may show the recipient in another form than it was sent.
    pub is_elsewhere: bool,
}

impl Wanted<'_> {
    /// Whether `resource` matches the message. A text that Twilio no longer shows matches any text.
    pub fn matches(&self, resource: &Resource) -> bool {
        let is_or_hidden = |shown: &Option<String>, wanted: Option<&str>| match (shown, wanted) {
            (Some(shown), Some(wanted)) => shown == wanted,
            _ => true,
        };
        let has_body = match (self.body, resource.body.as_deref()) {
            (Some(wanted), Some(shown)) if !shown.is_empty() => shown.trim() == wanted.trim(),
            _ => true,
        };
        let has_media = match (self.num_media, resource.num_media) {
            (Some(wanted), Some(shown)) => wanted == shown,
            _ => true,
        };
        let is_in_time = resource
            .created_at
            .is_some_and(|at| (self.created_from..=self.created_until).contains(&at));
        has_body
            && has_media
            && is_in_time
            && resource.direction.as_deref() == Some("outbound-api")
            && resource.to.as_deref() == Some(self.to)
            && is_or_hidden(&resource.from, self.from)
            && resource.messaging_service_sid.as_deref() == self.messaging_service_sid
    }

    /// Whether `resource`, read at `read_at`, may be the message although it differs: Twilio shortens links, respells
    /// recipients and chooses senders, and its clock may differ from ours.
    fn is_similar(&self, resource: &Resource, read_at: i64) -> bool {
        let latest = self.created_until.max(self.created_from + NEAR);
        // A message dated later than the list was read shows that our clock is behind, by an unknown time.
        let is_near = |at: i64| at >= self.created_from - NEAR && (at <= latest || at > read_at);
        let direction = resource.direction.as_deref();
        direction.is_none_or(|direction| direction == "outbound-api")
            && resource.created_at.is_none_or(is_near)
    }
}

/// What the pages of a list show about a message that may have been created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When the first page was requested, in milliseconds since 1970. A message created later may be on no page.
    pub read_at: i64,
    /// The number of pages that were read.
    pub pages: usize,
    /// The messages that match.
    pub matching: Vec<Resource>,
    /// SIDs of the messages that do not match but may still be the message.
    pub similar: Vec<String>,
    /// Why the list is incomplete; none if it is complete.
    pub gap: Option<&'static str>,
}

/// The conclusion about the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// It was created as this resource.
    Sent(Box<Resource>),
    /// It was not created.
    Absent,
    /// Read the list again later.
    Later,
    /// It stays unknown, for this reason. The list cannot decide it.
    Open(String),
}

impl Found {
    /// An empty result, before the first page is requested at `read_at`, in milliseconds since 1970.
    pub fn new(read_at: i64) -> Self {
        Self {
            read_at,
            pages: 0,
            matching: Vec::new(),
            similar: Vec::new(),
            gap: None,
        }
    }

    /// Adds a page. Returns the path and query of the next page, if it has to be read.
    pub fn add(&mut self, wanted: &Wanted<'_>, page: Page) -> Option<String> {
        self.pages += 1;
        if wanted.is_elsewhere {
            self.has_gap("Twilio may list the message under another spelling of its recipient");
        }
        if page.has_unreadable {
            self.has_gap("an entry of Twilio's list of messages cannot be read");
        }
        if page.is_cut {
            self.has_gap("Twilio's list of messages to the recipient cannot be read to its end");
        }
        for message in page.messages {
            // New messages push entries from one page to the next, which repeats them.
            let is_known = self.matching.iter().any(|known| known.sid == message.sid);
            if is_known || self.similar.contains(&message.sid) {
                continue;
            }
            if wanted.matches(&message) {
                self.matching.push(message);
            } else if wanted.is_similar(&message, self.read_at) {
                self.similar.push(message.sid);
            }
        }
        // Pages are in the order of sending, and the place of messages that wait to be sent is not documented. So all
        // pages have to be read to show that the message is on none of them.
        if page.next_page_uri.is_some() && self.pages >= MAX_PAGES {
            self.has_gap(
                "Twilio's list of messages to the recipient is too long to be read to its end",
            );
            return None;
        }
        page.next_page_uri
    }

    /// Records why the list is incomplete. The first reason counts.
    pub fn has_gap(&mut self, reason: &'static str) {
        self.gap.get_or_insert(reason);
    }

    /// SIDs of all messages that may be the message.
    pub fn sids(&self) -> impl Iterator<Item = &str> {
        let matching = self.matching.iter().map(|message| message.sid.as_str());
        matching.chain(self.similar.iter().map(String::as_str))
    }

    /// Removes the SIDs that belong to other messages.
    pub fn retain(&mut self, is_free: impl Fn(&str) -> bool) {
        self.matching.retain(|message| is_free(&message.sid));
        self.similar.retain(|sid| is_free(sid));
    }

    /// Concludes whether a message was created whose request began at `started_at`, in milliseconds since 1970. Resources
    /// of other messages must have been removed before. A created message is in the list after at most `time_to_show`
    /// milliseconds.
    pub fn conclude(mut self, started_at: i64, time_to_show: i64) -> Conclusion {
        if self.matching.len() == 1
            && let Some(resource) = self.matching.pop()
        {
            return Conclusion::Sent(Box::new(resource));
        }
        let age = self.read_at - started_at;
        if age < time_to_show {
            return Conclusion::Later;
        }
        if self.matching.len() > 1 {
            let count = self.matching.len();
            return Conclusion::Open(format!("{count} messages at Twilio may be this one"));
        }
        match (self.similar.len(), self.gap) {
            // Only a complete list without the message proves that it was not created.
            (0, None) => Conclusion::Absent,
            (0, Some(gap)) => Conclusion::Open(gap.to_owned()),
            // Meanwhile another message of ours may get one of these SIDs, which then is removed.
            _ if age < time_to_show + NEAR => Conclusion::Later,
            (1, _) => Conclusion::Open(
                "a message at Twilio may be this one, though not all of it is as it was sent"
                    .to_owned(),
            ),
            (count, _) => Conclusion::Open(format!(
                "{count} messages at Twilio may be this one, though none is as it was sent"
            )),
        }
    }
}

/// The largest number of pages that are read.
const MAX_PAGES: usize = 10;

/// How far from the expected time, in milliseconds, a message that does not match may still be the message.
const NEAR: i64 = 900_000;
