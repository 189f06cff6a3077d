//! The worker's part of fetching files of incoming messages: a few at a time, beside what it sends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::destination::Destination;
use protocol::form::storable;
use protocol::retry::{self, Policy};
use protocol::trust::Api;
use sender::{BodyEnd, FailureKind, Method, Outcome, Reach, Report, Request, Response, Sender};

use crate::clock::{Now, now};
use crate::credential::{Credential, NONE, credential};
use crate::extension::is_installed;
use crate::provider::request_id::Kind;
use crate::setting;
use crate::spi::log_once_a_minute;
use crate::spi::{first, rows, transaction};

/// The downloads in flight, and the time of the next poll.
#[derive(Default)]
pub(crate) struct Media {
    in_flight: HashMap<i64, MediaJob>,
    results: Vec<MediaResult>,
    next_look: Option<Instant>,
}

/// One file on its way.
struct MediaJob {
    media_id: i64,
    /// Also tells this try from a later one.
    tries: i32,
    /// The URL in the message.
    url: String,
    /// Where it is looked for, after a redirect.
    redirected: Option<Destination>,
    redirects: u8,
    /// None if the account is not known.
    account_sid: Option<String>,
    api_url: String,
    credential: Option<Credential>,
}

/// The result of a download.
struct MediaResult {
    media_id: i64,
    tries: i32,
    content: Option<Vec<u8>>,
    content_type: Option<String>,
    error: Option<String>,
    retry_after_ms: Option<i64>,
}

impl Media {
    /// Writes down what was fetched and asks for more. Returns when it wants to run again; never, if
    /// nothing is to be fetched.
    pub(crate) fn run(&mut self, sender: &Sender) -> Option<Duration> {
        if !setting::fetch_media() && self.results.is_empty() {
            return None;
        }
        self.write();
        let now = Instant::now();
        if let Some(wait) = self.next_look.and_then(|at| at.checked_duration_since(now)) {
            return Some(wait);
        }
        self.next_look = Some(now + INTERVAL);
        // Of few places, messages have at least every other one.
        let places = AT_ONCE.min(setting::max_in_flight() / 2).max(1);
        let free = places.saturating_sub(self.in_flight.len());
        let room = sender.room().min(free);
        // Without room an answer has to come first.
        if room == 0 || !setting::fetch_media() {
            return None;
        }
        match transaction(|| look(room)) {
            Ok((jobs, due)) => {
                for job in jobs {
                    self.push(sender, job);
                }
                let wait = due.and_then(|due| Duration::try_from_secs_f64(due.max(0.0)).ok());
                wait.map(|wait| wait.max(INTERVAL))
            }
            Err(error) => {
                log_once_a_minute(&format!(
                    "twilio_callback worker cannot fetch files: {error}"
                ));
                Some(PAUSE)
            }
        }
    }

    /// Takes an answer, if it is to a request of this part.
    pub(crate) fn take(&mut self, sender: &Sender, report: Report) {
        let Some(mut job) = self.in_flight.remove(&report.id) else {
            return;
        };
        let result = match report.outcome {
            Outcome::Response(response) => match next(&job, &response) {
                Some(Ok(next)) => {
                    job.redirected = Some(next);
                    job.redirects += 1;
                    return self.push(sender, job);
                }
                Some(Err(why)) => job.over(why),
                None => classify(&job, response, &now()),
            },
            Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => match failure.kind {
                FailureKind::AddressRefused | FailureKind::InvalidRequest => {
                    job.over(failure.to_string())
                }
                _ => job.retry_later(failure.to_string(), None, &now()),
            },
        };
        self.results.push(result);
        // There is room again.
        self.next_look = None;
    }

    fn push(&mut self, sender: &Sender, job: MediaJob) {
        let pushed = request(&job).and_then(|request| {
            let id = request.id;
            let refused =
                |error: sender::PushError| job.retry_later(error.to_string(), None, &now());
            sender.push(request).map(|()| id).map_err(refused)
        });
        match pushed {
            Ok(id) => drop(self.in_flight.insert(id, job)),
            Err(result) => self.results.push(result),
        }
    }

    /// Each in a transaction of its own: one that cannot be written does not keep the others, and is
    /// fetched again when its lease ends.
    fn write(&mut self) {
        for result in self.results.drain(..) {
            let written = transaction(|| {
                if is_installed()? {
                    finish(&result)
                } else {
                    Ok(())
                }
            });
            if let Err(error) = written {
                let id = result.media_id;
                log!("twilio_callback worker cannot keep file {id}: {error}");
            }
        }
    }
}

/// Takes what is due, and says in how many seconds there is more.
fn look(room: usize) -> Result<(Vec<MediaJob>, Option<f64>), ErrorReport> {
    if !is_installed()? {
        return Ok((Vec::new(), None));
    }
    let hops = u32::from(MAX_REDIRECTS) + 1;
    let lease = (setting::request_timeout() * hops + LEASE_MARGIN).as_secs_f64();
    let at_most = i32::try_from(room).unwrap_or(i32::MAX);
    let mut jobs = rows(
        "select media_id, tries, url, account_sid, api_url \
         from twilio_internal.claim_media($1, $2 * interval '1 second')",
        &[at_most.into(), lease.into()],
        |row| {
            Ok(MediaJob {
                media_id: row.get(1)?.unwrap_or_default(),
                tries: row.get(2)?.unwrap_or_default(),
                url: row.get(3)?.unwrap_or_default(),
                redirected: None,
                redirects: 0,
                account_sid: row.get(4)?,
                api_url: row.get(5)?.unwrap_or_default(),
                credential: None,
            })
        },
    )?;
    for job in &mut jobs {
        if let Some(account_sid) = &job.account_sid {
            job.credential = credential(account_sid)?;
        }
        // A secret that is new goes to no API that is old.
        if let Some(credential) = &job.credential {
            job.api_url.clone_from(&credential.api_url);
        }
    }
    Ok((jobs, first("select twilio_internal.next_media()", &[])?))
}

