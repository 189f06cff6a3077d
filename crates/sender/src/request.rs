//! A complete request, which can be sent without further decisions.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use protocol::destination::Destination;
use protocol::trust::Trusted;

/// One HTTP request, ready to be sent.
pub struct Request {
    /// Returned in the [`Report`](crate::Report). The sender does not interpret it.
    pub id: i64,
    /// The HTTP method.
    pub method: Method,
    /// The destination. It is set together with the credentials and cannot be changed afterwards.
    pub(crate) to: Destination,
    /// Headers besides those that the sender sets itself. Host, Content-Length, Connection and the like are refused.
    pub headers: Vec<(String, String)>,
    /// The Authorization header, kept apart from the others so that it cannot be printed.
    pub(crate) authorization: Option<Authorization>,
    /// The body, empty for GET and HEAD.
    pub body: Vec<u8>,
    /// Time allowed from pushing the request to the last byte of the response.
    pub timeout: Duration,
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// Bytes to keep of the response's body, if other than [`Config::body_limit`](crate::Config::body_limit).
    pub body_limit: Option<usize>,
    /// Time allowed for reading the response's body, if other than [`Timeouts::body`](crate::Timeouts::body).
    pub body_timeout: Option<Duration>,
}

impl Request {
    /// A request without credentials, headers or body, to any address, with a timeout of 30 seconds.
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

    /// A request with credentials, to a destination that is trusted with them.
    pub fn authorized(id: i64, method: Method, to: Trusted, authorization: Authorization) -> Self {
        Self {
            authorization: Some(authorization),
            ..Self::new(id, method, to.into_destination())
        }
    }

    /// A HEAD request to a URL from an untrusted source, such as a media URL: public addresses only, with a timeout of
    /// 10 seconds.
    pub fn head(id: i64, to: Destination) -> Self {
        Self {
            timeout: Duration::from_secs(10),
            reach: Reach::PublicOnly,
            ..Self::new(id, Method::Head, to)
        }
    }
}

// Bodies are private messages and headers may identify people, so only their sizes are shown.
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

/// The HTTP methods that the providers' APIs use.
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
    /// Any address: the operator configured the host.
    Anywhere,
    /// Only addresses that [`Config::address_check`](crate::Config::address_check) accepts. The address that is
    /// connected to is checked itself, so that a name cannot resolve differently in between.
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
