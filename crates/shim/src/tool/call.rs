//! The tools, and the calls that requests make.

use hyper::header::HeaderMap;

use crate::tool::fields::{Fields, required};
use crate::tool::problem::Problem;

/// The tool of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tool {
    Send,
    Block,
    Unblock,
    Acknowledge,
}

impl Tool {
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/send" => Some(Self::Send),
            "/block" => Some(Self::Block),
            "/unblock" => Some(Self::Unblock),
            "/acknowledge" => Some(Self::Acknowledge),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Acknowledge => "acknowledge",
        }
    }

    /// The value of `Allow`.
    pub(crate) const fn methods(self) -> &'static str {
        match self {
            Self::Send => "GET, POST",
            Self::Block | Self::Unblock | Self::Acknowledge => "POST",
        }
    }
}

/// A call of a tool. The database checks its arguments.
#[derive(Debug)]
pub(crate) enum Call {
    Send(Box<Message>),
    Block {
        address: String,
        reason: Option<String>,
        account_sid: Option<String>,
        from_address: Option<String>,
    },
    Unblock {
        address: String,
        reason: Option<String>,
        including_opt_out: bool,
    },
    Acknowledge {
        message_id: i64,
    },
}

/// A message to send, as `twilio.send_message` takes it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) to_address: String,
    pub(crate) body: Option<String>,
    pub(crate) from_address: Option<String>,
    pub(crate) media_urls: Option<Vec<String>>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) send_at: Option<String>,
    pub(crate) expires_after: Option<String>,
    pub(crate) status_callback: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) twilio_parameters: Option<String>,
    pub(crate) account_sid: Option<String>,
}

impl Call {
    pub(crate) fn new(
        tool: Tool,
        headers: &HeaderMap,
        mut fields: Fields,
    ) -> Result<Self, Problem> {
        let call = match tool {
            Tool::Send => Self::Send(Box::new(Message::new(headers, &mut fields)?)),
            Tool::Block => Self::Block {
                address: required(fields.address(&["number", "address"])?, "number")?,
                reason: fields.text(&["reason"])?,
                account_sid: fields.text(&["account_sid"])?,
                from_address: fields.address(&["from_address"])?,
            },
            Tool::Unblock => Self::Unblock {
                address: required(fields.address(&["number", "address"])?, "number")?,
                reason: fields.text(&["reason"])?,
                including_opt_out: fields.flag("including_opt_out")?,
            },
            Tool::Acknowledge => Self::Acknowledge {
                message_id: required(fields.id("message_id")?, "message_id")?,
            },
        };
        fields.finish()?;
        Ok(call)
    }
}

impl Message {
    fn new(headers: &HeaderMap, fields: &mut Fields) -> Result<Self, Problem> {
        let to = fields.address(&["recipient_number", "to_address"])?;
        let in_body = fields.text(&["idempotency_key"])?;
        Ok(Self {
            to_address: required(to, "recipient_number")?,
            body: fields.text(&["body"])?,
            from_address: fields.address(&["from_address"])?,
            media_urls: fields.texts(&["media_urls", "media_url"])?,
            idempotency_key: idempotency_key(headers, in_body)?,
            send_at: fields.text(&["send_at"])?,
            expires_after: fields.text(&["expires_after"])?,
            status_callback: fields.text(&["status_callback"])?,
            metadata: fields.json("metadata")?,
            twilio_parameters: fields.json("twilio_parameters")?,
            account_sid: fields.text(&["account_sid"])?,
        })
    }
}

/// The key from the header `Idempotency-Key`, with or without quotes, or from the field.
fn idempotency_key(
    headers: &HeaderMap,
    in_body: Option<String>,
) -> Result<Option<String>, Problem> {
    let mut all = headers.get_all("idempotency-key").iter();
    let hint = "Give one key, of 1 to 255 printable ASCII characters.";
    let Some(header) = all.next() else {
        return Ok(in_body);
    };
    if all.next().is_some() {
        return Err(Problem::unreadable(
            "the request has two Idempotency-Keys",
            hint,
        ));
    }
    let Ok(text) = header.to_str() else {
        return Err(Problem::unreadable(
            "the Idempotency-Key has characters that are not ASCII",
            hint,
        ));
    };
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    match in_body {
        Some(other) if other != key => Err(Problem::unreadable(
            "the field idempotency_key differs from the header",
            hint,
        )),
        _ => Ok(Some(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn send(key: Option<&'static str>, json: &str) -> Result<Call, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("idempotency-key", HeaderValue::from_static(key));
        }
        let fields = Fields::parse_json(json.as_bytes()).unwrap();
        Call::new(Tool::Send, &headers, fields)
    }

    fn key(header: Option<&'static str>, json: &str) -> Option<String> {
        match send(header, json).unwrap() {
            Call::Send(message) => message.idempotency_key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_idempotency_key_is_the_header_s_or_the_field_s() {
        let json = r#"{"to_address": "x"}"#;
        assert_eq!(key(None, json), None);
        assert_eq!(key(Some("a"), json).as_deref(), Some("a"));
        assert_eq!(key(Some("\"a b\""), json).as_deref(), Some("a b"));
        // An empty key is not ignored: the database refuses it.
        assert_eq!(key(Some(""), json).as_deref(), Some(""));
        let with_field = r#"{"to_address": "x", "idempotency_key": "a"}"#;
        assert_eq!(key(None, with_field).as_deref(), Some("a"));
        assert_eq!(key(Some("a"), with_field).as_deref(), Some("a"));
        assert!(send(Some("b"), with_field).is_err());
    }

    #[test]
    fn misspelt_and_missing_fields_are_named() {
        for (json, expected) in [
            (r#"{"body": "x"}"#, "\"recipient_number\" is missing"),
            (r#"{"to_address": "x", "Body": "x"}"#, "no field \"Body\""),
        ] {
            let detail = send(None, json).unwrap_err().detail;
            assert!(detail.contains(expected), "{detail}");
        }
    }
}