fn finish(result: &MediaResult) -> Result<(), ErrorReport> {
    let arguments: [DatumWithOid<'_>; 6] = [
        result.media_id.into(),
        result.tries.into(),
        result.content.as_deref().into(),
        result.content_type.as_deref().into(),
        result.error.as_deref().into(),
        result.retry_after_ms.into(),
    ];
    first::<bool>(
        "select twilio_internal.finish_media($1, $2, $3, $4, $5, $6)",
        &arguments,
    )
    .map(drop)
}

/// The request for a file. The URL comes from a signed request of Twilio,
/// but the account's credentials are shown to Twilio alone.
fn request(job: &MediaJob) -> Result<Request, MediaResult> {
    let later = |reason| job.retry_later(reason, None, &now());
    let api = Api::parse(&job.api_url)
        .map_err(|fault| later(format!("api_url cannot be used: {fault}")))?;
    let id = Kind::Media.request_id(job.media_id);
    let mut request = match &job.redirected {
        // Wherever a redirect leads, it says by itself who may read there.
        Some(to) => Request::new(id, Method::Get, to.clone()),
        None => {
            let to = Destination::parse(&job.url).ok();
            let account_sid = job.account_sid.as_deref().unwrap_or_default();
            let to = to.and_then(|to| api.file(account_sid, &to));
            let to = to
                .ok_or_else(|| job.over("it is not a file of this account at Twilio".to_owned()))?;
            let credential = job.credential.as_ref();
            let authorization =
                credential.map_or_else(|| Err(NONE.to_owned()), Credential::authorization);
            let authorization = authorization.map_err(later)?;
            Request::authorized(id, Method::Get, to, authorization)
        }
    };
    // A message does not lead to where only this server can go. A sandbox is here itself.
    if !api.is_sandbox() {
        request.reach = Reach::PublicOnly;
    }
    request.timeout = setting::request_timeout();
    request.body_limit = Some(setting::media_size_limit());
    // Of a large file nearly all the time goes there.
    request.body_timeout = Some(request.timeout);
    Ok(request)
}

/// Where a redirect leads, or why it is not followed; nothing where there is none.
fn next(job: &MediaJob, response: &Response) -> Option<Result<Destination, String>> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    if job.redirects >= MAX_REDIRECTS {
        return Some(Err("it is redirected again and again".to_owned()));
    }
    let from = match &job.redirected {
        Some(from) => Some(from.clone()),
        None => Destination::parse(&job.url).ok(),
    };
    let api = Api::parse(&job.api_url).ok();
    let next = (response.header("location")).and_then(|location| api?.redirected(&from?, location));
    Some(next.ok_or_else(|| "it is redirected to a host that is not Twilio's".to_owned()))
}

fn classify(job: &MediaJob, response: Response, now: &Now) -> MediaResult {
    let said = format!("HTTP status {}", response.status);
    let asked = response
        .header("retry-after")
        .and_then(|header| retry::retry_after(header, now.unix_ms));
    match (response.status, response.body_end) {
        (200, BodyEnd::Complete) => MediaResult {
            content_type: response.header("content-type").map(|text| {
                let text: String = text.chars().take(MAX_TYPE).collect();
                storable(&text).into_owned()
            }),
            content: Some(response.body),
            ..job.result()
        },
        (200, BodyEnd::Truncated) => {
            job.over("it is larger than twilio_callback.media_size_limit".to_owned())
        }
        (200, BodyEnd::Broken) => job.retry_later("the answer broke off".to_owned(), asked, now),
        // A file may come a moment after its message; later it is one that was deleted.
        (404 | 410, _) if job.tries >= TRIES_TO_FIND => job.over(said),
        (401 | 403 | 404 | 408 | 410 | 425 | 429 | 500.., _) => job.retry_later(said, asked, now),
        _ => job.over(said),
    }
}

impl MediaJob {
    fn result(&self) -> MediaResult {
        MediaResult {
            media_id: self.media_id,
            tries: self.tries,
            content: None,
            content_type: None,
            error: None,
            retry_after_ms: None,
        }
    }

    /// Given up.
    fn over(&self, reason: String) -> MediaResult {
        MediaResult {
            error: Some(reason),
            ..self.result()
        }
    }

    /// Tried again, unless that was often enough.
    fn retry_later(&self, reason: String, asked: Option<i64>, now: &Now) -> MediaResult {
        let tries = u32::try_from(self.tries).unwrap_or(u32::MAX);
        let at = retry::next(
            &Policy::DEFAULT,
            tries,
            now.unix_ms,
            None,
            now.jitter,
            asked,
        );
        MediaResult {
            retry_after_ms: at.map(|at| at.saturating_sub(now.unix_ms)),
            ..self.over(reason)
        }
    }
}

/// Files are large, and messages to send come first.
const AT_ONCE: usize = 4;
const MAX_REDIRECTS: u8 = 3;
const TRIES_TO_FIND: i32 = 3;
const MAX_TYPE: usize = 255;
/// However often the worker is woken.
const INTERVAL: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(5);
const LEASE_MARGIN: Duration = Duration::from_secs(30);
