//! Lenient reading of members of JSON objects, because the types in the providers' responses vary.

use serde_json::{Map, Value};

use crate::form::storable;

/// A member as text that PostgreSQL can store. Numbers become text; `null`, lists and objects give none.
pub(crate) fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    match object.get(name)? {
        Value::String(text) => Some(storable(text).into_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A member as text, cut after `most` characters.
pub(crate) fn short_text(object: &Map<String, Value>, name: &str, most: usize) -> Option<String> {
    text(object, name).map(|text| text.chars().take(most).collect())
}

/// A member as a whole number, also if it is written as text.
pub(crate) fn number<T: TryFrom<i64>>(object: &Map<String, Value>, name: &str) -> Option<T> {
    let number = match object.get(name)? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_i64(),
    };
    number.and_then(|number| T::try_from(number).ok())
}
