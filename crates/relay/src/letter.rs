//! What a dead letter has beside its content. All of that goes in one frame: RabbitMQ ends a connection
//! that sends a larger one, and the delivery would come back to meet the same end.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};

use crate::database::Reason;

/// A delivery's headers with the reason among them; without its own if they do not fit in.
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
    // Not all of them: a time to live was meant for the queue that it came from, and RabbitMQ refuses
    // another user's id.
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

/// The beginning of a text: PostgreSQL quotes a value that it cannot read, however long that is.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
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
        // Numbers, of which none is longer.
        _ => 8,
    };
    1 + content
}

/// Three of these and two names fit into the smallest frame that there is, of 4,096 bytes.
const LONGEST_TEXT: usize = 500;
/// A frame's own fields, and an id and a media type of at most 255 bytes.
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
    fn whatever_the_reason_and_the_headers_are_it_fits_into_a_frame() {
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
