//! The server's API: authorization and responses.

use std::sync::Arc;

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::outcome::Reply;
use super::phone::Phone;
use super::submission::{self, Submission};
use super::webhook::Webhook;
use super::{Gateway, Refused, Result};
use crate::account;
use crate::answer::Answer;
use crate::clock::Moment;
use crate::http_request::HttpRequest;
use crate::outcome::Breakage;
use crate::record::Heard;
use crate::sandbox::Sandbox;

/// Answers a request for `path`, its segments below the API's base.
pub(crate) fn answer(sandbox: &Arc<Sandbox>, request: &HttpRequest, path: &[&str]) -> Answer {
    let Some(gateway) = &sandbox.gateway else {
        return refused(&Refused::new(
            404,
            "the sandbox runs without --smsgate-user",
        ));
    };
    let mut heard = Heard {
        outcome: "answered".to_owned(),
        ..request.heard("smsgate")
    };
    let answer = dispatch(sandbox, gateway, request, path, &mut heard).unwrap_or_else(|refusal| {
        heard.outcome = "refused".to_owned();
        refused(&refusal)
    });
    heard.status = answer.status();
    sandbox.requests().push(heard);
    answer.after(sandbox.latency)
}

fn dispatch(
    sandbox: &Arc<Sandbox>,
    gateway: &Gateway,
    request: &HttpRequest,
    path: &[&str],
    heard: &mut Heard,
) -> Result<Answer> {
    match path {
        ["health"] if request.head.method == Method::GET => Ok(Answer::json(200, &health())),
        ["messages", rest @ ..] => messages(sandbox, gateway, request, rest, heard),
        ["webhooks", rest @ ..] => webhooks(sandbox, gateway, request, rest),
        ["devices", rest @ ..] => devices(gateway, request, rest),
        ["auth", "token", rest @ ..] => tokens(sandbox, gateway, request, rest),
        _ => Err(unknown(request)),
    }
}

fn messages(
    sandbox: &Arc<Sandbox>,
    gateway: &Gateway,
    request: &HttpRequest,
    path: &[&str],
    heard: &mut Heard,
) -> Result<Answer> {
    let allow = |scope| gateway.allow(request, scope);
    match (&request.head.method, path) {
        (&Method::POST, []) => {
            allow("messages:send")?;
            enqueue(sandbox, gateway, request, heard)
        }
        (&Method::GET, []) => {
            allow("messages:list")?;
            gateway.list(request)
        }
        (&Method::GET, [id]) => {
            allow("messages:read")?;
            gateway.fetch(id, request.at)
        }
        (&Method::DELETE, [id]) => {
            allow("messages:cancel")?;
            gateway.cancel(id, request.at)
        }
        _ => Err(unknown(request)),
    }
}

fn webhooks(
    sandbox: &Sandbox,
    gateway: &Gateway,
    request: &HttpRequest,
    path: &[&str],
) -> Result<Answer> {
    match (&request.head.method, path) {
        (&Method::GET, []) => {
            gateway.allow(request, "webhooks:list")?;
            let state = gateway.state();
            let list: Vec<Value> = state.webhooks.iter().map(Webhook::to_json).collect();
            Ok(Answer::json(200, &list.into()))
        }
        (&Method::POST, []) => {
            gateway.allow(request, "webhooks:write")?;
            let webhook =
                Webhook::check(&request.json()?, &sandbox.targets, &mut sandbox.random())?;
            let json = webhook.to_json();
            let mut state = gateway.state();
            state.webhooks.retain(|earlier| earlier.id != webhook.id);
            state.webhooks.push(webhook);
            Ok(Answer::json(201, &json))
        }
        (&Method::DELETE, [id]) => {
            gateway.allow(request, "webhooks:delete")?;
            gateway.state().webhooks.retain(|webhook| webhook.id != *id);
            Ok(Answer::empty(204))
        }
        _ => Err(unknown(request)),
    }
}

fn devices(gateway: &Gateway, request: &HttpRequest, path: &[&str]) -> Result<Answer> {
    match (&request.head.method, path) {
        (&Method::GET, []) => {
            gateway.allow(request, "devices:list")?;
            let phones = gateway.phones.iter().filter(|phone| !phone.is_removed());
            let list: Vec<Value> = phones.map(|phone| device(phone)).collect();
            Ok(Answer::json(200, &list.into()))
        }
        (&Method::DELETE, [id]) => {
            gateway.allow(request, "devices:delete")?;
            let phone = gateway.phone(id);
            phone
                .ok_or_else(|| Refused::new(404, "record not found"))?
                .remove();
            Ok(Answer::empty(204))
        }
        _ => Err(unknown(request)),
    }
}

