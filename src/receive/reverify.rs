//! Refused requests looked at once more: which verify now, and what the others would need. They are read here by
//! their ids, so that neither their signatures nor their texts pass through a statement.

use std::ops::ControlFlow;

use pgrx::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::change::{Change, HAND_ON};
use protocol::explain::{Candidate, candidates};
use protocol::form::Form;
use protocol::request::{Headers, Request};
use protocol::signature::{Algorithm, Key, Payload, verify_signed};
use protocol::url::SignedUrl;

use crate::credential::{self, SigningKey};
use crate::heap::{Field, KeyValue, read_rows};
use crate::receive::record;
use crate::receive::stream::Sorted;
use crate::receive::verify::{Decoded, Keyring, keys_and_urls};
use crate::statement;

/// A row of `twilio_internal.rejected_callback`.
pub(crate) struct Refused {
    method: String,
    url: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    pub(crate) received_at: Option<TimestampWithTimeZone>,
}

impl Refused {
    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            url: &self.url,
            headers: Headers::parse(&self.headers),
            body: &self.body,
        }
    }
}

/// The refused request of that id, if it is still there.
pub(crate) fn refused(rejected_id: i64) -> Result<Option<Refused>, ErrorReport> {
    let mut found = None;
    let key = Some(KeyValue::Bigint(rejected_id));
    read_rows(c"rejected_callback", &REJECTED, key, |row| {
        found = Some(Refused {
            method: row.text(1),
            url: row.text(2),
            headers: row.text(3),
            body: row.get(4).unwrap_or_default(),
            received_at: row.get(5),
        });
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The refused requests of these ids that are still there, each with its place among them.
fn all_refused(rejected_ids: &Array<'_, i64>) -> Result<Vec<(usize, Refused)>, ErrorReport> {
    let mut found = Vec::with_capacity(rejected_ids.len());
    for (place, id) in rejected_ids.iter().enumerate() {
        let request = id.map(refused).transpose()?.flatten();
        found.extend(request.map(|request| (place, request)));
    }
    Ok(found)
}

/// Verifies refused requests and has no effect: the message's SID and null, or null and why not. Requests with events have the
/// SID of the message that the first event names, or an empty one.
#[pg_extern]
fn verify_requests(
    rejected_ids: Array<'_, i64>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(message_sid, Option<String>),
            name!(reason, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let found = all_refused(&rejected_ids)?;
    let requests: Vec<_> = found.iter().map(|(_, refused)| refused.request()).collect();
    let decoded: Vec<_> = requests.iter().map(Decoded::new).collect();
    let (keys, urls) = keys_and_urls(&decoded)?;
    let keyring = Keyring::new(&keys, &urls);
    let gone = || (None, Some("it is gone".to_owned()));
    let mut rows: Vec<_> = rejected_ids.iter().map(|_| gone()).collect();
    for ((place, _), (request, decoded)) in found.iter().zip(requests.iter().zip(&decoded)) {
        check_for_interrupts!();
        let sid = match decoded.has_events() {
            true => keyring
                .check_stream(*place, request, decoded)
                .map(|stream| {
                    let first = stream.events.into_iter().next();
                    first
                        .and_then(|event| event.message_sid)
                        .unwrap_or_default()
                }),
            false => (keyring.check(*place, request, decoded))
                .map(|verified| verified.callback.message_sid.to_owned()),
        };
        rows[*place] = match sid {
            Ok(sid) => (Some(sid), None),
            Err(refusal) => (None, Some(refusal.reason)),
        };
    }
    Ok(TableIterator::new(rows))
}

/// Records the refused requests that verify, as of the time they were received, and reports for each whether it
/// was. If `by_hand`, requests whose signed text has more than one meaning are recorded too, and so are those whose
/// path or query was changed on the way; these are recorded as they were signed.
#[pg_extern]
fn record_requests(
    rejected_ids: Array<'_, i64>,
    by_hand: bool,
) -> Result<SetOfIterator<'static, bool>, ErrorReport> {
    let mut found = all_refused(&rejected_ids)?;
    if by_hand {
        for (_, refused) in &mut found {
            if let Some(url) = signed_url(refused)? {
                refused.url = url;
            }
        }
    }
    let requests: Vec<_> = found.iter().map(|(_, refused)| refused.request()).collect();
    let decoded: Vec<_> = requests.iter().map(Decoded::new).collect();
    let (keys, urls) = keys_and_urls(&decoded)?;
    let mut keyring = Keyring::new(&keys, &urls);
    if by_hand {
        keyring = keyring.accepting_ambiguous();
    }
    let (mut verified, mut streams) = (Vec::new(), Vec::new());
    for (index, (request, decoded)) in requests.iter().zip(&decoded).enumerate() {
        match decoded.has_events() {
            true => streams.extend(keyring.check_stream(index, request, decoded)),
            false => verified.extend(keyring.check(index, request, decoded)),
        }
    }
    let callbacks = verified.len();
    let sorted = Sorted::new(&streams, &mut verified);
    let verified_at: Vec<_> = (verified.iter())
        .map(|item| found[item.arrival].1.received_at)
        .collect();
    let mut is_taken = vec![false; rejected_ids.len()];
    let recorded = record(&verified, &verified_at)?;
    for (item, recorded) in verified[..callbacks].iter().zip(&recorded) {
        let is_recorded = recorded.message_id.is_some() && recorded.dropped_by.is_none();
        is_taken[found[item.arrival].0] = is_recorded || recorded.is_purged;
    }
    sorted.finish(&recorded[callbacks..])?;
    for stream in &streams {
        is_taken[found[stream.arrival].0] = true;
    }
    Ok(SetOfIterator::new(is_taken))
}

/// The URL below a public URL that a live key signed, even if path or query were changed on the way.
fn signed_url(refused: &Refused) -> Result<Option<String>, ErrorReport> {
    let request = refused.request();
    let decoded = [Decoded::new(&request)];
    let (keys, urls) = keys_and_urls(&decoded)?;
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let mut candidates = candidates(request.url, &urls, "", request.size());
    candidates.retain(|candidate| urls.contains(&candidate.base.as_str()));
    let account = decoded[0].account();
    let signature = request.headers.signature.unwrap_or_default();
    let found = (keys.iter())
        .filter(|key| account.is_none_or(|sid| key.account_sid == sid))
        .filter_map(|key| {
            let secret = key.secret.resolve().ok()?;
            Some(Key::new(key.algorithm.parse().ok()?, &secret))
        })
        .find_map(|key| find(&key, &candidates, &request.payload(), signature));
    Ok(found.map(|found| found.url.clone()))
}

/// The account that a refused request names, in whichever way it was sent, and whether it has a signature.
#[pg_extern]
fn request_account(
    rejected_id: i64,
) -> Result<
    TableIterator<'static, (name!(account_sid, Option<String>), name!(is_signed, bool))>,
    ErrorReport,
> {
    let row = refused(rejected_id)?.map(|refused| {
        let request = refused.request();
        let account = Decoded::new(&request).named_account().map(str::to_owned);
        let signature = request.headers.signature.unwrap_or_default();
        (account, !signature.is_empty())
    });
    Ok(TableIterator::new(row))
}

/// For each key, the URL that it may have signed for a refused request; the keys of the named account come first.
#[pg_extern]
fn explain_request(
    rejected_id: i64,
    at_most: i32,
) -> Result<
    TableIterator<
        'static,
        (
            name!(account_sid, String),
            name!(key_id, String),
            name!(not_before, Option<TimestampWithTimeZone>),
            name!(not_after, Option<TimestampWithTimeZone>),
            name!(signed_url, Option<String>),
            name!(base_url, Option<String>),
            name!(change, Option<String>),
            name!(change_remedy, Option<&'static str>),
            name!(is_altered, bool),
            name!(objection, Option<String>),
            name!(unreadable, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let Some(refused) = refused(rejected_id)? else {
        return Ok(TableIterator::new(Vec::new()));
    };
    let request = refused.request();
    let signature = request.headers.signature.unwrap_or_default();
    let public_urls = statement::public_urls()?;
    let public_urls: Vec<_> = public_urls.iter().map(String::as_str).collect();
    let candidates = candidates(request.url, &public_urls, &refused.headers, request.size());
    let decoded = Decoded::new(&request);
    let mut keys = credential::keys(usize::MAX, |_| true)?;
    keys.sort_by_key(|key| decoded.named_account() != Some(&key.account_sid));
    keys.truncate(usize::try_from(at_most).unwrap_or(0));
    let time = |at| TimestampWithTimeZone::try_from(at).ok();
    let explained = |key: SigningKey| {
        let (not_before, not_after) = (time(key.lives.start), time(key.lives.end));
        let Finding {
            signed_url,
            base_url,
            change,
            change_remedy,
            is_altered,
            objection,
            unreadable,
        } = match key.secret.resolve() {
            Ok(secret) => {
                let algorithm: Algorithm = key.algorithm.parse().ok()?;
                let secret = Key::new(algorithm, &secret);
                explain(&secret, &request, &candidates, signature)?
            }
            Err(error) => Finding {
                unreadable: Some(error.to_string()),
                ..Finding::default()
            },
        };
        Some((
            key.account_sid,
            key.key_id,
            not_before,
            not_after,
            signed_url,
            base_url,
            change,
            change_remedy,
            is_altered,
            objection,
            unreadable,
        ))
    };
    let rows: Vec<_> = keys.into_iter().filter_map(explained).collect();
    Ok(TableIterator::new(rows))
}

/// The URL that a key signed, and how the request differs from it.
#[derive(Default)]
struct Finding {
    signed_url: Option<String>,
    base_url: Option<String>,
    /// How the request was changed on the way.
    change: Option<String>,
    change_remedy: Option<&'static str>,
    /// Whether the method or media type was changed, so that the request cannot be recorded by hand.
    is_altered: bool,
    /// Why the request would be refused as it was signed.
    objection: Option<String>,
    /// Why the key cannot be read.
    unreadable: Option<String>,
}

/// The first candidate that the key signed, and how the request was changed on the way.
fn explain(
    key: &Key,
    request: &Request<'_>,
    candidates: &[Candidate],
    signature: &str,
) -> Option<Finding> {
    let given = request.payload();
    let is_form = matches!(given, Payload::Form(_));
    let as_form = || {
        (
            Payload::Form(Form::parse(request.body)),
            Some("method or media type were changed on the way"),
        )
    };
    let as_get = (
        Payload::Empty,
        Some("it was signed as a GET, and the method was changed on the way"),
    );
    let readings = std::iter::once((given, None))
        .chain((!is_form).then(as_form))
        .chain([as_get]);
    readings.into_iter().find_map(|(payload, reading)| {
        let candidate = find(key, candidates, &payload, signature)?;
        let changes = [candidate.change.map(Change::as_str), reading];
        let changes: Vec<_> = changes.into_iter().flatten().collect();
        let signed = Request {
            url: &candidate.url,
            ..*request
        };
        Some(Finding {
            signed_url: Some(candidate.url.clone()),
            base_url: Some(candidate.base.clone()),
            change: (!changes.is_empty()).then(|| changes.join("; ")),
            change_remedy: (candidate.change.map(Change::remedy)).or(reading.map(|_| HAND_ON)),
            is_altered: reading.is_some(),
            objection: Decoded::new(&signed).objection(signed.url),
            unreadable: None,
        })
    })
}

/// The first candidate that the key signed.
fn find<'c>(
    key: &Key,
    candidates: &'c [Candidate],
    payload: &Payload<'_>,
    signature: &str,
) -> Option<&'c Candidate> {
    let pairs = payload.signed();
    let keys = std::slice::from_ref(key);
    candidates.chunks(32).find_map(|chunk| {
        check_for_interrupts!();
        let (found, urls): (Vec<_>, Vec<_>) = (chunk.iter())
            .filter_map(|candidate| Some((candidate, SignedUrl::parse(&candidate.url)?)))
            .unzip();
        let (_, index) = verify_signed(keys, &urls, payload, &pairs, signature)?;
        Some(found[index])
    })
}

use pgrx::pg_sys::{BYTEAOID, INT8OID, TEXTOID, TIMESTAMPTZOID};

const REJECTED: [Field; 6] = [
    (c"rejected_id", INT8OID),
    (c"method", TEXTOID),
    (c"url", TEXTOID),
    (c"headers", TEXTOID),
    (c"body", BYTEAOID),
    (c"received_at", TIMESTAMPTZOID),
];
