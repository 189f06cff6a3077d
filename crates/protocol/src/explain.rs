//! Explains why a signature did not match: lists URLs that Twilio may have requested, in case a proxy changed the URL or
//! another base URL is configured.

use std::collections::HashSet;

use crate::change::Change;
use crate::spelling;
use crate::url::{Base, Url};

/// A URL that may have been signed, and the change that would explain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The whole URL.
    pub url: String,
    /// The base URL that belongs among the public URLs for it.
    pub base: String,
    /// The change of path and query on the way.
    pub change: Option<Change>,
}

/// The candidates for a request for `target`, likeliest first.
///
/// `headers` are the request's header lines: `host`, `x-forwarded-host` and `forwarded` name further hosts. They are used
/// for explanations only, never for verification. `size` is the size of the request in
/// bytes. Above [`spelling::MAX_REQUEST_BYTES`] no guesses are added, since each costs a hash of the request.
pub fn candidates(
    target: &str,
    public_urls: &[&str],
    headers: &str,
    size: usize,
) -> Vec<Candidate> {
    let absolute = Url::parse(target).filter(|_| !target.starts_with('/'));
    let target = absolute.map_or(target, |url| url.rest);
    let bases = bases(public_urls, absolute, headers);
    let mut found = Found::default();
    for (change, target) in targets(target) {
        found.add(change, &target, &bases, MAX_CANDIDATES);
    }
    if size > spelling::MAX_REQUEST_BYTES || target.len() > MAX_RESPELLED_BYTES {
        return found.candidates;
    }
    // Guesses are numerous, so they are tried below the configured public URLs only.
    let known = &bases[..bases.len().min(public_urls.len())];
    for (change, target) in spelling::guesses(target) {
        found.add(Some(change), &target, known, MAX_CANDIDATES + MAX_RESPELLED);
    }
    found.candidates
}

#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    seen: HashSet<String>,
}

impl Found {
    /// Adds `target` below each of `bases` until there are `limit` candidates.
    fn add(&mut self, change: Option<Change>, target: &str, bases: &[String], limit: usize) {
        for text in bases {
            let Some(base) = Base::parse(text) else {
                continue;
            };
            // The first piece of each pair of variants: the other spelling of the port follows from it.
            for signed in base.signed_urls(target) {
                let url: String = signed
                    .variants()
                    .next()
                    .map(|p| p.concat())
                    .unwrap_or_default();
                if self.candidates.len() < limit && self.seen.insert(url.clone()) {
                    self.candidates.push(Candidate {
                        url,
                        base: text.clone(),
                        change,
                    });
                }
            }
        }
    }
}

/// Base URLs: the configured ones, then other schemes, ports and hosts, with each known path prefix.
fn bases(public_urls: &[&str], absolute: Option<Url<'_>>, headers: &str) -> Vec<String> {
    let known: Vec<_> = public_urls.iter().filter_map(|t| Url::parse(t)).collect();
    let mut bases: Vec<String> = public_urls
        .iter()
        .map(|url| url.trim_end_matches('/').to_owned())
        .collect();
    let mut prefixes = vec![""];
    prefixes.extend(known.iter().map(|url| url.rest.trim_end_matches('/')));
    let named: Vec<String> = hosts(headers);
    let mut authorities: Vec<(&str, Option<&str>)> = Vec::new();
    authorities.extend(absolute.map(|url| (url.host, url.port)));
    authorities.extend(named.iter().filter_map(|host| split_port(host)));
    authorities.extend(known.iter().map(|url| (url.host, url.port)));
    for (host, port) in authorities {
        for scheme in ["https", "http"] {
            for port in [None, port, Some("8443"), Some("8080")] {
                let colon = if port.is_some() { ":" } else { "" };
                let port = port.unwrap_or_default();
                let base = |prefix: &&str| format!("{scheme}://{host}{colon}{port}{prefix}");
                bases.extend(prefixes.iter().map(base));
            }
        }
    }
    let mut seen = HashSet::new();
    bases.retain(|base| seen.insert(base.clone()));
    bases
}

/// The hosts that a request's headers name, the outermost first.
fn hosts(headers: &str) -> Vec<String> {
    let field = |wanted: &str| {
        (headers.lines().filter_map(|line| line.split_once(':')))
            .find(|(name, _)| *name == wanted)
            .and_then(|(_, value)| value.split(',').next())
            .map(|value| value.trim().to_owned())
    };
    let forwarded = field("forwarded").and_then(|value| {
        (value.split(';').filter_map(|pair| pair.split_once('=')))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("host"))
            .map(|(_, host)| host.trim().trim_matches('"').to_owned())
    });
    let all = [field("x-forwarded-host"), forwarded, field("host")];
    all.into_iter().flatten().take(MAX_HOSTS).collect()
}

fn split_port(host: &str) -> Option<(&str, Option<&str>)> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.bytes().all(is_plain) {
        return None;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            Some((name, Some(port)))
        }
        _ => Some((host, None)),
    }
}

