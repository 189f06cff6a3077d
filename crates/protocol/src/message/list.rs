//! Pages of an account's messages, and finding in them the one that a lost answer was about.

use serde_json::Value;

use super::answer::Resource;
use super::messages_path;

/// One page of messages, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages that could be read.
    pub messages: Vec<Resource>,
    /// Path and query of the next page, if there is one of the same account.
    pub next_page_uri: Option<String>,
}

impl Page {
    /// Reads the answer to a GET of [`super::list_path`] or of a former page's `next_page_uri`;
    /// `None` if it is no list of messages. Entries that are no messages are left out.
    ///
    /// <https://www.twilio.com/docs/usage/twilios-response#response-formats-list-paging-information>
    pub fn parse(account_sid: &str, body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let messages = value.get("messages")?.as_array()?;
        // Credentials go where this leads, so it may lead to this account's messages only.
        let is_ours = |uri: &&str| {
            uri.strip_prefix(messages_path(account_sid).as_str())
                .is_some_and(|rest| {
                    rest.starts_with('?') && uri.bytes().all(|b| b.is_ascii_graphic())
                })
        };
        Some(Self {
            messages: messages.iter().filter_map(Resource::from_value).collect(),
            next_page_uri: value
                .get("next_page_uri")
                .and_then(Value::as_str)
                .filter(is_ours)
                .map(str::to_owned),
        })
    }

    /// Whether everything here was created before `time`, so that further pages hold nothing newer.
    /// One old message proves nothing: pages are in the order of sending, and some wait for days.
    pub fn is_before(&self, time: i64) -> bool {
        !self.messages.is_empty()
            && self
                .messages
                .iter()
                .all(|message| message.created_at.is_some_and(|at| at < time))
    }
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
    /// Text, as it was sent; none if a template made it, which then is not compared.
    pub body: Option<&'a str>,
    /// Number of media, as they were sent; none if a template may have added some.
    pub num_media: Option<u32>,
    /// Earliest time of its creation, in milliseconds since 1970: when the request was begun, less
    /// what the clocks may differ and the second that Twilio's dates are cut to.
    pub created_from: i64,
    /// Latest time of its creation.
    pub created_until: i64,
}

impl Wanted<'_> {
    /// Whether `resource` may be the message. A text that Twilio no longer shows contradicts nothing.
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

    /// The messages of a page that may be the one.
    pub fn candidates<'p>(&self, page: &'p Page) -> impl Iterator<Item = &'p Resource> {
        page.messages.iter().filter(|message| self.matches(message))
    }
}
