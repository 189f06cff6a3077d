//! From path and method to the part that answers.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use protocol::form::Form;
use protocol::signature;
use serde_json::Value;

use crate::answer::Answer;
use crate::clock::Moment;
use crate::error::Refusal;
use crate::fault::Scope;
use crate::outcome::Reply;
use crate::record::{Body, Heard};
use crate::sandbox::Sandbox;
use crate::{control, create, inbound, media, resource, smsgate};

/// A request that was read to its end.
pub(crate) struct Asked {
    pub(crate) at: Moment,
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

pub(crate) async fn answer(sandbox: &Arc<Sandbox>, asked: Asked) -> Answer {
    let path = asked.head.uri.path();
    if path == "/_inbound" {
        return inbound::answer(sandbox, &asked).await;
    }
    if ["/_sent", "/_phones", "/_tokens"].contains(&path) || path.starts_with("/_phones/") {
        return smsgate::control(sandbox, &asked);
    }
    if path.starts_with("/_") {
        return control::answer(sandbox, &asked).await;
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["media", message_sid, sid] => media::stored(sandbox, &asked, message_sid, sid),
        ["3rdparty", "v1", path @ ..] | ["api", "3rdparty", "v1", path @ ..] => {
            smsgate::answer(sandbox, &asked, path)
        }
        _ => twilio(sandbox, &asked).await,
    }
}

async fn twilio(sandbox: &Arc<Sandbox>, asked: &Asked) -> Answer {
    let permit = sandbox.permits.clone().try_acquire_owned().ok();
    let mut answer = match &permit {
        Some(_) => authorized(sandbox, asked).await,
        None => refused(sandbox, asked, &Refusal::new(20429)),
    };
    let concurrent = sandbox.max_concurrent - sandbox.permits.available_permits();
    answer = answer
        .with_header("twilio-concurrent-requests", &concurrent.to_string())
        .with_header("twilio-request-id", &sandbox.random().sid("RQ"));
    answer.permit = permit;
    answer
}

async fn authorized(sandbox: &Arc<Sandbox>, asked: &Asked) -> Answer {
    let segments: Vec<&str> = asked.head.uri.path().split('/').skip(1).collect();
    let ["2010-04-01", "Accounts", account_sid, resource @ ..] = segments.as_slice() else {
        return refused(sandbox, asked, &asked.not_found());
    };
    let account_sid = match sandbox
        .accounts
        .authorize(asked.authorization(), account_sid)
    {
        Ok(account) => account.sid.clone(),
        Err(refusal) if refusal.code == 20404 => {
            return refused(sandbox, asked, &asked.not_found());
        }
        Err(refusal) => return refused(sandbox, asked, &refusal),
    };
    match (&asked.head.method, resource) {
        (&Method::POST, ["Messages.json"]) => create::answer(sandbox, asked, &account_sid).await,
        (&Method::GET, ["Messages.json"]) | (_, ["Messages", ..]) => {
            existing(sandbox, asked, &account_sid, resource)
        }
        (_, ["Messages.json"]) => refused(sandbox, asked, &Refusal::new(20004)),
        _ => refused(sandbox, asked, &asked.not_found()),
    }
}

/// A request for what exists already, unless a fault hits it.
fn existing(sandbox: &Arc<Sandbox>, asked: &Asked, account_sid: &str, resource: &[&str]) -> Answer {
    let mut wait = sandbox.latency;
    let mut heard = asked.heard("twilio");
    let fault = sandbox.fault(Scope::Read, None);
    match fault.map(|fault| fault.reply) {
        Some(Reply::Refused(code)) => return refused(sandbox, asked, &Refusal::new(code)),
        Some(Reply::TooMany(_)) => return refused(sandbox, asked, &Refusal::new(20429)),
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
    if let Some(sid) = media::asked_for(&asked.head.method, resource) {
        return media::located(sandbox, asked, account_sid, sid).after(wait);
    }
    let done = match resource::answer(sandbox, asked, account_sid, resource) {
        Ok(done) => done,
        Err(refusal) => return refused(sandbox, asked, &refusal),
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

pub(crate) fn refused(sandbox: &Sandbox, asked: &Asked, refusal: &Refusal) -> Answer {
    let answer = sandbox.refusal(refusal);
    let heard = Heard {
        status: answer.status(),
        code: Some(refusal.code),
        outcome: "refused".to_owned(),
        ..asked.heard("twilio")
    };
    sandbox.requests().push(heard);
    answer.after(sandbox.latency)
}

impl Sandbox {
    /// The answer to a refused request, with Retry-After where that is wanted.
    pub(crate) fn refusal(&self, refusal: &Refusal) -> Answer {
        let answer = Answer::refusal(refusal);
        match self.retry_after.filter(|_| refusal.code == 20429) {
            Some(seconds) => answer.with_header("retry-after", &seconds.to_string()),
            None => answer,
        }
    }
}

impl Asked {
    /// The parameters of a form body. Any other media type has none, as at Twilio.
    pub(crate) fn form(&self) -> Form<'_> {
        match self.header(CONTENT_TYPE) {
            Some(content_type) if signature::is_form(content_type) => Form::parse(&self.body),
            _ => Form::default(),
        }
    }

    /// The fields of a body that is a form or a JSON object; an array gives one field for each member.
    pub(crate) fn fields(&self) -> Result<Vec<(String, String)>, String> {
        if !self.header(CONTENT_TYPE).is_some_and(signature::is_json) {
            let form = self.form();
            return Ok(form
                .iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect());
        }
        let value: Value = serde_json::from_slice(&self.body).map_err(|error| error.to_string())?;
        let object = value.as_object().ok_or("the body is not a JSON object")?;
        let mut fields = Vec::new();
        for (name, value) in object {
            for value in value
                .as_array()
                .map_or(std::slice::from_ref(value), Vec::as_slice)
            {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                fields.push((name.clone(), text));
            }
        }
        Ok(fields)
    }

    /// The parameters of the query.
    pub(crate) fn query(&self) -> Form<'_> {
        Form::parse(self.head.uri.query().unwrap_or_default().as_bytes())
    }

    pub(crate) fn header(&self, name: hyper::header::HeaderName) -> Option<&str> {
        self.head
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// The address that the client called.
    pub(crate) fn host(&self) -> &str {
        self.header(HOST).unwrap_or("127.0.0.1")
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header(AUTHORIZATION)
    }

    /// The body for the records. It is copied: a slice would keep the whole read buffer alive.
    fn said(&self) -> Body {
        let bytes: Box<[u8]> = self.body.as_ref().into();
        match self.header(CONTENT_TYPE) {
            Some(content_type) if signature::is_json(content_type) => Body::Json(bytes),
            Some(content_type) if signature::is_form(content_type) => Body::Form(bytes),
            _ => Body::Form(Box::default()),
        }
    }

    pub(crate) fn not_found(&self) -> Refusal {
        let path = self.head.uri.path();
        Refusal::with(
            20404,
            format!("The requested resource {path} was not found"),
        )
    }

    /// The record of this request, to be completed.
    pub(crate) fn heard(&self, provider: &'static str) -> Heard {
        let target = self.head.uri.path_and_query().map(|target| target.as_str());
        Heard {
            at: self.at,
            provider,
            method: self.head.method.to_string(),
            target: target.unwrap_or("*").to_owned(),
            body: self.said(),
            authorization: self
                .authorization()
                .and_then(|header| Some(header.split_once(' ')?.0.to_owned())),
            unknown: Vec::new(),
            to: None,
            outcome: String::new(),
            status: None,
            code: None,
            is_accepted: false,
            id: None,
        }
    }
}
