//! Paths, their methods, and the media types of bodies.

use std::time::Duration;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap};

use crate::refusal::Refusal;

/// The endpoint of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    Status,
    Inbound,
    /// Events of Event Streams, and the debugger's webhook.
    Events,
    Smsgate,
}

impl Endpoint {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Inbound => "inbound",
            Self::Events => "events",
            Self::Smsgate => "smsgate",
        }
    }

    /// The value of `Allow`.
    pub(crate) const fn methods(self) -> &'static str {
        match self {
            Self::Inbound => "GET, POST",
            Self::Status | Self::Events | Self::Smsgate => "POST",
        }
    }

    /// The longest body that is read, in bytes. Event Streams sends many events in one request.
    pub(crate) const fn max_body(self) -> usize {
        match self {
            Self::Events => 1 << 20,
            Self::Status | Self::Inbound | Self::Smsgate => MAX_BODY,
        }
    }

    /// The longest time that its clients wait for an answer, if it is shorter than that of callbacks. Event Streams waits five
    /// seconds.
    pub(crate) fn deadline(self, callbacks: Duration) -> Duration {
        match self {
            Self::Events => callbacks.min(EVENTS_DEADLINE),
            Self::Status | Self::Inbound | Self::Smsgate => callbacks,
        }
    }

    /// The method as it is passed to the database, if the endpoint accepts it.
    pub(crate) fn method(self, method: &Method) -> Option<&'static str> {
        match *method {
            Method::POST => Some("POST"),
            Method::GET if self == Self::Inbound => Some("GET"),
            _ => None,
        }
    }
}

/// The longest body of a callback, in bytes.
pub(crate) const MAX_BODY: usize = 64 << 10;
const EVENTS_DEADLINE: Duration = Duration::from_millis(4500);

/// The paths of the endpoints; they match exactly.
#[derive(Clone, Debug)]
pub(crate) struct Routes(Vec<(Box<str>, Endpoint)>);

impl Routes {
    /// The built-in paths and the given ones. A path with two endpoints is an error.
    pub(crate) fn new(more: impl IntoIterator<Item = (String, Endpoint)>) -> Result<Self, String> {
        let mut routes = Self(Vec::new());
        let built_in = [
            ("/twilio/status", Endpoint::Status),
            ("/twilio/inbound", Endpoint::Inbound),
            ("/twilio/events", Endpoint::Events),
            ("/twilio/debugger", Endpoint::Events),
            ("/smsgate", Endpoint::Smsgate),
        ];
        for (path, endpoint) in built_in {
            routes.0.push((path.into(), endpoint));
        }
        for (path, endpoint) in more {
            if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
                return Err(format!(
                    "path \"{path}\" must start with \"/\" and have no query, fragment or space"
                ));
            }
            match routes.find(&path) {
                Some(other) if other != endpoint => {
                    let (one, two) = (other.name(), endpoint.name());
                    return Err(format!(
                        "path \"{path}\" is given both as {one} and as {two}"
                    ));
                }
                Some(_) => {}
                None => routes.0.push((path.into(), endpoint)),
            }
        }
        Ok(routes)
    }

    pub(crate) fn find(&self, path: &str) -> Option<Endpoint> {
        let (_, endpoint) = self.0.iter().find(|(known, _)| **known == *path)?;
        Some(*endpoint)
    }
}

/// Finds the endpoint and the method as it is passed to the database.
pub(crate) fn resolve(
    routes: &Routes,
    method: &Method,
    path: &str,
) -> Result<(Endpoint, &'static str), Refusal> {
    let endpoint = routes.find(path).ok_or(Refusal::NotFound)?;
    let method = endpoint.method(method).ok_or(Refusal::MethodNotAllowed)?;
    Ok((endpoint, method))
}

/// Whether a body of this type is accepted; a request without a body needs no type.
pub(crate) fn is_media_type_accepted(headers: &HeaderMap, has_body: bool) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter().peekable();
    if types.peek().is_none() {
        return !has_body;
    }
    types.all(|value| {
        let value = value.as_bytes();
        let end = value.iter().position(|&byte| byte == b';');
        let essence = value[..end.unwrap_or(value.len())].trim_ascii();
        essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
            || essence.eq_ignore_ascii_case(b"application/json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_exactly() {
        let routes = Routes::new([("/sms".to_owned(), Endpoint::Inbound)]).unwrap();
        assert_eq!(routes.find("/twilio/status"), Some(Endpoint::Status));
        assert_eq!(routes.find("/sms"), Some(Endpoint::Inbound));
        for path in [
            "",
            "/",
            "/twilio/status/",
            "/Twilio/status",
            "/twilio",
            "*",
            "/sms2",
        ] {
            assert_eq!(routes.find(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_has_one_meaning() {
        let twice = [("/smsgate".to_owned(), Endpoint::Status)];
        assert!(Routes::new(twice).is_err());
        let same = [("/smsgate".to_owned(), Endpoint::Smsgate)];
        assert!(Routes::new(same).is_ok());
        for path in ["sms", "/sms?x=1", "/a b", ""] {
            assert!(
                Routes::new([(path.to_owned(), Endpoint::Status)]).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn only_inbound_takes_get() {
        let routes = Routes::new([]).unwrap();
        let status = |method, path| resolve(&routes, &method, path);
        assert_eq!(
            status(Method::GET, "/twilio/inbound"),
            Ok((Endpoint::Inbound, "GET"))
        );
        assert_eq!(
            status(Method::POST, "/smsgate"),
            Ok((Endpoint::Smsgate, "POST"))
        );
        for (method, path) in [
            (Method::GET, "/twilio/status"),
            (Method::HEAD, "/twilio/inbound"),
            (Method::PUT, "/smsgate"),
        ] {
            assert_eq!(status(method, path), Err(Refusal::MethodNotAllowed));
        }
        assert_eq!(status(Method::PUT, "/other"), Err(Refusal::NotFound));
    }

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        let accepted = |values: &[&str], has_body| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, value.parse().unwrap());
            }
            is_media_type_accepted(&headers, has_body)
        };
        assert!(accepted(&["application/x-www-form-urlencoded"], true));
        assert!(accepted(
            &["Application/X-WWW-Form-Urlencoded ; charset=UTF-8"],
            true
        ));
        assert!(accepted(&["application/json;charset=utf-8"], true));
        assert!(accepted(&[], false));
        assert!(!accepted(&[], true));
        assert!(!accepted(&["text/plain"], true));
        assert!(!accepted(&["application/jsonx"], true));
        assert!(!accepted(
            &["application/json", "multipart/form-data"],
            true
        ));
        assert!(!accepted(&[""], true));
    }
}
