//! Functions that are given secrets. A secret never is a parameter of a statement of ours, since plans show those:
//! the statement that stores it fetches it by `twilio_internal.secret_argument`, which no planner evaluates. The other texts that come
//! with a secret go the same way, as long as they may be one in the wrong place, and no error repeats them.

use std::cell::RefCell;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::destination::{Fault, check_public_base};
use protocol::person::Country;
use protocol::sid::{is_account, is_api_key};
use protocol::trust::{Api, Gateway};

use crate::error::{self, invalid};
use crate::secret::{Secret, SecretError};
use crate::spi::first;
use crate::statement::without_rows;

thread_local! {
    /// The arguments of the calls in progress; the innermost call is the last.
    static GIVEN: RefCell<Vec<Vec<Given>>> = const { RefCell::new(Vec::new()) };
}

type Given = (&'static str, Option<String>);

/// The text of that name that the function which is storing was given.
#[pg_extern]
fn secret_argument(name: &str) -> Result<Option<String>, ErrorReport> {
    GIVEN.with_borrow(|calls| {
        let texts = calls.last().ok_or_else(error::nothing_given)?;
        let (_, text) =
            (texts.iter().find(|(given, _)| *given == name)).ok_or_else(error::nothing_given)?;
        Ok(text.clone())
    })
}

#[pg_extern]
fn add_account(
    account_sid: Option<&str>,
    auth_token: Option<&str>,
    public_url: Option<&str>,
    api_key_sid: Option<&str>,
    api_key_secret: Option<&str>,
    api_url: Option<&str>,
    country: Option<&str>,
) -> Result<(), ErrorReport> {
    let account_sid = account(account_sid)?;
    check_country(country)?;
    let auth_token = secret(auth_token)?;
    if api_key_sid.is_some() != api_key_secret.is_some() {
        return Err(invalid(
            "an API key needs both its SID and its secret".to_owned(),
            "Give api_key_sid and api_key_secret, or neither to send with the auth token.",
        ));
    }
    if !api_key_sid.is_none_or(is_api_key) {
        return Err(invalid(
            "api_key_sid must be SK and 32 hexadecimal digits".to_owned(),
            "Copy it from API keys and tokens in the Twilio Console.",
        ));
    }
    let api_key_secret = match api_key_secret {
        None => None,
        given => Some(secret(given)?),
    };
    let public_url = public_url.map(|url| url.trim_end_matches('/'));
    public_url
        .map_or(Ok(()), check_public_base)
        .map_err(|fault| invalid_url("public_url", fault, "Give the address that Twilio calls: scheme, host, and a port and a path prefix if need be, such as https://hooks.example.com."))?;
    let api_url = api_url.map(|url| url.trim_end_matches('/'));
    api_url
        .map_or(Ok(()), |url| Api::parse(url).map(drop))
        .map_err(|fault| {
            invalid_url(
                "api_url",
                fault,
                "Leave api_url out for https://api.twilio.com.",
            )
        })?;
    let given = [
        ("auth_token", Some(auth_token)),
        ("api_key_secret", api_key_secret),
    ];
    let current = store(&given, || {
        let arguments = [account_sid.into(), api_key_sid.into(), country.into()];
        first::<String>(
            "select twilio_internal.upsert_account($1, $2, $3)",
            &arguments,
        )
    })?;
    // These run as their caller, so that only a role that may write the table decides where the secrets are sent.
    if let Some(url) = api_url.filter(|url| current.as_deref() != Some(url)) {
        let arguments = [account_sid.into(), url.into()];
        perform("select twilio_internal.set_api_url($1, $2)", &arguments)?;
    }
    if let Some(url) = public_url {
        perform("select twilio.add_public_url($1)", &[url.into()])?;
    }
    Ok(())
}

fn check_country(country: Option<&str>) -> Result<(), ErrorReport> {
    let parsed = country.map(str::parse::<Country>).transpose();
    parsed.map(drop).map_err(error::country)
}

#[pg_extern]
fn rotate_auth_token(
    account_sid: Option<&str>,
    auth_token: Option<&str>,
    old_token_until: Option<TimestampWithTimeZone>,
) -> Result<Option<String>, ErrorReport> {
    let account_sid = account(account_sid)?;
    let given = [("auth_token", Some(secret(auth_token)?))];
    store(&given, || {
        let arguments = [account_sid.into(), old_token_until.into()];
        first::<String>(
            "select twilio_internal.insert_auth_token($1, $2)",
            &arguments,
        )
    })
}

#[pg_extern]
fn add_shared_key(
    account_sid: Option<&str>,
    key_id: Option<&str>,
    secret: Option<&str>,
    not_before: Option<TimestampWithTimeZone>,
    not_after: Option<TimestampWithTimeZone>,
) -> Result<(), ErrorReport> {
    let account_sid = account(account_sid)?;
    let secret = self::secret(secret)?;
    let is_id = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic())
            && !id.starts_with("auth_token_")
    };
    let Some(key_id) = key_id.filter(is_id) else {
        return Err(invalid(
            "key_id must be the id of a SharedKey: 1 to 128 printable characters without spaces, and not an auth token's id"
                .to_owned(),
            "Give the id that X-Twilio-Webhooks-Signature-Settings names after key=.",
        ));
    };
    store(
        &[("key_id", Some(key_id)), ("secret", Some(secret))],
        || {
            let arguments = [account_sid.into(), not_before.into(), not_after.into()];
            perform(
                "select twilio_internal.upsert_shared_key($1, $2, $3)",
                &arguments,
            )
        },
    )
}

