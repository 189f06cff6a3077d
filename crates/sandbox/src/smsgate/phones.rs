//! The sandbox's own endpoints for phones and their gateway: `/_phones`, `/_sent` and `/_tokens`.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};

use super::Gateway;
use super::message::{State, hex};
use super::phone::{self, Phone};
use super::token::sign;
use super::webhook::{self, Event};
use crate::answer::{Answer, error};
use crate::http_request::HttpRequest;
use crate::sandbox::Sandbox;

/// Starts all phones.
pub(crate) fn start(sandbox: &Arc<Sandbox>) {
    for phone in sandbox.gateway.iter().flat_map(|gateway| &gateway.phones) {
        tokio::spawn(phone::work(sandbox.clone(), phone.clone()));
    }
}

/// Answers `/_phones`, `/_phones/ID`, `/_sent` and `/_tokens`.
pub(crate) fn answer(sandbox: &Arc<Sandbox>, request: &HttpRequest) -> Answer {
    let Some(gateway) = &sandbox.gateway else {
        return error(
            404,
            "there is no gateway: give --smsgate-user and --smsgate-password",
        );
    };
    let segments: Vec<&str> = request.head.uri.path().split('/').skip(1).collect();
    match (&request.head.method, segments.as_slice()) {
        (&Method::GET, ["_phones"]) => Answer::json(200, &list(gateway)),
        (&Method::GET, ["_sent"]) => Answer::json(200, &sent(gateway, request)),
        (&Method::DELETE, ["_tokens"]) => {
            gateway.state().tokens.revoke_all();
            Answer::empty(204)
        }
        (&Method::POST, ["_phones", id]) => match gateway.phone(id) {
            Some(phone) => change(sandbox, phone, request),
            None => error(404, "no such phone"),
        },
        _ => error(405, "method not allowed"),
    }
}

fn list(gateway: &Gateway) -> Value {
    let phones: Vec<Value> = gateway
        .phones
        .iter()
        .map(|phone| shown(gateway, phone))
        .collect();
    json!({ "count": phones.len(), "phones": phones })
}

fn shown(gateway: &Gateway, phone: &Phone) -> Value {
    let state = gateway.state();
    let own = || {
        state
            .messages
            .values()
            .filter(|sms| sms.device_id == phone.id)
    };
    json!({
        "id": phone.id,
        "number": phone.number,
        "online": phone.is_online(),
        "removed": phone.is_removed(),
        "clock_skew": phone.clock_skew(),
        // A real phone shows its key on its screen; one that was given stays a secret.
        "signing_key": phone.is_key_own.then_some(&phone.key),
        "messages": own().count(),
        "pending": own().filter(|sms| sms.state() == State::Pending).count(),
    })
}

fn sent(gateway: &Gateway, request: &HttpRequest) -> Value {
    let query = request.query();
    let (to, id) = (query.filled("to"), query.filled("id"));
    let state = gateway.state();
    let wanted = state
        .sent
        .iter()
        .filter(|sent| to.is_none_or(|to| to == sent.to) && id.is_none_or(|id| id == sent.id));
    let list: Vec<Value> = wanted
        .map(|sent| {
            json!({
                "sent_at": sent.at.rfc3339(),
                "sent_us": sent.at.0,
                "device": sent.device_id,
                "id": sent.id,
                "to": sent.to,
                "text": sent.text,
                "parts": sent.parts,
            })
        })
        .collect();
    json!({ "count": list.len(), "sent": list })
}

/// Fields: `online`, `clock_skew` in seconds, or `From` and `Body` of an incoming text.
fn change(sandbox: &Arc<Sandbox>, phone: &Arc<Phone>, request: &HttpRequest) -> Answer {
    let fields = match request.fields() {
        Ok(fields) => fields,
        Err(reason) => return error(400, &reason),
    };
    let (mut from, mut body) = (None, None);
    for (name, value) in &fields {
        let is_understood = match name.as_str() {
            "online" => value
                .parse()
                .map(|is_online| phone.set_online(is_online))
                .is_ok(),
            "clock_skew" => {
                // A day either way is more than any phone is wrong by.
                let seconds = value
                    .parse()
                    .ok()
                    .filter(|s| (-86_400..=86_400).contains(s));
                seconds
                    .map(|seconds| phone.set_clock_skew(seconds))
                    .is_some()
            }
            "From" => from.replace(value).is_none(),
            "Body" => body.replace(value).is_none(),
            _ => false,
        };
        if !is_understood {
            return error(400, &format!("{name} {value} is not understood"));
        }
    }
    if let (Some(from), Some(body)) = (from, body) {
        receive(sandbox, phone, from, body);
    }
    match &sandbox.gateway {
        Some(gateway) => Answer::json(200, &shown(gateway, phone)),
        None => error(404, "there is no gateway"),
    }
}

fn receive(sandbox: &Arc<Sandbox>, phone: &Arc<Phone>, from: &str, body: &str) {
    // The app's id is a short hash of the content.
    let id = hex(&sign(b"", &[from.as_bytes(), body.as_bytes()])[..4]);
    let payload = json!({
        "messageId": id,
        "message": body,
        "sender": from,
        "recipient": phone.number,
        "phoneNumber": from,
        "simNumber": 1,
        "receivedAt": phone.time(),
    });
    webhook::emit(
        sandbox,
        phone,
        &Event {
            name: "sms:received",
            id,
            payload,
        },
    );
}
