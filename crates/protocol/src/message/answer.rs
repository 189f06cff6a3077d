//! What Twilio answers about messages, read leniently, and what follows from it.

use serde_json::Value;

use crate::error_code::{self, Advice, Class};
use crate::json::{number, short_text, text};
use crate::{date, sid};

/// A Message resource as Twilio shows it. Whatever is missing or of a strange type is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `SM…` or `MM…`.
    pub sid: String,
    /// `AC…`.
    pub account_sid: Option<String>,
    /// The status, known or not.
    pub status: Option<String>,
    /// `inbound`, `outbound-api`, `outbound-call` or `outbound-reply`.
    pub direction: Option<String>,
    /// Sender; none while a messaging service has not chosen one.
    pub from: Option<String>,
    /// Recipient.
    pub to: Option<String>,
    /// Text; empty when redacted.
    pub body: Option<String>,
    /// `MG…`.
    pub messaging_service_sid: Option<String>,
    /// Twilio's error code, none for 0.
    pub error_code: Option<i32>,
    /// Twilio's wording of it.
    pub error_message: Option<String>,
    /// Number of media.
    pub num_media: Option<u32>,
    /// Number of segments; 0 while not known.
    pub num_segments: Option<u32>,
    /// Price as a decimal number, negative for what is charged.
    pub price: Option<String>,
    /// Currency of the price.
    pub price_unit: Option<String>,
    /// When it was created, in milliseconds since 1970, to the second.
    pub created_at: Option<i64>,
    /// When it was sent.
    pub sent_at: Option<i64>,
    /// When it changed last.
    pub updated_at: Option<i64>,
}

impl Resource {
    /// Reads the body of an answer; `None` if it is no message with an identifier.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        Self::from_value(&value)
    }

    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let sid = text(object, "sid").filter(|text| sid::is_message(text))?;
        let date = |name| text(object, name).and_then(|text| date::parse_mail(&text));
        Some(Self {
            sid,
            account_sid: text(object, "account_sid").filter(|text| sid::is_account(text)),
            status: text(object, "status").filter(|text| text.len() <= 64),
            direction: text(object, "direction"),
            from: text(object, "from"),
            to: text(object, "to"),
            body: text(object, "body"),
            messaging_service_sid: text(object, "messaging_service_sid")
                .filter(|text| sid::is_messaging_service(text)),
            error_code: number(object, "error_code").filter(|code| *code > 0),
            error_message: text(object, "error_message"),
            num_media: number(object, "num_media"),
            num_segments: number(object, "num_segments"),
            price: text(object, "price").filter(|text| is_decimal(text)),
            price_unit: text(object, "price_unit"),
            created_at: date("date_created"),
            sent_at: date("date_sent"),
            updated_at: date("date_updated"),
        })
    }
}

/// What an error answer says. A body that is no JSON, as a proxy may send, gives an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiError {
    /// Twilio's error code, 10,000 to 99,999.
    pub code: Option<i32>,
    /// Twilio's wording, at most 500 characters.
    pub message: Option<String>,
    /// Twilio's page about the code.
    pub more_info: Option<String>,
    /// The HTTP status as the body repeats it.
    pub status: Option<u16>,
}

impl ApiError {
    /// Reads the body of an error answer.
    pub fn parse(body: &[u8]) -> Self {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            return Self::default();
        };
        Self {
            code: number(&object, "code").filter(|code| (10_000..=99_999).contains(code)),
            message: ["message", "detail", "title"]
                .into_iter()
                .find_map(|name| short_text(&object, name, 500)),
            more_info: text(&object, "more_info").filter(|url| url.starts_with("https://")),
            status: number(&object, "status"),
        }
    }
}

/// What became of a request that creates a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The message exists and this is it.
    Accepted(Box<Resource>),
    /// There is no message and will be none: the request must not be sent again as it is.
    Refused {
        /// What Twilio said.
        error: ApiError,
        /// What its code advises.
        advice: Advice,
    },
    /// There is no message, and the same request may be sent again.
    NotProcessed {
        /// What Twilio said.
        error: ApiError,
        /// Whether the account or its credentials are at fault, so that every other request of this
        /// account would end in the same way.
        is_account_fault: bool,
    },
    /// There may be a message.
    Unknown {
        /// What was said, if anything.
        error: ApiError,
    },
}

/// Judges the answer to a request that creates a message, by status and body.
///
/// Only 429 is documented as never processed, <https://www.twilio.com/docs/api/errors/20429>, and
/// a failure of the server as possibly processed, <https://www.twilio.com/docs/api/errors/20500>.
/// A 4xx without a code of Twilio's comes from something in between, which did not pass it on.
pub fn classify(http_status: u16, body: &[u8]) -> Verdict {
    if (200..300).contains(&http_status) {
        // A message was made. If its identifier cannot be read it has to be found out.
        return match Resource::parse(body) {
            Some(resource) => Verdict::Accepted(Box::new(resource)),
            None => Verdict::Unknown {
                error: ApiError::parse(body),
            },
        };
    }
    let error = ApiError::parse(body);
    match http_status {
        429 => Verdict::NotProcessed {
            error,
            is_account_fault: false,
        },
        // Permanent redirects and 307 leave the request to be repeated elsewhere: the URL is wrong.
        301 | 307 | 308 | 401 => Verdict::NotProcessed {
            error,
            is_account_fault: true,
        },
        400..=499 => refusal(error),
        _ => Verdict::Unknown { error },
    }
}

fn refusal(error: ApiError) -> Verdict {
    let Some(code) = error.code else {
        return Verdict::NotProcessed {
            error,
            is_account_fault: false,
        };
    };
    let advice = error_code::advice(code);
    if ACCOUNT_FAULTS.contains(&code) {
        return Verdict::NotProcessed {
            error,
            is_account_fault: true,
        };
    }
    if advice.class == Class::Transient {
        return Verdict::NotProcessed {
            error,
            is_account_fault: false,
        };
    }
    Verdict::Refused { error, advice }
}

/// What became of a request that reads, cancels or redacts a message. All of these may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The message as it is now.
    Found(Box<Resource>),
    /// Twilio has no such message, or not any more.
    Missing,
    /// Twilio does not do it: the message can no longer be canceled, for instance.
    Refused(ApiError),
    /// Nothing is known; try again later.
    Failed(ApiError),
}

/// Judges the answer to a request about one message.
pub fn classify_fetch(http_status: u16, body: &[u8]) -> Fetched {
    match http_status {
        200..=299 => match Resource::parse(body) {
            Some(resource) => Fetched::Found(Box::new(resource)),
            None => Fetched::Failed(ApiError::parse(body)),
        },
        // A wrong path gives 404 too, but a proxy's, without Twilio's code.
        404 | 410 => match ApiError::parse(body) {
            ApiError {
                code: Some(20404 | 20410 | 30404),
                ..
            } => Fetched::Missing,
            error => Fetched::Failed(error),
        },
        400..=499 => match ApiError::parse(body) {
            error if matches!(refusal(error.clone()), Verdict::Refused { .. }) => {
                Fetched::Refused(error)
            }
            error => Fetched::Failed(error),
        },
        _ => Fetched::Failed(ApiError::parse(body)),
    }
}

/// What PostgreSQL's `numeric` takes: digits with a sign, a point and an exponent.
fn is_decimal(text: &str) -> bool {
    text.len() <= 32
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Wrong credentials, and accounts that are closed or suspended.
const ACCOUNT_FAULTS: [i32; 7] = [10001, 20003, 20005, 21470, 21471, 21472, 90010];
