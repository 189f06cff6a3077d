//! Refused requests looked at once more: which verify now, and what the others would need.

use pgrx::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::explain::{Candidate, candidates};
use protocol::form::Form;
use protocol::request::{Headers, Request};
use protocol::signature::{Algorithm, Key, Payload, verify};
use protocol::url::SignedUrl;

use crate::receive::record;
use crate::secret;
use crate::verify::{Decoded, Keyring, keys_and_urls};

/// Verifies requests and has no effect: the message's SID and null, or null and why not.
#[pg_extern(stable, strict, parallel_unsafe)]
fn verify_requests(
    methods: Array<'_, &str>,
    urls: Array<'_, &str>,
    headers: Array<'_, &str>,
    bodies: Array<'_, &[u8]>,
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
    let requests = requests(methods.iter(), urls.iter(), headers.iter(), bodies.iter());
    let decoded: Vec<_> = requests.iter().map(Decoded::new).collect();
    let (keys, urls) = keys_and_urls(&decoded)?;
    let keyring = Keyring::new(&keys, &urls);
    let rows: Vec<_> = (requests.iter().zip(&decoded).enumerate())
        .map(
            |(index, (request, decoded))| match keyring.check(index, request, decoded) {
                Ok(verified) => (Some(verified.callback.message_sid.to_owned()), None),
                Err(refusal) => (None, Some(refusal.reason)),
            },
        )
        .collect();
    Ok(TableIterator::new(rows))
}

/// Records the requests that verify, as of the time they were received, and reports for each whether it was.
/// Requests whose signed text has more than one meaning count as verified if `accepts_ambiguous`.
#[pg_extern(volatile, strict, parallel_unsafe)]
fn record_requests(
    methods: Array<'_, &str>,
    urls: Array<'_, &str>,
    headers: Array<'_, &str>,
    bodies: Array<'_, &[u8]>,
    received_at: Array<'_, TimestampWithTimeZone>,
    accepts_ambiguous: bool,
) -> Result<SetOfIterator<'static, bool>, ErrorReport> {
    let requests = requests(methods.iter(), urls.iter(), headers.iter(), bodies.iter());
    let decoded: Vec<_> = requests.iter().map(Decoded::new).collect();
    let (keys, urls) = keys_and_urls(&decoded)?;
    let mut keyring = Keyring::new(&keys, &urls);
    if accepts_ambiguous {
        keyring = keyring.accepting_ambiguous();
    }
    let times: Vec<_> = received_at.iter().collect();
    let verified: Vec<_> = (requests.iter().zip(&decoded).enumerate())
        .filter_map(|(index, (request, decoded))| keyring.check(index, request, decoded).ok())
        .collect();
    let verified_at: Vec<_> = (verified.iter())
        .map(|item| times.get(item.arrival).copied().flatten())
        .collect();
    let mut is_taken = vec![false; requests.len()];
    for (item, recorded) in verified.iter().zip(record(&verified, &verified_at)?) {
        is_taken[item.arrival] = recorded.message_id.is_some() || recorded.is_purged;
    }
    Ok(SetOfIterator::new(is_taken))
}

/// The account that a request names, in whichever way it was sent.
#[pg_extern(immutable, strict, parallel_unsafe)]
fn account_of_request(method: &str, url: &str, headers: &str, body: &[u8]) -> Option<String> {
    let request = Request {
        method,
        url,
        headers: Headers::parse(headers),
        body,
    };
    Decoded::new(&request).account().map(str::to_owned)
}

/// What each of these keys may have signed for a request. Keys are named by their place, from 1.
#[pg_extern(stable, strict, parallel_unsafe)]
fn explain_request(
    method: &str,
    url: &str,
    headers: &str,
    body: &[u8],
    algorithms: Array<'_, &str>,
    secrets: Array<'_, &str>,
    public_urls: Array<'_, &str>,
) -> TableIterator<
    'static,
    (
        name!(key_number, i32),
        name!(signed_url, Option<String>),
        name!(base_url, Option<String>),
        name!(change, Option<String>),
        name!(unreadable, Option<String>),
    ),
> {
    let request = Request {
        method,
        url,
        headers: Headers::parse(headers),
        body,
    };
    let signature = request.headers.signature.unwrap_or_default();
    let public_urls: Vec<_> = public_urls.iter().flatten().collect();
    let candidates = candidates(url, &public_urls, headers);
    let rows: Vec<_> = (algorithms.iter().zip(secrets.iter()).zip(1..))
        .filter_map(|((algorithm, stored), number)| {
            let algorithm: Algorithm = algorithm?.parse().ok()?;
            match secret::resolve(stored?) {
                Ok(secret) => {
                    let key = Key::new(algorithm, &secret);
                    let (candidate, reading) = explain(&key, &request, &candidates, signature)?;
                    let changes = [candidate.change.map(|change| change.as_str()), reading];
                    let changes: Vec<_> = changes.into_iter().flatten().collect();
                    Some((
                        number,
                        Some(candidate.url.clone()),
                        Some(candidate.base.clone()),
                        (!changes.is_empty()).then(|| changes.join("; ")),
                        None,
                    ))
                }
                Err(error) => Some((number, None, None, None, Some(error.to_string()))),
            }
        })
        .collect();
    TableIterator::new(rows)
}

/// The first candidate that the key signed, and what happened to method or media type on the way.
fn explain<'c>(
    key: &Key,
    request: &Request<'_>,
    candidates: &'c [Candidate],
    signature: &str,
) -> Option<(&'c Candidate, Option<&'static str>)> {
    let urls: Vec<_> = (candidates.iter())
        .filter_map(|candidate| SignedUrl::parse(&candidate.url))
        .collect();
    let given = request.payload();
    let is_form = matches!(given, Payload::Form(_));
    let readings = [
        (given, None),
        (
            Payload::Form(Form::parse(request.body)),
            (!is_form).then_some("method or media type were changed on the way"),
        ),
        (
            Payload::Empty,
            Some("it was signed as a GET, and the method was changed on the way"),
        ),
    ];
    readings.into_iter().find_map(|(payload, reading)| {
        let (_, index) = verify(std::slice::from_ref(key), &urls, &payload, signature)?;
        Some((&candidates[index], reading))
    })
}

fn requests<'a>(
    methods: impl Iterator<Item = Option<&'a str>>,
    urls: impl Iterator<Item = Option<&'a str>>,
    headers: impl Iterator<Item = Option<&'a str>>,
    bodies: impl Iterator<Item = Option<&'a [u8]>>,
) -> Vec<Request<'a>> {
    methods
        .zip(urls)
        .zip(headers.zip(bodies))
        .map(|((method, url), (lines, body))| Request {
            method: method.unwrap_or_default(),
            url: url.unwrap_or_default(),
            headers: Headers::parse(lines.unwrap_or_default()),
            body: body.unwrap_or_default(),
        })
        .collect()
}
