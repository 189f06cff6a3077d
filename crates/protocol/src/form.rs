//! Decoding of `application/x-www-form-urlencoded`: order and repeated names are kept.
//!
//! Twilio adds parameters without notice, so there is no list of known names here.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// The parameters of a request body or query string, decoded, in the order in which they came.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    pairs: Vec<Pair<'a>>,
    is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Pair<'a>(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>);

/// A form has more than [`MAX_PARAMETERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many parameters; at most {MAX_PARAMETERS} are allowed")]
pub struct TooManyParameters;

/// The largest number of parameters that are read of a form: a pair takes 48 bytes, even if its text has only one.
/// Twilio sends less than a hundred.
pub const MAX_PARAMETERS: usize = 1024;

impl<'a> Form<'a> {
    /// Decodes `bytes`. As the URL standard demands, this never fails: a malformed percent sign is kept, bytes that are
    /// not UTF-8 become U+FFFD, and a name without `=` has an empty value. Reading ends after [`MAX_PARAMETERS`]; then
    /// [`Form::is_cut`] is true and the form must not be used.
    ///
    /// <https://url.spec.whatwg.org/#urlencoded-parsing>
    ///
    /// ```
    /// let form = protocol::form::Form::parse(b"Body=a+b%2Bc&To=&x");
    /// assert_eq!(form.first("Body"), Some("a b+c"));
    /// assert_eq!((form.first("To"), form.filled("To")), (Some(""), None));
    /// ```
    pub fn parse(bytes: &'a [u8]) -> Self {
        let separators = memchr_iter(b'&', bytes).take(MAX_PARAMETERS);
        let mut pairs = Vec::with_capacity(separators.count() + 1);
        let mut rest = bytes;
        let mut is_cut = false;
        while !rest.is_empty() {
            if pairs.len() == MAX_PARAMETERS {
                is_cut = true;
                break;
            }
            let end = memchr(b'&', rest).unwrap_or(rest.len());
            let (piece, behind) = rest.split_at(end);
            rest = behind.get(1..).unwrap_or_default();
            match plain(piece) {
                Some(pair) => pairs.push(pair),
                // serde_urlencoded only fails for a value of the wrong type, and text accepts any value.
                None => {
                    pairs.extend(serde_urlencoded::from_bytes::<Vec<_>>(piece).unwrap_or_default())
                }
            }
        }
        Self { pairs, is_cut }
    }

    /// A form without parameters.
    pub const fn empty() -> Self {
        Self {
            pairs: Vec::new(),
            is_cut: false,
        }
    }

    /// A form of decoded pairs.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| Pair(name, value));
        Self {
            pairs: pairs.collect(),
            is_cut: false,
        }
    }

    /// Whether there were more than [`MAX_PARAMETERS`], of which only the first were read.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The first value of `name`, which may be empty.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The first value of `name` unless it is empty: Twilio sends many parameters with an empty value.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|value| !value.is_empty())
    }

    /// All pairs in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|Pair(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs in the order of signing: by name, then value, bytewise, each pair once.
    pub fn sorted(&self) -> Vec<(&str, &str)> {
        let mut pairs: Vec<_> = self.iter().collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

/// A pair that needs no decoding, as most pairs: the check takes a tenth of the time of decoding.
fn plain(piece: &[u8]) -> Option<Pair<'_>> {
    if piece.is_empty() || memchr2(b'%', b'+', piece).is_some() {
        return None;
    }
    let text = std::str::from_utf8(piece).ok()?;
    let (name, value) = match memchr(b'=', piece) {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, ""),
    };
    Some(Pair(name.into(), value.into()))
}

/// The pairs as the body of a form, in their order.
pub fn encode(pairs: &[(String, String)]) -> String {
    serde_urlencoded::to_string(pairs).unwrap_or_default()
}

/// `text` with U+0000, which PostgreSQL's `text` cannot hold, replaced by U+FFFD.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same of all texts and names in a JSON value, since `jsonb` cannot hold it either.
pub fn storable_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(storable_json).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (storable(&name).into_owned(), storable_json(value)))
            .collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(body: &[u8]) -> Vec<(String, String)> {
        Form::parse(body)
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn keeps_order_repeats_and_empty_values() {
        assert_eq!(
            pairs(b"b=1&a=&b=2&c"),
            [pair("b", "1"), pair("a", ""), pair("b", "2"), pair("c", "")]
        );
    }

    #[test]
    fn decodes_plus_percent_and_utf8() {
        assert_eq!(pairs(b"B=a+b%2Bc%26%C3%A9"), [pair("B", "a b+c&é")]);
    }

    #[test]
    fn survives_broken_input() {
        assert_eq!(
            pairs(b"a=%&b=%zz&c=%f"),
            [pair("a", "%"), pair("b", "%zz"), pair("c", "%f")]
        );
        assert_eq!(pairs(b"a=%ff\xfe"), [pair("a", "\u{fffd}\u{fffd}")]);
        assert_eq!(pairs(b"&&=&"), [pair("", "")]);
    }

    #[test]
    fn many_parameters_take_bounded_memory() {
        for body in [vec![b'&'; 1 << 20], b"a&".repeat(1 << 19)] {
            let form = Form::parse(&body);
            assert!(form.pairs.capacity() <= MAX_PARAMETERS + 1);
        }
        let most = b"a=1&".repeat(MAX_PARAMETERS);
        assert!(!Form::parse(&most).is_cut());
        assert!(Form::parse(&[&most[..], b"b"].concat()).is_cut());
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(list in proptest::collection::vec((".*", ".*"), 0..20)) {
            let body = serde_urlencoded::to_string(&list).unwrap();
            prop_assert_eq!(pairs(body.as_bytes()), list);
        }

        #[test]
        fn pairs_that_need_no_decoding_are_the_same(
            body in proptest::collection::vec(proptest::sample::select(&b"ab=&%+0f\xc3\xa9\xff\0"[..]), 0..40)
        ) {
            let all: Vec<(String, String)> = serde_urlencoded::from_bytes(&body).unwrap();
            prop_assert_eq!(pairs(&body), all);
        }
    }
}
