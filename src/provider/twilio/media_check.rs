//! Checks the files of a message before it is created, so that a file that Twilio would refuse ends with a clear
//! error, and a file that cannot be reached for a while is checked again.

use std::time::Duration;

use protocol::destination::Destination;
use protocol::media::fits;
use protocol::retry;
use protocol::trust::Api;
use sender::{FailureKind, Outcome, Reach, Request, Response};

use crate::clock::Now;
use crate::provider::queue::{MessageJob, MessageResult, Task};
use crate::provider::twilio::{deferred, refused, retry_later};
use crate::setting;

/// The request that checks the next file: without credentials, and to public addresses only. Only the owner names a
/// sandbox, whose files may lie beside it.
pub(crate) fn request(job: &MessageJob, now: &Now) -> Result<Request, MessageResult> {
    let left = MAX_TIME.saturating_sub(job.progress.began.elapsed());
    let url = job.media_urls.get(job.progress.passed);
    let url = url.filter(|_| !left.is_zero());
    let url =
        url.ok_or_else(|| retry_later(job, describe(job, "no time was left for it"), None, now))?;
    let file = Destination::parse(url).map_err(|fault| {
        refused(
            job,
            &describe(job, &format!("its URL cannot be used: {fault}")),
        )
    })?;
    let is_beside = Api::parse(&job.api_url).is_ok_and(|api| api.is_beside(&file));
    let mut request = Request::head(job.message_id, file);
    request.timeout = request.timeout.min(setting::request_timeout()).min(left);
    if is_beside {
        request.reach = Reach::Anywhere;
    }
    Ok(request)
}

/// Proceeds to the next file, and after the last one to the message; returns a result if a file cannot be used.
pub(crate) fn classify(
    job: &mut MessageJob,
    outcome: &Outcome,
    now: &Now,
) -> Result<(), MessageResult> {
    match outcome {
        Outcome::Response(response) => answered(job, response, now)?,
        // A check changes nothing, so an unknown outcome can be retried.
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            let reason = describe(job, &failure.to_string());
            return Err(match failure.kind {
                FailureKind::AddressRefused => {
                    refused(job, &describe(job, "its host has no public address"))
                }
                FailureKind::InvalidRequest => refused(job, &reason),
                FailureKind::Stopped => deferred(job, reason),
                _ => retry_later(job, reason, None, now),
            });
        }
    }
    job.progress.passed += 1;
    if job.progress.passed == job.media_urls.len() {
        let took = job.progress.began.elapsed().as_secs();
        job.validity_s = job
            .validity_s
            .saturating_sub(i32::try_from(took).unwrap_or(i32::MAX));
        if job.validity_s <= 0 {
            // Back in the queue it expires.
            return Err(deferred(
                job,
                "it expired while its files were looked at".to_owned(),
            ));
        }
        job.task = Task::Create;
    }
    Ok(())
}

fn answered(job: &MessageJob, response: &Response, now: &Now) -> Result<(), MessageResult> {
    let status = response.status;
    match status {
        200..=299 => {
            let header = |name| response.header(name);
            fits(header("content-type"), header("content-length"))
                .map_err(|unfit| refused(job, &describe(job, &unfit.to_string())))
        }
        // A server that redirects this check might redirect Twilio to another place.
        300..=399 => Err(refused(job, &describe(job, "it is redirected"))),
        408 | 425 | 429 | 500.. => {
            let not_before = response
                .header("retry-after")
                .and_then(|header| retry::retry_after(header, now.unix_ms));
            let reason = describe(job, &format!("HTTP status {status}"));
            Err(retry_later(job, reason, not_before, now))
        }
        _ => Err(refused(
            job,
            &describe(job, &format!("HTTP status {status}")),
        )),
    }
}

/// Which file it is, by its place: URLs may hold secrets.
fn describe(job: &MessageJob, what: &str) -> String {
    let (place, count) = (job.progress.passed + 1, job.media_urls.len());
    format!("media {place} of {count}: {what}")
}

/// How long checking all files of a message may take. The lease is longer by that.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(20);
