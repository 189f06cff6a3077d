//! A submitted message, checked as SMSGate's server checks it.

use protocol::smsgate::encryption::decrypt;
use serde_json::{Map, Value};

use super::Refused;
use crate::clock::{self, Moment};

/// A message that may be accepted.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: Option<String>,
    pub(crate) device_id: Option<String>,
    pub(crate) content: Content,
    pub(crate) numbers: Vec<String>,
    pub(crate) is_encrypted: bool,
    pub(crate) sim: Option<u64>,
    pub(crate) has_report: bool,
    pub(crate) priority: i64,
    pub(crate) valid_until: Option<Moment>,
    pub(crate) schedule_at: Option<Moment>,
}

/// The content of a message as the phone reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) content: Content,
    pub(crate) numbers: Vec<String>,
}

/// The content to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Text(String),
    Data { data: String, port: u64 },
}

impl Submission {
    /// Checks the body of a request that came at `now`.
    pub(crate) fn check(body: &Value, skip_numbers: bool, now: Moment) -> Result<Self, Refused> {
        let fields = Fields(
            body.as_object()
                .ok_or_else(|| bad("the body is not an object"))?,
        );
        let is_encrypted = fields.boolean("isEncrypted")?.unwrap_or(false);
        let ttl = fields.integer("ttl", 5..=i64::MAX)?;
        let valid_until = fields.moment("validUntil")?;
        if ttl.is_some() && valid_until.is_some() {
            return Err(bad("ttl conflicts with validUntil"));
        }
        let schedule_at = fields.moment("scheduleAt")?;
        if schedule_at.is_some_and(|at| at <= now || valid_until.is_some_and(|until| at > until)) {
            return Err(bad("scheduleAt is not in the future or after validUntil"));
        }
        let until = ttl.map(|ttl| Moment(now.0.saturating_add(ttl.saturating_mul(1_000_000))));
        Ok(Self {
            id: fields.text("id", 36)?.filter(|id| !id.is_empty()),
            device_id: fields.text("deviceId", 21)?.filter(|id| !id.is_empty()),
            content: fields.content()?,
            numbers: fields.numbers(is_encrypted || skip_numbers)?,
            is_encrypted,
            sim: fields.integer("simNumber", 1..=3)?.map(i64::unsigned_abs),
            has_report: fields.boolean("withDeliveryReport")?.unwrap_or(true),
            priority: fields.integer("priority", -128..=127)?.unwrap_or(0),
            valid_until: valid_until.or(until),
            schedule_at,
        })
    }
}

impl Submission {
    /// Text and numbers as the phone reads them; `None` if it cannot.
    pub(crate) fn open(&self, passphrase: Option<&str>) -> Option<Plain> {
        let read = |text: &String| match (self.is_encrypted, passphrase) {
            (false, _) => Some(text.clone()),
            (true, None) => None,
            (true, Some(passphrase)) => decrypt(passphrase.as_bytes(), text).ok(),
        };
        Some(Plain {
            numbers: self.numbers.iter().map(read).collect::<Option<_>>()?,
            content: match &self.content {
                Content::Text(text) => Content::Text(read(text)?),
                Content::Data { data, port } => Content::Data {
                    data: read(data)?,
                    port: *port,
                },
            },
        })
    }
}

/// Names that the server does not know, which it ignores.
pub(crate) fn unknown(body: &Value) -> Vec<String> {
    let names = body.as_object().into_iter().flat_map(Map::keys);
    names
        .filter(|name| !NAMES.contains(&name.as_str()))
        .cloned()
        .collect()
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str, longest: usize) -> Result<Option<String>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let text = value.as_str().filter(|text| text.len() <= longest);
        text.map(|text| Some(text.to_owned()))
            .ok_or_else(|| bad(&format!("{name} is not a text of at most {longest} bytes")))
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| bad(&format!("{name} is not a boolean")))
    }

    fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.as_i64().filter(|number| range.contains(number));
        number
            .map(Some)
            .ok_or_else(|| bad(&format!("{name} is out of range")))
    }

    fn moment(&self, name: &str) -> Result<Option<Moment>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        // Go reads RFC 3339 only, so an offset is needed.
        let text = value.as_str().filter(|text| text.len() > 19);
        text.and_then(clock::parse)
            .map(Some)
            .ok_or_else(|| bad(&format!("{name} is not a time")))
    }

    fn content(&self) -> Result<Content, Refused> {
        let object = |name| self.get(name).map(|value| value.as_object().map(Fields));
        match (
            object("textMessage"),
            object("dataMessage"),
            self.get("message"),
        ) {
            (Some(Some(text)), None, None) => {
                let text = text.text("text", 65_535)?.filter(|text| !text.is_empty());
                text.map(Content::Text)
                    .ok_or_else(|| bad("textMessage.text is required"))
            }
            (None, Some(Some(data)), None) => {
                let port = data.integer("port", 1..=65_535)?;
                let data = data.text("data", 65_535)?.filter(|data| data.len() >= 4);
                match (data, port) {
                    (Some(data), Some(port)) => Ok(Content::Data {
                        data,
                        port: port.unsigned_abs(),
                    }),
                    _ => Err(bad("dataMessage needs data and port")),
                }
            }
            (None, None, Some(_)) => {
                let text = self
                    .text("message", 65_535)?
                    .filter(|text| !text.is_empty());
                text.map(Content::Text)
                    .ok_or_else(|| bad("message is empty"))
            }
            _ => Err(bad(
                "exactly one of textMessage, dataMessage and message is required",
            )),
        }
    }

    fn numbers(&self, are_kept: bool) -> Result<Vec<String>, Refused> {
        let list = self.get("phoneNumbers").and_then(Value::as_array);
        let list = list.filter(|list| (1..=100).contains(&list.len()));
        let list = list.ok_or_else(|| bad("phoneNumbers needs 1 to 100 numbers"))?;
        let mut numbers = Vec::new();
        for value in list {
            let number = value
                .as_str()
                .filter(|number| (1..=128).contains(&number.len()));
            let number = number.ok_or_else(|| bad("a phone number needs 1 to 128 characters"))?;
            if numbers.iter().any(|earlier| earlier == number) {
                return Err(bad("phone numbers must be unique"));
            }
            numbers.push(number.to_owned());
        }
        if are_kept {
            return Ok(numbers);
        }
        numbers
            .iter()
            .map(|number| clean(number).ok_or_else(|| bad("invalid phone number")))
            .collect()
    }
}

