//! What lists of messages at Twilio say about an outcome that is open.

use std::time::{Duration, Instant};

use protocol::message::answer::{ApiError, Verdict, classify};
use protocol::message::list::{Conclusion, Found, Page, Wanted, may_be_listed_elsewhere};
use protocol::message::list_path;
use protocol::retry::{self, Policy};
use sender::{Method, Outcome, Request};

use super::{end, to_api, wording};
use crate::clock::{Moment, moment};
use crate::provider::queue::{End, Pages, Work};
use crate::provider::twilio::media_check::LONGEST;
use crate::setting;

/// The request for a list's next page. It ends before the lease does, so that nobody else looks meanwhile.
pub(super) fn request(work: &mut Work) -> Result<Request, End> {
    let asked_at = moment().now;
    (work.pages.found).get_or_insert_with(|| Found::new(asked_at));
    let first = || list_path(&work.account_sid, &work.to_address, PAGE_SIZE);
    let path = work.pages.next.clone().unwrap_or_else(first);
    let mut request = to_api(work, Method::Get, &path)?;
    request.timeout = setting::request_timeout().min(time_left(work));
    Ok(request)
}

/// How much longer pages may be asked for.
fn time_left(work: &Work) -> Duration {
    let lease = work.lease_end.saturating_duration_since(Instant::now());
    lease.saturating_sub(LEASE_REST)
}

/// What became of a look-up: `Ok` if there is a list to look through, `None` if there is more of it.
pub(crate) fn looked_up(
    work: &mut Work,
    outcome: &Outcome,
    moment: &Moment,
) -> Result<Option<Found>, End> {
    let page = listed(work, outcome, moment)?;
    let mut found = (work.pages.found.take()).unwrap_or_else(|| Found::new(moment.now));
    let next = found.add(&wanted(work), page);
    if next.is_some() {
        if !time_left(work).is_zero() {
            work.pages = Pages {
                found: Some(found),
                next,
            };
            return Ok(None);
        }
        let reason = "the list of messages takes too long";
        if found.matching.is_empty() {
            return Err(failed(work, reason.to_owned(), moment));
        }
        found.has_gap(reason);
    }
    Ok(Some(found))
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
        is_elsewhere: may_be_listed_elsewhere(&work.to_address, work.twilio_parameters.as_deref()),
    }
}

/// A page of the list, or what becomes of the work without one.
fn listed(work: &Work, outcome: &Outcome, moment: &Moment) -> Result<Page, End> {
    let response = match outcome {
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            return Err(failed(work, failure.to_string(), moment));
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
            ..failed(work, wording(&error, response), moment)
        });
    }
    Page::parse(&work.account_sid, &response.body).ok_or_else(|| {
        let reason = "the list of messages cannot be read".to_owned();
        failed(work, reason, moment)
    })
}

/// An end of a look-up that came to nothing: it is repeated for a day.
fn failed(work: &Work, reason: String, moment: &Moment) -> End {
    let tries = work.tries.min(LOOK_UP.most_tries - 1);
    let at = retry::next(&LOOK_UP, tries, moment.now, None, moment.jitter, None);
    let is_over = moment.now - work.started_at > LONGEST_LOOK_UP;
    let again = at.map(|at| at - moment.now);
    End {
        outcome: if is_over { "open" } else { "again" },
        reason: Some(reason),
        retry_after_ms: again.filter(|_| !is_over),
        ..end(work)
    }
}

/// What a list makes of an open outcome, once `found` holds nothing that is another message's.
pub(crate) fn concluded(work: &Work, found: Found, moment: &Moment) -> End {
    // Kept beside the open outcome, for whoever decides it: those that match, or else all that there are.
    let sids: Vec<_> = match found.matching.len() {
        0 => found.sids().collect(),
        count => found.sids().take(count).collect(),
    };
    let response =
        (!sids.is_empty()).then(|| serde_json::json!({ "candidates": sids }).to_string());
    match found.conclude(work.started_at, enough_time_to_show()) {
        Conclusion::Sent(resource) => End {
            outcome: "accepted",
            message_sid: Some(resource.sid),
            status: resource.status.or_else(|| Some("queued".to_owned())),
            error_code: resource.error_code,
            reason: resource.error_message,
            ..end(work)
        },
        Conclusion::Absent => End {
            outcome: "absent",
            ..end(work)
        },
        Conclusion::Later => {
            let tries = work.tries.min(LOOK_UP.most_tries - 1);
            let at = retry::next(&LOOK_UP, tries, moment.now, None, moment.jitter, None);
            End {
                outcome: "again",
                response,
                retry_after_ms: at.map(|at| at - moment.now),
                ..end(work)
            }
        }
        Conclusion::Open(reason) => End {
            outcome: "open",
            reason: Some(reason),
            response,
            ..end(work)
        },
    }
}

/// The same in milliseconds from its claim on: its files may be looked at before, and its request takes its time.
fn enough_time_to_show() -> i64 {
    let time = LONGEST + setting::request_timeout() + TIME_TO_SHOW;
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const PAGE_SIZE: u16 = 100;
/// What is left of a lease when its last page is there: time to write down what that says.
const LEASE_REST: Duration = Duration::from_secs(10);

/// How an open outcome is looked up until it must have shown; times are from the last look on.
const LOOK_UP: Policy<'static> = Policy {
    delays: &[3_000, 10_000, 30_000, 60_000, 60_000],
    most_tries: 6,
    spread: 0.2,
};

/// How long after the end of its request a message that Twilio's list does not show was not created.
const TIME_TO_SHOW: Duration = Duration::from_secs(120);

/// How long a look-up that keeps failing is repeated: a day.
const LONGEST_LOOK_UP: i64 = 86_400_000;

/// By how much Twilio's clock may be behind ours, and the second that its dates are cut to.
const CLOCK_DIFFERENCE: i64 = 6_000;

/// How long after its beginning a create may take effect at the latest.
const LONGEST_CREATE: i64 = 660_000;
