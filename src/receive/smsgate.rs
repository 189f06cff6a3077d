//! Webhooks of SMSGate's phones: verify first, then read, then hand arrays to one SQL function.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Array, Spi};
use protocol::form::{storable, storable_json};
use protocol::smsgate::encryption::is_sealed;
use protocol::smsgate::webhook::{self, Event, Kind, SignatureError};
use protocol::status::from_smsgate;
use serde_json::{Map, Value};

use crate::argument::{Batch, Bounded, Total};
use crate::function::now_in_microseconds;
use crate::function::table_iterator::TableIterator;
use crate::receive::MAX_KEPT_SOURCE;
use crate::receive::reverify::refused;
use crate::receive::verify::{Refusal, TOO_LARGE};
use crate::record::Unrecorded;
use crate::record::catalog::Catalog;
use crate::statement::{self, Kept, Rejection};
use crate::{clock, credential, error, setting};

/// A row of the answer. pgrx reads the columns' names off each signature, so they stand there, twice.
type Answer = (
    i32,
    Option<&'static str>,
    Option<&'static str>,
    String,
    Option<i64>,
    Option<i64>,
    bool,
    i32,
);

#[pg_extern]
fn smsgate_receive(
    headers: Batch<'_, &str>,
    bodies: Batch<'_, &[u8]>,
    sources: Batch<'_, &str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(http_status, i32),
            name!(content_type, Option<&'static str>),
            name!(response_body, Option<&'static str>),
            name!(reason, String),
            name!(message_id, Option<i64>),
            name!(event_id, Option<i64>),
            name!(is_new, bool),
            name!(wait_ms, i32),
        ),
    >,
    ErrorReport,
> {
    if [bodies.len(), sources.len()] != [headers.len(); 2] {
        return Err(error::invalid(
            "arrays have different lengths".to_owned(),
            "Give one element a request in each of the three arrays.",
        ));
    }
    let mut total = Total::default();
    let arrivals = (headers.iter().zip(bodies.iter()))
        .zip(sources.iter())
        .map(|((lines, body), source)| {
            let (lines, body) = (lines.unwrap_or_default(), body.unwrap_or_default());
            if total.exceeds(&[lines.len(), body.len(), source.map_or(0, str::len)])? {
                return Ok(Arrival {
                    source: source.filter(|source| source.len() <= MAX_KEPT_SOURCE),
                    is_too_large: true,
                    ..Arrival::default()
                });
            }
            Ok(Arrival {
                lines: lines.to_owned(),
                signature: header(lines, "x-signature").unwrap_or_default(),
                timestamp: header(lines, "x-timestamp").unwrap_or_default(),
                body,
                source,
                ..Arrival::default()
            })
        })
        .collect::<Result<Vec<_>, ErrorReport>>()?;
    Ok(TableIterator::new(answer(&arrivals)?))
}

#[pg_extern]
fn smsgate_callback(
    body: Option<Bounded<&[u8]>>,
    signature: Option<Bounded<&str>>,
    timestamp: Option<Bounded<&str>>,
    source: Option<Bounded<&str>>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(http_status, i32),
            name!(content_type, Option<&'static str>),
            name!(response_body, Option<&'static str>),
            name!(reason, String),
            name!(message_id, Option<i64>),
            name!(event_id, Option<i64>),
            name!(is_new, bool),
            name!(wait_ms, i32),
        ),
    >,
    ErrorReport,
> {
    let plain = |text: &str| text.replace(['\r', '\n'], " ");
    let (signature, timestamp) = (
        signature.map(Bounded::value).unwrap_or_default(),
        timestamp.map(Bounded::value).unwrap_or_default(),
    );
    let arrival = Arrival {
        lines: format!(
            "x-signature: {}\nx-timestamp: {}",
            plain(signature),
            plain(timestamp)
        ),
        signature,
        timestamp,
        body: body.map(Bounded::value).unwrap_or_default(),
        source: source.map(Bounded::value),
        ..Arrival::default()
    };
    Ok(TableIterator::new(answer(&[arrival])?))
}

/// Takes in refused webhooks that verify as of when they came; tells of each whether it did.
#[pg_extern]
fn reverify_webhooks(
    rejected_ids: Array<'_, i64>,
) -> Result<SetOfIterator<'static, bool>, ErrorReport> {
    let mut found = Vec::with_capacity(rejected_ids.len());
    for (place, id) in rejected_ids.iter().enumerate() {
        let request = id.map(refused).transpose()?.flatten();
        found.extend(request.map(|request| (place, request)));
    }
    let arrivals: Vec<_> = (found.iter())
        .map(|(_, refused)| Arrival {
            lines: refused.headers.clone(),
            signature: header(&refused.headers, "x-signature").unwrap_or_default(),
            timestamp: header(&refused.headers, "x-timestamp").unwrap_or_default(),
            body: &refused.body,
            at: refused.received_at,
            ..Arrival::default()
        })
        .collect();
    let (rows, _) = take(&arrivals)?;
    let mut is_taken = vec![false; rejected_ids.len()];
    for ((place, _), row) in found.iter().zip(rows) {
        is_taken[*place] = row.0 == 204;
    }
    Ok(SetOfIterator::new(is_taken))
}

/// Why a refused webhook of a phone was not verified, as of when it came.
#[pg_extern]
fn explain_webhook(
    rejected_id: i64,
) -> Result<
    TableIterator<
        'static,
        (
            name!(cause, &'static str),
            name!(device_id, Option<String>),
            name!(signed_by, Option<String>),
            name!(seconds_ahead, Option<i64>),
            name!(unreadable, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let Some(refused) = refused(rejected_id)? else {
        return Ok(TableIterator::new(Vec::new()));
    };
    let at = refused
        .received_at
        .map_or_else(clock::unix_seconds, seconds);
    let device = webhook::device_id(&refused.body);
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let mut unreadable = None;
    for key in credential::all_phone_keys()? {
        let is_own = Some(&key.device_id) == device.as_ref();
        match key.secret.resolve() {
            Ok(secret) if is_own || key.device_id.is_empty() => own.push((key.device_id, secret)),
            Ok(secret) => others.push((key.device_id, secret)),
            Err(error) if is_own => unreadable = Some(error.to_string()),
            Err(_) => {}
        }
    }
    let check = |keys: &[(String, Vec<u8>)]| {
        let keys: Vec<_> = keys.iter().map(|(_, secret)| secret.as_slice()).collect();
        webhook::verify(
            &keys,
            &refused.body,
            header(&refused.headers, "x-timestamp").unwrap_or_default(),
            header(&refused.headers, "x-signature").unwrap_or_default(),
            at,
            setting::smsgate_clock_tolerance(),
        )
    };
    let is_known = own.iter().any(|(device, _)| !device.is_empty());
    let (mut signed_by, mut seconds_ahead) = (None, None);
    let cause = match check(&own) {
        Ok(_) => "none",
        Err(SignatureError::Stale(skew)) => {
            seconds_ahead = Some(skew);
            "clock"
        }
        Err(SignatureError::Malformed) if is_of_twilio(&refused.headers) => "twilio",
        Err(SignatureError::Malformed) => "unsigned",
        Err(SignatureError::Mismatch) => {
            let is_signed_by = |key: &&(String, Vec<u8>)| {
                !matches!(
                    check(std::slice::from_ref(*key)),
                    Err(SignatureError::Mismatch)
                )
            };
            signed_by = others.iter().find(is_signed_by).map(|(id, _)| id.clone());
            match (signed_by.is_some(), unreadable.is_some(), is_known) {
                (true, ..) => "other phone",
                (_, true, _) => "unreadable key",
                (.., true) => "wrong key",
                (.., false) => "no key",
            }
        }
    };
    let unreadable = unreadable.filter(|_| cause == "unreadable key");
    let device = device.map(|device| storable(&device).into_owned());
    let row = (cause, device, signed_by, seconds_ahead, unreadable);
    Ok(TableIterator::new(vec![row]))
}

fn is_of_twilio(lines: &str) -> bool {
    header(lines, "x-twilio-signature").is_some_and(|signature| !signature.is_empty())
}

/// A webhook as it came.
#[derive(Default)]
struct Arrival<'a> {
    lines: String,
    signature: &'a str,
    timestamp: &'a str,
    body: &'a [u8],
    source: Option<&'a str>,
    /// When it arrived; now, if null.
    at: Option<TimestampWithTimeZone>,
    is_too_large: bool,
}

/// The value of a header in lines of 'name: value'.
fn header<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    lines
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn answer(arrivals: &[Arrival<'_>]) -> Result<Vec<Answer>, ErrorReport> {
    let (rows, refused) = take(arrivals)?;
    if !refused.is_empty() {
        statement::reject(
            refused
                .iter()
                .map(|(index, reason)| rejection(&arrivals[*index], reason)),
        )?;
    }
    Ok(rows)
}

/// Records what verifies, and tells what does not and why.
fn take(arrivals: &[Arrival<'_>]) -> Result<(Vec<Answer>, Vec<(usize, String)>), ErrorReport> {
    let devices: Vec<_> = (arrivals.iter())
        .map(|arrival| webhook::device_id(arrival.body).unwrap_or_default())
        .collect();
    let keys = keys(&devices)?;
    let mut rows = Vec::with_capacity(arrivals.len());
    let mut refused = Vec::new();
    let mut told = Vec::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        check_for_interrupts!();
        if arrival.is_too_large {
            refused.push((index, TOO_LARGE.to_owned()));
            rows.push((413, None, None, TOO_LARGE.to_owned(), None, None, false, 0));
            continue;
        }
        // Another phone's key vouches for nothing here, though it is at hand for what that one sent.
        let own_keys: Vec<_> = (keys.iter())
            .filter(|key| key.device_id.is_empty() || key.device_id == devices[index])
            .map(|key| key.secret.as_slice())
            .collect();
        let (status, reason) = match verify(arrival, &own_keys) {
            Err(reason) => {
                refused.push((index, reason.clone()));
                (403, reason)
            }
            // Whatever is correctly signed gets a 2xx: a phone repeats all else for two days.
            Ok(()) => match Event::parse(arrival.body) {
                Ok(events) => {
                    told.extend(events.into_iter().map(|event| (index, event)));
                    (204, "stored".to_owned())
                }
                Err(problem) => (204, format!("ignored: {problem}")),
            },
        };
        rows.push((status, None, None, reason, None, None, false, 0));
    }
    match Catalog::current() {
        Err(Unrecorded::Altered(differences)) if !told.is_empty() => {
            // A phone repeats for two days, the repair may take longer.
            let refusal = Refusal::unrecorded(&differences);
            for index in told.iter().map(|(index, _)| *index) {
                if rows[index].0 != refusal.http_status {
                    (rows[index].0, rows[index].3) = (refusal.http_status, refusal.reason.clone());
                    refused.push((index, refusal.reason.clone()));
                }
            }
        }
        _ => note(arrivals, &told, &mut rows)?,
    }
    Ok((rows, refused))
}

fn rejection<'a>(arrival: &'a Arrival<'a>, reason: &'a str) -> Rejection<'a> {
    Rejection {
        kind: if webhook::is_signed(arrival.signature) {
            Kept::Phone
        } else {
            Kept::Stranger
        },
        account: None,
        reason,
        method: "POST",
        url: "/smsgate",
        headers: arrival.lines.clone(),
        body: arrival.body,
        source: arrival.source,
    }
}

/// Records the events that say something of a message, and completes the answers.
fn note(
    arrivals: &[Arrival<'_>],
    told: &[(usize, Event)],
    rows: &mut [Answer],
) -> Result<(), ErrorReport> {
    let new_events: Vec<_> = (told.iter())
        .filter_map(|(index, event)| Some((*index, event, status(event)?)))
        .collect();
    for (index, event) in told.iter().filter(|(_, event)| status(event).is_none()) {
        rows[*index].3 = format!("ignored: {}", event.name);
    }
    if new_events.is_empty() {
        return Ok(());
    }
    let text = |field: fn(&Event) -> Option<&str>| -> Vec<Option<String>> {
        new_events
            .iter()
            .map(|(_, event, _)| field(event).map(|t| storable(t).into_owned()))
            .collect()
    };
    let arguments: [DatumWithOid<'_>; 10] = [
        text(|e| Some(&e.name)).into(),
        (new_events.iter())
            .map(|(_, event, _)| storable(&event.incoming_id()).into_owned())
            .collect::<Vec<_>>()
            .into(),
        text(|e| e.device_id.as_deref()).into(),
        text(|e| e.message_id.as_deref()).into(),
        new_events
            .iter()
            .map(|(_, _, status)| status.clone())
            .collect::<Vec<_>>()
            .into(),
        text(|e| e.sender.as_deref()).into(),
        text(|e| e.recipient.as_deref()).into(),
        text(|e| e.text.as_deref()).into(),
        (new_events.iter())
            .map(|(index, event, status)| parameters(arrivals[*index].body, event, status))
            .collect::<Vec<_>>()
            .into(),
        (new_events.iter())
            .map(|(index, event, _)| said_at(event, arrivals[*index].at))
            .collect::<Vec<_>>()
            .into(),
    ];
    let recorded: Vec<(Option<i64>, Option<i64>, bool)> = Spi::connect_mut(|client| {
        client
            .update(RECORD, None, &arguments)?
            .map(|row| Ok((row.get(1)?, row.get(2)?, row.get(3)?.unwrap_or(false))))
            .collect::<Result<_, pgrx::spi::Error>>()
    })
    .map_err(error::internal)?;
    for ((index, event, _), (message_id, event_id, is_new)) in new_events.iter().zip(recorded) {
        let row = &mut rows[*index];
        row.3 = match (message_id, is_new) {
            // A message that came in is missing only if it was purged.
            (None, _) if event.kind == Kind::Received => "duplicate",
            (None, _) => "ignored: not a message of ours",
            (_, true) => "stored",
            (_, false) => "duplicate",
        }
        .to_owned();
        (row.4, row.5, row.6) = (message_id, event_id, is_new);
    }
    Ok(())
}

fn status(event: &Event) -> Option<String> {
    match event.kind {
        Kind::State(state) => Some(from_smsgate(state)),
        Kind::Received => Some("received".to_owned()),
        Kind::Other => None,
    }
}

/// When a message came in at its phone, as far as the phone's clock is not ahead of ours: a webhook may come
/// hours later, or once more. Of other events, when they reached us.
fn said_at(event: &Event, arrived: Option<TimestampWithTimeZone>) -> Option<TimestampWithTimeZone> {
    let said = event
        .at
        .filter(|_| event.kind == Kind::Received)
        .and_then(|milliseconds| {
            milliseconds
                .checked_mul(1000)?
                .checked_sub(EPOCH * 1_000_000)
        });
    let latest = arrived.map_or_else(now_in_microseconds, pg_sys::TimestampTz::from);
    said.filter(|said| *said < latest)
        .and_then(|said| TimestampWithTimeZone::try_from(said).ok())
        .or(arrived)
}

/// The parameters that the log keeps: those of the phone, and the same under Twilio's names.
fn parameters(body: &[u8], event: &Event, status: &str) -> String {
    let mut object = match serde_json::from_slice(body).map(storable_json) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let named = [
        ("MessageStatus", Some(status)),
        ("ErrorMessage", event.reason.as_deref()),
        ("From", event.sender.as_deref()),
        // Of an encrypted message the phone says what it was given.
        ("To", event.recipient.as_deref().filter(|to| !is_sealed(to))),
        ("Body", event.text.as_deref()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            object.insert(name.to_owned(), storable(value).into());
        }
    }
    Value::Object(object).to_string()
}

/// A phone's key; without a device, one that is no phone's in particular.
struct Key {
    device_id: String,
    secret: Vec<u8>,
}

/// The keys of these phones, and those that are no phone's in particular.
fn keys(devices: &[String]) -> Result<Vec<Key>, ErrorReport> {
    let mut names: Vec<_> = devices.iter().map(String::as_str).chain([""]).collect();
    names.sort_unstable();
    names.dedup();
    let mut keys = Vec::new();
    for name in names {
        // A key that cannot be read does not hide the others.
        keys.extend(
            (credential::phone_keys(name)?.into_iter()).filter_map(|key| {
                Some(Key {
                    secret: key.secret.resolve().ok()?,
                    device_id: key.device_id,
                })
            }),
        );
    }
    Ok(keys)
}

fn verify(arrival: &Arrival<'_>, keys: &[&[u8]]) -> Result<(), String> {
    if keys.is_empty() {
        return Err("no signing key of this phone is known".to_owned());
    }
    let now = arrival.at.map_or_else(clock::unix_seconds, seconds);
    let tolerance = setting::smsgate_clock_tolerance();
    webhook::verify(
        keys,
        arrival.body,
        arrival.timestamp,
        arrival.signature,
        now,
        tolerance,
    )
    .map(drop)
    .map_err(|error| match error {
        SignatureError::Stale(_) => {
            format!("{error}, {tolerance} are allowed by twilio_callback.smsgate_clock_tolerance")
        }
        _ => error.to_string(),
    })
}

/// A time of PostgreSQL's, which counts from 2000, in seconds since 1970.
fn seconds(at: TimestampWithTimeZone) -> i64 {
    pg_sys::TimestampTz::from(at).div_euclid(1_000_000) + EPOCH
}

/// The start of PostgreSQL's calendar in seconds since 1970.
const EPOCH: i64 = 946_684_800;

const RECORD: &str = "select message_id, event_id, is_new from twilio_internal.record_smsgate_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