fn tokens(
    sandbox: &Sandbox,
    gateway: &Gateway,
    request: &HttpRequest,
    path: &[&str],
) -> Result<Answer> {
    match (&request.head.method, path) {
        (&Method::POST, []) => {
            gateway.allow(request, "tokens:manage")?;
            let body = request.json()?;
            let issued = gateway
                .state()
                .tokens
                .issue(&body, request.at, &mut sandbox.random())?;
            Ok(Answer::json(201, &issued))
        }
        (&Method::POST, ["refresh"]) => {
            let token = bearer(request.authorization()).unwrap_or_default();
            let issued =
                gateway
                    .state()
                    .tokens
                    .refresh(token, request.at, &mut sandbox.random())?;
            Ok(Answer::json(201, &issued))
        }
        (&Method::DELETE, [id]) => {
            gateway.allow(request, "tokens:manage")?;
            gateway.state().tokens.revoke(id);
            Ok(Answer::empty(204))
        }
        _ => Err(unknown(request)),
    }
}

/// The response of the real server's framework.
fn unknown(request: &HttpRequest) -> Refused {
    let (method, path) = (&request.head.method, request.head.uri.path());
    Refused::new(404, format!("Cannot {method} {path}"))
}

/// `POST /messages`, in the server's order: body, device, queue, recipients, insert.
fn enqueue(
    sandbox: &Arc<Sandbox>,
    gateway: &Gateway,
    request: &HttpRequest,
    heard: &mut Heard,
) -> Result<Answer> {
    let body = request.json()?;
    heard.unknown = submission::unknown(&body);
    heard.to = body["phoneNumbers"][0].as_str().map(str::to_owned);
    heard.id = body["id"].as_str().map(str::to_owned);
    let query = request.query();
    let skip = query.first("skipPhoneValidation") == Some("true");
    let submission = Submission::check(&body, skip, request.at)?;
    let (plain, outcome) = gateway.read(&submission);
    // Scenarios and counts go by the recipient, whoever can read it.
    let first = plain.numbers.first().cloned().unwrap_or_default();
    heard.to = Some(first.clone());
    let tries = gateway.state().count_try(&first);
    let outcome = outcome.ok_or_else(|| Refused::new(400, "invalid phone number"))?;
    let fault = sandbox.phone_fault(&first);
    let outcome = fault.map_or(outcome, |fault| outcome.overlaid_by(fault));
    heard.outcome = outcome.name.to_owned();
    match outcome.reply {
        Reply::Refused(status, text) => return Err(Refused::new(status, text)),
        Reply::RefusedOnce(status, text) if tries == 1 || fault.is_some() => {
            return Err(Refused::new(status, text));
        }
        Reply::Broken {
            is_accepted: false,
            how,
        } => return Ok(broken(how)),
        _ => {}
    }
    let within = query
        .filled("deviceActiveWithin")
        .and_then(|hours| hours.parse().ok());
    let phone = gateway.choose(submission.device_id.as_deref(), within, request.at, sandbox)?;
    gateway.check_queue(&phone)?;
    let sms = gateway.accept(sandbox, &phone, (submission, plain), outcome, request.at)?;
    heard.is_accepted = true;
    heard.id = Some(sms.id.clone());
    wake(&phone, sms.due);
    match outcome.reply {
        Reply::Broken { how, .. } => Ok(broken(how)),
        _ => {
            let base = request.head.uri.path();
            let location = format!("{base}/{}", sms.id);
            Ok(Answer::json(202, &sms.to_json(true, false)).with_header("location", &location))
        }
    }
}

fn wake(phone: &Arc<Phone>, due: Option<Moment>) {
    let Some(due) = due else { return };
    let phone = phone.clone();
    let until = (due.0 - Moment::now().0).max(0).unsigned_abs();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_micros(until)).await;
        phone.wake.notify_one();
    });
}

impl Gateway {
    fn allow(&self, request: &HttpRequest, scope: &str) -> Result<()> {
        let header = request.authorization();
        if let Some(token) = bearer(header) {
            return self.state().tokens.check(token, scope, request.at);
        }
        let is_user = header
            .and_then(account::credentials)
            .is_some_and(|(user, password)| user == self.user && password == self.password);
        is_user
            .then_some(())
            .ok_or_else(|| Refused::new(401, "Unauthorized"))
    }
}

impl HttpRequest {
    /// The JSON body, if the request says that it is one.
    fn json(&self) -> Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        if !self
            .header(CONTENT_TYPE)
            .is_some_and(protocol::signature::is_json)
        {
            return Err(Refused::new(400, "Unprocessable Entity"));
        }
        serde_json::from_slice(&self.body).map_err(|error| Refused::new(400, error.to_string()))
    }
}

fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn health() -> Value {
    json!({ "status": "pass", "version": env!("CARGO_PKG_VERSION"), "releaseId": 1, "checks": {} })
}

fn device(phone: &Phone) -> Value {
    json!({
        "id": phone.id,
        "name": format!("sandbox phone {}", phone.number),
        "createdAt": "2020-01-01T00:00:00Z",
        "updatedAt": phone.last_seen().rfc3339(),
        "lastSeen": phone.last_seen().rfc3339(),
    })
}

fn refused(refused: &Refused) -> Answer {
    Answer::json(refused.status, &json!({ "message": refused.message }))
}

fn broken(how: Breakage) -> Answer {
    match how {
        Breakage::ServerError => refused(&Refused::new(500, "failed to handle request")),
        how => Answer::broken(how, &Value::Null),
    }
}
