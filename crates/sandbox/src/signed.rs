//! A signed request to a user's webhook.
//!
//! <https://www.twilio.com/docs/usage/security#validating-requests>

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request};
use protocol::form::Form;
use protocol::signature::Payload;
use sha2::{Digest, Sha256};

use crate::callback::Call;
use crate::sandbox::Sandbox;
use crate::smsgate::hex;
use crate::target::{self, Target};

/// A request with everything that stays the same for all tries.
pub(crate) struct Signed {
    pub(crate) target: Target,
    method: Method,
    path: String,
    body: Bytes,
    headers: Vec<(HeaderName, String)>,
}

impl Signed {
    /// A form. Those of a GET are added to the query and signed with it.
    pub(crate) fn form(sandbox: &Sandbox, call: &Call, target: Target) -> Self {
        let encoded = serde_urlencoded::to_string(&call.parameters).unwrap_or_default();
        let mut signed = Self::new(sandbox, target, call.method.clone());
        let mut url = target::without_user(&call.url);
        if call.method == Method::GET {
            signed.add_query(&mut url, &encoded);
            signed.sign(sandbox, &call.account_sid, &url, &Payload::Empty);
        } else {
            signed.set_body(call.content_type, encoded);
            let payload = form(&call.parameters);
            signed.sign(sandbox, &call.account_sid, &url, &payload);
        }
        signed
    }

    /// A JSON body, whose hash is added to the query and signed with it.
    pub(crate) fn json(
        sandbox: &Sandbox,
        account_sid: &str,
        (method, url): (Method, &str),
        body: String,
        target: Target,
    ) -> Self {
        let mut signed = Self::new(sandbox, target, method);
        let mut url = target::without_user(url);
        let hash = hex(&Sha256::digest(&body));
        signed.add_query(&mut url, &format!("bodySHA256={hash}"));
        signed.set_body("application/json", body);
        signed.sign(sandbox, account_sid, &url, &Payload::Empty);
        signed
    }

    pub(crate) fn request(
        &self,
        user: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes())?);
        }
        if let Some(user) = user {
            request = request.header(
                AUTHORIZATION,
                format!("Basic {}", BASE64_STANDARD.encode(user)),
            );
        }
        request.body(Full::new(self.body.clone()))
    }

    fn new(sandbox: &Sandbox, target: Target, method: Method) -> Self {
        let headers = vec![
            (HOST, target.host.clone()),
            (USER_AGENT, "TwilioProxy/1.1".to_owned()),
            (ACCEPT, "*/*".to_owned()),
            (IDEMPOTENCY_TOKEN, sandbox.random().uuid()),
        ];
        Self {
            path: target.path.clone(),
            target,
            method,
            body: Bytes::new(),
            headers,
        }
    }

    fn add_query(&mut self, url: &mut String, query: &str) {
        for text in [url, &mut self.path] {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(query);
        }
    }

    fn set_body(&mut self, content_type: &str, body: String) {
        self.headers.push((CONTENT_TYPE, content_type.to_owned()));
        self.body = body.into();
    }

    fn sign(&mut self, sandbox: &Sandbox, account_sid: &str, url: &str, payload: &Payload<'_>) {
        let signature = match (
            &sandbox.accounts.shared_key,
            sandbox.accounts.find(account_sid),
        ) {
            (Some((id, key)), _) => {
                let settings = format!("key={id},algorithm={}", key.algorithm().as_str());
                self.headers.push((SETTINGS, settings));
                key.sign(url, payload)
            }
            (None, Some(account)) => account.key.sign(url, payload),
            (None, None) => String::new(),
        };
        self.headers.push((SIGNATURE, signature));
    }
}

fn form(parameters: &[(String, String)]) -> Payload<'_> {
    let pairs = parameters
        .iter()
        .map(|(n, v)| (Cow::from(n.as_str()), Cow::from(v.as_str())));
    Payload::Form(Form::from_pairs(pairs))
}

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
const SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");
const IDEMPOTENCY_TOKEN: HeaderName = HeaderName::from_static("i-twilio-idempotency-token");
