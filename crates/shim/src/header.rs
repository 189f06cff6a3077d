//! The request headers that are passed to the database, as lines of text that cannot be forged.

use hyper::header::{HeaderMap, HeaderValue};

use crate::route::Endpoint;

/// The request target, and the allow-listed headers in the order received, one
/// `lower-case-name: value` per line, copied so that the connection's buffers are free.
#[derive(Debug)]
pub(crate) struct Head {
    text: String,
    url_length: usize,
}

impl Head {
    pub(crate) fn new(url: &str, headers: &HeaderMap, endpoint: Endpoint) -> Self {
        let mut text = String::with_capacity(url.len() + TYPICAL_LENGTH);
        text.push_str(url);
        for (name, value) in headers {
            let name = name.as_str();
            if !is_passed_on(name, endpoint) {
                continue;
            }
            if text.len() > url.len() {
                text.push('\n');
            }
            text.push_str(name);
            text.push_str(": ");
            push_value(&mut text, value);
        }
        Self {
            text,
            url_length: url.len(),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.text[..self.url_length]
    }

    pub(crate) fn headers(&self) -> &str {
        &self.text[self.url_length..]
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

fn is_passed_on(name: &str, endpoint: Endpoint) -> bool {
    match name {
        "content-type" | "forwarded" | "host" | "user-agent" | "x-forwarded-for"
        | "x-forwarded-host" | "x-forwarded-proto" | "x-request-id" => true,
        "i-twilio-idempotency-token"
        | "x-twilio-signature"
        | "x-twilio-webhooks-signature-settings" => endpoint != Endpoint::Smsgate,
        "x-signature" | "x-timestamp" => endpoint == Endpoint::Smsgate,
        _ => false,
    }
}

/// Appends a value without control characters: a line break would forge a header line, and PostgreSQL's text
/// cannot hold a NUL.
fn push_value(text: &mut String, value: &HeaderValue) {
    match value.to_str() {
        Ok(plain) if !plain.contains('\t') => text.push_str(plain),
        _ => {
            let lossy = String::from_utf8_lossy(value.as_bytes());
            text.extend(lossy.chars().filter(|c| !c.is_control()));
        }
    }
}

/// Enough for the headers of a usual callback, so that the text is allocated once.
const TYPICAL_LENGTH: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn render(headers: &HeaderMap, endpoint: Endpoint) -> String {
        let head = Head::new("/twilio/status?a=ü", headers, endpoint);
        assert_eq!(head.url(), "/twilio/status?a=ü");
        head.headers().to_owned()
    }

    #[test]
    fn passes_on_the_listed_headers_only() {
        let headers = headers(&[
            ("host", b"hooks.example.com"),
            ("authorization", b"Basic abc"),
            ("cookie", b"a=b"),
            ("x-twilio-signature", b"abc="),
            ("x-signature", b"def"),
        ]);
        assert_eq!(
            render(&headers, Endpoint::Status),
            "host: hooks.example.com\nx-twilio-signature: abc="
        );
        assert_eq!(
            render(&headers, Endpoint::Smsgate),
            "host: hooks.example.com\nx-signature: def"
        );
    }

    #[test]
    fn repeated_headers_keep_a_line_each() {
        let headers = headers(&[
            ("x-forwarded-for", b"192.0.2.1"),
            ("x-forwarded-for", b"192.0.2.2"),
        ]);
        assert_eq!(
            render(&headers, Endpoint::Inbound),
            "x-forwarded-for: 192.0.2.1\nx-forwarded-for: 192.0.2.2"
        );
    }

    #[test]
    fn no_value_can_hold_a_control_character() {
        let headers = headers(&[
            ("user-agent", b"a\tb\xff\xc2\x85c"),
            ("host", "ü".as_bytes()),
        ]);
        assert_eq!(
            render(&headers, Endpoint::Status),
            "user-agent: ab\u{fffd}c\nhost: ü"
        );
    }
}
