//! Other spellings of a URL: the signed URL may differ from the one that arrives in escapes, in the order of parameters
//! and in the slash of an empty path.
//!
//! All spellings have the same decoded parameters, and parameters of one name keep their order. A request is treated as
//! if it had arrived in the spelling that was signed. So accepting other spellings accepts no request that could not
//! also be sent as it was signed.

use std::collections::{HashMap, HashSet};

use crate::change::Change;
use crate::form::Form;
use crate::url::{Url, without_fragment};

/// The spellings of a path and query, or of an absolute URL, that Twilio's libraries accept beside the given one: at
/// most seven, and none for most URLs.
///
/// - An empty path is requested as `/`, but signed as it was given to Twilio.
/// - The library for Node escapes quotes, angle brackets, blanks and characters beyond ASCII in a query, and
///   also tries the query after a round trip through Node's `querystring`. <https://github.com/twilio/twilio-node/pull/1061>
/// - Twilio has been observed to sign `:` and `@` but to request `%3A` and `%40`. The library for Node undid that for a
///   while.
///   <https://github.com/twilio/twilio-node/pull/621>
pub fn accepted(url: &str) -> Vec<String> {
    let Some((origin, target)) = split_origin(url) else {
        return Vec::new();
    };
    let (path, query) = split_query(target);
    let other_path = match path {
        "" => Some("/"),
        "/" => Some(""),
        _ => None,
    };
    let mut seen = HashSet::from([target.to_owned()]);
    let mut urls = Vec::new();
    for path in [Some(path), other_path].into_iter().flatten() {
        let Some(query) = query else {
            urls.push(path.to_owned());
            continue;
        };
        urls.push(format!("{path}?{query}"));
        if is_plain(query) {
            continue;
        }
        urls.push(with_plain_signs(&format!("{path}?{query}")));
        urls.push(format!("{path}?{}", escaped(query)));
        urls.extend(reserialized(query).map(|query| format!("{path}?{query}")));
    }
    urls.retain(|target| seen.insert(target.clone()));
    (urls.iter())
        .map(|target| format!("{origin}{target}"))
        .collect()
}

/// Further spellings of a path and query that may have been signed, likeliest first and at most 1000. They are too many
/// to try for each request, so they are tried only to explain a refused one.
///
/// Up to 6 parameters are tried in every order, 7 to 32 with one of them moved. There are no guesses for more.
pub fn guesses(target: &str) -> Vec<(Change, String)> {
    let (path, query) = split_query(without_fragment(target));
    let query = query.unwrap_or_default();
    let pieces: Vec<&str> = query.split('&').take(MAX_PIECES + 1).collect();
    if query.is_empty() || pieces.len() > MAX_PIECES {
        return Vec::new();
    }
    let as_given: Vec<usize> = (0..pieces.len()).collect();
    let orders = orders(&pieces);
    let given: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    let mut styles: Vec<Vec<String>> = Vec::new();
    for style in STYLES {
        styles.push(pieces.iter().map(|piece| style.write(piece)).collect());
    }
    styles.push(pieces.iter().map(|p| with_hex(p, false)).collect());
    styles.push(pieces.iter().map(|p| with_hex(p, true)).collect());
    styles.push(pieces.iter().map(|p| p.replace('+', "%20")).collect());
    styles.push(pieces.iter().map(|p| p.replace("%20", "+")).collect());
    let escaped = styles.iter().map(|s| (Change::QueryEscaped, s, &as_given));
    let ordered = orders.iter().map(|o| (Change::QueryOrdered, &given, o));
    let both = (styles.iter()).flat_map(|style| {
        (orders.iter()).map(move |order| (Change::QueryEscapedAndOrdered, style, order))
    });
    let mut seen = HashSet::from([query.to_owned()]);
    (escaped.chain(ordered).chain(both))
        .map(|(change, pieces, order)| {
            let pieces: Vec<&str> = order.iter().map(|index| pieces[*index].as_str()).collect();
            (change, pieces.join("&"))
        })
        .filter(|(_, query)| seen.insert(query.clone()))
        .map(|(change, query)| (change, format!("{path}?{query}")))
        .take(MAX_GUESSES)
        .collect()
}

/// The decoded name of a parameter of a query.
pub(crate) fn name_of(piece: &str) -> String {
    let form = Form::parse(piece.as_bytes());
    form.iter()
        .next()
        .map(|(name, _)| name.to_owned())
        .unwrap_or_default()
}

