//! A request to the sandbox with its body, and its refusal.

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use protocol::form::Form;
use protocol::signature;
use serde_json::Value;

use crate::answer::Answer;
use crate::clock::Moment;
use crate::error::Refusal;
use crate::record::{Body, Heard};
use crate::sandbox::Sandbox;

/// A request with its body.
pub(crate) struct HttpRequest {
    pub(crate) at: Moment,
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

impl HttpRequest {
    /// The parameters of a form body; none for other media types, as at Twilio.
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

    /// The host that the client called.
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

pub(crate) fn refused(sandbox: &Sandbox, request: &HttpRequest, refusal: &Refusal) -> Answer {
    let answer = sandbox.refusal(refusal);
    let heard = Heard {
        status: answer.status(),
        code: Some(refusal.code),
        outcome: "refused".to_owned(),
        ..request.heard("twilio")
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
