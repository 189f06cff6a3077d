//! A client of the sandbox's SMSGate API.

use serde_json::{Value, json};

use super::{Response, Sandbox, basic};

pub(crate) const MESSAGES: &str = "/3rdparty/v1/messages";
pub(crate) const OPTIONS: &[&str] = &[
    "--smsgate-user",
    "u",
    "--smsgate-password",
    "p:w",
    "--device",
    "first:key one",
    "--device",
    "second:key two",
    "--smsgate-retry",
    "20",
];

pub(crate) fn user() -> String {
    basic("u", "p:w")
}

pub(crate) fn post(sandbox: &Sandbox, path: &str, body: &Value) -> Response {
    sandbox.json("POST", path, &user(), body).unwrap()
}

pub(crate) fn message(to: &str, id: &str) -> Value {
    json!({ "id": id, "deviceId": "first", "phoneNumbers": [to], "textMessage": { "text": "hé 🙂" } })
}

pub(crate) fn register(sandbox: &Sandbox) {
    for event in [
        "sms:sent",
        "sms:delivered",
        "sms:failed",
        "sms:cancelled",
        "sms:received",
    ] {
        let body =
            json!({ "id": event, "url": "https://hooks.example.com/smsgate", "event": event });
        assert_eq!(post(sandbox, "/3rdparty/v1/webhooks", &body).status, 201);
    }
}
