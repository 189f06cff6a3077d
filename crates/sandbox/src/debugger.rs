//! Twilio's debugger: alerts about webhooks that could not be reached.
//!
//! <https://www.twilio.com/docs/usage/troubleshooting/debugging-event-webhooks>

use std::sync::{Arc, Mutex, MutexGuard};

use hyper::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, error};
use crate::callback::{self, Call};
use crate::clock::Moment;
use crate::delivery::Received;
use crate::events;
use crate::record::Problem;
use crate::sandbox::{Sandbox, lock};

/// The URL of the debugger's webhook, and how many alerts there were.
pub(crate) struct Debugger {
    state: Mutex<(Option<String>, u64)>,
}

/// Something that the debugger reports.
pub(crate) struct Alert {
    pub(crate) account_sid: String,
    pub(crate) code: u32,
    pub(crate) level: String,
    /// The message that it is about.
    pub(crate) resource_sid: String,
    service_sid: Option<String>,
    text: String,
    url: String,
    method: Method,
    parameters: Value,
    answer: Option<(u16, String)>,
}

impl Debugger {
    pub(crate) fn new(url: Option<&str>) -> Self {
        Self {
            state: Mutex::new((url.map(str::to_owned), 0)),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let (url, alerts) = &*self.state();
        json!({ "url": url, "alerts": alerts })
    }

    fn state(&self) -> MutexGuard<'_, (Option<String>, u64)> {
        lock(&self.state)
    }
}

/// Answers `POST /_debugger`: `url` sets the URL, an empty one none; `code` raises alerts, `count` of them.
pub(crate) fn answer(sandbox: &Arc<Sandbox>, fields: &[(String, String)]) -> Answer {
    let mut alert = Alert {
        account_sid: sandbox.accounts.first_sid().to_owned(),
        code: 0,
        level: "ERROR".to_owned(),
        resource_sid: sandbox.random().sid("SM"),
        service_sid: None,
        text: "raised by hand".to_owned(),
        url: String::new(),
        method: Method::POST,
        parameters: json!({}),
        answer: None,
    };
    let mut count: u32 = 1;
    for (name, value) in fields {
        let bad = || error(400, &format!("{name} {value} is not understood"));
        match name.as_str() {
            "url" => {
                sandbox.debugger.state().0 = Some(value.clone()).filter(|url| !url.is_empty());
            }
            "code" => match value.parse() {
                Ok(code) => alert.code = code,
                Err(_) => return bad(),
            },
            "count" => match value.parse() {
                Ok(number) => count = number,
                Err(_) => return bad(),
            },
            "level" => alert.level = value.clone(),
            "text" => alert.text = value.clone(),
            "webhook" => alert.url = value.clone(),
            "resource" => alert.resource_sid = value.clone(),
            _ => return bad(),
        }
    }
    if alert.code != 0 {
        (0..count).for_each(|_| raise(sandbox, &alert));
    }
    Answer::json(200, &sandbox.debugger.to_json())
}

/// Raises an alert about a webhook that was called in vain.
pub(crate) fn report(
    sandbox: &Arc<Sandbox>,
    call: &Call,
    (code, name): Problem,
    received: Option<&Received>,
) {
    let mut service = call.parameters.iter();
    let service = service.find(|(name, _)| name == "MessagingServiceSid");
    let text = match received {
        Some(received) => format!("Got HTTP {} response to {}", received.status, call.url),
        None => format!("{name} at {}", call.url),
    };
    let parameters = call.parameters.iter();
    let alert = Alert {
        account_sid: call.account_sid.clone(),
        code,
        level: "ERROR".to_owned(),
        resource_sid: call.sid.clone(),
        service_sid: service.map(|(_, sid)| sid.clone()),
        text,
        url: call.url.clone(),
        method: call.method.clone(),
        parameters: parameters
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        answer: received.map(|r| (r.status, String::from_utf8_lossy(&r.body).into_owned())),
    };
    raise(sandbox, &alert);
}

/// Tells sinks and the debugger's webhook. A call of that webhook that fails raises no alert.
fn raise(sandbox: &Arc<Sandbox>, alert: &Alert) {
    let (sid, now) = (sandbox.random().sid("NO"), Moment::now());
    let payload = alert.payload().to_string();
    events::alert(sandbox, alert, (&sid, now), &payload);
    let url = {
        let mut state = sandbox.debugger.state();
        state.1 += 1;
        state.0.clone()
    };
    let Some(url) = url else { return };
    let parameters = [
        ("AccountSid", alert.account_sid.clone()),
        ("Level", alert.level.clone()),
        // Empty unless the account is a subaccount.
        ("ParentAccountSid", String::new()),
        ("Payload", payload),
        ("PayloadType", "application/json".to_owned()),
        ("Sid", sid.clone()),
        ("Timestamp", now.millis()),
    ];
    let call = Call {
        account_sid: alert.account_sid.clone(),
        sid,
        status: "alert",
        url,
        method: Method::POST,
        content_type: "application/x-www-form-urlencoded; charset=utf-8",
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
    };
    let sandbox = sandbox.clone();
    tokio::spawn(async move { callback::send(&sandbox, &call).await });
}

impl Alert {
    /// What the debugger says about it, as captured from Twilio.
    fn payload(&self) -> Value {
        let code = self.code.to_string();
        let (status, body) = self.answer.as_ref().map_or((None, None), |(status, body)| {
            (Some(status), Some(body.as_str()))
        });
        json!({
            "resource_sid": self.resource_sid,
            "service_sid": self.service_sid,
            "error_code": code,
            "more_info": {
                "Msg": self.text,
                "sourceComponent": "14100",
                "ErrorCode": code,
                "httpResponse": status.map(u16::to_string),
                "LogLevel": self.level,
                "url": self.url,
            },
            "webhook": {
                "type": "application/json",
                "request": {
                    "url": self.url,
                    "method": self.method.as_str(),
                    "headers": {},
                    "parameters": self.parameters,
                },
                "response": { "status_code": status, "headers": {}, "body": body },
            },
        })
    }
}
