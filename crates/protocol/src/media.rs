//! Where a message's files may be fetched, and who may see the account's credentials there.

use crate::url::Url;

/// Whether the credentials of the account at `api_url` go with a request for `url`: to that API itself
/// and to other hosts of Twilio's, never to anybody else.
pub fn is_trusted(url: &str, api_url: &str) -> bool {
    let Some(url) = Url::parse(url).filter(|url| url.user.is_none()) else {
        return false;
    };
    Url::parse(api_url).is_some_and(|api| url.has_origin_of(&api)) || is_at(&url, &["twilio.com"])
}

/// The URL that a redirect leads to, if it may be followed: to Twilio's hosts and to where Twilio
/// stores files. A stand-in for Twilio, which is called without TLS, may lead anywhere.
pub fn redirected(url: &str, location: &str, api_url: &str) -> Option<String> {
    let next = match location.strip_prefix('/') {
        Some(rest) if !rest.starts_with('/') => {
            let url = Url::parse(url)?;
            let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{location}", url.scheme, url.host)
        }
        _ => location.to_owned(),
    };
    let parsed = Url::parse(&next).filter(|url| url.user.is_none())?;
    let is_stand_in = is_plain(api_url) && is_plain(&next);
    (is_stand_in || is_at(&parsed, &STORES) || is_trusted(&next, api_url)).then_some(next)
}

/// Whether a URL is called without TLS.
pub fn is_plain(url: &str) -> bool {
    Url::parse(url).is_some_and(|url| url.scheme.eq_ignore_ascii_case("http"))
}

/// Whether a URL leads to one of these domains, over TLS and at the usual port.
fn is_at(url: &Url<'_>, domains: &[&str]) -> bool {
    let host = url.host.to_ascii_lowercase();
    let is_below = |domain: &&str| {
        host.strip_suffix(*domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    url.is_https() && url.port.is_none_or(|port| port == "443") && domains.iter().any(is_below)
}

/// Twilio keeps files at Amazon and serves some of them by a domain of their own.
const STORES: [&str; 2] = ["twiliocdn.com", "amazonaws.com"];

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://api.twilio.com";

    #[test]
    fn credentials_go_to_twilio_and_to_nobody_else() {
        for url in [
            "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME",
            "https://API.Twilio.com:443/x",
            "https://api.dublin.ie1.twilio.com/x",
        ] {
            assert!(is_trusted(url, API), "{url}");
        }
        for url in [
            "http://api.twilio.com/x",
            "https://api.twilio.com:8443/x",
            "https://api.twilio.com.evil.example/x",
            "https://eviltwilio.com/x",
            "https://api.twilio.com@evil.example/x",
            "https://user@api.twilio.com/x",
            "https://media.twiliocdn.com/x",
            "https://s3.amazonaws.com/x",
            "http://127.0.0.1:8080/x",
            "/x",
            "",
        ] {
            assert!(!is_trusted(url, API), "{url}");
        }
        let stand_in = "http://127.0.0.1:8080";
        assert!(is_trusted("http://127.0.0.1:8080/x", stand_in));
        assert!(!is_trusted("http://127.0.0.1:8081/x", stand_in));
        assert!(!is_trusted("http://localhost:8080/x", stand_in));
    }

    #[test]
    fn redirects_lead_to_where_twilio_keeps_files() {
        let from = "https://api.twilio.com/a/Media/ME";
        for (location, expected) in [
            ("/b", Some("https://api.twilio.com/b")),
            (
                "https://mms.twiliocdn.com/b",
                Some("https://mms.twiliocdn.com/b"),
            ),
            (
                "https://s3-external-1.amazonaws.com/media.twiliocdn.com/AC/b",
                Some("https://s3-external-1.amazonaws.com/media.twiliocdn.com/AC/b"),
            ),
            ("http://mms.twiliocdn.com/b", None),
            ("https://evil.example/b", None),
            ("//evil.example/b", None),
            ("https://eviltwiliocdn.com/b", None),
            ("http://169.254.169.254/latest", None),
            ("file:///etc/passwd", None),
            ("b", None),
            ("", None),
        ] {
            assert_eq!(
                redirected(from, location, API).as_deref(),
                expected,
                "{location}"
            );
        }
        let stand_in = "http://127.0.0.1:8080";
        let elsewhere = "http://localhost:8080/b";
        let next = redirected("http://127.0.0.1:8080/a", elsewhere, stand_in);
        assert_eq!(next.as_deref(), Some(elsewhere));
    }
}
