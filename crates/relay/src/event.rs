//! An event of the feed as an AMQP message.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde::Deserialize;

/// An event as read from the feed.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) event_id: i64,
    pub(crate) kind: String,
    pub(crate) tries: i32,
    /// Seconds since 1970.
    pub(crate) received_at: i64,
    pub(crate) json: String,
    /// The message or address whose events keep their order.
    pub(crate) subject: Subject,
    pub(crate) facts: Facts,
}

/// What an event is about. Events with the same subject must not overtake each other.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Subject {
    Message(i64),
    Address(String),
    None(i64),
}

/// The fields of an event that its routing key depends on.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Facts {
    pub(crate) provider: Option<String>,
    pub(crate) channel: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) suppression: Option<String>,
    pub(crate) address: Option<String>,
}

impl Event {
    pub(crate) fn new(
        (event_id, message_id): (i64, Option<i64>),
        kind: String,
        tries: i32,
        received_at: i64,
        json: String,
    ) -> Self {
        // An event that is not an object of texts is routed as unknown rather than withheld.
        let facts: Facts = serde_json::from_str(&json).unwrap_or_default();
        let subject = match (message_id, &facts.address) {
            (Some(id), _) => Subject::Message(id),
            (None, Some(address)) => Subject::Address(address.clone()),
            (None, None) => Subject::None(event_id),
        };
        Self {
            event_id,
            kind,
            tries,
            received_at,
            json,
            subject,
            facts,
        }
    }

    /// The properties of the AMQP message; `is_uncertain` if RabbitMQ may have received it before.
    pub(crate) fn properties(&self, is_uncertain: bool) -> BasicProperties {
        let mut headers = FieldTable::default();
        let retries = AMQPValue::LongInt((self.tries - 1).max(i32::from(is_uncertain)));
        headers.insert("x-retry-count".into(), retries);
        let kind: String = self.kind.chars().take(80).collect();
        BasicProperties::default()
            .with_message_id(format!("twilio-event-{}", self.event_id).into())
            .with_type(kind.into())
            .with_app_id("twilio-callback-relay".into())
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(u64::try_from(self.received_at).unwrap_or_default())
            .with_headers(headers)
    }
}

const PERSISTENT: u8 = 2;