/// Orders of these parameters that keep the order of parameters of one name.
fn orders(pieces: &[&str]) -> Vec<Vec<usize>> {
    let names: Vec<String> = pieces.iter().map(|piece| name_of(piece)).collect();
    let mut orders: Vec<Vec<usize>> = Vec::new();
    if pieces.len() <= MAX_PERMUTED {
        orders.push(Vec::new());
        for next in 0..pieces.len() {
            let longer = orders.iter().flat_map(|order| {
                (0..=order.len()).rev().map(|at| {
                    let mut longer = order.clone();
                    longer.insert(at, next);
                    longer
                })
            });
            orders = longer.collect();
        }
    } else {
        for from in 0..pieces.len() {
            for to in 0..pieces.len() {
                let mut order: Vec<usize> = (0..pieces.len()).collect();
                let moved = order.remove(from);
                order.insert(to, moved);
                orders.push(order);
            }
        }
    }
    orders.retain(|order| {
        order.iter().enumerate().all(|(at, first)| {
            let mut behind = order[at + 1..].iter();
            behind.all(|second| first < second || names[*first] != names[*second])
        })
    });
    orders
}

/// How a program encodes the names and values of a query.
struct Style {
    /// Characters that are not escaped, besides letters and digits.
    plain: &'static [u8],
    /// How a blank is written.
    blank: &'static str,
    /// Whether characters beyond ASCII are not escaped.
    keeps_others: bool,
}

impl Style {
    fn write(&self, piece: &str) -> String {
        let mut text = String::with_capacity(piece.len());
        let form = Form::parse(piece.as_bytes());
        for (name, value) in form.iter() {
            // An equals sign in a name would end it.
            self.push(&mut text, name, b"=");
            if piece.contains('=') {
                text.push('=');
                self.push(&mut text, value, b"");
            }
        }
        text
    }

    fn push(&self, text: &mut String, part: &str, never: &[u8]) {
        for c in part.chars() {
            let is_kept = match u8::try_from(c) {
                Ok(byte) if byte.is_ascii() => {
                    byte.is_ascii_alphanumeric()
                        || self.plain.contains(&byte) && !never.contains(&byte)
                }
                _ => self.keeps_others,
            };
            match c {
                ' ' => text.push_str(self.blank),
                c if is_kept => text.push(c),
                c => escape_char(text, c),
            }
        }
    }
}

const STYLES: [Style; 7] = [
    // Browsers, Java and Python for forms.
    Style {
        plain: b"*-._",
        blank: "+",
        keeps_others: false,
    },
    // RFC 3986, as PHP and Ruby write it.
    Style {
        plain: b"-._~",
        blank: "%20",
        keeps_others: false,
    },
    COMPONENT,
    // Escapes only what RFC 3986 does not allow in a query.
    Style {
        plain: QUERY,
        blank: "%20",
        keeps_others: false,
    },
    Style {
        plain: QUERY,
        blank: "+",
        keeps_others: false,
    },
    Style {
        plain: QUERY,
        blank: "%20",
        keeps_others: true,
    },
    // Escapes only the separators.
    Style {
        plain: b"!\"$'()*,-./:;<=>?@[\\]^_`{|}~",
        blank: " ",
        keeps_others: true,
    },
];

/// JavaScript's `encodeURIComponent`, and `querystring`.
const COMPONENT: Style = Style {
    plain: b"-_.!~*'()",
    blank: "%20",
    keeps_others: false,
};

const QUERY: &[u8] = b"!$'()*,-./:;=?@_~";

