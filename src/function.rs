//! SQL functions that are one call of the rules each.

pub(crate) mod message;
pub(crate) mod set_up;
pub(crate) mod table_iterator;
pub(crate) mod twiml;
pub(crate) mod user_function;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::destination::{self, Destination};
use protocol::error_code;
use protocol::form::{Form, storable};
use protocol::signature::{Key, Payload};
use protocol::spelling;
use protocol::status::{self, Kind, Provider};
use protocol::trust::{Api, Gateway};
use protocol::url::SignedUrl;
use protocol::zone;

use crate::argument::Bounded;
use crate::{error, setting};

#[pg_extern]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[pg_extern]
fn now() -> TimestampWithTimeZone {
    // Out of range only by 35 years of shift at the ends of PostgreSQL's calendar.
    TimestampWithTimeZone::try_from(now_in_microseconds())
        .unwrap_or_else(|_| TimestampWithTimeZone::positive_infinity())
}

/// The same in microseconds of PostgreSQL's calendar.
pub(crate) fn now_in_microseconds() -> i64 {
    let (shift, is_forward) = setting::clock_offset();
    // SAFETY: called inside a transaction, as every SQL function is.
    let start = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
    let shift = i64::try_from(shift.as_micros()).unwrap_or(0);
    if is_forward {
        start.saturating_add(shift)
    } else {
        start.saturating_sub(shift)
    }
}

#[pg_extern]
fn url_fault(purpose: &str, url: Bounded<&str>) -> Option<String> {
    let result = match purpose {
        "api" => Api::parse(url.value()).map(drop),
        "gateway" => Gateway::parse(url.value()).map(drop),
        _ => destination::check_public_base(url.value()),
    };
    result.err().map(|fault| fault.to_string())
}

/// Without an account's API, Twilio's own is meant.
#[pg_extern]
fn is_trusted_url(url: Option<&str>, api_url: Option<&str>) -> bool {
    let to = url.and_then(|url| Destination::parse(url).ok());
    let api = Api::parse(api_url.unwrap_or("https://api.twilio.com")).ok();
    to.zip(api)
        .is_some_and(|(to, api)| api.trusted(&to).is_some())
}

#[pg_extern]
fn status_rank(provider: Bounded<&str>, status: Bounded<&str>) -> Option<i16> {
    status::lookup(Provider::from_name(provider.value())?, status.value()).map(|status| status.rank)
}

#[pg_extern]
fn status_name(provider: Bounded<&str>, rank: i16) -> Option<&'static str> {
    let mut statuses = Provider::from_name(provider.value())?.statuses();
    statuses.find(|s| s.rank == rank).map(|s| s.name)
}

#[pg_extern]
fn status_kind(provider: Bounded<&str>, status: Bounded<&str>) -> Option<&'static str> {
    let status = status::lookup(Provider::from_name(provider.value())?, status.value())?;
    Some(match status.kind {
        Kind::Pending => "pending",
        Kind::Success => "success",
        Kind::Failure => "failure",
        Kind::Withdrawn => "withdrawn",
    })
}

#[pg_extern]
fn default_error_code() -> TableIterator<
    'static,
    (
        name!(error_code, i32),
        name!(meaning, &'static str),
        name!(class, &'static str),
        name!(retry, &'static str),
        name!(retry_after_s, i32),
        name!(fallback, &'static str),
        name!(more_info, String),
    ),
> {
    TableIterator::new(error_code::all().iter().map(|entry| {
        let advice = entry.advice;
        (
            entry.code,
            entry.meaning,
            advice.class.as_str(),
            advice.retry.as_str(),
            i32::try_from(advice.retry.delay()).unwrap_or(i32::MAX),
            advice.fallback.as_str(),
            error_code::more_info(entry.code),
        )
    }))
}

#[pg_extern]
fn default_error_text(error_code: i32) -> Option<&'static str> {
    error_code::lookup(error_code).map(|entry| entry.meaning)
}

#[pg_extern]
fn default_error_fallback(error_code: i32) -> &'static str {
    protocol::error_code::advice(error_code).fallback.as_str()
}

#[pg_extern]
fn default_error_class(error_code: i32) -> &'static str {
    error_code::advice(error_code).class.as_str()
}

#[pg_extern]
fn default_number_zone(
    number: Bounded<&str>,
) -> TableIterator<'static, (name!(prefix, String), name!(zones, Vec<&'static str>))> {
    let found = zone::lookup(number.value());
    let rows = found.map(|(prefix, zones)| (prefix.to_owned(), zones.collect()));
    TableIterator::new(rows.into_iter().collect::<Vec<_>>())
}

