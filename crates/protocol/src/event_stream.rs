//! Event Streams: the events in the body of a request, and what those about messages and errors say. A call of the debugger's
//! webhook is read as the event that Event Streams would deliver.
//!
//! <https://www.twilio.com/docs/events/event-types/messaging/outbound-message>
//! <https://www.twilio.com/docs/events/event-types/messaging/inbound-message>
//! <https://www.twilio.com/docs/usage/troubleshooting/debugging-event-webhooks>

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::callback::{Callback, Kind, Malformed};
use crate::callback_url;
use crate::date;
use crate::form::{Form, MAX_PARAMETERS, storable, storable_json};
use crate::json::{number, short_text, text};
use crate::sid;

/// An event as it was delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The CloudEvents `id`, such as `EZ…`, at most 128 characters; the same in each delivery of the event.
    pub id: Option<String>,
    /// The CloudEvents `type`, at most 128 characters.
    pub kind: String,
    /// When it happened, in milliseconds since 1970-01-01 00:00 UTC.
    pub at: Option<i64>,
    /// The account that it names.
    pub account_sid: Option<String>,
    /// The message that it names.
    pub message_sid: Option<String>,
    /// The parameters of the callback that says the same, if it is an event of a message.
    message: Option<Form<'static>>,
    attempt: Option<String>,
    /// The error that it reports.
    pub alert: Option<Alert>,
    /// The whole event as JSON that PostgreSQL can store as `jsonb`. Of an unreadable event it is an object with the text in
    /// `data`. The request that an error is about is left out: it contains a signature, and texts and numbers of persons.
    pub json: String,
}

/// An error or a warning that Twilio logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its identifier, `NO…`.
    pub sid: String,
    /// `ERROR`, `WARNING` or another level, in upper case.
    pub level: String,
    /// Twilio's error code.
    pub error_code: Option<i32>,
    /// What it is about, such as a message's or a call's SID.
    pub resource_sid: Option<String>,
    /// The URL that Twilio called, without user information, query and fragment.
    pub url: Option<String>,
    /// The HTTP status that it was answered.
    pub http_status: Option<i32>,
    /// Twilio's wording.
    pub text: Option<String>,
}

