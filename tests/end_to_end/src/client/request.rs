//! Requests as Twilio makes them, and their signatures.

use std::borrow::Cow;
use std::fmt;

use protocol::form::Form;
use protocol::signature::{Algorithm, Key, Payload};

use crate::server::database::{AUTH_TOKEN, PUBLIC_URL};

/// An HTTP request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers in order; Host and Content-Length are added if they are missing.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// The media type of a form.
pub const FORM: &str = "application/x-www-form-urlencoded";

impl Request {
    /// A request without headers and body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A POST of `body`.
    pub fn post(target: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", target).header("Content-Type", content_type);
        request.body = body.into();
        request
    }

    /// A POST of a form.
    pub fn form<N: AsRef<str>, V: AsRef<str>>(target: &str, pairs: &[(N, V)]) -> Self {
        Self::post(target, FORM, encode(pairs))
    }

    /// The request with one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The request with `value` as its only header `name`.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.header(name, value)
    }

    /// The request without its headers `name`.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// The request signed with the test account's auth token for its public URL.
    pub fn signed(self) -> Self {
        self.signed_by(Algorithm::HmacSha1, AUTH_TOKEN, PUBLIC_URL)
    }

    /// The request signed for the public base URL `base`.
    pub fn signed_by(self, algorithm: Algorithm, secret: &str, base: &str) -> Self {
        let content_type = self.value_of("content-type");
        let payload = Payload::new(&self.method, content_type, &self.body);
        let url = format!("{base}{}", self.target);
        let signature = Key::new(algorithm, secret.as_bytes()).sign(&url, &payload);
        self.with("X-Twilio-Signature", &signature)
    }

    /// The first value of a header, its name in any case.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The decoded parameters of the body.
    pub fn pairs(&self) -> Vec<(String, String)> {
        pairs_of(&self.body)
    }

    /// The bytes that go over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if self.value_of("host").is_none() {
            head.push_str("Host: hooks.example.com\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let is_framed = ["content-length", "transfer-encoding"]
            .iter()
            .any(|name| self.value_of(name).is_some());
        if !is_framed && (self.method == "POST" || !self.body.is_empty()) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        // The start of a body shows what it is about, even if it has 64 KiB.
        let start = &bytes[..bytes.len().min(4000)];
        write!(f, "{:?}", String::from_utf8_lossy(start))
    }
}

/// The decoded parameters of a form or a query.
pub fn pairs_of(bytes: &[u8]) -> Vec<(String, String)> {
    let form = Form::parse(bytes);
    form.iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A form's text.
pub fn encode<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name.as_ref()), escape(value.as_ref())));
    pairs.collect::<Vec<_>>().join("&")
}

fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    text.bytes()
        .map(|byte| match byte {
            b' ' => Cow::Borrowed("+"),
            byte if is_plain(byte) => Cow::Owned(char::from(byte).to_string()),
            byte => Cow::Owned(format!("%{byte:02X}")),
        })
        .collect()
}
