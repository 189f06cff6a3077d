//! Signatures that Twilio and its libraries publish, and what may never verify.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::borrow::Cow;

use protocol::form::Form;
use protocol::signature::{Algorithm, Key, Payload, verify};
use protocol::url::SignedUrl;
use serde_json::Value;

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("vectors/signature.json")).unwrap()
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

fn payload(vector: &Value) -> Payload<'_> {
    if let Some(body) = vector["body"].as_str() {
        return Payload::Body(body.as_bytes());
    }
    let params = vector["params"].as_object();
    let pairs = params.into_iter().flatten().flat_map(|(name, value)| {
        let values = match value {
            Value::Array(values) => values.iter().map(|v| v.as_str().unwrap()).collect(),
            Value::Null => vec![""],
            value => vec![value.as_str().unwrap()],
        };
        values
            .into_iter()
            .map(move |value| (Cow::from(name.as_str()), Cow::from(value)))
    });
    Payload::Form(Form::from_pairs(pairs))
}

fn is_valid(vector: &Value, algorithm: Algorithm, url: &str, signature: &str) -> bool {
    let keys = [Key::new(algorithm, text(vector, "token").as_bytes())];
    let urls: Vec<_> = SignedUrl::parse(url).into_iter().collect();
    verify(&keys, &urls, &payload(vector), signature).is_some()
}

#[test]
fn every_published_signature_verifies() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 38);
    for vector in &vectors {
        let (url, signature) = (text(vector, "signed_url"), text(vector, "signature"));
        let key = Key::new(Algorithm::HmacSha1, text(vector, "token").as_bytes());
        assert_eq!(key.sign(url, &payload(vector)), signature, "{vector}");
        assert!(
            is_valid(vector, Algorithm::HmacSha1, url, signature),
            "{vector}"
        );
    }
}

#[test]
fn every_sha256_signature_verifies() {
    let mut count = 0;
    for vector in &vectors() {
        if let Some(signature) = vector["sha256_signature"].as_str() {
            let url = text(vector, "signed_url");
            assert!(
                is_valid(vector, Algorithm::HmacSha256, url, signature),
                "{vector}"
            );
            assert!(!is_valid(vector, Algorithm::HmacSha1, url, signature));
            count += 1;
        }
    }
    assert!(count > 30);
}

#[test]
fn any_other_url_key_or_signature_fails() {
    for vector in &vectors() {
        let (url, signature) = (text(vector, "signed_url"), text(vector, "signature"));
        assert!(!is_valid(
            vector,
            Algorithm::HmacSha1,
            &format!("{url}x"),
            signature
        ));
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        let altered = format!("{first}{}", &signature[1..]);
        assert!(!is_valid(vector, Algorithm::HmacSha1, url, &altered));
        let mut other = vector.clone();
        other["token"] = Value::from("12346");
        assert!(!is_valid(&other, Algorithm::HmacSha1, url, signature));
    }
}

#[test]
fn the_fragment_is_not_signed() {
    let vector = &vectors()[0];
    let url = format!("{}#rc=3&rp=all", text(vector, "signed_url"));
    assert!(is_valid(
        vector,
        Algorithm::HmacSha1,
        &url,
        text(vector, "signature")
    ));
}
