//! Twilio's error codes: their HTTP status, their message and their JSON.
//!
//! <https://www.twilio.com/docs/api/errors>

use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Refusal {
    /// A refusal in the usual words of `code`.
    pub(crate) fn new(code: u32) -> Self {
        Self::with(code, text(code))
    }

    /// A refusal in words that name what was wrong.
    pub(crate) fn with(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The HTTP status that goes with the code.
    pub(crate) fn status(&self) -> u16 {
        match self.code {
            20003 => 401,
            20005 => 403,
            20004 => 405,
            20404 => 404,
            20009 | 30409 => 409,
            20429 => 429,
            20500 => 500,
            20503 => 503,
            _ => 400,
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status(),
        })
    }
}

/// Twilio's words for a code, as error of a request or as ErrorMessage of a message.
pub(crate) fn text(code: u32) -> &'static str {
    let known = TEXTS.iter().find(|(known, _)| *known == code);
    known.map_or("Unknown error", |(_, text)| text)
}

const TEXTS: &[(u32, &str)] = &[
    (20001, "Invalid parameter"),
    (20003, "Authenticate"),
    (20004, "Method not allowed"),
    (20005, "Account not active"),
    (
        20009,
        "Cannot delete message because delivery has not been completed.",
    ),
    (20404, "The requested resource was not found"),
    (20429, "Too Many Requests"),
    (20500, "Internal Server Error"),
    (20503, "Service unavailable"),
    (21211, "Invalid 'To' Phone Number"),
    (21212, "Invalid From Number (caller ID)"),
    (21266, "'To' and 'From' number cannot be the same"),
    (
        21408,
        "Permission to send an SMS has not been enabled for the region indicated by the 'To' number",
    ),
    (21481, "Invalid PageToken"),
    (21602, "Message body is required"),
    (
        21603,
        "A 'From' or 'MessagingServiceSid' parameter is required to send a message",
    ),
    (21604, "A 'To' phone number is required"),
    (
        21606,
        "The 'From' phone number provided is not a valid message-capable Twilio phone number for this destination",
    ),
    (
        21608,
        "The 'to' phone number provided is not yet verified for this account",
    ),
    (21609, "Invalid 'StatusCallback'"),
    (21610, "Attempt to send to unsubscribed recipient"),
    (
        21611,
        "This 'From' number has exceeded the maximum number of queued messages",
    ),
    (
        21612,
        "The 'To' phone number is not currently reachable via SMS",
    ),
    (21614, "'To' number is not a valid mobile number"),
    (
        21617,
        "The concatenated message body exceeds the 1600 character limit",
    ),
    (21620, "Invalid media URL(s)"),
    (21623, "Number of media files exceeds allowed limit"),
    (21624, "Invalid validity period value"),
    (21627, "Max Price must be a valid float"),
    (21655, "The ContentSid is Invalid"),
    (21656, "The ContentVariables Parameter is invalid"),
    (21664, "FallbackFrom requires a MessagingServiceSid"),
    (21701, "The Messaging Service does not exist"),
    (21705, "The Messaging Service is invalid"),
    (
        21910,
        "Invalid From and To pair. From and To should be of the same channel",
    ),
    (30001, "Queue overflow"),
    (30002, "Account suspended"),
    (30003, "Unreachable destination handset"),
    (30004, "Message blocked"),
    (30005, "Unknown destination handset"),
    (30006, "Landline or unreachable carrier"),
    (30007, "Message filtered"),
    (30008, "Unknown error"),
    (30017, "Carrier network congestion"),
    (30029, "Invalid ContentRetention"),
    (30030, "Invalid AddressRetention"),
    (30409, "This message cannot be canceled"),
    (30410, "Provider Timeout Error"),
    (35111, "SendAt timestamp is missing"),
    (35114, "Scheduling does not support this timestamp"),
    (
        35118,
        "MessagingServiceSid is required to schedule a message",
    ),
    (63003, "Channel could not find To address"),
    (
        63007,
        "Twilio could not find a Channel with the specified From address",
    ),
    (
        63014,
        "Message delivery to the recipient has been blocked by user action",
    ),
    (
        63016,
        "Failed to send freeform message because you are outside the allowed window",
    ),
    (63024, "Invalid message recipient"),
    (63032, "User's number is part of an experiment"),
    (63033, "Recipient blocked to receive message"),
    (63049, "Meta chose not to deliver this marketing message"),
];