impl Event {
    /// Reads all events of a JSON body: one event, or an array. Each is read by itself, so that one that cannot be read costs no
    /// other. A value that is not an event becomes an event of type [`UNREADABLE`], so that no signed data is lost.
    pub fn all(body: &[u8]) -> Vec<Self> {
        let Ok(text) = std::str::from_utf8(body) else {
            return vec![Self::unreadable(&String::from_utf8_lossy(body))];
        };
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(values) if values.len() <= MAX_EVENTS => values
                .iter()
                .map(|value| Self::parse(value.get()))
                .collect(),
            _ => vec![Self::parse(text)],
        }
    }

    fn parse(text: &str) -> Self {
        let value = serde_json::from_str(text)
            .or_else(|_| serde_json::from_str(&without_lone_surrogates(text)));
        match value.map(storable_json) {
            Ok(Value::Object(event)) => Self::read(event).unwrap_or_else(|| Self::unreadable(text)),
            _ => Self::unreadable(text),
        }
    }

    /// Reads a call of the debugger's webhook.
    pub fn of_debugger(form: &Form<'_>) -> Self {
        let given = |name| form.filled(name);
        let event = json!({
            "type": ERROR_LOGGED,
            "id": given("Sid"),
            "time": given("Timestamp"),
            "data": {
                "sid": given("Sid"),
                "account_sid": given("AccountSid"),
                "level": given("Level"),
                "date_created": given("Timestamp"),
                "payload": given("Payload"),
            },
        });
        Self::parse(&event.to_string())
    }

    fn read(mut event: Map<String, Value>) -> Option<Self> {
        let kind = text(&event, "type").filter(|kind| !kind.is_empty())?;
        let is_error = kind == ERROR_LOGGED;
        let payload = match event.get_mut("data").and_then(Value::as_object_mut) {
            Some(data) if is_error => data.remove("payload"),
            _ => None,
        };
        let none = Map::new();
        let data = (event.get("data").and_then(Value::as_object)).unwrap_or(&none);
        let mut message_sids = ["messageSid", "message_sid", "MessageSid"].iter();
        let time = |object, name| text(object, name).as_deref().and_then(date::parse_iso);
        // Each test event has the account's SID as its identifier.
        let id = match kind == TEST {
            true => short_text(data, "test_id", MAX_NAME_CHARS),
            false => short_text(&event, "id", MAX_NAME_CHARS),
        };
        Some(Self {
            id: id.filter(|id| !id.is_empty()),
            at: time(data, "timestamp").or_else(|| time(&event, "time")),
            account_sid: account(data),
            message_sid: message_sids
                .find_map(|name| text(data, name).filter(|sid| sid::is_message(sid))),
            message: is_of_message(&kind).then(|| parameters(&kind, data)),
            attempt: (text(data, "statusCallBackUrl").as_deref()).and_then(callback_url::attempt),
            alert: is_error.then(|| Alert::read(data, payload)).flatten(),
            json: serde_json::to_string(&event).unwrap_or_default(),
            kind: kind.chars().take(MAX_NAME_CHARS).collect(),
        })
    }

    /// What an error says of a request is not kept, since its signature is part of it.
    fn unreadable(text: &str) -> Self {
        let is_error = text.contains(ERROR_LOGGED);
        let data = (!is_error).then(|| storable(text));
        Self {
            id: None,
            kind: UNREADABLE.to_owned(),
            at: None,
            account_sid: None,
            message_sid: None,
            message: None,
            attempt: None,
            alert: None,
            json: json!({ "data": data }).to_string(),
        }
    }

    /// The attempt that a message of ours is about, from its `StatusCallback`.
    pub fn attempt(&self) -> Option<&str> {
        self.attempt.as_deref()
    }

    /// The parameters of the callback that says the same; none if the event is not about a message's state.
    pub fn parameters(&self) -> Option<&Form<'static>> {
        self.message.as_ref()
    }

    /// The event of a message as a callback; none if the event is not about a message's state.
    ///
    /// # Errors
    ///
    /// As [`Callback::parse`]; the form of an incoming message must be one of the event's type.
    pub fn callback(&self) -> Option<Result<Callback<'_>, Malformed>> {
        let form = self.message.as_ref()?;
        let wanted = match self.kind.starts_with(INBOUND) {
            true => Kind::Inbound,
            false => Kind::Status,
        };
        Some(
            Callback::parse(form).and_then(|callback| match callback.kind == wanted {
                true => Ok(callback),
                false => Err(Malformed::OutOfBounds("MessageStatus")),
            }),
        )
    }
}

impl Alert {
    /// Reads the data of an event; the payload is JSON, or text that holds JSON.
    fn read(data: &Map<String, Value>, payload: Option<Value>) -> Option<Self> {
        let payload = match payload {
            Some(Value::String(text)) => {
                serde_json::from_str(&text).map_or(Value::Null, storable_json)
            }
            payload => payload.unwrap_or_default(),
        };
        let none = Map::new();
        let at = |pointer| {
            let object = payload.pointer(pointer).and_then(Value::as_object);
            object.unwrap_or(&none)
        };
        let short =
            |object, name| short_text(object, name, MAX_TEXT_CHARS).filter(|text| !text.is_empty());
        Some(Self {
            sid: text(data, "sid").filter(|text| sid::is_sid(text, "NO"))?,
            level: (short_text(data, "level", MAX_NAME_CHARS).unwrap_or_default()).to_uppercase(),
            error_code: number(data, "error_code").or_else(|| number(at(""), "error_code")),
            resource_sid: short(at(""), "resource_sid").or_else(|| short(data, "correlation_sid")),
            url: short(at("/webhook/request"), "url").map(|url| without_secrets(&url)),
            http_status: number(at("/webhook/response"), "status_code"),
            text: (short(at("/more_info"), "msg")).or_else(|| short(at("/more_info"), "Msg")),
        })
    }
}

/// Whether a JSON body holds events: it is an array, or an object with a type.
pub fn has_events(body: &[u8]) -> bool {
    let is_array = body.trim_ascii_start().starts_with(b"[");
    is_array
        || first(body).is_some_and(|event| {
            let kind = text(&event, "type").unwrap_or_default();
            !kind.is_empty()
                && (event.contains_key("specversion") || kind.starts_with("com.twilio."))
        })
}

/// The account that the first event of a JSON body names. Only that event is read.
pub fn account_of(body: &[u8]) -> Option<String> {
    let event = first(body)?;
    account(event.get("data")?.as_object()?)
}