/// A number in E.164. The real server asks libphonenumber, with Russia for numbers without a country;
/// here every number that could be one of E.164 passes.
fn clean(number: &str) -> Option<String> {
    let digits: String = number.chars().filter(|c| !" -()".contains(*c)).collect();
    let plus = match (
        digits.strip_prefix('+'),
        digits.len(),
        digits.as_bytes().first(),
    ) {
        (Some(_), ..) => digits,
        (None, 11, Some(b'7')) => format!("+{digits}"),
        (None, 11, Some(b'8')) => format!("+7{}", digits.get(1..)?),
        (None, 10, Some(b'9')) => format!("+7{digits}"),
        _ => return None,
    };
    protocol::address::is_e164(&plus).then_some(plus)
}

fn bad(text: &str) -> Refused {
    Refused::new(400, text)
}

const NAMES: [&str; 14] = [
    "dataMessage",
    "deviceId",
    "id",
    "isEncrypted",
    "message",
    "phoneNumbers",
    "priority",
    "scheduleAt",
    "simNumber",
    "textMessage",
    "ttl",
    "validUntil",
    "withDeliveryReport",
    "mmsMessage",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(mut more: Value) -> Result<Submission, String> {
        let mut body = json!({ "textMessage": { "text": "x" }, "phoneNumbers": ["+12025550123"] });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object_mut()) {
            body.append(more);
        }
        Submission::check(&body, false, Moment(0)).map_err(|refused| refused.message)
    }

    #[test]
    fn takes_what_the_server_takes() {
        let submission =
            check(json!({ "id": "a", "ttl": 60, "priority": 100, "simNumber": 2 })).unwrap();
        assert_eq!(submission.valid_until, Some(Moment(60_000_000)));
        assert_eq!(submission.content, Content::Text("x".to_owned()));
        assert!(submission.has_report);
        for number in [
            "+1 (202) 555-0123",
            "79990001234",
            "8 999 000-12-34",
            "9990001234",
        ] {
            assert!(
                check(json!({ "phoneNumbers": [number] })).is_ok(),
                "{number}"
            );
        }
    }

    #[test]
    fn refuses_what_the_server_refuses() {
        for more in [
            json!({ "phoneNumbers": [] }),
            json!({ "phoneNumbers": ["+12025550123", "+12025550123"] }),
            json!({ "phoneNumbers": ["12345"] }),
            json!({ "phoneNumbers": [12] }),
            json!({ "textMessage": { "text": "" } }),
            json!({ "textMessage": null }),
            json!({ "message": "both" }),
            json!({ "id": "x".repeat(37) }),
            json!({ "deviceId": "x".repeat(22) }),
            json!({ "ttl": 4 }),
            json!({ "ttl": "60" }),
            json!({ "ttl": 60, "validUntil": "2100-01-01T00:00:00Z" }),
            json!({ "validUntil": "2100-01-01" }),
            json!({ "scheduleAt": "1969-01-01T00:00:00Z" }),
            json!({ "simNumber": 4 }),
            json!({ "priority": 128 }),
            json!({ "withDeliveryReport": "yes" }),
        ] {
            assert!(check(more.clone()).is_err(), "{more}");
        }
    }

    #[test]
    fn only_the_passphrase_opens_what_is_encrypted() {
        let seal = |text| protocol::smsgate::encryption::encrypt(b"x", &[7; 16], 1000, text);
        let text = json!({ "text": seal("Hello") });
        let body =
            json!({ "isEncrypted": true, "phoneNumbers": [seal("+1")], "textMessage": text });
        let submission = check(body).unwrap();
        let plain = Plain {
            content: Content::Text("Hello".to_owned()),
            numbers: vec!["+1".to_owned()],
        };
        assert_eq!(submission.open(Some("x")), Some(plain));
        assert_eq!(submission.open(Some("y")), None);
        assert_eq!(submission.open(None), None);
        let content = check(json!({})).unwrap().open(None).unwrap().content;
        assert_eq!(content, Content::Text("x".to_owned()));
    }

    #[test]
    fn encrypted_numbers_are_not_looked_at() {
        let body =
            json!({ "isEncrypted": true, "phoneNumbers": ["$aes-256-cbc/pbkdf2-sha1$i=1$a$b"] });
        let submission = check(body).unwrap();
        assert_eq!(submission.numbers, ["$aes-256-cbc/pbkdf2-sha1$i=1$a$b"]);
        assert_eq!(submission.open(Some("x")), None);
    }
}
