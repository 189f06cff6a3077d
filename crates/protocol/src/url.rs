//! Splits URLs bytewise without re-encoding them, because a signature covers the text that Twilio requested. Hosts to
//! connect to are decided by [`crate::destination`].

use std::net::Ipv6Addr;

use memchr::memchr;

/// A public base URL of an installation, such as `https://hooks.example.com/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base<'a> {
    url: Url<'a>,
}

/// The parts of an absolute URL, as written, without the fragment, which is never signed.
///
/// <https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Url<'a> {
    /// Scheme, without `://`.
    pub scheme: &'a str,
    /// User information, without `@`.
    pub user: Option<&'a str>,
    /// Host, brackets of an IPv6 address included.
    pub host: &'a str,
    /// Port, without its colon.
    pub port: Option<&'a str>,
    /// Path and query, possibly empty.
    pub rest: &'a str,
}

impl<'a> Url<'a> {
    /// Splits `text`; `None` if it has no `scheme://host`, or if its host has brackets or colons and is not
    /// an IPv6 address in brackets.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = without_fragment(text);
        let (scheme, after) = text.split_once("://")?;
        let end = after.find(['/', '?']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        // The colons inside the brackets belong to an IPv6 address.
        let bracket = match address.find(['[', ']']) {
            None => 0,
            Some(_) => {
                let (inner, _) = address.strip_prefix('[')?.split_once(']')?;
                inner.parse::<Ipv6Addr>().ok()?;
                inner.len() + 2
            }
        };
        let (host, port) = match address[bracket..].find(':') {
            Some(at) => (&address[..bracket + at], Some(&address[bracket + at + 1..])),
            None => (address, None),
        };
        let is_host = bracket == 0 || host.len() == bracket;
        if !is_host || port.is_some_and(|port| port.contains(':')) {
            return None;
        }
        let is_complete = !scheme.is_empty() && !host.is_empty();
        is_complete.then_some(Self {
            scheme,
            user,
            host,
            port,
            rest,
        })
    }

    /// Whether the scheme is https, in any case of letters.
    pub fn is_https(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("https")
    }

    /// The port that the scheme implies.
    pub fn default_port(&self) -> &'static str {
        if self.is_https() { "443" } else { "80" }
    }

    /// The query string, without `?`.
    pub fn query(&self) -> &'a str {
        query(self.rest)
    }

    pub(crate) fn has_origin_of(&self, other: &Url<'_>) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(self.default_port())
                == other.port.unwrap_or(other.default_port())
    }
}

impl<'a> Base<'a> {
    /// Parses a base URL: http or https, a host, no query; a trailing slash is dropped.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut url = Url::parse(text)?;
        url.rest = url.rest.strip_suffix('/').unwrap_or(url.rest);
        let is_http = url.is_https() || url.scheme.eq_ignore_ascii_case("http");
        let is_plain = !url.rest.contains('?')
            && text.bytes().all(|b| b > b' ' && b != 0x7f)
            && !text.contains('#');
        (is_http && is_plain).then_some(Self { url })
    }

    /// The URLs that a request for `target` may have been signed for.
    ///
    /// `target` is the path and query as received. If the base has a path prefix, a proxy may have removed it or not, so
    /// both forms are possible. An absolute `target` counts only below this base: a signature for another installation
    /// is not valid here.
    pub fn signed_urls(&self, target: &'a str) -> impl Iterator<Item = SignedUrl<'a>> + use<'a> {
        let url = self.url;
        let target = without_fragment(target);
        let rest = if target.starts_with(['/', '?']) || target.is_empty() {
            Some(target)
        } else {
            Url::parse(target)
                .filter(|absolute| absolute.has_origin_of(&url))
                .map(|absolute| absolute.rest)
        };
        let whole = rest.filter(|_| url.rest.is_empty() || target.starts_with('/'));
        let below = rest.filter(|rest| {
            !url.rest.is_empty()
                && rest
                    .strip_prefix(url.rest)
                    .is_some_and(|tail| tail.is_empty() || tail.starts_with(['/', '?']))
        });
        let whole = whole.map(|target| SignedUrl { url, target });
        let below = below.map(|target| SignedUrl {
            url: Url { rest: "", ..url },
            target,
        });
        whole.into_iter().chain(below)
    }
}

/// A base and a target that together are one requested URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedUrl<'a> {
    url: Url<'a>,
    target: &'a str,
}

impl<'a> SignedUrl<'a> {
    /// An absolute URL as it stands; `None` if it has no `scheme://host`.
    pub fn parse(text: &'a str) -> Option<Self> {
        Url::parse(text).map(|url| Self { url, target: "" })
    }

