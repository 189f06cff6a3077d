//! The parameters of Twilio's callbacks.

use crate::client::request::Request;
use crate::server::database::ACCOUNT_SID;

/// Where status callbacks go.
pub const STATUS_PATH: &str = "/twilio/status";
/// Where inbound messages go.
pub const INBOUND_PATH: &str = "/twilio/inbound";
/// Where Event Streams delivers.
pub const EVENTS_PATH: &str = "/twilio/events";

/// Parameters in order.
pub type Pairs = Vec<(String, String)>;

/// A message SID that is made from a number.
pub fn sid(number: usize) -> String {
    format!("SM{number:032x}")
}

/// The parameters of a status callback for an SMS.
pub fn status(message_sid: &str, status: &str, error_code: Option<i32>) -> Pairs {
    status_between(
        message_sid,
        status,
        error_code,
        "+12025550100",
        "+12025550123",
    )
}

/// The parameters of a status callback for a message from `from` to `to`.
pub fn status_between(
    message_sid: &str,
    status: &str,
    error_code: Option<i32>,
    from: &str,
    to: &str,
) -> Pairs {
    let mut pairs = own(&[
        ("SmsSid", message_sid),
        ("SmsStatus", status),
        ("MessageStatus", status),
        ("To", to),
        ("MessageSid", message_sid),
        ("AccountSid", ACCOUNT_SID),
        ("From", from),
        ("ApiVersion", "2010-04-01"),
    ]);
    if let Some(code) = error_code {
        pairs.push(("ErrorCode".to_owned(), code.to_string()));
    }
    pairs
}

/// The parameters of an inbound SMS.
pub fn inbound(message_sid: &str, body: &str) -> Pairs {
    own(&[
        ("ToCountry", "US"),
        ("SmsMessageSid", message_sid),
        ("NumMedia", "0"),
        ("FromCity", ""),
        ("SmsSid", message_sid),
        ("SmsStatus", "received"),
        ("Body", body),
        ("To", "+12025550100"),
        ("NumSegments", "1"),
        ("MessageSid", message_sid),
        ("AccountSid", ACCOUNT_SID),
        ("From", "+12025550123"),
        ("ApiVersion", "2010-04-01"),
    ])
}

/// A signed status callback.
pub fn signed_status(message_sid: &str, name: &str, error_code: Option<i32>) -> Request {
    Request::form(STATUS_PATH, &status(message_sid, name, error_code)).signed()
}

/// A signed inbound message.
pub fn signed_inbound(message_sid: &str, body: &str) -> Request {
    Request::form(INBOUND_PATH, &inbound(message_sid, body)).signed()
}

/// Sets a parameter: the first of that name is changed, or one is added.
pub fn set(pairs: &mut Pairs, name: &str, value: &str) {
    match pairs.iter_mut().find(|(n, _)| n == name) {
        Some(pair) => pair.1 = value.to_owned(),
        None => pairs.push((name.to_owned(), value.to_owned())),
    }
}

/// Owned pairs.
pub fn own(pairs: &[(&str, &str)]) -> Pairs {
    let owned = pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    owned.collect()
}

/// An address without the prefix of its channel.
pub fn bare(address: &str) -> &str {
    address.split_once(':').map_or(address, |(_, bare)| bare)
}
