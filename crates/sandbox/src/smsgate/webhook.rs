//! Webhooks: registered at the server, called and signed by the phones.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use serde_json::{Value, json};

use super::Refused;
use super::message::hex;
use super::phone::Phone;
use super::token::sign;
use crate::clock::Moment;
use crate::delivery::{Failure, Limits, Received};
use crate::random::Generator;
use crate::record::{Attempt, Body, Called};
use crate::sandbox::Sandbox;
use crate::target::{Target, Targets};

/// A registration: one event goes to one URL.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub(crate) id: String,
    url: String,
    event: &'static str,
    device_id: Option<String>,
}

/// Something that happened at a phone.
pub(crate) struct Event {
    pub(crate) name: &'static str,
    /// The message that it is about.
    pub(crate) id: String,
    pub(crate) payload: Value,
}

impl Webhook {
    /// Checks a registration as the server does.
    pub(crate) fn check(
        body: &Value,
        targets: &Targets,
        random: &mut Generator,
    ) -> Result<Self, Refused> {
        let bad = |text: &str| Refused::new(400, text);
        let url = body["url"].as_str().filter(|url| url.len() <= 256);
        let url = url.ok_or_else(|| bad("url is required and has at most 256 characters"))?;
        // The real server takes https only; a phone on its own also http to itself.
        let is_local = url.starts_with("http://") && targets.find(url).is_ok();
        if !url.starts_with("https://") && !is_local {
            return Err(bad("url must start with https://"));
        }
        let event = body["event"].as_str().and_then(event_name);
        let id = match &body["id"] {
            Value::Null => random.nanoid(21),
            id => {
                let id = id.as_str().filter(|id| (1..=36).contains(&id.len()));
                id.ok_or_else(|| bad("id has 1 to 36 characters"))?
                    .to_owned()
            }
        };
        Ok(Self {
            id,
            url: url.to_owned(),
            event: event.ok_or_else(|| bad("event is not known"))?,
            device_id: body["deviceId"].as_str().map(str::to_owned),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut json = json!({ "id": self.id, "url": self.url, "event": self.event });
        if let Some(device_id) = &self.device_id {
            json["deviceId"] = device_id.clone().into();
        }
        json
    }

    fn wants(&self, event: &Event, phone: &Phone) -> bool {
        self.event == event.name && self.device_id.as_ref().is_none_or(|id| *id == phone.id)
    }
}

/// Calls every webhook registered for `event`, one after the other, as phones do.
pub(crate) fn emit(sandbox: &Arc<Sandbox>, phone: &Arc<Phone>, event: &Event) {
    let Some(gateway) = &sandbox.gateway else {
        return;
    };
    let webhooks = gateway.state().webhooks.clone();
    for webhook in webhooks
        .into_iter()
        .filter(|webhook| webhook.wants(event, phone))
    {
        let body = json!({
            "id": sandbox.random().nanoid(21),
            "webhookId": webhook.id,
            "event": event.name,
            "deviceId": phone.id,
            "payload": event.payload,
        });
        let call = Call {
            id: event.id.clone(),
            event: event.name,
            to: event.payload["recipient"].as_str().map(str::to_owned),
            url: webhook.url,
            body,
        };
        tokio::spawn(deliver(sandbox.clone(), phone.clone(), call, gateway.retry));
    }
}

struct Call {
    id: String,
    event: &'static str,
    to: Option<String>,
    url: String,
    body: Value,
}

/// Calls until the response is 2xx, with growing pauses, as the app does.
async fn deliver(sandbox: Arc<Sandbox>, phone: Arc<Phone>, call: Call, retry: Duration) {
    let text = Bytes::from(call.body.to_string());
    for tries in 0..=RETRIES {
        let result = {
            let _turn = phone.line.lock().await;
            attempt(&sandbox, &phone, &call, &text).await
        };
        if result.is_none_or(|received| (200..300).contains(&received.status)) {
            return;
        }
        tokio::time::sleep(retry.saturating_mul(1 << tries)).await;
    }
}

/// One call, recorded. `None` if it may not be made at all.
async fn attempt(sandbox: &Sandbox, phone: &Phone, call: &Call, text: &Bytes) -> Option<Received> {
    let mut called = Called {
        id: call.id.clone(),
        status: call.event,
        to: call.to.clone(),
        url: call.url.clone(),
        body: Body::Json(text.as_ref().into()),
        unknown_overrides: Vec::new(),
        refused: None,
        attempts: Vec::new(),
    };
    let result = match sandbox.targets.find(&call.url) {
        Ok(target) => {
            let at = Moment::now();
            let limits = Limits {
                connect: Duration::from_secs(5),
                read: Duration::from_secs(5),
            };
            let result = match request(phone, &target, text, at) {
                Ok(request) => {
                    sandbox
                        .client
                        .exchange(target.address, request, limits)
                        .await
                }
                Err(error) => Err(Failure::Connect(error.to_string())),
            };
            called.attempts.push(Attempt::new(at, &result));
            Some(result.unwrap_or(UNANSWERED))
        }
        Err(reason) => {
            called.refused = Some(reason);
            None
        }
    };
    sandbox.record_call(called);
    result
}

/// The timestamp is fresh and signed with the body, so every try has a signature of its own.
fn request(
    phone: &Phone,
    target: &Target,
    text: &Bytes,
    now: Moment,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let timestamp = (now.0 / 1_000_000 + phone.clock_skew()).to_string();
    Request::post(&target.path)
        .header(HOST, &target.host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "me.capcom.smsgateway/1.60.0")
        .header(
            "x-signature",
            signature(phone.key.as_bytes(), text, &timestamp),
        )
        .header("x-timestamp", timestamp)
        .body(Full::new(text.clone()))
}

fn signature(key: &[u8], body: &[u8], timestamp: &str) -> String {
    hex(&sign(key, &[body, timestamp.as_bytes()]))
}

fn event_name(name: &str) -> Option<&'static str> {
    EVENTS.into_iter().find(|event| *event == name)
}

const RETRIES: u32 = 15;
const UNANSWERED: Received = Received {
    status: 0,
    content_type: None,
    asks_for_user: false,
    body: Bytes::new(),
};

const EVENTS: [&str; 14] = [
    "sms:received",
    "sms:data-received",
    "sms:sent",
    "sms:delivered",
    "sms:failed",
    "sms:cancelled",
    "mms:received",
    "mms:downloaded",
    "system:ping",
    "app:started",
    "sms:batch:received",
    "sms:batch:data-received",
    "mms:batch:received",
    "mms:batch:downloaded",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_app_does() {
        let body = br#"{"event":"sms:received","payload":{"message":"Hello"}}"#;
        assert_eq!(
            signature(b"my-secret-key", body, "1700000000"),
            "f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea"
        );
    }

    #[test]
    fn registrations_need_https_and_a_known_event() {
        let targets = Targets::new(&[]).unwrap();
        let check = |url: &str, event: &str| {
            let body = json!({ "url": url, "event": event });
            Webhook::check(&body, &targets, &mut Generator::new(1)).is_ok()
        };
        assert!(check("https://a.example/x", "sms:sent"));
        assert!(check("http://127.0.0.1:1/x", "sms:sent"));
        assert!(!check("http://a.example/x", "sms:sent"));
        assert!(!check("https://a.example/x", "sms:eaten"));
    }
}