/// Scheme and authority, if any, and the rest without its fragment.
fn split_origin(url: &str) -> Option<(&str, &str)> {
    let url = without_fragment(url);
    if url.is_empty() || url.starts_with(['/', '?']) {
        return Some(("", url));
    }
    let rest = Url::parse(url)?.rest;
    Some(url.split_at(url.len() - rest.len()))
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Whether all libraries spell the query in the same way, as nearly all queries.
fn is_plain(query: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~*()!".contains(&byte);
    let mut names = HashSet::new();
    query.split('&').all(|piece| {
        let Some((name, value)) = piece.split_once('=') else {
            return false;
        };
        let is_new = index_of(name).is_none() && names.insert(name);
        is_new && name.bytes().all(is_plain) && value.bytes().all(is_plain)
    })
}

/// The query with the escapes of the URL standard for http URLs.
///
/// <https://url.spec.whatwg.org/#special-query-percent-encode-set>
fn escaped(query: &str) -> String {
    let mut text = String::with_capacity(query.len());
    for c in query.chars() {
        match c {
            '"' | '\'' | '<' | '>' => escape_char(&mut text, c),
            '!'..='~' => text.push(c),
            c => escape_char(&mut text, c),
        }
    }
    text
}

fn with_plain_signs(target: &str) -> String {
    let target = target.replace("%3A", ":").replace("%3a", ":");
    target.replace("%40", "@")
}

/// Parses and writes the query as Node's `querystring` does: it groups parameters of one name and puts names that are
/// numbers first. Node also drops empty parameters. For a query with an empty parameter this returns none, because a
/// parameter that was added to a URL must not be ignored.
fn reserialized(query: &str) -> Option<String> {
    let form = Form::parse(query.as_bytes());
    if form.len() > MAX_NODE_PARAMETERS || query.split('&').any(str::is_empty) {
        return None;
    }
    let mut firsts = HashMap::new();
    for (place, (name, _)) in form.iter().enumerate() {
        firsts.entry(name).or_insert(place);
    }
    let mut pairs: Vec<(&str, &str)> = form.iter().collect();
    pairs.sort_by_key(|(name, _)| match index_of(name) {
        Some(index) => (0, usize::try_from(index).unwrap_or(usize::MAX)),
        None => (1, firsts.get(name).copied().unwrap_or_default()),
    });
    let mut text = String::with_capacity(query.len());
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        COMPONENT.push(&mut text, name, b"");
        text.push('=');
        COMPONENT.push(&mut text, value, b"");
    }
    Some(text)
}

/// The name as an array index, if JavaScript treats it as one.
fn index_of(name: &str) -> Option<u32> {
    let index: u32 = name.parse().ok()?;
    (index < u32::MAX && index.to_string() == name).then_some(index)
}

fn escape_char(text: &mut String, c: char) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        text.push('%');
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// The text with hexadecimal digits of its escapes in capitals, or in small letters.
fn with_hex(piece: &str, is_small: bool) -> String {
    let mut parts = piece.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push('%');
        match part.get(..2) {
            Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                let hex = if is_small {
                    hex.to_ascii_lowercase()
                } else {
                    hex.to_ascii_uppercase()
                };
                text.push_str(&hex);
                text.push_str(&part[2..]);
            }
            _ => text.push_str(part),
        }
    }
    text
}

