//! The tables that hold secrets, read without a statement.

use std::ops::{ControlFlow, Range};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sender::Authorization;

use crate::function::now_in_microseconds;
use crate::heap::{Field, KeyValue, Row, read_rows};
use crate::secret::Secret;

/// A row of `twilio.signing_key`.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub(crate) account_sid: String,
    pub(crate) key_id: String,
    pub(crate) algorithm: String,
    pub(crate) secret: Secret,
    /// The time that it lives, in microseconds of PostgreSQL's calendar; the end is not part of it.
    pub(crate) lives: Range<i64>,
}

/// The credentials that an account sends with.
pub(crate) struct Credential {
    pub(crate) account_sid: String,
    pub(crate) api_url: String,
    user: String,
    /// None if it has no API key and no live auth token.
    secret: Option<Secret>,
}

/// A row of `twilio.smsgate`, as far as requests to the gateway need it.
pub(crate) struct Gateway {
    pub(crate) base_url: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) passphrase: Option<Secret>,
    pub(crate) iterations: i32,
    pub(crate) uses_tokens: bool,
}

/// A row of `twilio_internal.smsgate_key`.
pub(crate) struct PhoneKey {
    /// Empty if it is the key of any phone.
    pub(crate) device_id: String,
    pub(crate) secret: Secret,
    created_at: i64,
}

impl Credential {
    pub(crate) fn into_user_and_secret(self) -> (String, Option<Secret>) {
        (self.user, self.secret)
    }

    pub(crate) fn authorization(&self) -> Result<Authorization, String> {
        let secret = self.secret.as_ref();
        secret.ok_or_else(|| NONE.to_owned())?.basic(&self.user)
    }
}

/// All keys of an account, whether they live or not.
pub(crate) fn keys_of(account_sid: &str) -> Result<Vec<SigningKey>, ErrorReport> {
    let mut keys = Vec::new();
    read_rows(
        c"signing_key",
        &SIGNING_KEY,
        Some(KeyValue::Text(account_sid)),
        |row| {
            keys.push(signing_key(row));
            ControlFlow::Continue(())
        },
    )?;
    Ok(keys)
}

