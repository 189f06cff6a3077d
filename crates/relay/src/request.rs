//! Requests from RabbitMQ as JSON: messages to send and acknowledgements.

use lapin::message::Delivery;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dead_letter::Reason;

/// A message to send; other fields are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Outgoing {
    #[serde(alias = "recipient_number", alias = "to")]
    pub(crate) to_address: String,
    pub(crate) body: Option<String>,
    #[serde(alias = "from")]
    pub(crate) from_address: Option<String>,
    pub(crate) media_urls: Option<Vec<String>>,
    pub(crate) send_at: Option<String>,
    pub(crate) expires_after: Option<String>,
    pub(crate) status_callback: Option<String>,
    pub(crate) metadata: Option<Value>,
    pub(crate) twilio_parameters: Option<Value>,
    pub(crate) account_sid: Option<String>,
}

/// An acknowledgement of an incoming message.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledgement {
    pub(crate) message_id: i64,
}

/// Parses a delivery's content.
pub(crate) fn parse<'a, T: Deserialize<'a>>(data: &'a [u8], hint: &str) -> Result<T, Reason> {
    serde_json::from_slice(data).map_err(|error| Reason {
        // PostgreSQL's SQLSTATE for text of a wrong form.
        sqlstate: "22P02".into(),
        message: "the content cannot be read".into(),
        detail: Some(error.to_string()),
        hint: Some(hint.to_owned()),
    })
}

/// The idempotency key of a message to send, the same for each delivery: from its id, or else from its content.
pub(crate) fn idempotency_key(delivery: &Delivery) -> String {
    match delivery.properties.message_id() {
        Some(id) if !id.as_str().is_empty() && id.as_str().len() <= MAX_ID_BYTES => {
            format!("amqp:{id}")
        }
        Some(id) if !id.as_str().is_empty() => {
            format!("amqp:sha256:{}", digest(id.as_str().as_bytes()))
        }
        _ => format!("amqp:sha256:{}", digest(&delivery.data)),
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// With the prefix it fits into an idempotency key, which has at most 255 characters.
const MAX_ID_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn delivery(id: Option<&str>, data: &str) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, data.into());
        if let Some(id) = id {
            delivery.properties = BasicProperties::default().with_message_id(id.into());
        }
        delivery
    }

    #[test]
    fn the_id_counts_and_else_the_content() {
        assert_eq!(idempotency_key(&delivery(Some("a"), "x")), "amqp:a");
        let key = |id, data| idempotency_key(&delivery(id, data));
        assert_eq!(key(None, "x"), key(Some(""), "x"));
        assert_ne!(key(None, "x"), key(None, "y"));
        let long = "i".repeat(250);
        assert!(key(Some(&long), "x").len() <= 255);
        assert_eq!(key(Some(&long), "x"), key(Some(&long), "y"));
    }

    #[test]
    fn messages_are_read_by_either_name_and_other_fields_are_ignored() {
        for text in [
            r#"{"recipient_number": "+12025550123", "body": "hi", "ticket": "u"}"#,
            r#"{"to_address": "+12025550123", "body": "hi"}"#,
        ] {
            let message: Outgoing = parse(text.as_bytes(), "").unwrap();
            assert_eq!(message.to_address, "+12025550123");
            assert_eq!(message.body.as_deref(), Some("hi"));
        }
    }

    #[test]
    fn unreadable_content_has_a_reason() {
        for text in ["", "hi", "[]", r#"{"body": "hi"}"#, r#"{"to": 5}"#] {
            let reason = parse::<Outgoing>(text.as_bytes(), "").unwrap_err();
            assert_eq!(reason.sqlstate, "22P02");
        }
    }
}
