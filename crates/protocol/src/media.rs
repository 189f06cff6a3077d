//! Where a message's files may be fetched, who may see the account's credentials there, and which files
//! can be sent.

use crate::url::Url;

/// Types of files that can be sent.
pub const TYPES: [&str; 8] = [
    "image/jpeg",
    "image/png",
    "image/gif",
    "video/mp4",
    "video/3gpp",
    "audio/mpeg",
    "audio/ogg",
    "application/pdf",
];

/// Largest file that can be sent, in bytes: 5 MB.
pub const LARGEST: u64 = 5 * 1024 * 1024;

/// Why a file cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its server does not say what it is.
    #[error("it has no type")]
    NoType,
    /// It is of another type; the start of what its server says.
    #[error("its type is {0:?}, which is none of {list}", list = TYPES.join(", "))]
    Type(String),
    /// Its server says how large it is in no number.
    #[error("its length is {0:?}, which is no number")]
    NoLength(String),
    /// It is too large.
    #[error("it has {0} bytes, at most {LARGEST} are allowed")]
    TooLarge(u64),
}

/// Whether a file can be sent, by the Content-Type and the Content-Length that its server tells. A
/// length need not be told.
pub fn fits(content_type: Option<&str>, content_length: Option<&str>) -> Result<(), Unfit> {
    let shown = |text: &str| text.chars().take(LONGEST_SHOWN).collect();
    let told = content_type.map(str::trim).filter(|told| !told.is_empty());
    let told = told.ok_or(Unfit::NoType)?;
    let essence = told.split(';').next().unwrap_or_default().trim_end();
    if !TYPES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(essence))
    {
        return Err(Unfit::Type(shown(told)));
    }
    let Some(told) = content_length.map(str::trim) else {
        return Ok(());
    };
    let is_number = !told.is_empty() && told.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(Unfit::NoLength(shown(told)));
    }
    // Digits that are no u64 are more than any.
    match told.parse().unwrap_or(u64::MAX) {
        length if length > LARGEST => Err(Unfit::TooLarge(length)),
        _ => Ok(()),
    }
}

/// Whether a file lies on the very host of a stand-in for Twilio, which is called without TLS: there
/// the operator tries things out, and it may be one that the public cannot reach.
pub fn is_beside(url: &str, api_url: &str) -> bool {
    let (Some(file), Some(api)) = (Url::parse(url), Url::parse(api_url)) else {
        return false;
    };
    is_plain(api_url) && file.user.is_none() && file.host.eq_ignore_ascii_case(api.host)
}

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

/// Characters of a header that an error repeats.
const LONGEST_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://api.twilio.com";

    #[test]
    fn eight_types_can_be_sent() {
        for known in TYPES {
            assert_eq!(fits(Some(known), None), Ok(()), "{known}");
            let spelled = format!(" {} ; q=1", known.to_uppercase());
            assert_eq!(fits(Some(&spelled), Some("1")), Ok(()), "{spelled}");
        }
        for none in [None, Some(""), Some(" ")] {
            assert_eq!(fits(none, Some("1")), Err(Unfit::NoType), "{none:?}");
        }
        for other in [
            "text/html",
            "image/webp",
            "image/*",
            "image/jpegx",
            "video/3gpp2",
            "application/octet-stream",
            "text/html; image/jpeg",
            "image/jpeg, text/html",
            ";image/jpeg",
        ] {
            let expected = Err(Unfit::Type(other.to_owned()));
            assert_eq!(fits(Some(other), Some("1")), expected, "{other}");
        }
        let long = fits(Some(&"é".repeat(5000)), None);
        assert_eq!(long, Err(Unfit::Type("é".repeat(LONGEST_SHOWN))));
        let said = Unfit::Type("a\0\nb".to_owned()).to_string();
        assert!(!said.contains(['\0', '\n']), "{said}");
        assert!(said.ends_with("audio/ogg, application/pdf"), "{said}");
    }

    #[test]
    fn five_megabytes_can_be_sent() {
        let jpeg = Some("image/jpeg");
        for length in [None, Some("0"), Some("5242880"), Some(" 12 ")] {
            assert_eq!(fits(jpeg, length), Ok(()), "{length:?}");
        }
        assert_eq!(fits(jpeg, Some("5242881")), Err(Unfit::TooLarge(5_242_881)));
        let more_than_any = fits(jpeg, Some(&"9".repeat(40)));
        assert_eq!(more_than_any, Err(Unfit::TooLarge(u64::MAX)));
        for text in ["", "-1", "+1", "1, 1", "1.5", "0x10"] {
            let expected = Err(Unfit::NoLength(text.to_owned()));
            assert_eq!(fits(jpeg, Some(text)), expected, "{text}");
        }
    }

    #[test]
    fn only_a_stand_in_has_files_beside_it() {
        let stand_in = "http://127.0.0.1:8080";
        assert!(is_beside("http://127.0.0.1:9/x", stand_in));
        assert!(is_beside("http://Sandbox/x", "http://sandbox:8080/twilio"));
        for url in [
            "http://localhost:8080/x",
            "http://127.0.0.2:8080/x",
            "http://127.0.0.1.example/x",
            "http://127.0.0.1@10.0.0.1/x",
            "http://10.0.0.1@127.0.0.1/x",
            "/x",
            "",
        ] {
            assert!(!is_beside(url, stand_in), "{url}");
        }
        assert!(!is_beside("https://api.twilio.com/x", API));
        assert!(!is_beside("http://127.0.0.1/x", "https://127.0.0.1"));
    }

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
