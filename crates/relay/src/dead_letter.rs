//! The properties of a dead letter. They have to fit into one frame: RabbitMQ closes a connection that sends a
//! larger one, and the delivery would come back and fail the same way again.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};

/// Why a delivery became a dead letter: the fields of a PostgreSQL error.
#[derive(Debug, Default)]
pub(crate) struct Reason {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

/// A delivery's headers with the reason added; without its own headers if they do not fit.
pub(crate) fn properties(
    delivery: &Delivery,
    reason: &Reason,
    frame_size: usize,
) -> BasicProperties {
    let added = headers(delivery, reason);
    let mut all = delivery.properties.headers().clone().unwrap_or_default();
    for (name, value) in &added {
        all.insert(name.clone(), value.clone());
    }
    let fits = table_size(&all) <= frame_size.saturating_sub(REST);
    // Other properties are left out: a time to live was meant for the original queue, and RabbitMQ refuses the
    // id of another user.
    let mut properties = BasicProperties::default()
        .with_headers(if fits { all } else { added })
        .with_delivery_mode(2);
    if let Some(id) = delivery.properties.message_id() {
        properties = properties.with_message_id(id.clone());
    }
    if let Some(content_type) = delivery.properties.content_type() {
        properties = properties.with_content_type(content_type.clone());
    }
    properties
}

fn headers(delivery: &Delivery, reason: &Reason) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("x-twilio-sqlstate", Some(reason.sqlstate.as_str())),
        ("x-twilio-message", Some(&reason.message)),
        ("x-twilio-detail", reason.detail.as_deref()),
        ("x-twilio-hint", reason.hint.as_deref()),
        ("x-twilio-exchange", Some(delivery.exchange.as_str())),
        ("x-twilio-routing-key", Some(delivery.routing_key.as_str())),
    ] {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(cut(value).into()));
        }
    }
    headers
}

/// The beginning of a text: PostgreSQL's messages may quote a value of any length.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

fn table_size(table: &FieldTable) -> usize {
    let pairs = table.into_iter();
    let sizes = pairs.map(|(name, value)| 1 + name.as_str().len() + size(value));
    4 + sizes.sum::<usize>()
}

fn size(value: &AMQPValue) -> usize {
    let content = match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(size).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_size(table),
        // Numbers have at most 8 bytes.
        _ => 8,
    };
    1 + content
}

/// Three such texts and two names fit into the smallest possible frame, of 4,096 bytes.
const MAX_TEXT_BYTES: usize = 500;
/// Bytes for a frame's own fields, and for an id and a media type of at most 255 bytes each.
const REST: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(headers: FieldTable) -> Delivery {
        let name = "n".repeat(255);
        let (exchange, key) = (name.as_str().into(), name.as_str().into());
        let mut delivery = Delivery::mock(1, exchange, key, false, Vec::new());
        delivery.properties = BasicProperties::default().with_headers(headers);
        delivery
    }

    fn long(length: usize) -> AMQPValue {
        AMQPValue::LongString("h".repeat(length).into())
    }

    fn reason() -> Reason {
        let text = "é".repeat(100_000);
        Reason {
            sqlstate: "22007".into(),
            message: format!("x{text}"),
            detail: Some(text.clone()),
            hint: Some(text),
        }
    }

    #[test]
    fn any_reason_and_headers_fit_into_a_frame() {
        let mut nested = FieldTable::default();
        nested.insert("a".into(), AMQPValue::FieldArray(vec![long(70_000)].into()));
        for (own, frame_size, is_kept) in [
            (long(10), 4_096, true),
            (long(3_000), 4_096, false),
            (long(120_000), 131_072, true),
            (long(131_000), 131_072, false),
            (AMQPValue::FieldTable(nested.clone()), 131_072, true),
            (AMQPValue::FieldTable(nested), 70_000, false),
        ] {
            let mut headers = FieldTable::default();
            headers.insert("own".into(), own);
            let properties = properties(&delivery(headers), &reason(), frame_size);
            let kept = properties.headers().as_ref().unwrap();
            assert!(table_size(kept) + REST <= frame_size);
            assert_eq!(kept.contains_key("own"), is_kept, "{frame_size}");
            assert_eq!(kept.inner()["x-twilio-message"], {
                AMQPValue::LongString(format!("x{}", "é".repeat(249)).into())
            });
        }
    }
}
