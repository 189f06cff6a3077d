//! Receiving: verify first, then parse, then hand arrays to one SQL function. Nothing here raises for a
//! bad request; each gets its answer.

pub(crate) mod reverify;
pub(crate) mod self_test;
pub(crate) mod smsgate;
pub(crate) mod stream;
pub(crate) mod verify;

use std::borrow::Cow;
use std::collections::HashSet;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::callback::Kind;
use protocol::request::{Headers, Request};
use protocol::twiml;

use crate::argument::{Batch, Bounded, MAX_BATCH_PARAMETERS, Total};
use crate::clock;
use crate::error;
use crate::function::table_iterator::TableIterator;
use crate::receive::stream::{Outcome, Sorted};
use crate::receive::verify::{Decoded, Keyring, Refusal, Verified, keys_and_urls};
use crate::record::catalog::Catalog;
use crate::record::{self, Item, Params, Recorded, Unrecorded};
use crate::statement::{self, Kept, Rejection};

/// A row of the answer. pgrx reads the columns' names off each signature, so they stand there, twice.
type Answer = (
    i32,
    Option<&'static str>,
    Option<String>,
    String,
    Option<i64>,
    Option<i64>,
    bool,
    i32,
);

#[pg_extern]
fn receive(
    methods: Batch<'_, &str>,
    urls: Batch<'_, &str>,
    headers: Batch<'_, &str>,
    bodies: Batch<'_, &[u8]>,
    sources: Batch<'_, &str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(http_status, i32),
            name!(content_type, Option<&'static str>),
            name!(response_body, Option<String>),
            name!(reason, String),
            name!(message_id, Option<i64>),
            name!(event_id, Option<i64>),
            name!(is_new, bool),
            name!(wait_ms, i32),
        ),
    >,
    ErrorReport,
> {
    let count = methods.len();
    if [urls.len(), headers.len(), bodies.len(), sources.len()] != [count; 4] {
        return Err(error::invalid(
            "arrays have different lengths".to_owned(),
            "Give one element a request in each of the five arrays.",
        ));
    }
    let mut total = Total::default();
    let arrivals = (methods.iter().zip(urls.iter()))
        .zip(headers.iter().zip(bodies.iter()))
        .zip(sources.iter())
        .map(|(((method, url), (lines, body)), source)| {
            let (method, url) = (method.unwrap_or_default(), url.unwrap_or_default());
            let (lines, body) = (lines.unwrap_or_default(), body.unwrap_or_default());
            let parts = [
                method.len(),
                url.len(),
                lines.len(),
                body.len(),
                source.map_or(0, str::len),
            ];
            if total.exceeds(&parts)? {
                let source = source.filter(|source| source.len() <= MAX_KEPT_SOURCE);
                return Ok(Arrival {
                    source,
                    ..Arrival::TOO_LARGE
                });
            }
            Ok(Arrival {
                request: Request {
                    method,
                    url,
                    headers: Headers::parse(lines),
                    body,
                },
                lines,
                source,
                is_too_large: false,
            })
        })
        .collect::<Result<Vec<_>, ErrorReport>>()?;
    Ok(TableIterator::new(answer(&arrivals, true)?.rows))
}

#[pg_extern]
fn sms_callback(
    url: Option<Bounded<&str>>,
    body: Option<Bounded<&[u8]>>,
    signature: Option<Bounded<&str>>,
    content_type: Option<Bounded<&str>>,
    method: Option<Bounded<&str>>,
    signature_settings: Option<Bounded<&str>>,
    source: Option<Bounded<&str>>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(http_status, i32),
            name!(content_type, Option<&'static str>),
            name!(response_body, Option<String>),
            name!(reason, String),
            name!(message_id, Option<i64>),
            name!(event_id, Option<i64>),
            name!(is_new, bool),
            name!(wait_ms, i32),
        ),
    >,
    ErrorReport,
> {
    let arrival = Arrival::single(
        url,
        body,
        signature,
        content_type,
        method,
        signature_settings,
        source,
    );
    Ok(TableIterator::new(answer(&[arrival], false)?.rows))
}

#[pg_extern]
fn receive_events(
    url: Option<Bounded<&str>>,
    body: Option<Bounded<&[u8]>>,
    signature: Option<Bounded<&str>>,
    content_type: Option<Bounded<&str>>,
    method: Option<Bounded<&str>>,
    signature_settings: Option<Bounded<&str>>,
    source: Option<Bounded<&str>>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(http_status, i32),
            name!(reason, String),
            name!(events, i32),
            name!(new_events, i32),
        ),
    >,
    ErrorReport,
> {
    let arrival = Arrival::single(
        url,
        body,
        signature,
        content_type,
        method,
        signature_settings,
        source,
    );
    let Answered { rows, events } = answer(&[arrival], false)?;
    let Outcome { all, new } = events;
    let rows = rows.into_iter().map(|row| (row.0, row.3, all, new));
    Ok(TableIterator::new(rows.collect()))
}

/// A request and what is kept of it for the quarantine.
pub(crate) struct Arrival<'a> {
    pub(crate) request: Request<'a>,
    lines: &'a str,
    source: Option<&'a str>,
    is_too_large: bool,
}

impl<'a> Arrival<'a> {
    /// The request that arguments of a function make up.
    fn single(
        url: Option<Bounded<&'a str>>,
        body: Option<Bounded<&'a [u8]>>,
        signature: Option<Bounded<&'a str>>,
        content_type: Option<Bounded<&'a str>>,
        method: Option<Bounded<&'a str>>,
        settings: Option<Bounded<&'a str>>,
        source: Option<Bounded<&'a str>>,
    ) -> Self {
        Self {
            request: Request {
                method: method.map(Bounded::value).unwrap_or_default(),
                url: url.map(Bounded::value).unwrap_or_default(),
                headers: Headers {
                    signature: signature.map(Bounded::value),
                    settings: settings.map(Bounded::value),
                    content_type: content_type.map(Bounded::value),
                },
                body: body.map(Bounded::value).unwrap_or_default(),
            },
            lines: "",
            source: source.map(Bounded::value),
            is_too_large: false,
        }
    }

    /// The kept part of a request that is too large.
    const TOO_LARGE: Self = Self {
        request: Request {
            method: "",
            url: "",
            headers: Headers {
                signature: None,
                settings: None,
                content_type: None,
            },
            body: b"",
        },
        lines: "",
        source: None,
        is_too_large: true,
    };
}

/// The answers of some requests, and what became of the events in them.
struct Answered {
    rows: Vec<Answer>,
    events: Outcome,
}

/// A front that `asks` gets no body where a function makes the answer: it calls `twilio.answer`.
fn answer(arrivals: &[Arrival<'_>], asks: bool) -> Result<Answered, ErrorReport> {
    let decoded = decode(arrivals)?;
    let (keys, urls) = keys_and_urls(&decoded)?;
    let keyring = Keyring::new(&keys, &urls);

    let mut verified = Vec::with_capacity(arrivals.len());
    let mut streams = Vec::new();
    let mut refused: Vec<(usize, Refusal)> = Vec::new();
    for (index, (arrival, decoded)) in arrivals.iter().zip(&decoded).enumerate() {
        check_for_interrupts!();
        if arrival.is_too_large {
            refused.push((index, Refusal::too_large()));
            continue;
        }
        let checked = match decoded.has_events() {
            true => (keyring.check_stream(index, &arrival.request, decoded))
                .map(|stream| streams.push(stream)),
            false => {
                (keyring.check(index, &arrival.request, decoded)).map(|item| verified.push(item))
            }
        };
        if let Err(refusal) = checked {
            refused.push((index, refusal));
        }
    }
    let mut rows: Vec<Option<_>> = (0..arrivals.len()).map(|_| None).collect();
    let mut seen = HashSet::new();
    let mut inbound: Vec<(usize, i64, bool)> = Vec::new();
    let callbacks = verified.len();
    let sorted = Sorted::new(&streams, &mut verified);
    let (mut recorded, outcomes) = match record(&verified, &[]) {
        Ok(mut recorded) => {
            let outcomes = sorted.finish(&recorded[callbacks..])?;
            recorded.truncate(callbacks);
            (recorded, outcomes)
        }
        Err(Unrecorded::Altered(differences)) => {
            // Kept, since Twilio may not ask again: they are taken in once the tables are repaired.
            let arrivals = verified[..callbacks].iter().map(|item| item.arrival);
            let arrivals = arrivals.chain(streams.iter().map(|stream| stream.arrival));
            refused.extend(arrivals.map(|arrival| (arrival, Refusal::unrecorded(&differences))));
            (Vec::new(), Vec::new())
        }
        Err(Unrecorded::Error(error)) => return Err(error),
    };
    let mut events = Outcome::default();
    for (stream, outcome) in streams.iter().zip(outcomes) {
        events.add(outcome);
        let is_new = outcome.new > 0;
        let reason = if is_new { "stored" } else { "duplicate" }.to_owned();
        rows[stream.arrival] = Some((204, None, None, reason, None, None, is_new, 0));
    }
    for (item, recorded) in verified.iter().zip(recorded.drain(..)) {
        if recorded.is_purged {
            // Answered as any repeat, and nothing else happens.
            let (status, content_type, body) = nothing_to_say(item.callback.kind);
            let reason = "duplicate".to_owned();
            rows[item.arrival] = Some((status, content_type, body, reason, None, None, false, 0));
            continue;
        }
        if let Some(reason) = recorded.dropped_by {
            refused.push((item.arrival, Refusal::dropped(reason)));
            continue;
        }
        let Some(message_id) = recorded.message_id else {
            let reason = "message belongs to another account".to_owned();
            refused.push((item.arrival, Refusal::forbidden(reason, true)));
            continue;
        };
        // Of two equal items in one batch both find the event that the first of them made.
        let is_new = recorded.is_new && seen.insert(recorded.event_id);
        if item.callback.kind == Kind::Inbound {
            let is_retold = item.form.filled("ErrorUrl").is_some();
            inbound.push((item.arrival, message_id, is_retold));
        }
        let (status, content_type, body) = nothing_to_say(item.callback.kind);
        let reason = if is_new { "stored" } else { "duplicate" }.to_owned();
        let message_id = Some(message_id);
        rows[item.arrival] = Some((
            status,
            content_type,
            body,
            reason,
            message_id,
            recorded.event_id,
            is_new,
            0,
        ));
    }
    if !inbound.is_empty() {
        let replies = statement::replies(
            inbound.iter().map(|(_, id, _)| *id).collect(),
            inbound.iter().map(|(_, _, is_retold)| *is_retold).collect(),
        )?;
        for ((index, ..), reply) in inbound.into_iter().zip(replies) {
            if let Some(row) = &mut rows[index] {
                match reply.twiml {
                    Some(twiml) => row.2 = Some(twiml),
                    None if reply.is_to_be_made && asks => row.2 = None,
                    None => {}
                }
                row.7 = reply.wait_ms;
            }
        }
    }
    // They are done with, and refusing asks for memory of its own.
    drop(verified);
    drop(streams);
    drop(decoded);
    if !refused.is_empty() {
        refused.sort_by_key(|(index, _)| *index);
        statement::reject(
            refused
                .iter()
                .map(|(index, refusal)| rejection(&arrivals[*index], refusal)),
        )?;
        for (index, refusal) in refused {
            rows[index] = Some((
                refusal.http_status,
                None,
                None,
                refusal.reason,
                None,
                None,
                false,
                0,
            ));
        }
    }
    Ok(Answered {
        rows: rows.into_iter().flatten().collect(),
        events,
    })
}

/// Status, type and body of an answer that says nothing.
fn nothing_to_say(kind: Kind) -> (i32, Option<&'static str>, Option<String>) {
    match kind {
        Kind::Status => (204, None, None),
        Kind::Inbound => (200, Some(TWIML_TYPE), Some(twiml::EMPTY.to_owned())),
    }
}

fn decode<'a>(arrivals: &[Arrival<'a>]) -> Result<Vec<Decoded<'a>>, ErrorReport> {
    let mut parameters = 0;
    let decoded = arrivals.iter().map(|arrival| {
        let decoded = Decoded::new(&arrival.request);
        parameters += decoded.len();
        if parameters > MAX_BATCH_PARAMETERS {
            return Err(error::too_many_pairs_in_batch(MAX_BATCH_PARAMETERS));
        }
        Ok(decoded)
    });
    decoded.collect()
}