fn first(body: &[u8]) -> Option<Map<String, Value>> {
    let body = body.trim_ascii_start();
    let body = body.strip_prefix(b"[").unwrap_or(body);
    let mut values = serde_json::Deserializer::from_slice(body).into_iter();
    values.next()?.ok()
}

fn account(data: &Map<String, Value>) -> Option<String> {
    let mut names = ["accountSid", "account_sid", "AccountSid"].iter();
    names.find_map(|name| text(data, name).filter(|sid| sid::is_account(sid)))
}

fn is_of_message(kind: &str) -> bool {
    kind.starts_with(OUTBOUND) || kind.starts_with(INBOUND)
}

/// The members under the names that callbacks have: `messageSid` is `MessageSid`. Lists and objects stay JSON.
fn parameters(kind: &str, data: &Map<String, Value>) -> Form<'static> {
    let pairs = data.iter().take(MAX_PARAMETERS).map(|(name, value)| {
        let mut name: String = name.chars().take(MAX_NAME_CHARS).collect();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let value = match value {
            Value::String(text) if name == "MessageStatus" => text.to_lowercase(),
            Value::String(text) if name == "StatusCallBackUrl" => without_secrets(text),
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        (Cow::Owned(name), Cow::Owned(value))
    });
    let mut pairs: Vec<(Cow<'static, str>, Cow<'static, str>)> = pairs.collect();
    let is_inbound = kind.starts_with(INBOUND);
    if is_inbound {
        // Callbacks tell both kinds apart by it.
        pairs.retain(|(name, _)| name != "MessageStatus");
        pairs.push(("SmsStatus".into(), "received".into()));
    } else {
        // Callbacks do not contain the text of what was sent.
        pairs.retain(|(name, _)| name != "Body");
    }
    if !is_inbound
        && !pairs
            .iter()
            .any(|(name, value)| name == "MessageStatus" && !value.is_empty())
    {
        let status = kind.rsplit('.').next().unwrap_or_default().to_owned();
        pairs.push(("MessageStatus".into(), status.into()));
    }
    Form::from_pairs(pairs)
}

/// Replaces escapes of lone surrogates by U+FFFD. A text that was cut within a character ends with one.
fn without_lone_surrogates(json: &str) -> String {
    let surrogate = |at: usize| {
        let escape = json
            .get(at..at + 6)
            .filter(|text| text.starts_with("\\u"))?;
        (u16::from_str_radix(&escape[2..], 16).ok()).filter(|unit| (0xd800..0xe000).contains(unit))
    };
    let mut clean = String::with_capacity(json.len());
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        let start = at + found;
        clean.push_str(&json[at..start]);
        let is_pair = surrogate(start).is_some_and(|unit| unit < 0xdc00)
            && surrogate(start + 6).is_some_and(|unit| unit >= 0xdc00);
        let length = match surrogate(start) {
            Some(_) if is_pair => 12,
            Some(_) => 6,
            // An escape of two characters, of which the second may be a backslash.
            None => 1 + json[start + 1..].chars().next().map_or(0, char::len_utf8),
        };
        match surrogate(start).is_some() && !is_pair {
            true => clean.push_str("\\ufffd"),
            false => clean.push_str(&json[start..start + length]),
        }
        at = start + length;
    }
    clean.push_str(&json[at..]);
    clean
}

