//! A message, as in the Messages resource.
//!
//! <https://www.twilio.com/docs/messaging/api/message-resource>

use serde_json::{Value, json};

use crate::clock::Moment;
use crate::error;

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Place in the order of creation.
    pub(crate) number: u64,
    pub(crate) sid: String,
    pub(crate) account_sid: String,
    pub(crate) direction: &'static str,
    /// None until the messaging service has chosen a sender.
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) service: Option<String>,
    pub(crate) body: String,
    pub(crate) media: Vec<Media>,
    pub(crate) status: Status,
    pub(crate) error: Option<u32>,
    pub(crate) created: Moment,
    pub(crate) updated: Moment,
    pub(crate) sent: Option<Moment>,
    pub(crate) segments: usize,
    pub(crate) price: Option<&'static str>,
    pub(crate) callback: Option<String>,
    pub(crate) has_feedback: bool,
}

/// A file that goes with a message.
#[derive(Debug, Clone)]
pub(crate) struct Media {
    pub(crate) sid: String,
    pub(crate) content_type: &'static str,
    /// In bytes.
    pub(crate) size: usize,
}

/// Twilio's statuses, inbound ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Accepted,
    Scheduled,
    Queued,
    Sending,
    Sent,
    Delivered,
    Undelivered,
    Failed,
    Read,
    Canceled,
    Received,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::Failed => "failed",
            Self::Read => "read",
            Self::Canceled => "canceled",
            Self::Received => "received",
        }
    }

    /// Whether the message may be redacted or deleted.
    pub(crate) fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Accepted | Self::Scheduled | Self::Queued | Self::Sending
        )
    }
}

impl Message {
    /// The channel, read from the recipient's address, or the sender's if only that names one.
    pub(crate) fn channel(&self) -> &str {
        protocol::address::channel(self.from.as_deref(), Some(&self.to))
    }

    /// Changes to the next status at `now`.
    pub(crate) fn advance(&mut self, status: Status, code: Option<u32>, now: Moment) {
        self.status = status;
        self.error = code;
        self.updated = now;
        // A messaging service counts segments once it has chosen the sender.
        if self.segments == 0 && status != Status::Canceled {
            self.segments = segments(self.channel(), &self.body);
        }
        if matches!(status, Status::Sending | Status::Failed) && self.sent.is_none() {
            self.sent = Some(now);
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let uri = self.uri();
        let mut resources = json!({ "media": format!("{uri}/Media.json") });
        if self.has_feedback {
            resources["feedback"] = format!("{uri}/Feedback.json").into();
        }
        json!({
            "account_sid": self.account_sid,
            "api_version": API_VERSION,
            "body": self.body,
            "date_created": self.created.rfc2822(),
            "date_sent": self.sent.map(Moment::rfc2822),
            "date_updated": self.updated.rfc2822(),
            "direction": self.direction,
            "error_code": self.error,
            "error_message": self.error.map(error::text),
            "from": self.from,
            "messaging_service_sid": self.service,
            "num_media": self.media.len().to_string(),
            "num_segments": self.segments.to_string(),
            "price": self.price,
            "price_unit": self.price.map(|_| "USD"),
            "sid": self.sid,
            "status": self.status.as_str(),
            "subresource_uris": resources,
            "to": self.to,
            "uri": format!("{uri}.json"),
        })
    }

    pub(crate) fn media_json(&self, media: &Media) -> Value {
        json!({
            "account_sid": self.account_sid,
            "content_type": media.content_type,
            "date_created": self.created.rfc2822(),
            "date_updated": self.created.rfc2822(),
            "parent_sid": self.sid,
            "sid": media.sid,
            "uri": format!("{}/Media/{}.json", self.uri(), media.sid),
        })
    }

    /// The resource's path without its ending.
    pub(crate) fn uri(&self) -> String {
        format!(
            "/{API_VERSION}/Accounts/{}/Messages/{}",
            self.account_sid, self.sid
        )
    }
}

impl Media {
    /// A file at `url`, its type and size read from the name: `70000.jpg` has 70,000 bytes.
    pub(crate) fn new(sid: String, url: &str) -> Self {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let ending = path
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let known = MEDIA_TYPES.iter().find(|(known, _)| *known == ending);
        let name = path.rsplit('/').next().unwrap_or_default();
        let size = name.split('.').next().and_then(|size| size.parse().ok());
        Self {
            sid,
            size: size.unwrap_or(DEFAULT_SIZE).min(MAX_SIZE),
            content_type: known.map_or("image/jpeg", |(_, content_type)| content_type),
        }
    }
}

/// Segments of a text: by SMS 160 characters of GSM-7 or 70 of UCS-2 fit into one, 153 or 67 into each
/// of several; other channels have no segments.
/// <https://www.twilio.com/docs/glossary/what-sms-character-limit>
pub(crate) fn segments(channel: &str, body: &str) -> usize {
    if channel != "sms" {
        return 1;
    }
    let septets: Option<usize> = body.chars().map(septets).sum();
    let (length, single, several) = match septets {
        Some(length) => (length, 160, 153),
        None => (body.encode_utf16().count(), 70, 67),
    };
    if length <= single {
        1
    } else {
        length.div_ceil(several)
    }
}

/// Septets of a character in GSM-7; `None` if GSM-7 lacks it.
fn septets(c: char) -> Option<usize> {
    if GSM_7.contains(c) {
        Some(1)
    } else {
        GSM_7_EXTENSION.contains(c).then_some(2)
    }
}

const DEFAULT_SIZE: usize = 1_000;
const MAX_SIZE: usize = 64 << 20;
pub(crate) const API_VERSION: &str = "2010-04-01";

const MEDIA_TYPES: &[(&str, &str)] = &[
    ("gif", "image/gif"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ogg", "audio/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("vcf", "text/vcard"),
    ("webp", "image/webp"),
];

/// 3GPP TS 23.038, the default alphabet and its extension.
const GSM_7: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡\
ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const GSM_7_EXTENSION: &str = "\u{c}^{}\\[~]|€";

#[cfg(test)]
impl Message {
    /// A message for unit tests, delivered at `at`.
    pub(crate) fn example(at: Moment) -> Self {
        Self {
            number: 0,
            sid: format!("SM{:032}", 1),
            account_sid: format!("AC{:032}", 1),
            direction: "outbound-api",
            from: Some("+12025550100".to_owned()),
            to: "+12025550123".to_owned(),
            service: None,
            body: "Your table is ready".to_owned(),
            media: Vec::new(),
            status: Status::Delivered,
            error: None,
            created: at,
            updated: at,
            sent: Some(at),
            segments: 1,
            price: Some("-0.00790"),
            callback: None,
            has_feedback: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_segments_as_the_carriers_do() {
        assert_eq!(segments("sms", ""), 1);
        assert_eq!(segments("sms", &"a".repeat(160)), 1);
        assert_eq!(segments("sms", &"a".repeat(161)), 2);
        assert_eq!(segments("sms", &"€".repeat(80)), 1);
        assert_eq!(segments("sms", &"€".repeat(81)), 2);
        assert_eq!(segments("sms", &"ж".repeat(70)), 1);
        assert_eq!(segments("sms", &"😀".repeat(35)), 1);
        assert_eq!(segments("sms", &"😀".repeat(36)), 2);
        assert_eq!(segments("whatsapp", &"ж".repeat(1000)), 1);
    }
}
