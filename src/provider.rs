//! Work at Twilio: the request that it takes, and what the answer makes of it.

use protocol::form::storable;
use protocol::message::answer::{ApiError, Resource, Verdict, classify};
use protocol::message::list::{Page, Wanted};
use protocol::message::{ATTEMPT, Draft, list_path, messages_path, with_parameter};
use protocol::retry::{self, Policy};
use sender::{Failure, FailureKind, Method, Outcome, Request, Response};
use serde_json::Value;

use crate::draft::parameters;
use crate::moment::{Moment, moment};
use crate::queue::{End, Task, Work};
use crate::{media_check, setting};

/// What came of a look-up: the messages at Twilio that may be ours.
pub(crate) struct Found {
    pub(crate) candidates: Vec<Resource>,
    /// Whether the list went back far enough to tell that there are no others.
    pub(crate) is_complete: bool,
}

/// The request that work takes; an end where it cannot be made.
pub(crate) fn request(work: &Work) -> Result<Request, End> {
    let mut request = match work.task {
        Task::Check => return media_check::request(work, &moment()),
        Task::Create => create(work)?,
        Task::LookUp => {
            let first = || list_path(&work.account_sid, &work.to_address, PAGE_SIZE);
            let path = work.pages.next.clone().unwrap_or_else(first);
            Request::new(work.message_id, Method::Get, work.api_url.clone() + &path)
        }
    };
    request.authorization.clone_from(&work.authorization);
    request.timeout = setting::request_timeout();
    let accept = ("accept".to_owned(), "application/json".to_owned());
    request.headers.push(accept);
    Ok(request)
}

fn create(work: &Work) -> Result<Request, End> {
    let further = match &work.twilio_parameters {
        None => Some(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .ok()
            .as_ref()
            .and_then(parameters),
    };
    let Some(further) = further else {
        return Err(refused(work, "further parameters are no names and values"));
    };
    let extra: Vec<_> = further
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let media: Vec<_> = work.media_urls.iter().map(String::as_str).collect();
    let callback =
        (work.status_callback.as_ref()).map(|url| with_parameter(url, ATTEMPT, &work.lease_token));
    // Other channels keep times of their own.
    let is_sms = !work.to_address.contains(':');
    let draft = Draft {
        to: &work.to_address,
        from: work.from_address.as_deref(),
        messaging_service_sid: work.messaging_service_sid.as_deref(),
        body: work.body.as_deref(),
        media_urls: &media,
        status_callback: callback.as_deref(),
        validity_period: is_sms
            .then(|| u32::try_from(work.validity_s.clamp(1, LONGEST_VALIDITY)).ok())
            .flatten(),
        send_at: None,
        extra: &extra,
    };
    let body = draft
        .encode(0)
        .map_err(|error| refused(work, &error.to_string()))?;
    let url = work.api_url.clone() + &messages_path(&work.account_sid);
    let mut request = Request::new(work.message_id, Method::Post, url);
    request.body = body.into_bytes();
    request.headers.push((
        "content-type".to_owned(),
        "application/x-www-form-urlencoded".to_owned(),
    ));
    Ok(request)
}

/// What became of a create.
pub(crate) fn created(work: &Work, outcome: &Outcome, moment: &Moment) -> End {
    match outcome {
        Outcome::NotProcessed(failure) => not_processed(work, failure, moment),
        Outcome::Unknown(failure) => End {
            reason: Some(failure.to_string()),
            ..unknown(work)
        },
        Outcome::Response(response) => answered(work, response, moment),
    }
}

fn not_processed(work: &Work, failure: &Failure, moment: &Moment) -> End {
    match failure.kind {
        FailureKind::InvalidRequest => refused(work, &failure.to_string()),
        // It was the worker that ended.
        FailureKind::Stopped => put_off(work, failure.to_string()),
        _ => later(work, failure.to_string(), None, moment),
    }
}

fn answered(work: &Work, response: &Response, moment: &Moment) -> End {
    let verdict = classify(response.status, &response.body);
    let said = match verdict {
        Verdict::Accepted(resource) => End {
            outcome: "accepted",
            message_sid: Some(resource.sid),
            status: resource.status.or_else(|| Some("queued".to_owned())),
            error_code: resource.error_code,
            reason: resource.error_message,
            ..end(work)
        },
        Verdict::Refused { error, .. } => End {
            error_code: error.code,
            ..refused(work, &wording(&error, response))
        },
        Verdict::NotProcessed {
            error,
            is_account_fault: true,
        } => End {
            outcome: "not_processed",
            error_code: error.code,
            reason: Some(wording(&error, response)),
            retry_after_ms: Some(0),
            account_at_fault: Some(work.account_sid.clone()),
            ..end(work)
        },
        Verdict::NotProcessed { error, .. } => {
            let header = response.header("retry-after");
            let asked = header.and_then(|header| retry::retry_after(header, moment.now));
            End {
                error_code: error.code,
                ..later(work, wording(&error, response), asked, moment)
            }
        }
        Verdict::Unknown { error } => End {
            error_code: error.code,
            reason: Some(wording(&error, response)),
            ..unknown(work)
        },
    };
    End {
        http_status: Some(response.status.into()),
        response: Some(stored(&response.body)),
        ..said
    }
}

/// What became of a look-up: `Ok` if there is a list to look through, `None` if there is more of it.
pub(crate) fn looked_up(
    work: &mut Work,
    outcome: &Outcome,
    moment: &Moment,
) -> Result<Option<Found>, End> {
    let page = listed(work, outcome, moment)?;
    let wanted = wanted(work);
    let found = wanted.candidates(&page).cloned().collect::<Vec<_>>();
    let is_complete = page.next_page_uri.is_none() || page.is_before(wanted.created_from);
    let pages = &mut work.pages;
    pages.candidates.extend(found);
    pages.seen += 1;
    if !is_complete && pages.seen < MOST_PAGES {
        pages.next = page.next_page_uri;
        return Ok(None);
    }
    Ok(Some(Found {
        candidates: std::mem::take(&mut pages.candidates),
        is_complete,
    }))
}

/// What is looked for.
fn wanted(work: &Work) -> Wanted<'_> {
    Wanted {
        to: &work.to_address,
        from: work.from_address.as_deref(),
        messaging_service_sid: work.messaging_service_sid.as_deref(),
        body: work.body.as_deref(),
        num_media: (work.twilio_parameters.is_none())
            .then(|| u32::try_from(work.media_urls.len()).ok())
            .flatten(),
        created_from: work.started_at - CLOCK_DIFFERENCE,
        created_until: work.started_at + LONGEST_CREATE,
    }
}

