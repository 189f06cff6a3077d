//! SQL functions about addresses and about messages that are to be sent: one call of the rules each.

use pgrx::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::address::{self, Address};
use protocol::message::{self, Draft};
use protocol::person::{self, Country};
use protocol::segment::Size;
use serde_json::Value;

use crate::argument::{Bounded, Json};
use crate::error;

#[pg_extern]
fn address_kind(address: Bounded<&str>) -> Option<&'static str> {
    Some(match Address::parse(address.value()).ok()?.kind {
        address::Kind::E164 => "number",
        address::Kind::ShortCode => "short_code",
        address::Kind::Alphanumeric => "alphanumeric",
        address::Kind::MessagingService => "messaging_service",
        address::Kind::ChannelId => "channel_id",
    })
}

#[pg_extern]
fn is_country(code: &str) -> bool {
    code.parse::<Country>().is_ok() && code.bytes().all(|b| b.is_ascii_uppercase())
}

/// A country that does not exist is as good as none: an address always has a key.
#[pg_extern]
fn person_key(address: Option<&str>, country: Option<&str>) -> Option<String> {
    // Countries are looked up only where the address does not name its own.
    let address = address?;
    let is_whole = address.contains('+');
    let country = country.filter(|_| !is_whole).and_then(|c| c.parse().ok());
    Some(person::key(address, country).into_owned())
}

#[pg_extern]
fn number_forms(key: &str) -> Vec<String> {
    person::forms(key)
}

#[pg_extern]
fn normalize_number(
    number: Option<&str>,
    country: Option<&str>,
) -> Result<Option<String>, ErrorReport> {
    let country = country.map(str::parse::<Country>).transpose();
    let country = country.map_err(error::country)?;
    Ok(number.and_then(|number| person::normalize(number, country)))
}

#[pg_extern]
fn channel_between(
    from_address: Option<Bounded<&str>>,
    to_address: Option<Bounded<&str>>,
) -> String {
    address::channel(
        from_address.map(Bounded::value),
        to_address.map(Bounded::value),
    )
    .to_owned()
}

#[pg_extern]
fn text_size(
    body: Bounded<&str>,
    smart_encoding: bool,
) -> TableIterator<
    'static,
    (
        name!(encoding, &'static str),
        name!(units, i32),
        name!(segments, i32),
        name!(units_per_segment, i32),
        name!(units_left, i32),
        name!(problem, Option<String>),
    ),
> {
    let size = Size::of(body.value(), smart_encoding);
    // Bodies are smaller than 1 GB.
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    TableIterator::once((
        size.encoding.as_str(),
        number(size.units),
        number(size.segments),
        number(size.capacity),
        number(size.left),
        message::check_length(body.value())
            .err()
            .map(|error| error.to_string()),
    ))
}

#[pg_extern]
fn check_message(
    to_address: Option<Bounded<&str>>,
    from_address: Option<Bounded<&str>>,
    messaging_service_sid: Option<Bounded<&str>>,
    body: Option<Bounded<&str>>,
    media_urls: Option<Bounded<Array<'_, &str>>>,
    status_callback: Option<Bounded<&str>>,
    twilio_parameters: Option<Bounded<Json>>,
) -> Result<(), ErrorReport> {
    let media: Vec<&str> = media_urls.as_ref().map_or_else(Vec::new, |urls| {
        urls.iter().map(Option::unwrap_or_default).collect()
    });
    let pairs = match twilio_parameters {
        Some(json) => {
            let value = serde_json::from_str(&json.text())
                .map_err(|error| error::unreadable_parameters(&error))?;
            parameters(&value).ok_or_else(error::parameters)?
        }
        None => Vec::new(),
    };
    let extra: Vec<_> = pairs
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let draft = Draft {
        to: to_address.map_or("", Bounded::value),
        from: from_address.map(Bounded::value),
        messaging_service_sid: messaging_service_sid.map(Bounded::value),
        body: body.map(Bounded::value),
        media_urls: &media,
        status_callback: status_callback.map(Bounded::value),
        validity_period: None,
        extra: &extra,
    };
    draft.encode().map(drop).map_err(error::draft)
}

/// The pairs that a JSON object of further parameters stands for: an array repeats its name, an
/// object is sent as its text, as ContentVariables wants it.
pub(crate) fn parameters(value: &Value) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for (name, value) in value.as_object()? {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => return None,
                value => value.to_string(),
            };
            pairs.push((name.clone(), text));
        }
    }
    Some(pairs)
}
