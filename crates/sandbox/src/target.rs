//! The destination of a callback: public URLs are mapped to local ones, and only loopback is called.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use protocol::url::Url;

/// The pairs of `--deliver`.
pub(crate) struct Targets {
    pairs: Vec<(String, String)>,
}

/// A local address and the request target there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    /// The Host header: the public one, as a proxy would pass it on.
    pub(crate) host: String,
    /// `user:password` of the URL, which Twilio sends only when asked.
    pub(crate) user: Option<String>,
}

impl Targets {
    pub(crate) fn new(options: &[String]) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for option in options {
            let (public, local) = option
                .split_once('=')
                .filter(|(public, local)| {
                    Url::parse(public).is_some() && Url::parse(local).is_some()
                })
                .ok_or_else(|| format!("--deliver {option} is not PUBLIC=LOCAL, two URLs"))?;
            locate(local).map_err(|reason| format!("--deliver {option}: {reason}"))?;
            pairs.push((public.to_owned(), local.to_owned()));
        }
        Ok(Self { pairs })
    }

    /// Finds the local target of `url`; the error says why it is not called.
    pub(crate) fn find(&self, url: &str) -> Result<Target, String> {
        let parsed = Url::parse(url).ok_or_else(|| format!("{url} is not a URL"))?;
        let url = without_user(url);
        let mapped = self.pairs.iter().find_map(|(public, local)| {
            let rest = url.strip_prefix(public.as_str())?;
            let is_below = rest.is_empty() || rest.starts_with(['/', '?']) || public.ends_with('/');
            is_below.then(|| format!("{local}{rest}"))
        });
        let (address, path) = locate(mapped.as_deref().unwrap_or(&url))?;
        let port = parsed
            .port
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Ok(Target {
            address,
            path,
            host: format!("{}{port}", parsed.host),
            user: parsed.user.map(str::to_owned),
        })
    }
}

/// `url` as Twilio signs it: without fragment and user information.
pub(crate) fn without_user(url: &str) -> String {
    let url = url.split_once('#').map_or(url, |(before, _)| before);
    match (
        Url::parse(url).and_then(|parsed| parsed.user),
        url.split_once('@'),
    ) {
        (Some(_), Some((before, after))) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://{after}")
        }
        _ => url.to_owned(),
    }
}

fn locate(url: &str) -> Result<(SocketAddr, String), String> {
    let parsed = Url::parse(url).ok_or_else(|| format!("{url} is not a URL"))?;
    if !parsed.scheme.eq_ignore_ascii_case("http") {
        return Err(format!(
            "{url} is not http: map it to a local address with --deliver"
        ));
    }
    let host = parsed.host.trim_start_matches('[').trim_end_matches(']');
    let ip: Option<IpAddr> = match host.eq_ignore_ascii_case("localhost") {
        true => Some(Ipv4Addr::LOCALHOST.into()),
        false => host.parse().ok(),
    };
    let ip = ip.filter(IpAddr::is_loopback).ok_or_else(|| {
        format!("{host} is not on loopback: map it to a local address with --deliver")
    })?;
    let port = parsed
        .port
        .unwrap_or("80")
        .parse()
        .map_err(|_| format!("{url} has a bad port"))?;
    let path = match parsed.rest {
        "" => "/".to_owned(),
        rest if rest.starts_with('?') => format!("/{rest}"),
        rest => rest.to_owned(),
    };
    Ok((SocketAddr::new(ip, port), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pairs: &[&str], url: &str) -> Result<(String, String), String> {
        let pairs: Vec<_> = pairs.iter().map(|p| (*p).to_owned()).collect();
        let target = Targets::new(&pairs)?.find(url)?;
        Ok((target.address.to_string(), target.path))
    }

    #[test]
    fn public_urls_are_mapped() {
        let pairs = ["https://hooks.example.com=http://127.0.0.1:8080"];
        let expected = ("127.0.0.1:8080".to_owned(), "/twilio/status?a=1".to_owned());
        assert_eq!(
            find(&pairs, "https://hooks.example.com/twilio/status?a=1#rc=3"),
            Ok(expected.clone())
        );
        assert_eq!(
            find(&pairs, "https://u:p@hooks.example.com/twilio/status?a=1"),
            Ok(expected)
        );
    }

    #[test]
    fn hosts_outside_loopback_are_not_called() {
        let pairs = ["https://hooks.example.com=http://127.0.0.1:8080"];
        for url in [
            "https://hooks.example.com.evil.test/x",
            "https://example.com/",
            "http://10.0.0.1/",
            "http://192.168.1.1:80/",
            "http://127.0.0.1.example.com/",
            "https://127.0.0.1/",
            "http://[2001:db8::1]/",
            "http://0.0.0.0/",
            "nonsense",
        ] {
            assert!(find(&pairs, url).is_err(), "{url}");
        }
        assert!(Targets::new(&["https://a.example=http://10.0.0.1".to_owned()]).is_err());
    }

    #[test]
    fn loopback_is_called_as_it_is() {
        assert_eq!(
            find(&[], "http://localhost:81?x=1"),
            Ok(("127.0.0.1:81".into(), "/?x=1".into()))
        );
        assert_eq!(
            find(&[], "http://[::1]:81/a"),
            Ok(("[::1]:81".into(), "/a".into()))
        );
        assert_eq!(
            find(&[], "http://127.0.0.1"),
            Ok(("127.0.0.1:80".into(), "/".into()))
        );
    }

    #[test]
    fn user_information_is_not_signed() {
        assert_eq!(
            without_user("https://u:p@a.example:1/x?y=@#rc=1"),
            "https://a.example:1/x?y=@"
        );
        assert_eq!(
            without_user("https://a.example/x@y"),
            "https://a.example/x@y"
        );
    }
}
