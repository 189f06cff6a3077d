//! Twilio's signature of a request.
//!
//! `base64(HMAC(key, URL + parameters))`: for a form POST the decoded parameters, sorted, name and value
//! without separators; for GET nothing, since the query is part of the URL; for any other body nothing,
//! since the URL carries the body's hash as `bodySHA256`.
//! <https://www.twilio.com/docs/usage/security#validating-requests>

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use crate::form::Form;
use crate::url::SignedUrl;

/// The algorithm of a key. It belongs to the key, so that a header cannot choose a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `HMAC_SHA1`, with an account's auth token.
    HmacSha1,
    /// `HMAC_SHA256`, with a SharedKey.
    HmacSha256,
}

/// A key that may have signed. Its secret cannot be printed.
pub struct Key {
    state: State,
}

#[derive(Clone)]
enum State {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

/// What a signature covers beside the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Nothing: all parameters are in the URL.
    Empty,
    /// The decoded parameters of a form.
    Form(Form<'a>),
    /// A body whose SHA-256 the URL must carry.
    Body(&'a [u8]),
}

/// An unknown name of an algorithm, cut to 32 characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("signature algorithm \"{0}\" is not known")]
pub struct UnknownAlgorithm(pub String);

impl Algorithm {
    /// Twilio's name of the algorithm.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha1 => "HMAC_SHA1",
            Self::HmacSha256 => "HMAC_SHA256",
        }
    }

    /// Characters of a signature in base64, padding included.
    pub fn signature_len(self) -> usize {
        match self {
            Self::HmacSha1 => 28,
            Self::HmacSha256 => 44,
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        [Self::HmacSha1, Self::HmacSha256]
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownAlgorithm(text.chars().take(32).collect()))
    }
}

impl Key {
    /// A key of `algorithm` with the bytes of `secret`.
    pub fn new(algorithm: Algorithm, secret: &[u8]) -> Self {
        // HMAC accepts a key of any length, so these two cannot fail.
        let state = match algorithm {
            Algorithm::HmacSha1 => State::Sha1(hmac(secret)),
            Algorithm::HmacSha256 => State::Sha256(hmac(secret)),
        };
        Self { state }
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha1(_) => Algorithm::HmacSha1,
            State::Sha256(_) => Algorithm::HmacSha256,
        }
    }

    /// The signature over `url` as it stands, in base64.
    pub fn sign(&self, url: &str, payload: &Payload<'_>) -> String {
        let url = url.split_once('#').map_or(url, |(before, _)| before);
        self.digest(&[url], &payload.signed())
    }

    fn digest(&self, url: &[&str], pairs: &[(&str, &str)]) -> String {
        match self.state.clone() {
            State::Sha1(mac) => encode(mac, url, pairs),
            State::Sha256(mac) => encode(mac, url, pairs),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, secret hidden)", self.algorithm().as_str())
    }
}

impl<'a> Payload<'a> {
    /// What is signed of a request: Twilio signs the parameters of a form POST only.
    ///
    /// A body without a media type counts as a form, as do all bodies of status callbacks.
    pub fn new(method: &str, content_type: Option<&str>, body: &'a [u8]) -> Self {
        if !method.eq_ignore_ascii_case("POST") {
            Self::Empty
        } else if content_type.is_none_or(is_form) {
            Self::Form(Form::parse(body))
        } else {
            Self::Body(body)
        }
    }

    /// Whether this is a form that was not read to its end, so that its signature cannot be checked.
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Form(form) if form.is_cut())
    }

    /// The parameters that are signed beside the URL, in the order of signing.
    pub fn signed(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Form(form) => form.sorted(),
            Self::Empty | Self::Body(_) => Vec::new(),
        }
    }

    /// The hash of a body that is not a form, which the URL's parameter `bodySHA256` must equal; none for other payloads.
    fn hash(&self) -> Option<String> {
        match self {
            Self::Body(body) => Some(hex(&Sha256::digest(body))),
            Self::Empty | Self::Form(_) => None,
        }
    }
}

