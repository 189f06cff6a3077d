//! A request as the shim or PostgREST passes it on: method, target, a few headers, the body.

use crate::signature::Payload;

/// The parts of a request that its signature and its meaning depend on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// HTTP method, as sent.
    pub method: &'a str,
    /// Path and query as received, or the absolute URL.
    pub url: &'a str,
    /// The headers that matter here.
    pub headers: Headers<'a>,
    /// The body, undecoded.
    pub body: &'a [u8],
}

/// The headers that matter here, borrowed from `name: value` lines.
#[derive(Debug, Default, Clone, Copy)]
pub struct Headers<'a> {
    /// `X-Twilio-Signature`.
    pub signature: Option<&'a str>,
    /// `X-Twilio-Webhooks-Signature-Settings`.
    pub settings: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
}

impl<'a> Headers<'a> {
    /// Parses lines of `lower-case-name: value`; other names are ignored.
    pub fn parse(lines: &'a str) -> Self {
        let mut headers = Self::default();
        for (name, value) in lines.lines().filter_map(|line| line.split_once(':')) {
            let value = Some(value.trim());
            match name {
                "x-twilio-signature" => headers.signature = value,
                "x-twilio-webhooks-signature-settings" => headers.settings = value,
                "content-type" => headers.content_type = value,
                _ => {}
            }
        }
        headers
    }
}

impl<'a> Request<'a> {
    /// Bytes of URL and body.
    pub fn size(&self) -> usize {
        self.url.len() + self.body.len()
    }

    /// What the signature covers beside the URL.
    pub fn payload(&self) -> Payload<'a> {
        Payload::new(self.method, self.headers.content_type, self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_headers_that_count() {
        let headers = Headers::parse(
            "host: x\nx-twilio-signature:  abc= \ncontent-type: a/b; c=d:e\nbroken\n: \n",
        );
        assert_eq!(headers.signature, Some("abc="));
        assert_eq!(headers.content_type, Some("a/b; c=d:e"));
        assert_eq!(headers.settings, None);
    }
}