/// Path and query as Twilio may have sent them, each with what would have changed since.
fn targets(target: &str) -> Vec<(Option<Change>, String)> {
    let target = target.split_once('#').map_or(target, |(before, _)| before);
    let (path, query) = match target.split_once('?') {
        Some((path, _)) => (path, &target[path.len()..]),
        None => (target, ""),
    };
    let mut targets = vec![(None, target.to_owned())];
    targets.extend(spelling::accepted(target).into_iter().map(|t| (None, t)));
    let mut add = |change, text: String| targets.push((Some(change), text));
    match path.strip_suffix('/') {
        Some(path) => add(Change::SlashAdded, format!("{path}{query}")),
        None => add(Change::SlashRemoved, format!("{path}/{query}")),
    }
    if !query.is_empty() {
        add(Change::QueryAdded, path.to_owned());
    }
    let starts = path.char_indices().skip(1).filter(|(_, c)| *c == '/');
    for (start, _) in starts.take(MAX_SEGMENTS) {
        add(Change::PrefixAdded, target[start..].to_owned());
    }
    targets
}

/// The largest number of candidates: enough for any mistake, and few enough to be tried with every key.
const MAX_CANDIDATES: usize = 2000;
/// The largest number of candidates with spellings of the query that no library accepts.
const MAX_RESPELLED: usize = 2000;
/// Longest target for which these are tried, so that all of them together take a few megabytes.
const MAX_RESPELLED_BYTES: usize = 4096;
const MAX_HOSTS: usize = 3;
const MAX_HOST_BYTES: usize = 253;
const MAX_SEGMENTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &[&str] = &["https://hooks.example.com"];

    fn find(target: &str, headers: &str, url: &str) -> Option<(String, Option<Change>)> {
        candidates(target, PUBLIC, headers, 0)
            .into_iter()
            .find(|candidate| candidate.url == url)
            .map(|candidate| (candidate.base, candidate.change))
    }

    #[test]
    fn configured_urls_come_first() {
        let first = &candidates("/x?a=1", PUBLIC, "host: inner:8000", 0)[0];
        assert_eq!(first.url, "https://hooks.example.com/x?a=1");
        assert_eq!(first.change, None);
    }

    #[test]
    fn finds_scheme_port_and_host() {
        for (headers, url, base) in [
            ("", "http://hooks.example.com/x", "http://hooks.example.com"),
            (
                "",
                "https://hooks.example.com:8443/x",
                "https://hooks.example.com:8443",
            ),
            (
                "host: b.example:444",
                "https://b.example:444/x",
                "https://b.example:444",
            ),
            (
                "host: b.example:444",
                "https://b.example/x",
                "https://b.example",
            ),
            (
                "host: inner\nx-forwarded-host: c.example, proxy",
                "https://c.example/x",
                "https://c.example",
            ),
            (
                "forwarded: for=192.0.2.1;host=\"d.example\";proto=https",
                "https://d.example/x",
                "https://d.example",
            ),
        ] {
            let found = find("/x", headers, url);
            assert_eq!(found, Some((base.to_owned(), None)), "{url}");
        }
    }

    #[test]
    fn finds_what_a_proxy_did() {
        for (target, url, change) in [
            ("/x", "/x/", Change::SlashRemoved),
            ("/x/?a=1", "/x?a=1", Change::SlashAdded),
            ("/x?a=1", "/x", Change::QueryAdded),
            ("/a/b/x?a=1", "/b/x?a=1", Change::PrefixAdded),
            ("/a/b/x", "/x", Change::PrefixAdded),
            ("/x?a=1&b=2", "/x?b=2&a=1", Change::QueryOrdered),
            ("/x?a=%2F", "/x?a=/", Change::QueryEscaped),
        ] {
            let url = format!("https://hooks.example.com{url}");
            let found = find(target, "", &url);
            let expected = ("https://hooks.example.com".to_owned(), Some(change));
            assert_eq!(found, Some(expected), "{url}");
        }
    }

    #[test]
    fn a_known_prefix_is_tried_with_other_hosts() {
        let public = ["https://a.example/hooks"];
        let found = candidates("/x", &public, "host: b.example", 0);
        assert!(
            found.iter().any(
                |c| c.url == "https://b.example/hooks/x" && c.base == "https://b.example/hooks"
            )
        );
    }

    #[test]
    fn an_absolute_target_names_its_host() {
        let base = "https://elsewhere.example:444".to_owned();
        let url = "https://elsewhere.example:444/x";
        assert_eq!(find(url, "", url), Some((base, None)));
    }

    #[test]
    fn strange_headers_do_no_harm_and_their_number_is_bounded() {
        let headers = "host: a b\nx-forwarded-host: \nforwarded: host\nbroken";
        let target = format!("/{}", "a/".repeat(100));
        let most = MAX_CANDIDATES + MAX_RESPELLED;
        assert!(candidates(&target, PUBLIC, headers, 0).len() <= most);
        let public: Vec<String> = (0..100).map(|n| format!("https://a{n}.example")).collect();
        let public: Vec<&str> = public.iter().map(String::as_str).collect();
        let target = "/x?a=1&b=:&c=3&d=4&e=5&f=6";
        assert!(candidates(target, &public, headers, 0).len() <= most);
        let of_large = candidates(target, &public, headers, 1_000_000);
        assert!(
            of_large
                .iter()
                .all(|found| found.change != Some(Change::QueryOrdered))
        );
        assert!(!candidates("", &[], "host: a.example", 0).is_empty());
        assert!(candidates("/é/ü", PUBLIC, "host: é", 0).len() > 1);
    }
}
