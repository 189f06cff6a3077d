//! Reads Twilio's responses about messages leniently and classifies them.

use serde_json::{Value, json};

use crate::error_code::{self, Class};
use crate::json::{number, short_text, text};
use crate::{address, date, sid};

/// A Message resource of Twilio's API. A member that is missing or has another type is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `SM…` or `MM…`.
    pub sid: String,
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
    /// Twilio's message for the error.
    pub error_message: Option<String>,
    /// Number of media.
    pub num_media: Option<u32>,
    /// When it was created, in milliseconds since 1970, to the second.
    pub created_at: Option<i64>,
    /// When it was sent, or received if it is inbound, in milliseconds since 1970, to the second.
    pub sent_at: Option<i64>,
    /// Number of segments, 1 to 9,999.
    pub num_segments: Option<u16>,
    /// Price as Twilio writes it, such as `-0.00790`; none as long as it is not known.
    pub price: Option<String>,
    /// Currency of the price.
    pub price_unit: Option<String>,
}

impl Resource {
    /// Parses the body of a response; `None` if it is not a message with a SID.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        Self::from_value(&value)
    }

    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let sid = text(object, "sid").filter(|text| sid::is_message(text))?;
        Some(Self {
            sid,
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
            created_at: text(object, "date_created").and_then(|text| date::parse_mail(&text)),
            sent_at: text(object, "date_sent").and_then(|text| date::parse_mail(&text)),
            num_segments: number(object, "num_segments").filter(|n| (1..10_000).contains(n)),
            price: text(object, "price").filter(|text| is_price(text)),
            price_unit: text(object, "price_unit").filter(|text| text.len() <= 16),
        })
    }

    /// What the database records of it, in its own names. Texts are cut, so that no resource becomes larger than a callback.
    pub fn to_report(&self) -> Value {
        let cut = |text: &Option<String>, most| {
            let text = text.as_deref()?;
            Some(text.chars().take(most).collect::<String>())
        };
        let is_inbound = self.direction.as_deref() == Some("inbound");
        let (from, to) = (self.from.as_deref(), self.to.as_deref());
        json!({
            "sid": self.sid,
            "status": self.status,
            "direction": if is_inbound { "inbound" } else { "outbound" },
            "channel": address::channel(from, to),
            "from_address": cut(&self.from, MAX_ADDRESS),
            "to_address": cut(&self.to, MAX_ADDRESS),
            "body": cut(&self.body, MAX_BODY),
            "messaging_service_sid": self.messaging_service_sid,
            "num_media": self.num_media.and_then(|n| i32::try_from(n).ok()),
            "error_code": self.error_code,
            "error_message": cut(&self.error_message, MAX_WORDING),
            "created_at": self.created_at,
            "sent_at": self.sent_at,
            "num_segments": self.num_segments,
            "price": self.price,
            "price_unit": self.price_unit,
        })
    }
}

/// Whether a text is a decimal number of at most nine digits on each side of the point.
fn is_price(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_part = |part: &str| {
        (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    match digits.split_once('.') {
        Some((whole, fraction)) => is_part(whole) && is_part(fraction),
        None => is_part(digits),
    }
}

/// The content of an error response. A body that is not JSON, such as a proxy's, gives an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiError {
    /// Twilio's error code, 10,000 to 99,999.
    pub code: Option<i32>,
    /// Twilio's message, at most 500 characters.
    pub message: Option<String>,
}

impl ApiError {
    /// Parses the body of an error response.
    pub fn parse(body: &[u8]) -> Self {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            return Self::default();
        };
        Self {
            code: number(&object, "code").filter(|code| (10_000..=99_999).contains(code)),
            message: ["message", "detail", "title"]
                .into_iter()
                .find_map(|name| short_text(&object, name, 500)),
        }
    }
}

/// The outcome of a request that creates a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The message exists.
    Accepted(Box<Resource>),
    /// No message was created, and the request must not be sent again unchanged.
    Refused {
        /// The content of the response.
        error: ApiError,
    },
    /// No message was created, and the same request may be sent again.
    NotProcessed {
        /// The content of the response.
        error: ApiError,
        /// Whether the account or its credentials are at fault, so that all requests of this account would fail.
        is_account_fault: bool,
    },
    /// A message may have been created.
    Unknown {
        /// The content of the response, if it can be read.
        error: ApiError,
    },
}

/// Classifies the response to a request that creates a message, by status and body.
///
/// Only 429 is documented as never processed, <https://www.twilio.com/docs/api/errors/20429>, and
/// a failure of the server as possibly processed, <https://www.twilio.com/docs/api/errors/20500>.
/// A 4xx without a code of Twilio's comes from a proxy, which did not pass the request on.
pub fn classify(http_status: u16, body: &[u8]) -> Verdict {
    if (200..300).contains(&http_status) {
        // A message was created. If its SID cannot be read, it has to be looked up.
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
    if ACCOUNT_FAULTS.contains(&code) {
        return Verdict::NotProcessed {
            error,
            is_account_fault: true,
        };
    }
    if error_code::advice(code).class == Class::Transient {
        return Verdict::NotProcessed {
            error,
            is_account_fault: false,
        };
    }
    Verdict::Refused { error }
}

/// The outcome of a request that fetches a message. It may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The message as it is now.
    Found(Box<Resource>),
    /// Twilio does not have the message, or not any more.
    Missing,
    /// Twilio refuses the request.
    Refused(ApiError),
    /// The request failed; try again later.
    Failed(ApiError),
}

/// Classifies the response to a request about one message.
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

/// The most characters of an address, a text and the wording of an error in a report.
const MAX_ADDRESS: usize = 256;
const MAX_BODY: usize = 4096;
const MAX_WORDING: usize = 500;

/// Wrong credentials, and accounts that are closed or suspended.
const ACCOUNT_FAULTS: [i32; 7] = [10001, 20003, 20005, 21470, 21471, 21472, 90010];