#[pg_extern]
#[allow(
    clippy::too_many_arguments,
    reason = "they are those of the SQL function"
)]
fn add_smsgate(
    username: Option<&str>,
    password: Option<&str>,
    base_url: Option<&str>,
    device_id: Option<&str>,
    signing_key: Option<&str>,
    from_address: Option<&str>,
    sim_number: Option<i32>,
    priority: Option<i32>,
    with_delivery_report: Option<bool>,
    skip_phone_validation: Option<bool>,
    rate_per_second: Option<f32>,
    is_default: Option<bool>,
    passphrase: Option<&str>,
    iterations: Option<i32>,
    use_tokens: Option<bool>,
    country: Option<&str>,
) -> Result<(), ErrorReport> {
    check_country(country)?;
    let base_url = base_url.unwrap_or_default().trim_end_matches('/');
    Gateway::parse(base_url).map_err(|fault| invalid_url("base_url", fault, "Give the base URL of SMSGate's API, such as https://api.sms-gate.app/3rdparty/v1 or http://phone:8080."))?;
    let is_name = |name: &&str| {
        (1..=255).contains(&name.chars().count())
            && !name.chars().any(|c| c == ':' || c.is_control())
    };
    let Some(username) = username.filter(is_name) else {
        return Err(invalid(
            "username must have 1 to 255 characters and no colon".to_owned(),
            "The app shows user name and password on its first page.",
        ));
    };
    let Some(password) = password.filter(|password| !password.is_empty()) else {
        return Err(invalid(
            "password is missing".to_owned(),
            "The app shows user name and password on its first page.",
        ));
    };
    let is_device = |id: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        (1..=21).contains(&id.len()) && id.bytes().all(is_plain)
    };
    if !device_id.is_none_or(is_device) {
        return Err(invalid(
            "device_id must be up to 21 letters, digits, dashes and underscores".to_owned(),
            "The app shows the id of its device in Settings.",
        ));
    }
    let (password, signing_key) = (secret(Some(password))?, optional(signing_key)?);
    if passphrase.is_none() && iterations.is_some() {
        return Err(invalid(
            "iterations given without a passphrase".to_owned(),
            "Give the passphrase that the app shows in Settings, Encryption, or leave iterations out.",
        ));
    }
    if let Some(number) = iterations.filter(|number| !(1000..=1_000_000).contains(number)) {
        return Err(invalid(
            format!("{number} iterations are out of range"),
            "SMSGate takes 1000 to 1000000; 75000 is its own default, and each costs the phone time.",
        ));
    }
    let passphrase = optional(passphrase)?;
    let address = match (from_address, device_id) {
        (Some(address), _) => address.to_owned(),
        (None, Some(device_id)) => format!("{username}/{device_id}"),
        (None, None) => username.to_owned(),
    };
    let given = [
        ("address", Some(address.as_str())),
        ("base_url", Some(base_url)),
        ("username", Some(username)),
        ("password", Some(password)),
        ("device_id", device_id),
        ("signing_key", signing_key),
        ("passphrase", passphrase),
    ];
    store(&given, || {
        let arguments: [DatumWithOid<'_>; 9] = [
            sim_number.into(),
            priority.into(),
            with_delivery_report.into(),
            skip_phone_validation.into(),
            rate_per_second.into(),
            is_default.into(),
            iterations.into(),
            use_tokens.into(),
            country.into(),
        ];
        perform(
            "select twilio_internal.upsert_smsgate($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &arguments,
        )
    })
}

#[pg_extern]
fn add_smsgate_key(signing_key: Option<&str>, device_id: Option<&str>) -> Result<(), ErrorReport> {
    let signing_key = secret(signing_key)?;
    let given = [("signing_key", Some(signing_key)), ("device_id", device_id)];
    store(&given, || {
        perform("select twilio_internal.insert_smsgate_key()", &[])
    })
}

/// Calls the function that stores these texts; it reads them with `twilio_internal.secret_argument`.
fn store<T>(
    given: &[(&'static str, Option<&str>)],
    call: impl FnOnce() -> Result<T, ErrorReport>,
) -> Result<T, ErrorReport> {
    struct Frame;
    impl Drop for Frame {
        fn drop(&mut self) {
            GIVEN.with_borrow_mut(|calls| drop(calls.pop()));
        }
    }
    let owned = |(name, text): &(&'static str, Option<&str>)| (*name, text.map(str::to_owned));
    GIVEN.with_borrow_mut(|calls| calls.push(given.iter().map(owned).collect()));
    let _frame = Frame;
    without_rows(call)
}

fn perform(query: &'static str, arguments: &[DatumWithOid<'_>]) -> Result<(), ErrorReport> {
    crate::spi::rows(query, arguments, |_| Ok(())).map(drop)
}

fn account(account_sid: Option<&str>) -> Result<&str, ErrorReport> {
    account_sid.filter(|sid| is_account(sid)).ok_or_else(|| {
        invalid(
            "account_sid must be AC and 32 hexadecimal digits".to_owned(),
            "Copy it from the first page of the Twilio Console.",
        )
    })
}

/// A secret that can be read.
fn secret(given: Option<&str>) -> Result<&str, ErrorReport> {
    let given = given.ok_or_else(|| error::secret(SecretError::Null))?;
    let secret = Secret::stored(given.to_owned());
    secret.resolve().map(|_| given).map_err(error::secret)
}

fn optional(given: Option<&str>) -> Result<Option<&str>, ErrorReport> {
    given.map(|given| secret(Some(given))).transpose()
}

/// An argument that is not a URL; its value is not repeated, since it may be a secret in the wrong place.
fn invalid_url(name: &str, fault: Fault, hint: &str) -> ErrorReport {
    invalid(format!("invalid {name}"), hint).set_detail(format!("The URL cannot be used: {fault}."))
}