/// Bytes of URL and body above which other spellings are not tried, so that a large forged request costs little time.
/// Twilio's requests are a few kilobytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Node's `querystring` reads no more parameters than this.
const MAX_NODE_PARAMETERS: usize = 1000;
const MAX_GUESSES: usize = 1000;
const MAX_PERMUTED: usize = 6;
const MAX_PIECES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_accepted(arrives: &str, signed: &str) -> bool {
        accepted(arrives).iter().any(|url| url == signed)
    }

    fn change(arrives: &str, signed: &str) -> Option<Change> {
        let found = guesses(arrives).into_iter().find(|(_, t)| t == signed);
        found.map(|(change, _)| change)
    }

    #[test]
    fn most_urls_have_one_spelling() {
        for url in [
            "/x",
            "/x/",
            "/twilio/status?attempt=0f8fad5b-d9cb-469f-a165-70867728950e&foo=a~b",
            "https://a.example/x?a=1",
            "/x?",
            "a b",
        ] {
            assert_eq!(accepted(url), [""; 0], "{url}");
        }
    }

    #[test]
    fn colons_and_at_signs_may_have_been_escaped_on_the_way() {
        for arrives in [
            "/x?who=sip%3Abob%40example.org",
            "/x?who=sip%3abob%40example.org",
        ] {
            assert!(is_accepted(arrives, "/x?who=sip:bob@example.org"));
        }
        let signed = "https://a.example/x?who=sip:bob@example.org";
        assert!(is_accepted(
            "https://a.example/x?who=sip%3Abob%40example.org#f",
            signed
        ));
    }

    #[test]
    fn spellings_of_the_library_for_node_are_accepted() {
        for (arrives, signed) in [
            ("/x?who=sip:bob@a", "/x?who=sip%3Abob%40a"),
            ("/x?q=it%27s", "/x?q=it's"),
            ("/x?q=it's", "/x?q=it%27s"),
            ("/x?q=a+b", "/x?q=a%20b"),
            ("/x?q=é", "/x?q=%C3%A9"),
            ("/x?q=%c3%a9", "/x?q=%C3%A9"),
            ("/x?a=b=c", "/x?a=b%3Dc"),
            ("/x?a&b", "/x?a=&b="),
            ("/x?b=1&2=x&a=1&b=3&1=y", "/x?1=y&2=x&b=1&b=3&a=1"),
        ] {
            assert!(is_accepted(arrives, signed), "{arrives}");
        }
    }

    #[test]
    fn the_slash_of_an_empty_path_may_be_missing() {
        for (one, other) in [
            ("/?x=1", "?x=1"),
            ("/", ""),
            ("https://a.example/?x=1", "https://a.example?x=1"),
            ("https://u@a.example:444/", "https://u@a.example:444"),
        ] {
            assert_eq!(accepted(one), [other]);
            assert_eq!(accepted(other), [one]);
        }
        assert!(is_accepted("/?who=sip%3Abob", "?who=sip:bob"));
    }

    #[test]
    fn no_library_accepts_another_order_a_plus_sign_or_another_path() {
        for (arrives, signed) in [
            ("/x?a=1&b=2", "/x?b=2&a=1"),
            ("/x?q=a%20b", "/x?q=a+b"),
            ("/x/", "/x"),
            ("/%78", "/x"),
            ("/x?a=1", "/x"),
            ("/x?a=1&", "/x?a=1"),
            ("/x?", "/x"),
            ("/x?a=1", "/x?A=1"),
        ] {
            assert!(!is_accepted(arrives, signed), "{arrives}");
        }
    }

    #[test]
    fn orders_and_escapes_are_guessed() {
        for (arrives, signed, expected) in [
            ("/x?a=1&b=2", "/x?b=2&a=1", Change::QueryOrdered),
            (
                "/x?a=1&b=2&c=3&d=4&e=5&f=6",
                "/x?f=6&e=5&d=4&c=3&b=2&a=1",
                Change::QueryOrdered,
            ),
            (
                "/x?a=1&b=2&c=3&d=4&e=5&f=6&g=7",
                "/x?b=2&c=3&d=4&e=5&f=6&g=7&a=1",
                Change::QueryOrdered,
            ),
            ("/x?q=a%20b", "/x?q=a+b", Change::QueryEscaped),
            ("/x?q=%C3%A9", "/x?q=%c3%a9", Change::QueryEscaped),
            ("/x?q=%2F%C3%A9", "/x?q=/é", Change::QueryEscaped),
            ("/x?q=a+b%5B", "/x?q=a b[", Change::QueryEscaped),
            (
                "/x?a=1%20&b=%3A",
                "/x?b=:&a=1+",
                Change::QueryEscapedAndOrdered,
            ),
        ] {
            assert_eq!(change(arrives, signed), Some(expected), "{arrives}");
        }
        // The order of two values of one name may matter, so it is kept.
        assert_eq!(change("/x?a=1&a=2", "/x?a=2&a=1"), None);
        assert_eq!(change("/x?a=1&%61=2", "/x?%61=2&a=1"), None);
        assert_eq!(guesses("/x"), []);
        assert_eq!(guesses(&format!("/x?{}", "a&".repeat(100))), []);
    }

    /// The decoded parameters by name, values of one name in their order.
    fn meaning(url: &str) -> Vec<(String, String)> {
        let form = Form::parse(split_query(url).1.unwrap_or_default().as_bytes());
        let mut pairs: Vec<_> = form
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    }

    proptest! {
        #[test]
        fn every_spelling_has_the_same_parameters(
            path in "/?", query in "([ab0-2=&%+'é:@\"?]|%3A|%40|%20|%2[bB6]|%C3%A9|%ff){0,12}",
        ) {
            let url = format!("{path}?{query}");
            let accepted = accepted(&url);
            prop_assert!(accepted.len() <= 7);
            prop_assert!(!accepted.contains(&url));
            let guesses = guesses(&url);
            prop_assert!(guesses.len() <= MAX_GUESSES);
            for other in accepted.iter().chain(guesses.iter().map(|(_, other)| other)) {
                prop_assert_eq!(meaning(other), meaning(&url), "{} and {}", other, url);
            }
        }
    }
}