/// User information may be a password, and the query a token.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// The type of a signed value that is not an event.
pub const UNREADABLE: &str = "unreadable";
/// The type of an error or a warning that Twilio logged.
const ERROR_LOGGED: &str = "com.twilio.error-logs.error.logged";
/// The type of the event that tries a sink.
const TEST: &str = "com.twilio.eventstreams.test-event";
const OUTBOUND: &str = "com.twilio.messaging.message.";
const INBOUND: &str = "com.twilio.messaging.inbound-message.";
const MAX_NAME_CHARS: usize = 128;
const MAX_TEXT_CHARS: usize = 1024;
/// A megabyte holds fewer genuine events.
const MAX_EVENTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const MESSAGE: &str = "SM0123456789abcdef0123456789abcdef";

    fn event(kind: &str, data: &Value) -> Value {
        json!({
            "specversion": "1.0",
            "type": kind,
            "source": "/2010-04-01/Accounts/AC/Messages/SM.json",
            "id": "EZ0123456789abcdef0123456789abcdef",
            "time": "2026-11-30T12:00:01.000Z",
            "data": data,
        })
    }

    fn read(value: &Value) -> Event {
        let mut events = Event::all(value.to_string().as_bytes());
        assert_eq!(events.len(), 1);
        events.remove(0)
    }

    #[test]
    fn an_event_of_a_message_is_a_callback() {
        let event = read(&event(
            "com.twilio.messaging.message.undelivered",
            &json!({
                "messageSid": MESSAGE, "accountSid": ACCOUNT, "timestamp": "2026-11-30T12:00:00.250Z",
                "messageStatus": "UNDELIVERED", "errorCode": 30003, "from": "+12025550100", "to": "+12025550123",
                "tags": {"campaign": "a"}, "messagingServiceSid": null,
            }),
        ));
        assert_eq!(event.at, Some(1_796_040_000_250));
        assert_eq!(event.account_sid.as_deref(), Some(ACCOUNT));
        let callback = event.callback().unwrap().unwrap();
        assert_eq!(
            (callback.kind, callback.status),
            (Kind::Status, "undelivered")
        );
        assert_eq!(
            (callback.message_sid, callback.error_code),
            (MESSAGE, Some(30003))
        );
        assert_eq!(callback.to.as_deref(), Some("+12025550123"));
        let parameters = event.parameters().unwrap();
        assert_eq!(parameters.first("Tags"), Some(r#"{"campaign":"a"}"#));
        // The type says the status where the data do not.
        let bare = json!({"messageSid": MESSAGE, "accountSid": ACCOUNT, "errorCode": "0"});
        let event = read(&super::tests::event(
            "com.twilio.messaging.message.read",
            &bare,
        ));
        let callback = event.callback().unwrap().unwrap();
        assert_eq!((callback.status, callback.error_code), ("read", None));
    }

    #[test]
    fn an_incoming_message_is_one() {
        let event = read(&event(
            "com.twilio.messaging.inbound-message.received",
            &json!({
                "messageSid": MESSAGE, "accountSid": ACCOUNT, "from": "whatsapp:+1", "to": "whatsapp:+2",
                "body": "STOP\u{0}", "numMedia": 0, "recipients": ["+3"],
            }),
        ));
        let callback = event.callback().unwrap().unwrap();
        assert_eq!(
            (callback.kind, callback.channel),
            (Kind::Inbound, "whatsapp")
        );
        assert_eq!(callback.body.as_deref(), Some("STOP\u{fffd}"));
    }

    #[test]
    fn nothing_that_is_signed_is_lost() {
        for body in ["", "x", "[1", "1", "[2]", "{}", r#"{"type":""}"#, "[[]]"] {
            let events = Event::all(body.as_bytes());
            assert_eq!(events.len(), 1, "{body}");
            assert_eq!(events[0].kind, UNREADABLE, "{body}");
            assert!(
                serde_json::from_str::<Value>(&events[0].json).is_ok(),
                "{body}"
            );
        }
        assert_eq!(Event::all(b"[]"), []);
        assert_eq!(Event::all(b"\xff").len(), 1);
        let many = format!("[{}1]", "1,".repeat(MAX_EVENTS));
        assert_eq!(Event::all(many.as_bytes()).len(), 1);
        let other = read(&event("com.twilio.x", &json!({"message_sid": MESSAGE})));
        assert_eq!(other.message_sid.as_deref(), Some(MESSAGE));
        assert!(other.callback().is_none() && other.alert.is_none());
    }

    #[test]
    fn a_broken_event_costs_no_other() {
        let good = event(
            "com.twilio.messaging.message.sent",
            &json!({"messageSid": MESSAGE, "accountSid": ACCOUNT}),
        );
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let events = Event::all(format!("[{good}, 1e999, {deep}, {good}]").as_bytes());
        let readable: Vec<_> = events
            .iter()
            .map(|event| event.callback().is_some())
            .collect();
        assert_eq!(readable, [true, false, false, true]);
        // Half a character at the end of a text that was cut.
        for (text, expected) in [
            (r"cut \ud83d", "cut \u{fffd}"),
            (r"\udc00\ud83d\ude00 \\ud83d", "\u{fffd}😀 \\ud83d"),
        ] {
            let body = format!(
                r#"{{"type":"com.twilio.messaging.inbound-message.received","data":{{"messageSid":"{MESSAGE}","accountSid":"{ACCOUNT}","body":"{text}"}}}}"#
            );
            let events = Event::all(body.as_bytes());
            let callback = events[0].callback().unwrap().unwrap();
            assert_eq!(callback.body.as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_outgoing_message_has_neither_text_nor_secrets() {
        let attempt = "0198a5c5-7c3e-7f00-8000-000000000001";
        let url =
            format!("https://user:secret@hooks.example.com/status?attempt={attempt}&token=secret");
        let data = json!({"messageSid": MESSAGE, "accountSid": ACCOUNT, "body": "secret", "statusCallBackUrl": url});
        let event = read(&event("com.twilio.messaging.message.sent", &data));
        assert_eq!(event.attempt(), Some(attempt));
        let parameters = event.parameters().unwrap();
        assert_eq!(
            parameters.first("StatusCallBackUrl"),
            Some("https://hooks.example.com/status")
        );
        assert!(
            parameters
                .iter()
                .all(|(_, value)| !value.contains("secret"))
        );
    }

    #[test]
    fn an_error_is_the_same_by_event_and_by_webhook() {
        let payload = json!({
            "resource_sid": MESSAGE, "error_code": "11200", "more_info": {"msg": "Bad Gateway"},
            "webhook": {
                "request": {
                    "url": "https://user:secret@hooks.example.com/twilio/status?token=secret#rc=3", "method": "POST",
                    "headers": {"X-Twilio-Signature": "secret"}, "parameters": {"To": "+12025550123"},
                },
                "response": {"status_code": 502, "body": "secret"},
            },
        });
        let sid = "NO0123456789abcdef0123456789abcdef";
        let data = json!({
            "sid": sid, "account_sid": ACCOUNT, "level": "error", "error_code": "11200", "payload": payload.to_string(),
        });
        let streamed = read(&event(ERROR_LOGGED, &data));
        let form = serde_urlencoded::to_string([
            ("AccountSid", ACCOUNT),
            ("Sid", sid),
            ("Level", "Error"),
            ("PayloadType", "application/json"),
            ("Timestamp", "2026-11-30T12:00:00Z"),
            ("Payload", &payload.to_string()),
        ])
        .unwrap();
        let called = Event::of_debugger(&Form::parse(form.as_bytes()));
        let alert = called.alert.clone().unwrap();
        assert_eq!(streamed.alert.as_ref(), Some(&alert));
        assert_eq!(
            alert.url.as_deref(),
            Some("https://hooks.example.com/twilio/status")
        );
        assert_eq!(
            (alert.error_code, alert.http_status),
            (Some(11200), Some(502))
        );
        assert_eq!(
            (alert.level.as_str(), alert.text.as_deref()),
            ("ERROR", Some("Bad Gateway"))
        );
        assert_eq!(called.account_sid.as_deref(), Some(ACCOUNT));
        for event in [streamed, called] {
            assert!(!event.json.contains("secret") && !event.json.contains("+12025550123"));
        }
    }

    #[test]
    fn finds_the_account_in_either_spelling() {
        let events = [
            format!(
                r#"[{{"specversion":"1.0","type":"com.twilio.messaging.message.delivered","source":"/x","id":"EZ1","data":{{"accountSid":"{ACCOUNT}","parts":[1]}}}},{{"broken"]"#
            ),
            format!(
                r#" {{"specversion":"1.0","type":"com.twilio.x","data":{{"account_sid":"{ACCOUNT}"}}}}"#
            ),
        ];
        for body in &events {
            assert_eq!(
                account_of(body.as_bytes()).as_deref(),
                Some(ACCOUNT),
                "{body}"
            );
        }
        for nameless in [
            r#"{"specversion":"1.0","type":"com.twilio.x"}"#,
            r#"{"type":"com.twilio.x","data":null}"#,
            r#"{"specversion":"1.0","type":"org.example.x","data":{"accountSid":7}}"#,
            " [",
            "[]",
            "[[]]",
        ] {
            assert!(has_events(nameless.as_bytes()), "{nameless}");
            assert_eq!(account_of(nameless.as_bytes()), None, "{nameless}");
        }
        for body in [
            "",
            "{}",
            "1",
            r#"{"type":"factor.verified"}"#,
            r#"{"specversion":"1.0"}"#,
        ] {
            assert!(!has_events(body.as_bytes()), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for event in Event::all(&body) {
                let _ = event.callback();
            }
            let _ = account_of(&body);
            let _ = Event::of_debugger(&Form::parse(&body));
        }
    }
}