/// The messages that the URLs of callbacks name by our attempts, whose SIDs become known with them.
fn bound(items: &[Verified<'_>]) -> Result<Vec<Option<i64>>, ErrorReport> {
    if items.iter().all(|item| item.attempt.is_none()) {
        return Ok(Vec::new());
    }
    statement::bind(
        items.iter().map(|i| i.attempt.as_deref()).collect(),
        items.iter().map(|i| Some(i.callback.account_sid)).collect(),
        items.iter().map(|i| Some(i.callback.message_sid)).collect(),
    )
}

/// `received_at` is empty for now, or has one element an item.
pub(crate) fn record(
    items: &[Verified<'_>],
    received_at: &[Option<TimestampWithTimeZone>],
) -> Result<Vec<Recorded>, Unrecorded> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    // Before anything is written, a binding included.
    Catalog::current()?;
    let ids = bound(items)?;
    let reported: Vec<_> = (items.iter().enumerate())
        .map(|(place, item)| {
            let callback = &item.callback;
            Item {
                message_id: ids.get(place).copied().flatten(),
                account_sid: Some(callback.account_sid),
                message_sid: Some(callback.message_sid),
                direction: Some(match callback.kind {
                    Kind::Status => "outbound",
                    Kind::Inbound => "inbound",
                }),
                channel: Some(callback.channel),
                from_address: callback.from.as_deref(),
                to_address: callback.to.as_deref(),
                messaging_service_sid: callback.messaging_service_sid,
                body: callback.body.as_deref(),
                media_urls: callback.media_urls.iter().map(Cow::as_ref).collect(),
                status: callback.status,
                error_code: callback.error_code,
                source: item.source,
                key_id: Some(item.key_id),
                public_url: Some(item.public_url),
                params: Params::Form(item.form),
                received_at: received_at.get(place).copied().flatten().map(i64::from),
                event_time: item.event_time.map(clock::microseconds),
            }
        })
        .collect();
    record::record(&reported)
}

fn rejection<'a>(arrival: &'a Arrival<'a>, refusal: &'a Refusal) -> Rejection<'a> {
    Rejection {
        kind: if refusal.is_plausible {
            Kept::Callback
        } else {
            Kept::Stranger
        },
        account: refusal.unkeyed_account.as_deref(),
        reason: &refusal.reason,
        method: arrival.request.method,
        url: arrival.request.url,
        headers: headers_to_keep(arrival),
        body: arrival.request.body,
        source: arrival.source,
    }
}

/// The headers as a front gave them, or as lines made from the arguments of `sms_callback`.
fn headers_to_keep(arrival: &Arrival<'_>) -> String {
    if !arrival.lines.is_empty() {
        return arrival.lines.to_owned();
    }
    let headers = &arrival.request.headers;
    let lines = [
        ("x-twilio-signature", headers.signature),
        ("x-twilio-webhooks-signature-settings", headers.settings),
        ("content-type", headers.content_type),
    ];
    let lines = lines.iter().filter_map(|(name, value)| {
        Some(format!("{name}: {}", (*value)?.replace(['\r', '\n'], " ")))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Longest address of a client that is kept of a request that is not.
pub(crate) const MAX_KEPT_SOURCE: usize = 256;

const TWIML_TYPE: &str = "text/xml; charset=utf-8";