/// Finds the key that made `signature` and the URL that it is over, as indexes of `keys` and `urls`.
///
/// Every key is compared with every variant of every URL in constant time, so a refusal takes the same time however
/// close the guess is. A match ends the search, because the caller reports it anyway.
///
/// ```
/// use protocol::signature::{Algorithm, Key, Payload, verify};
/// use protocol::url::SignedUrl;
///
/// let keys = [Key::new(Algorithm::HmacSha1, b"auth token")];
/// let url = "https://hooks.example.com/status";
/// let payload = Payload::new("POST", None, b"MessageStatus=sent");
/// let signature = keys[0].sign(url, &payload);
/// let urls = [SignedUrl::parse(url).unwrap()];
/// assert_eq!(verify(&keys, &urls, &payload, &signature), Some((0, 0)));
/// ```
pub fn verify(
    keys: &[Key],
    urls: &[SignedUrl<'_>],
    payload: &Payload<'_>,
    signature: &str,
) -> Option<(usize, usize)> {
    verify_signed(keys, urls, payload, &payload.signed(), signature)
}

/// As [`verify`], with the result of [`Payload::signed`], so that callers sort the parameters only once.
pub fn verify_signed(
    keys: &[Key],
    urls: &[SignedUrl<'_>],
    payload: &Payload<'_>,
    pairs: &[(&str, &str)],
    signature: &str,
) -> Option<(usize, usize)> {
    let hash = payload.hash();
    for (url_index, url) in urls.iter().enumerate() {
        if hash.as_ref().is_some_and(|hash| !has_hash(url, hash)) {
            continue;
        }
        for pieces in url.variants() {
            for (key_index, key) in keys.iter().enumerate() {
                if bool::from(is_made_by(key, &pieces, pairs, signature)) {
                    return Some((key_index, url_index));
                }
            }
        }
    }
    None
}

/// The algorithm named in `X-Twilio-Webhooks-Signature-Settings` and the SharedKey's id.
///
/// Without the header, or without `algorithm=` in it, a request is signed by `HMAC_SHA1`.
/// <https://www.twilio.com/docs/usage/webhooks/webhook-shared-keys>
///
/// # Errors
///
/// If the header names an unknown algorithm.
pub fn parse_settings(header: Option<&str>) -> Result<(Algorithm, Option<&str>), UnknownAlgorithm> {
    let fields = header.unwrap_or_default().split(',');
    let mut algorithm = Algorithm::HmacSha1;
    let mut key_id = None;
    for field in fields {
        match field.split_once('=').map(|(n, v)| (n.trim(), v.trim())) {
            Some(("algorithm", name)) => algorithm = name.parse()?,
            Some(("key", id)) if !id.is_empty() => key_id = Some(id),
            _ => {}
        }
    }
    Ok((algorithm, key_id))
}

/// Whether a media type is `application/x-www-form-urlencoded`, whatever its parameters.
pub fn is_form(content_type: &str) -> bool {
    is_media_type(content_type, "application/x-www-form-urlencoded")
}

/// Whether a media type is `application/json`, whatever its parameters.
pub fn is_json(content_type: &str) -> bool {
    is_media_type(content_type, "application/json")
}

fn is_media_type(content_type: &str, name: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(name)
}

/// Whether the URL's parameter `bodySHA256` is this hash.
fn has_hash(url: &SignedUrl<'_>, hash: &str) -> bool {
    let query = Form::parse(url.query().as_bytes());
    (query.first("bodySHA256"))
        .is_some_and(|given| bool::from(given.as_bytes().ct_eq(hash.as_bytes())))
}

fn is_made_by(key: &Key, url: &[&str], pairs: &[(&str, &str)], signature: &str) -> Choice {
    // The length is public, and the comparison takes constant time only for equal lengths.
    if signature.len() != key.algorithm().signature_len() {
        return Choice::from(0);
    }
    key.digest(url, pairs)
        .as_bytes()
        .ct_eq(signature.as_bytes())
}

fn hmac<M: Mac + KeyInit>(secret: &[u8]) -> M {
    #[expect(
        clippy::expect_used,
        reason = "HMAC is defined for keys of every length"
    )]
    <M as KeyInit>::new_from_slice(secret).expect("HMAC takes any key")
}

fn encode<M: Mac>(mut mac: M, url: &[&str], pairs: &[(&str, &str)]) -> String {
    for piece in url {
        mac.update(piece.as_bytes());
    }
    for (name, value) in pairs {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifies(url: &str, payload: &Payload<'_>, signature: &str) -> bool {
        let keys = [Key::new(Algorithm::HmacSha1, b"12345")];
        let urls: Vec<_> = SignedUrl::parse(url).into_iter().collect();
        verify(&keys, &urls, payload, signature).is_some()
    }

    #[test]
    fn repeated_parameters_are_signed_once_each() {
        let body = b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234";
        let payload = Payload::new("POST", None, body);
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert!(verifies(url, &payload, "IK+Dwps556ElfBT0I3Rgjkr1wJU="));
    }

    #[test]
    fn a_body_without_its_hash_in_the_url_is_not_signed() {
        let key = Key::new(Algorithm::HmacSha1, b"12345");
        let payload = Payload::new("POST", Some("application/json"), b"{}");
        let url = "https://a.example/x";
        assert!(!verifies(url, &payload, &key.sign(url, &payload)));
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let url = format!("https://a.example/x?bodySHA256={hash}");
        assert!(verifies(&url, &payload, &key.sign(&url, &payload)));
        let other = Payload::new("POST", Some("application/json"), b"{ }");
        assert!(!verifies(&url, &other, &key.sign(&url, &other)));
    }

    #[test]
    fn a_form_with_a_stray_hash_is_signed_by_its_parameters() {
        let key = Key::new(Algorithm::HmacSha1, b"12345");
        let url = "https://a.example/x?bodySHA256=00";
        let payload = Payload::new(
            "POST",
            Some("Application/X-WWW-Form-Urlencoded; charset=x"),
            b"a=1",
        );
        assert!(verifies(url, &payload, &key.sign(url, &payload)));
    }

    #[test]
    fn the_algorithm_is_the_keys() {
        let payload = Payload::new("POST", None, b"a=1");
        let url = "https://a.example/x";
        let key = Key::new(Algorithm::HmacSha256, b"12345");
        assert!(!verifies(url, &payload, &key.sign(url, &payload)));
        assert!(verify(&[key], &[SignedUrl::parse(url).unwrap()], &payload, "").is_none());
    }

    #[test]
    fn settings_name_algorithm_and_key() {
        assert_eq!(parse_settings(None), Ok((Algorithm::HmacSha1, None)));
        assert_eq!(
            parse_settings(Some("key=webhooks_sharedkey_1, algorithm = hmac_sha256")),
            Ok((Algorithm::HmacSha256, Some("webhooks_sharedkey_1")))
        );
        assert!(parse_settings(Some("algorithm=none")).is_err());
    }

    #[test]
    fn a_key_does_not_show_its_secret() {
        let key = Key::new(Algorithm::HmacSha1, b"hunter2");
        assert_eq!(format!("{key:?}"), "Key(HMAC_SHA1, secret hidden)");
    }
}