/// A page of the list, or what becomes of the work without one.
fn listed(work: &Work, outcome: &Outcome, moment: &Moment) -> Result<Page, End> {
    let failed = |reason: String| {
        let at = retry::next(
            &LOOK_UP,
            work.tries.min(LOOK_UP.most_tries - 1),
            moment.now,
            None,
            moment.jitter,
            None,
        );
        let is_over = moment.now - work.started_at > LONGEST_LOOK_UP;
        End {
            outcome: if is_over { "open" } else { "again" },
            reason: Some(reason),
            retry_after_ms: if is_over {
                None
            } else {
                at.map(|at| at - moment.now)
            },
            ..end(work)
        }
    };
    let response = match outcome {
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            return Err(failed(failure.to_string()));
        }
        Outcome::Response(response) => response,
    };
    if response.status != 200 {
        let error = ApiError::parse(&response.body);
        let is_fault = matches!(
            classify(response.status, &response.body),
            Verdict::NotProcessed {
                is_account_fault: true,
                ..
            }
        );
        return Err(End {
            error_code: error.code,
            account_at_fault: is_fault.then(|| work.account_sid.clone()),
            ..failed(wording(&error, response))
        });
    }
    Page::parse(&work.account_sid, &response.body)
        .ok_or_else(|| failed("the list of messages cannot be read".to_owned()))
}

