//! A message's files: requested at the API, served by a storage elsewhere.
//!
//! <https://www.twilio.com/docs/messaging/api/media-resource>

use hyper::Method;
use serde_json::json;

use crate::answer::Answer;
use crate::error::Refusal;
use crate::http_request::{HttpRequest, refused};
use crate::message::Media;
use crate::sandbox::Sandbox;

/// The file's SID, if the file itself is requested and not its description.
pub(crate) fn asked_for<'a>(method: &Method, resource: &[&'a str]) -> Option<&'a str> {
    match resource {
        ["Messages", _, "Media", sid] if method == Method::GET && !sid.ends_with(".json") => {
            Some(sid)
        }
        _ => None,
    }
}

/// Redirects to the file, which is at another host, as at Twilio.
pub(crate) fn located(
    sandbox: &Sandbox,
    request: &HttpRequest,
    account_sid: &str,
    sid: &str,
) -> Answer {
    let message_sid = request
        .head
        .uri
        .path()
        .split('/')
        .nth(5)
        .unwrap_or_default();
    let is_there = sandbox.store().find(message_sid).is_some_and(|m| {
        m.account_sid == account_sid && m.media.iter().any(|media| media.sid == sid)
    });
    if !is_there {
        return refused(sandbox, request, &Refusal::new(20404));
    }
    let port = request
        .host()
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let url = format!("http://localhost:{port}/media/{message_sid}/{sid}");
    heard(
        sandbox,
        request,
        "redirected",
        Answer::empty(307).with_header("location", &url),
    )
}

/// Serves the file. A request with credentials is refused, as by Amazon's storage.
pub(crate) fn stored(
    sandbox: &Sandbox,
    request: &HttpRequest,
    message_sid: &str,
    sid: &str,
) -> Answer {
    if request.authorization().is_some() {
        let answer = Answer::json(400, &json!({"message": "Only one auth mechanism allowed"}));
        return heard(sandbox, request, "credentials", answer);
    }
    let media = sandbox.store().find(message_sid).and_then(|message| {
        let mut all = message.media.iter();
        all.find(|media| media.sid == sid).cloned()
    });
    match media {
        Some(media) => {
            let answer = Answer::text(200, media.content_type, media.content());
            heard(sandbox, request, "handed out", answer)
        }
        None => heard(sandbox, request, "refused", Answer::empty(404)),
    }
}

fn heard(sandbox: &Sandbox, request: &HttpRequest, outcome: &str, answer: Answer) -> Answer {
    let mut heard = request.heard("twilio");
    heard.outcome = outcome.to_owned();
    heard.status = answer.status();
    sandbox.requests().push(heard);
    answer
}

impl Media {
    /// The content: the SID repeated up to the file's size.
    fn content(&self) -> Vec<u8> {
        self.sid.bytes().cycle().take(self.size).collect()
    }
}
