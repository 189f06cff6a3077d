//! A request as it is handed over: complete, so that sending it needs no further decision.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use protocol::destination::Destination;
use protocol::trust::Trusted;

/// One HTTP request, ready to be sent.
pub struct Request {
    /// Comes back in the [`Report`](crate::Report); the sender gives it no meaning.
    pub id: i64,
    /// The HTTP method.
    pub method: Method,
    /// Where it goes. It is set together with the credentials, and not changed afterwards.
    pub(crate) to: Destination,
    /// Headers besides those the sender sets itself: Host, Content-Length, Connection and the like
    /// are refused.
    pub headers: Vec<(String, String)>,
    /// The Authorization header, kept apart so that nothing can print it.
    pub(crate) authorization: Option<Authorization>,
    /// The body. GET and HEAD carry none.
    pub body: Vec<u8>,
    /// Time allowed from being pushed to the last byte of the answer.
    pub timeout: Duration,
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// Bytes kept of the response's body, where that is not [`Config::body_limit`](crate::Config::body_limit).
    pub body_limit: Option<usize>,
    /// Time allowed for reading the response's body, where that is not
    /// [`Timeouts::body`](crate::Timeouts::body).
    pub body_timeout: Option<Duration>,
}

impl Request {
    /// A request without credentials, headers or body, to anywhere, with 30 seconds to finish.
    pub fn new(id: i64, method: Method, to: Destination) -> Self {
        Self {
            id,
            method,
            to,
            headers: Vec::new(),
            authorization: None,
            body: Vec::new(),
            timeout: Duration::from_secs(30),
            reach: Reach::Anywhere,
            body_limit: None,
            body_timeout: None,
        }
    }

    /// The same with credentials, to a destination that may be shown them.
    pub fn authorized(id: i64, method: Method, to: Trusted, authorization: Authorization) -> Self {
        Self {
            authorization: Some(authorization),
            ..Self::new(id, method, to.into_destination())
        }
    }

    /// A look at an address that a stranger may have named, such as a media URL: HEAD, public
    /// addresses only, 10 seconds.
    pub fn head(id: i64, to: Destination) -> Self {
        Self {
            timeout: Duration::from_secs(10),
            reach: Reach::PublicOnly,
            ..Self::new(id, Method::Head, to)
        }
    }
}

// Bodies are people's messages and headers may identify them, so only their sizes are shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("method", &self.method)
            .field("to", &self.to)
            .field("headers", &self.headers.len())
            .field("authorization", &self.authorization)
            .field("body", &self.body.len())
            .field("timeout", &self.timeout)
            .field("reach", &self.reach)
            .finish()
    }
}

/// The methods that the APIs in question use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Create or change.
    Post,
    /// Cancel.
    Delete,
    /// Ask for the headers only.
    Head,
}

/// Which addresses a request may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Any: the operator named the host.
    Anywhere,
    /// Only addresses that [`Config::address_check`](crate::Config::address_check) accepts, checked
    /// on the very address that is connected to, so that a name cannot change its mind in between.
    PublicOnly,
}

/// The value of an Authorization header. It has no `Display`, and its `Debug` is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(String);

impl Authorization {
    /// HTTP Basic: an account SID and its token, an API key and its secret, a user and a password.
    pub fn basic(user: &str, password: &str) -> Self {
        Self(format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    /// A bearer token.
    pub fn bearer(token: &str) -> Self {
        Self(format!("Bearer {token}"))
    }

    pub(crate) fn value(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use protocol::trust::Api;

    use super::*;

    #[test]
    fn basic_is_base64_of_user_and_password() {
        // The example of RFC 7617, section 2.
        let authorization = Authorization::basic("Aladdin", "open sesame");
        assert_eq!(authorization.value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn debug_shows_neither_secret_nor_content() {
        let api = Api::parse("https://example.com").unwrap();
        let to = api.at("/hush?code=hush").unwrap();
        let mut request = Request::authorized(7, Method::Post, to, Authorization::bearer("hush"));
        request.headers = vec![("x-api-key".into(), "hush".into())];
        request.body = b"hush".to_vec();
        let shown = format!("{request:?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("https://example.com"), "{shown}");
    }
}