/// What a list makes of an open outcome, once `found` holds nothing that is another message's.
pub(crate) fn concluded(work: &Work, found: Found, moment: &Moment) -> End {
    let count = found.candidates.len();
    if let Some(resource) = found.candidates.into_iter().next()
        && count == 1
    {
        return End {
            outcome: "accepted",
            message_sid: Some(resource.sid),
            status: resource.status.or_else(|| Some("queued".to_owned())),
            error_code: resource.error_code,
            reason: resource.error_message,
            ..end(work)
        };
    }
    if moment.now - work.started_at < ENOUGH_TIME_TO_SHOW {
        let tries = work.tries.min(LOOK_UP.most_tries - 1);
        let at = retry::next(&LOOK_UP, tries, moment.now, None, moment.jitter, None);
        return End {
            outcome: "again",
            retry_after_ms: at.map(|at| at - moment.now),
            ..end(work)
        };
    }
    // Only a list that shows nothing permits another create.
    End {
        outcome: if count == 0 && found.is_complete {
            "again"
        } else {
            "open"
        },
        reason: (count > 1).then(|| format!("{count} messages at Twilio may be this one")),
        ..end(work)
    }
}

/// An end of work that cannot be done for a reason on our side, to be tried again.
pub(crate) fn hindered(work: &Work, reason: String, moment: &Moment) -> End {
    match work.task {
        Task::Check | Task::Create => later(work, reason, None, moment),
        Task::LookUp => End {
            outcome: "again",
            reason: Some(reason),
            retry_after_ms: Some(60_000),
            ..end(work)
        },
    }
}

fn end(work: &Work) -> End {
    End {
        message_id: work.message_id,
        lease_token: work.lease_token.clone(),
        ..End::default()
    }
}

pub(crate) fn refused(work: &Work, reason: &str) -> End {
    End {
        outcome: "refused",
        status: Some("refused".to_owned()),
        reason: Some(reason.to_owned()),
        ..end(work)
    }
}

fn unknown(work: &Work) -> End {
    End {
        outcome: "unknown",
        status: Some("unknown".to_owned()),
        retry_after_ms: Some(FIRST_LOOK_UP),
        ..end(work)
    }
}

/// Nothing was sent, and it can go at once.
pub(crate) fn put_off(work: &Work, reason: String) -> End {
    End {
        outcome: "not_processed",
        reason: Some(reason),
        retry_after_ms: Some(0),
        ..end(work)
    }
}

pub(crate) fn later(work: &Work, reason: String, asked: Option<i64>, moment: &Moment) -> End {
    let policy = Policy::DEFAULT;
    match retry::next(&policy, work.tries, moment.now, None, moment.jitter, asked) {
        Some(at) => End {
            outcome: "not_processed",
            reason: Some(reason),
            retry_after_ms: Some(at - moment.now),
            ..end(work)
        },
        None => refused(
            work,
            &format!("given up after {} tries: {reason}", work.tries),
        ),
    }
}

fn wording(error: &ApiError, response: &Response) -> String {
    let said = error.message.clone();
    said.unwrap_or_else(|| format!("HTTP status {}", response.status))
}

/// The body as jsonb takes it: JSON as it is, anything else as a text of bounded length.
fn stored(body: &[u8]) -> String {
    let value = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        Value::String(text.chars().take(MOST_TEXT).collect())
    });
    clean(value).to_string()
}

/// Without U+0000, which jsonb cannot hold.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(clean).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (storable(&name).into_owned(), clean(value)))
            .collect(),
        value => value,
    }
}

const PAGE_SIZE: u16 = 100;
/// So much of a list is read; what lies beyond stays open.
const MOST_PAGES: usize = 10;
const LONGEST_VALIDITY: i32 = 36_000;
const MOST_TEXT: usize = 2000;

/// Milliseconds until an open outcome is first looked up: the callback is usually sooner.
const FIRST_LOOK_UP: i64 = 2_000;

/// How an open outcome is looked up until it must have shown; times are from the last look on.
const LOOK_UP: Policy<'static> = Policy {
    delays: &[3_000, 10_000, 30_000, 60_000, 60_000],
    most_tries: 6,
    spread: 0.2,
};

/// After so long a message that Twilio's list does not show was not created.
const ENOUGH_TIME_TO_SHOW: i64 = 120_000;

/// How long a look-up that keeps failing is repeated: a day.
const LONGEST_LOOK_UP: i64 = 86_400_000;

/// By how much Twilio's clock may be behind ours, and the second that its dates are cut to.
const CLOCK_DIFFERENCE: i64 = 6_000;

/// How long after its beginning a create may take effect at the latest.
const LONGEST_CREATE: i64 = 660_000;
