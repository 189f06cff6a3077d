//! Tests of stored secrets for `twilio.doctor`: whether they can be read, and whether they sign and verify.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::request::{Headers, Request};
use protocol::signature::{Algorithm, Key, Payload};

use crate::credential::{SigningKey, all_phone_keys, api_keys, gateways, keys};
use crate::function::now_in_microseconds;
use crate::receive::verify::{Decoded, Keyring, keys_and_urls};
use crate::secret::Secret;
use crate::statement;

/// Each secret that is in use: whose it is, and why it cannot be read; null if it can.
#[pg_extern]
fn secret_problem() -> Result<
    TableIterator<'static, (name!(name, String), name!(problem, Option<String>))>,
    ErrorReport,
> {
    let mut rows = Vec::new();
    let mut look = |name: String, secret: &Secret| {
        let problem = secret.resolve().err().map(|error| error.to_string());
        rows.push((name, problem));
    };
    for key in live_keys(usize::MAX)? {
        look(format!("{} {}", key.account_sid, key.key_id), &key.secret);
    }
    for (name, secret) in api_keys()? {
        look(name, &secret);
    }
    for gateway in gateways()? {
        look(format!("gateway {}", gateway.user), &gateway.password);
        if let Some(passphrase) = &gateway.passphrase {
            look(format!("passphrase of {}", gateway.user), passphrase);
        }
    }
    for key in all_phone_keys()? {
        let device = match key.device_id.as_str() {
            "" => "any device",
            device => device,
        };
        look(format!("webhooks of {device}"), &key.secret);
    }
    Ok(TableIterator::new(rows))
}

/// Signs a request as Twilio does and verifies it as one that came, with each live key for each public URL; nothing
/// is recorded.
#[pg_extern]
fn try_signatures(
    at_most: i32,
) -> Result<
    TableIterator<
        'static,
        (
            name!(account_sid, String),
            name!(key_id, String),
            name!(url, String),
            name!(verifies, bool),
        ),
    >,
    ErrorReport,
> {
    let at_most = usize::try_from(at_most).unwrap_or(0);
    let mut urls = statement::public_urls()?;
    urls.sort_unstable();
    let mut rows = Vec::new();
    for key in live_keys(at_most)? {
        let Ok(secret) = key.secret.resolve() else {
            continue;
        };
        for url in urls.iter().take(at_most - rows.len()) {
            let verifies = is_verified(&key, &secret, url)?;
            rows.push((
                key.account_sid.clone(),
                key.key_id.clone(),
                url.clone(),
                verifies,
            ));
        }
    }
    Ok(TableIterator::new(rows))
}

fn is_verified(key: &SigningKey, secret: &[u8], base: &str) -> Result<bool, ErrorReport> {
    let Ok(algorithm) = key.algorithm.parse::<Algorithm>() else {
        return Ok(false);
    };
    let body = format!(
        "MessageSid=SM{:032}&AccountSid={}&MessageStatus=sent",
        0, key.account_sid
    );
    let payload = Payload::new("POST", None, body.as_bytes());
    let signature = Key::new(algorithm, secret).sign(&format!("{base}{PATH}"), &payload);
    let settings = format!("algorithm={},key={}", key.algorithm, key.key_id);
    let request = Request {
        method: "POST",
        url: PATH,
        headers: Headers {
            signature: Some(&signature),
            settings: (algorithm != Algorithm::HmacSha1).then_some(settings.as_str()),
            content_type: None,
        },
        body: body.as_bytes(),
    };
    let decoded = [Decoded::new(&request)];
    let (keys, urls) = keys_and_urls(&decoded)?;
    let keyring = Keyring::new(&keys, &urls);
    Ok(keyring.check(0, &request, &decoded[0]).is_ok())
}

fn live_keys(at_most: usize) -> Result<Vec<SigningKey>, ErrorReport> {
    let now = now_in_microseconds();
    keys(at_most, |key| key.lives_at(now))
}

const PATH: &str = "/twilio/status";
