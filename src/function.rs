//! SQL functions that are one call of the rules each.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::destination::{self, Destination};
use protocol::error_code;
use protocol::form::{Form, storable};
use protocol::signature::{Key, Payload};
use protocol::status::{self, Kind, Provider};
use protocol::trust::{Api, Gateway};
use protocol::url::SignedUrl;

use crate::{error, setting};

#[pg_extern(immutable, strict, parallel_safe)]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[pg_extern(stable, strict, parallel_safe)]
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

#[pg_extern(immutable, strict, parallel_safe)]
fn url_fault(purpose: &str, url: &str) -> Option<String> {
    let result = match purpose {
        "api" => Api::parse(url).map(drop),
        "gateway" => Gateway::parse(url).map(drop),
        _ => destination::check_public_base(url),
    };
    result.err().map(|fault| fault.to_string())
}

/// Without an account's API, Twilio's own is meant.
#[pg_extern(immutable, parallel_safe)]
fn is_trusted_url(url: Option<&str>, api_url: Option<&str>) -> bool {
    let to = url.and_then(|url| Destination::parse(url).ok());
    let api = Api::parse(api_url.unwrap_or("https://api.twilio.com")).ok();
    to.zip(api)
        .is_some_and(|(to, api)| api.trusted(&to).is_some())
}

#[pg_extern(immutable, strict, parallel_safe)]
fn status_rank(provider: &str, status: &str) -> Option<i16> {
    status::lookup(Provider::from_name(provider)?, status).map(|status| status.rank)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn status_name(provider: &str, rank: i16) -> Option<&'static str> {
    let mut statuses = Provider::from_name(provider)?.statuses();
    statuses.find(|s| s.rank == rank).map(|s| s.name)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn status_kind(provider: &str, status: &str) -> Option<&'static str> {
    let status = status::lookup(Provider::from_name(provider)?, status)?;
    Some(match status.kind {
        Kind::Pending => "pending",
        Kind::Success => "success",
        Kind::Failure => "failure",
        Kind::Withdrawn => "withdrawn",
    })
}

#[pg_extern(immutable, strict, parallel_safe)]
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

#[pg_extern(immutable, strict, parallel_safe)]
fn default_error_text(error_code: i32) -> Option<&'static str> {
    error_code::lookup(error_code).map(|entry| entry.meaning)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn default_error_fallback(error_code: i32) -> &'static str {
    protocol::error_code::advice(error_code).fallback.as_str()
}

#[pg_extern(immutable, strict, parallel_safe)]
fn default_error_class(error_code: i32) -> &'static str {
    error_code::advice(error_code).class.as_str()
}

#[pg_extern(immutable, strict, parallel_safe)]
fn parse_form(body: &[u8]) -> TableIterator<'static, (name!(name, String), name!(value, String))> {
    let form = Form::parse(body);
    let pairs: Vec<_> = form
        .iter()
        .map(|(name, value)| (storable(name).into_owned(), storable(value).into_owned()))
        .collect();
    TableIterator::new(pairs)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn compute_signature(
    url: &str,
    body: &[u8],
    secret: &str,
    content_type: default!(&str, "'application/x-www-form-urlencoded'"),
    method: default!(&str, "'POST'"),
    algorithm: default!(&str, "'HMAC_SHA1'"),
) -> Result<String, ErrorReport> {
    let algorithm = algorithm.parse().map_err(error::unknown_algorithm)?;
    let payload = Payload::new(method, Some(content_type), body);
    Ok(Key::new(algorithm, secret.as_bytes()).sign(url, &payload))
}

#[pg_extern(immutable, parallel_safe)]
fn verify_signature(
    url: Option<&str>,
    body: Option<&[u8]>,
    signature: Option<&str>,
    secret: Option<&str>,
    content_type: default!(Option<&str>, "'application/x-www-form-urlencoded'"),
    method: default!(Option<&str>, "'POST'"),
    algorithm: default!(Option<&str>, "'HMAC_SHA1'"),
) -> Result<bool, ErrorReport> {
    // Null is no value of its own here: what is missing does not verify.
    let (Some(url), Some(signature), Some(secret)) = (url, signature, secret) else {
        return Ok(false);
    };
    let algorithm = algorithm
        .unwrap_or_default()
        .parse()
        .map_err(error::unknown_algorithm)?;
    let payload = Payload::new(
        method.unwrap_or("POST"),
        content_type,
        body.unwrap_or_default(),
    );
    let keys = [Key::new(algorithm, secret.as_bytes())];
    let urls: Vec<_> = SignedUrl::parse(url).into_iter().collect();
    Ok(!secret.is_empty()
        && protocol::signature::verify(&keys, &urls, &payload, signature).is_some())
}

/// A message's text, normalized, as it is looked up among keywords.
#[pg_extern(immutable, strict, parallel_safe)]
fn bare_word(text: &str) -> String {
    protocol::keyword::bare_word(text)
}