    /// The texts that Twilio may have signed for this URL, likeliest first, each as pieces to be joined:
    /// with the port as given and the other way round, without and with user information.
    ///
    /// Twilio drops user information, and for some products the port; its libraries sign with both.
    /// <https://www.twilio.com/docs/usage/security#a-few-notes>
    pub fn variants(&self) -> impl Iterator<Item = [&'a str; 9]> + use<'a> {
        let Self { url, target } = *self;
        let given = url.port.map_or(["", ""], |port| [":", port]);
        let other = match url.port {
            Some(_) => ["", ""],
            None => [":", url.default_port()],
        };
        let users = std::iter::once(["", ""]).chain(url.user.map(|user| [user, "@"]));
        users.flat_map(move |[user, at]| {
            [given, other].map(|[colon, port]| {
                [
                    url.scheme, "://", user, at, url.host, colon, port, url.rest, target,
                ]
            })
        })
    }

    /// The query string of the whole URL, without `?`.
    pub fn query(&self) -> &'a str {
        let rest = if self.target.is_empty() {
            self.url.rest
        } else {
            self.target
        };
        query(rest)
    }
}

/// The part of `rest`, a path and query, after its first `?` and before a fragment, which is not signed.
pub fn query(rest: &str) -> &str {
    without_fragment(rest)
        .split_once('?')
        .map_or("", |(_, query)| query)
}

pub(crate) fn without_fragment(text: &str) -> &str {
    memchr(b'#', text.as_bytes()).map_or(text, |at| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(url: SignedUrl<'_>) -> Vec<String> {
        url.variants().map(|pieces| pieces.concat()).collect()
    }

    fn signed(base: &str, target: &str) -> Vec<String> {
        let base = Base::parse(base).unwrap();
        base.signed_urls(target).flat_map(texts).collect()
    }

    #[test]
    fn tries_the_port_both_ways_and_never_re_encodes() {
        assert_eq!(
            signed("https://A.example", "/x?q=%27'%zz"),
            [
                "https://A.example/x?q=%27'%zz",
                "https://A.example:443/x?q=%27'%zz"
            ]
        );
        assert_eq!(
            signed("http://a.example:8080/", "/x"),
            ["http://a.example:8080/x", "http://a.example/x"]
        );
    }

    #[test]
    fn tries_user_information_last() {
        assert_eq!(
            texts(SignedUrl::parse("https://u:p@a.example/x#rc=3").unwrap()),
            [
                "https://a.example/x",
                "https://a.example:443/x",
                "https://u:p@a.example/x",
                "https://u:p@a.example:443/x",
            ]
        );
    }

    #[test]
    fn understands_ipv6() {
        let url = Url::parse("http://[::1]:80/x").unwrap();
        assert_eq!((url.host, url.port), ("[::1]", Some("80")));
        assert_eq!(Url::parse("http://[::1]").unwrap().port, None);
    }

    #[test]
    fn refuses_brackets_and_colons_that_are_not_ipv6() {
        for text in [
            "https://[127.0.0.1].twilio.com/x",
            "https://[127.0.0.1]/x",
            "https://[::1].twilio.com/x",
            "https://[::1]x:443/x",
            "https://x[::1]/x",
            "https://[::1/x",
            "https://::1]/x",
            "https://[::1]]/x",
            "https://[[::1]]/x",
            "https://[]/x",
            "https://[::1%25eth0]/x",
            "https://a.example:1:2/x",
            "https://::1/x",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
            assert_eq!(Base::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_stripped_prefix_and_a_kept_one_are_both_possible() {
        assert_eq!(
            signed("https://a.example/hooks", "/hooks/x")
                .into_iter()
                .step_by(2)
                .collect::<Vec<_>>(),
            [
                "https://a.example/hooks/hooks/x",
                "https://a.example/hooks/x"
            ]
        );
        assert_eq!(signed("https://a.example/hooks", "/hooksx").len(), 2);
    }

    #[test]
    fn an_absolute_target_must_lie_below_the_base() {
        let target = "https://a.example/x?y=1";
        assert_eq!(
            signed("https://A.example:443", target)[0],
            "https://A.example:443/x?y=1"
        );
        assert!(signed("https://b.example", target).is_empty());
        assert!(signed("http://a.example", target).is_empty());
        assert!(signed("https://a.example/hooks", target).is_empty());
        assert_eq!(
            signed("https://a.example/hooks", "https://a.example/hooks/x")[0],
            "https://a.example/hooks/x"
        );
    }

    #[test]
    fn refuses_what_is_no_base() {
        for text in [
            "",
            "a.example",
            "ftp://a.example",
            "https://",
            "https://a.example?x",
            "https://a b",
        ] {
            assert_eq!(Base::parse(text), None, "{text}");
        }
    }
}
