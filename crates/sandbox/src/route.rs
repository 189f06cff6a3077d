//! From path and method to the part that answers.

use std::sync::Arc;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Parts;
use protocol::form::Form;
use protocol::signature;

use crate::answer::Answer;
use crate::clock::Moment;
use crate::error::Refusal;
use crate::record::{self, Heard};
use crate::sandbox::Sandbox;
use crate::{control, create, inbound};

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
    if path.starts_with("/_") {
        return control::answer(sandbox, &asked).await;
    }
    twilio(sandbox, &asked).await
}

async fn twilio(sandbox: &Arc<Sandbox>, asked: &Asked) -> Answer {
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
        (_, ["Messages.json"]) => refused(sandbox, asked, &Refusal::new(20004)),
        _ => refused(sandbox, asked, &asked.not_found()),
    }
}

fn refused(sandbox: &Sandbox, asked: &Asked, refusal: &Refusal) -> Answer {
    let answer = Answer::refusal(refusal).after(sandbox.latency);
    let heard = Heard {
        status: answer.status(),
        code: Some(refusal.code),
        outcome: "refused".to_owned(),
        ..asked.heard("twilio")
    };
    sandbox.requests().push(heard);
    answer
}

impl Asked {
    /// The parameters of a form body. Any other media type has none, as at Twilio.
    pub(crate) fn form(&self) -> Form<'_> {
        match self.header(CONTENT_TYPE) {
            Some(content_type) if signature::is_form(content_type) => Form::parse(&self.body),
            _ => Form::default(),
        }
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

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header(AUTHORIZATION)
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
        let form = self.form();
        Heard {
            at: self.at,
            provider,
            method: self.head.method.to_string(),
            target: target.unwrap_or("*").to_owned(),
            parameters: record::object(form.iter()),
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