/// Raises 54000 for more bytes than a value may have.
#[pg_extern]
fn check_size(bytes: i64) -> Result<(), ErrorReport> {
    let limit = setting::max_request_size();
    if usize::try_from(bytes).is_ok_and(|bytes| bytes > limit) {
        return Err(error::value_too_long(bytes, limit));
    }
    Ok(())
}

#[pg_extern]
fn parse_form(
    body: Bounded<&[u8]>,
) -> Result<TableIterator<'static, (name!(name, String), name!(value, String))>, ErrorReport> {
    let form = Form::parse(body.value());
    if form.is_cut() {
        return Err(error::too_many_pairs());
    }
    let pairs: Vec<_> = form
        .iter()
        .map(|(name, value)| (storable(name).into_owned(), storable(value).into_owned()))
        .collect();
    Ok(TableIterator::new(pairs))
}

#[pg_extern]
fn compute_signature(
    url: Bounded<&str>,
    body: Bounded<&[u8]>,
    secret: Bounded<&str>,
    content_type: Bounded<&str>,
    method: Bounded<&str>,
    algorithm: Bounded<&str>,
) -> Result<String, ErrorReport> {
    let algorithm = algorithm.parse().map_err(error::unknown_algorithm)?;
    let payload = whole(Payload::new(
        method.value(),
        Some(content_type.value()),
        body.value(),
    ))?;
    Ok(Key::new(algorithm, secret.as_bytes()).sign(url.value(), &payload))
}

#[pg_extern]
fn verify_signature(
    url: Option<Bounded<&str>>,
    body: Option<Bounded<&[u8]>>,
    signature: Option<Bounded<&str>>,
    secret: Option<Bounded<&str>>,
    content_type: Option<Bounded<&str>>,
    method: Option<Bounded<&str>>,
    algorithm: Option<Bounded<&str>>,
) -> Result<bool, ErrorReport> {
    // Null is no value of its own here: what is missing does not verify.
    let (Some(url), Some(signature), Some(secret)) = (url, signature, secret) else {
        return Ok(false);
    };
    let algorithm = algorithm
        .map_or("", Bounded::value)
        .parse()
        .map_err(error::unknown_algorithm)?;
    let payload = whole(Payload::new(
        method.map_or("POST", Bounded::value),
        content_type.map(Bounded::value),
        body.map(Bounded::value).unwrap_or_default(),
    ))?;
    let keys = [Key::new(algorithm, secret.as_bytes())];
    let spellings = spelling::accepted(url.value());
    let urls: Vec<_> = std::iter::once(url.value())
        .chain(spellings.iter().map(String::as_str))
        .filter_map(SignedUrl::parse)
        .collect();
    Ok(!secret.is_empty()
        && protocol::signature::verify(&keys, &urls, &payload, signature.value()).is_some())
}

/// 54000 for a form that was not read to its end: a signature covers all of it.
fn whole(payload: Payload<'_>) -> Result<Payload<'_>, ErrorReport> {
    if payload.is_cut() {
        return Err(error::too_many_pairs());
    }
    Ok(payload)
}

/// A message's text, normalized, as it is looked up among keywords.
#[pg_extern]
fn bare_word(text: &str) -> String {
    protocol::keyword::bare_word(text)
}
