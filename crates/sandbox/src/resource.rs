//! One message: fetched, canceled, redacted, deleted; its media and feedback.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::callback::{self, Report};
use crate::clock::Moment;
use crate::error::Refusal;
use crate::http_request::HttpRequest;
use crate::list::Query;
use crate::message::{Message, Status};
use crate::sandbox::Sandbox;

/// The result of a request for an existing resource: its name for the records, status and body.
pub(crate) type Done = (&'static str, u16, Value);

/// Answers everything below `/Messages` but a create.
pub(crate) fn answer(
    sandbox: &Arc<Sandbox>,
    request: &HttpRequest,
    account_sid: &str,
    resource: &[&str],
) -> Result<Done, Refusal> {
    if resource == ["Messages.json"] {
        let query = Query::parse(&request.query())?;
        let page = query.page(&sandbox.store(), account_sid, request.head.uri.path())?;
        return Ok(("listed", 200, page));
    }
    let sid = sid_of(resource).ok_or_else(|| request.not_found())?;
    let message = sandbox.store().find(sid).cloned();
    let message = message
        .filter(|m| m.account_sid == account_sid)
        .ok_or_else(|| request.not_found())?;
    match (&request.head.method, &resource[1..]) {
        (&Method::GET, [_]) => Ok(("fetched", 200, message.to_json())),
        (&Method::POST, [_]) => update(sandbox, request, &message),
        (&Method::DELETE, [_]) => delete(sandbox, &message),
        (method, [_, "Media.json"]) if method == Method::GET => {
            Ok(("listed", 200, media_list(&message)))
        }
        (method, [_, "Media", name]) => media(sandbox, request, method, &message, name),
        (method, [_, "Feedback.json"]) if method == Method::POST => feedback(request, &message),
        _ => Err(Refusal::new(20004)),
    }
}

/// The message's SID in `Messages/SM….json` or `Messages/SM…/Media.json`.
fn sid_of<'a>(resource: &[&'a str]) -> Option<&'a str> {
    let sid = match resource {
        ["Messages", name] => name.strip_suffix(".json")?,
        ["Messages", sid, "Media.json" | "Feedback.json"] => sid,
        ["Messages", sid, "Media", name] if name.ends_with(".json") => sid,
        _ => return None,
    };
    protocol::sid::is_message(sid).then_some(sid)
}

fn update(
    sandbox: &Arc<Sandbox>,
    request: &HttpRequest,
    message: &Message,
) -> Result<Done, Refusal> {
    let form = request.form();
    match (form.first("Status"), form.first("Body")) {
        (Some("canceled"), _) => cancel(sandbox, message),
        (Some(other), _) => Err(Refusal::with(20001, format!("Invalid Status: {other}"))),
        (None, Some("")) => {
            if !message.status.is_final() {
                return Err(Refusal::new(20009));
            }
            change(sandbox, message, |message| message.body.clear())
                .map(|json| ("redacted", 200, json))
        }
        (None, Some(_)) => Err(Refusal::with(
            20001,
            "Body can only be updated to an empty string",
        )),
        (None, None) => Ok(("fetched", 200, message.to_json())),
    }
}

/// Only a scheduled message can be canceled: <https://www.twilio.com/docs/api/errors/30409>
fn cancel(sandbox: &Arc<Sandbox>, message: &Message) -> Result<Done, Refusal> {
    if message.status != Status::Scheduled {
        return Err(Refusal::new(30409));
    }
    let json = change(sandbox, message, |message| {
        message.status = Status::Canceled
    })?;
    let report = Report {
        status: Status::Canceled.as_str(),
        error: None,
        times: 1,
        is_novel: false,
    };
    if let Some(call) = callback::status(sandbox, message, &report) {
        let wait = sandbox.latency + sandbox.callback_delay;
        let answered = tokio::spawn(tokio::time::sleep(wait));
        callback::report(sandbox, call, &message.to, Some(answered));
    }
    Ok(("canceled", 200, json))
}

fn delete(sandbox: &Sandbox, message: &Message) -> Result<Done, Refusal> {
    if !message.status.is_final() {
        return Err(Refusal::new(20009));
    }
    sandbox.store().remove(&message.sid);
    Ok(("deleted", 204, Value::Null))
}

fn change(
    sandbox: &Sandbox,
    message: &Message,
    apply: impl FnOnce(&mut Message),
) -> Result<Value, Refusal> {
    let mut store = sandbox.store();
    let message = store.find_mut(&message.sid).ok_or(Refusal::new(20404))?;
    apply(message);
    message.updated = Moment::now();
    Ok(message.to_json())
}

fn media_list(message: &Message) -> Value {
    let list: Vec<Value> = message
        .media
        .iter()
        .map(|media| message.media_json(media))
        .collect();
    let uri = format!("{}/Media.json", message.uri());
    json!({
        "end": list.len().saturating_sub(1),
        "first_page_uri": format!("{uri}?PageSize=50&Page=0"),
        "media_list": list,
        "next_page_uri": null,
        "page": 0,
        "page_size": 50,
        "previous_page_uri": null,
        "start": 0,
        "uri": format!("{uri}?PageSize=50&Page=0"),
    })
}

fn media(
    sandbox: &Sandbox,
    request: &HttpRequest,
    method: &Method,
    message: &Message,
    name: &str,
) -> Result<Done, Refusal> {
    let sid = name.trim_end_matches(".json");
    let media = message
        .media
        .iter()
        .find(|media| media.sid == sid)
        .ok_or_else(|| request.not_found())?;
    match *method {
        Method::GET => Ok(("fetched", 200, message.media_json(media))),
        Method::DELETE => {
            change(sandbox, message, |message| {
                message.media.retain(|media| media.sid != sid)
            })?;
            Ok(("deleted", 204, Value::Null))
        }
        _ => Err(Refusal::new(20004)),
    }
}

fn feedback(request: &HttpRequest, message: &Message) -> Result<Done, Refusal> {
    let form = request.form();
    let outcome = form.filled("Outcome").unwrap_or("confirmed");
    if !matches!(outcome, "confirmed" | "unconfirmed") {
        return Err(Refusal::with(20001, format!("Invalid Outcome: {outcome}")));
    }
    let now = Moment::now().rfc2822();
    let json = json!({
        "account_sid": message.account_sid,
        "date_created": now,
        "date_updated": now,
        "message_sid": message.sid,
        "outcome": outcome,
        "uri": format!("{}/Feedback.json", message.uri()),
    });
    Ok(("feedback", 200, json))
}

/// The answer to [`Done`]: no body goes with 204.
pub(crate) fn respond(done: &Done) -> Answer {
    match done {
        (_, 204, _) => Answer::empty(204),
        (_, status, body) => Answer::json(*status, body),
    }
}
