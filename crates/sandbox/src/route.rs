//! Routes requests by path and method.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::answer::Answer;
use crate::error::Refusal;
use crate::fault::Scope;
use crate::http_request::{HttpRequest, refused};
use crate::outcome::Reply;
use crate::resource::Done;
use crate::sandbox::Sandbox;
use crate::{control, create, events, inbound, media, resource, smsgate};

pub(crate) async fn answer(sandbox: &Arc<Sandbox>, request: HttpRequest) -> Answer {
    let path = request.head.uri.path();
    if path == "/_inbound" {
        return inbound::answer(sandbox, &request).await;
    }
    if ["/_sent", "/_phones", "/_tokens"].contains(&path) || path.starts_with("/_phones/") {
        return smsgate::control(sandbox, &request);
    }
    if path.starts_with("/_") {
        return control::answer(sandbox, &request).await;
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["media", message_sid, sid] => media::stored(sandbox, &request, message_sid, sid),
        ["3rdparty", "v1", path @ ..] | ["api", "3rdparty", "v1", path @ ..] => {
            smsgate::answer(sandbox, &request, path)
        }
        _ => twilio(sandbox, &request).await,
    }
}

async fn twilio(sandbox: &Arc<Sandbox>, request: &HttpRequest) -> Answer {
    let permit = sandbox.permits.clone().try_acquire_owned().ok();
    let mut answer = match &permit {
        Some(_) => authorized(sandbox, request).await,
        None => refused(sandbox, request, &Refusal::new(20429)),
    };
    let concurrent = sandbox.max_concurrent - sandbox.permits.available_permits();
    answer = answer
        .with_header("twilio-concurrent-requests", &concurrent.to_string())
        .with_header("twilio-request-id", &sandbox.random().sid("RQ"));
    answer.permit = permit;
    answer
}

async fn authorized(sandbox: &Arc<Sandbox>, request: &HttpRequest) -> Answer {
    let segments: Vec<&str> = request.head.uri.path().split('/').skip(1).collect();
    let header = request.authorization();
    let account = match segments.as_slice() {
        ["2010-04-01", "Accounts", account_sid, ..] => {
            sandbox.accounts.authorize(header, account_sid)
        }
        ["v1", "Sinks" | "Subscriptions", ..] => sandbox.accounts.authenticate(header),
        _ => return refused(sandbox, request, &request.not_found()),
    };
    let account_sid = match account {
        Ok(account) => account.sid.as_str(),
        Err(refusal) if refusal.code == 20404 => {
            return refused(sandbox, request, &request.not_found());
        }
        Err(refusal) => return refused(sandbox, request, &refusal),
    };
    let refused = |refusal: &Refusal| refused(sandbox, request, refusal);
    let method = &request.head.method;
    if let ["v1", resource @ ..] = segments.as_slice() {
        return existing(sandbox, request, || {
            let done = events::answer(sandbox, request, account_sid, resource);
            done.map_err(|refusal| refused(&refusal))
        });
    }
    let resource = segments.get(3..).unwrap_or_default();
    match (method, resource) {
        (&Method::POST, ["Messages.json"]) => create::answer(sandbox, request, account_sid).await,
        (&Method::GET, ["Messages.json"]) | (_, ["Messages", ..]) => {
            existing(sandbox, request, || {
                if let Some(sid) = media::asked_for(method, resource) {
                    return Err(media::located(sandbox, request, account_sid, sid));
                }
                let done = resource::answer(sandbox, request, account_sid, resource);
                done.map_err(|refusal| refused(&refusal))
            })
        }
        (_, ["Messages.json"]) => refused(&Refusal::new(20004)),
        _ => refused(&request.not_found()),
    }
}

/// Answers a request for a resource by `respond`, unless a fault applies.
fn existing(
    sandbox: &Arc<Sandbox>,
    request: &HttpRequest,
    respond: impl FnOnce() -> Result<Done, Answer>,
) -> Answer {
    let mut wait = sandbox.latency;
    let mut heard = request.heard("twilio");
    let fault = sandbox.fault(Scope::Read, None);
    match fault.map(|fault| fault.reply) {
        Some(Reply::Refused(code)) => return refused(sandbox, request, &Refusal::new(code)),
        Some(Reply::TooMany(_)) => return refused(sandbox, request, &Refusal::new(20429)),
        Some(Reply::Slow(millis)) => wait = wait.max(Duration::from_millis(millis.into())),
        Some(Reply::Broken {
            is_accepted: false,
            how,
        }) => {
            heard.outcome = fault.map(|fault| fault.label()).unwrap_or_default();
            let answer = Answer::broken(how, &Value::Null);
            heard.status = answer.status();
            sandbox.requests().push(heard);
            return answer.after(wait);
        }
        _ => {}
    }
    let done = match respond() {
        Ok(done) => done,
        Err(answer) => return answer.after(wait),
    };
    let answer = match fault.map(|fault| fault.reply) {
        Some(Reply::Broken { how, .. }) => Answer::broken(how, &done.2),
        _ => resource::respond(&done),
    };
    heard.outcome = fault.map_or_else(|| done.0.to_owned(), |fault| fault.label());
    heard.status = answer.status();
    heard.id = done.2["sid"].as_str().map(str::to_owned);
    sandbox.requests().push(heard);
    answer.after(wait)
}