/// So many of the keys that are wanted, of all accounts.
pub(crate) fn keys(
    at_most: usize,
    is_wanted: impl Fn(&SigningKey) -> bool,
) -> Result<Vec<SigningKey>, ErrorReport> {
    let mut keys = Vec::new();
    read_rows(c"signing_key", &SIGNING_KEY, None, |row| {
        let key = signing_key(row);
        if is_wanted(&key) {
            keys.push(key);
        }
        match keys.len() < at_most {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(keys)
}

impl SigningKey {
    pub(crate) fn lives_at(&self, now: i64) -> bool {
        self.lives.contains(&now)
    }
}

/// The credentials that an account sends with; `None` if the account is not known.
pub(crate) fn credential(account_sid: &str) -> Result<Option<Credential>, ErrorReport> {
    let mut found = None;
    read_rows(
        c"account",
        &ACCOUNT,
        Some(KeyValue::Text(account_sid)),
        |row| {
            found = Some(account(row));
            ControlFlow::Break(())
        },
    )?;
    if let Some(credential) = &mut found
        && credential.secret.is_none()
    {
        credential.secret = newest(keys_of(account_sid)?).map(|key| key.secret);
    }
    Ok(found)
}

/// The accounts that have an API key, with that.
pub(crate) fn api_keys() -> Result<Vec<(String, Secret)>, ErrorReport> {
    let mut keys = Vec::new();
    read_rows(c"account", &ACCOUNT, None, |row| {
        let credential = account(row);
        if let Some(secret) = credential.secret {
            keys.push((
                format!("{} {}", credential.account_sid, credential.user),
                secret,
            ));
        }
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// The gateway of a sender.
pub(crate) fn gateway(sender_id: i32) -> Result<Option<Gateway>, ErrorReport> {
    let mut found = None;
    read_rows(
        c"smsgate",
        &GATEWAY,
        Some(KeyValue::Int(sender_id)),
        |row| {
            found = Some(read_gateway(row));
            ControlFlow::Break(())
        },
    )?;
    Ok(found)
}

/// All gateways.
pub(crate) fn gateways() -> Result<Vec<Gateway>, ErrorReport> {
    let mut gateways = Vec::new();
    read_rows(c"smsgate", &GATEWAY, None, |row| {
        gateways.push(read_gateway(row));
        ControlFlow::Continue(())
    })?;
    Ok(gateways)
}

/// Keys that a phone may sign with: the newest of those that name it. An empty name gives the keys of any phone.
pub(crate) fn phone_keys(device_id: &str) -> Result<Vec<PhoneKey>, ErrorReport> {
    let mut keys = read_phone_keys(Some(KeyValue::Text(device_id)))?;
    keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
    keys.truncate(MAX_PHONE_KEYS);
    Ok(keys)
}

/// All keys of phones.
pub(crate) fn all_phone_keys() -> Result<Vec<PhoneKey>, ErrorReport> {
    read_phone_keys(None)
}

/// The id of the auth token that an account sends with.
#[pg_extern]
fn newest_auth_token(account_sid: &str) -> Result<Option<String>, ErrorReport> {
    Ok(newest(keys_of(account_sid)?).map(|key| key.key_id))
}

/// Of two tokens of one time the one with the higher number came later.
fn newest(keys: Vec<SigningKey>) -> Option<SigningKey> {
    let now = now_in_microseconds();
    let is_live_token = |key: &SigningKey| key.algorithm == "HMAC_SHA1" && key.lives_at(now);
    let age = |key: &SigningKey| (key.lives.start, key.key_id.len(), key.key_id.clone());
    keys.into_iter().filter(is_live_token).max_by_key(age)
}

fn signing_key(row: &Row<'_>) -> SigningKey {
    let time = |column| row.get::<TimestampWithTimeZone>(column).map(i64::from);
    SigningKey {
        account_sid: row.text(0),
        key_id: row.text(1),
        algorithm: row.text(2),
        secret: Secret::stored(row.text(3)),
        lives: time(4).unwrap_or(i64::MIN)..time(5).unwrap_or(i64::MIN),
    }
}

/// With the API key alone.
fn account(row: &Row<'_>) -> Credential {
    let account_sid = row.text(0);
    Credential {
        api_url: row.text(1),
        user: row.get(2).unwrap_or_else(|| account_sid.clone()),
        secret: row.get(3).map(Secret::stored),
        account_sid,
    }
}

fn read_gateway(row: &Row<'_>) -> Gateway {
    Gateway {
        base_url: row.text(1),
        user: row.text(2),
        password: Secret::stored(row.text(3)),
        passphrase: row.get(4).map(Secret::stored),
        iterations: row.get(5).unwrap_or_default(),
        uses_tokens: row.get(6).unwrap_or_default(),
    }
}

fn read_phone_keys(key: Option<KeyValue<'_>>) -> Result<Vec<PhoneKey>, ErrorReport> {
    let mut keys = Vec::new();
    read_rows(c"smsgate_key", &PHONE_KEY, key, |row| {
        keys.push(PhoneKey {
            device_id: row.text(0),
            secret: Secret::stored(row.text(1)),
            created_at: (row.get::<TimestampWithTimeZone>(2)).map_or(i64::MIN, i64::from),
        });
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

use pgrx::pg_sys::{BOOLOID, INT4OID, TEXTOID, TIMESTAMPTZOID};

const SIGNING_KEY: [Field; 6] = [
    (c"account_sid", TEXTOID),
    (c"key_id", TEXTOID),
    (c"algorithm", TEXTOID),
    (c"secret", TEXTOID),
    (c"not_before", TIMESTAMPTZOID),
    (c"not_after", TIMESTAMPTZOID),
];

const ACCOUNT: [Field; 4] = [
    (c"account_sid", TEXTOID),
    (c"api_url", TEXTOID),
    (c"api_key_sid", TEXTOID),
    (c"api_key_secret", TEXTOID),
];

const GATEWAY: [Field; 7] = [
    (c"sender_id", INT4OID),
    (c"base_url", TEXTOID),
    (c"username", TEXTOID),
    (c"password", TEXTOID),
    (c"passphrase", TEXTOID),
    (c"iterations", INT4OID),
    (c"uses_tokens", BOOLOID),
];

const PHONE_KEY: [Field; 3] = [
    (c"device_id", TEXTOID),
    (c"secret", TEXTOID),
    (c"created_at", TIMESTAMPTZOID),
];

/// So many for each phone: what else comes along with a webhook must not crowd its key out.
const MAX_PHONE_KEYS: usize = 64;

/// Why an account's requests cannot be made.
pub(crate) const NONE: &str = "the account has no live auth token and no API key";
