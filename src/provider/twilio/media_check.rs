//! Looks at a message's files before it is created, so that what Twilio would refuse ends with a clear
//! error, and what is out of reach for a while is waited for.

use std::time::Duration;

use protocol::destination::Destination;
use protocol::media::fits;
use protocol::retry;
use protocol::trust::Api;
use sender::{FailureKind, Outcome, Reach, Request, Response};

use crate::clock::Moment;
use crate::provider::queue::{End, Task, Work};
use crate::provider::twilio::{later, put_off, refused};
use crate::setting;

/// The look at the next file: without credentials, and to public addresses only. Only the owner names a
/// sandbox, whose files may lie beside it.
pub(crate) fn request(work: &Work, moment: &Moment) -> Result<Request, End> {
    let left = LONGEST.saturating_sub(work.progress.began.elapsed());
    let url = work.media_urls.get(work.progress.passed);
    let url = url.filter(|_| !left.is_zero());
    let url =
        url.ok_or_else(|| later(work, said(work, "no time was left for it"), None, moment))?;
    let file = Destination::parse(url).map_err(|fault| {
        refused(
            work,
            &said(work, &format!("its URL cannot be used: {fault}")),
        )
    })?;
    let is_beside = Api::parse(&work.api_url).is_ok_and(|api| api.is_beside(&file));
    let mut request = Request::head(work.message_id, file);
    request.timeout = request.timeout.min(setting::request_timeout()).min(left);
    if is_beside {
        request.reach = Reach::Anywhere;
    }
    Ok(request)
}

/// Goes on to the next file, and to the message itself after the last one; an end if a file is not good.
pub(crate) fn judge(work: &mut Work, outcome: &Outcome, moment: &Moment) -> Result<(), End> {
    match outcome {
        Outcome::Response(response) => answered(work, response, moment)?,
        // A look changes nothing, whether or not it came to something.
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            let reason = said(work, &failure.to_string());
            return Err(match failure.kind {
                FailureKind::AddressRefused => {
                    refused(work, &said(work, "its host has no public address"))
                }
                FailureKind::InvalidRequest => refused(work, &reason),
                FailureKind::Stopped => put_off(work, reason),
                _ => later(work, reason, None, moment),
            });
        }
    }
    work.progress.passed += 1;
    if work.progress.passed == work.media_urls.len() {
        let took = work.progress.began.elapsed().as_secs();
        work.validity_s = work
            .validity_s
            .saturating_sub(i32::try_from(took).unwrap_or(i32::MAX));
        if work.validity_s <= 0 {
            // Back in the queue it expires.
            return Err(put_off(
                work,
                "it expired while its files were looked at".to_owned(),
            ));
        }
        work.task = Task::Create;
    }
    Ok(())
}

fn answered(work: &Work, response: &Response, moment: &Moment) -> Result<(), End> {
    let status = response.status;
    match status {
        200..=299 => {
            let header = |name| response.header(name);
            fits(header("content-type"), header("content-length"))
                .map_err(|unfit| refused(work, &said(work, &unfit.to_string())))
        }
        // Who leads a look elsewhere might lead Twilio elsewhere again.
        300..=399 => Err(refused(work, &said(work, "it is redirected"))),
        408 | 425 | 429 | 500.. => {
            let asked = response
                .header("retry-after")
                .and_then(|header| retry::retry_after(header, moment.now));
            let reason = said(work, &format!("HTTP status {status}"));
            Err(later(work, reason, asked, moment))
        }
        _ => Err(refused(work, &said(work, &format!("HTTP status {status}")))),
    }
}

/// Which file it is, by its place: URLs may hold secrets.
fn said(work: &Work, what: &str) -> String {
    let (place, count) = (work.progress.passed + 1, work.media_urls.len());
    format!("media {place} of {count}: {what}")
}

/// So long a message's files may take, all together. The lease is longer by that.
pub(crate) const LONGEST: Duration = Duration::from_secs(20);
