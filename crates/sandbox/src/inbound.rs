//! Inbound messages: calls the user's webhook as Twilio does, and shows its response.
//!
//! <https://www.twilio.com/docs/messaging/guides/webhook-request>

use std::sync::Arc;

use hyper::Method;
use protocol::address::Address;
use serde_json::{Value, json};

use crate::answer::{Answer, error};
use crate::callback::{self, Call};
use crate::clock::Moment;
use crate::debugger;
use crate::delivery::Received;
use crate::events;
use crate::http_request::HttpRequest;
use crate::message::{API_VERSION, Media, Message, Status, segments};
use crate::record::{Called, Problem, RETRIEVAL_FAILURE};
use crate::sandbox::Sandbox;

/// Answers `POST /_inbound`, a form or a JSON object with From, To, Body, MediaUrl, url, method, recipient and any
/// further parameters of the webhook.
pub(crate) async fn answer(sandbox: &Arc<Sandbox>, request: &HttpRequest) -> Answer {
    if request.head.method != Method::POST {
        return error(405, "method not allowed");
    }
    let inbound = match Inbound::read(request) {
        Ok(inbound) => inbound,
        Err(reason) => return error(400, &reason),
    };
    let message = inbound.message(sandbox);
    let parameters = inbound.parameters(&message);
    inbound.note_keyword(sandbox);
    sandbox.store().insert(message.clone());
    events::inbound(sandbox, &message, &inbound.recipients, &inbound.extra);
    let call = Call::inbound(&message, &inbound.url, inbound.method.clone(), parameters);
    let (called, received) = callback::send(sandbox, &call).await;
    if let Some(reason) = called.refused {
        return error(400, &reason);
    }
    let problem = problem(&called, received.as_ref());
    if let Some(problem) = problem {
        debugger::report(sandbox, &call, problem, received.as_ref());
    }
    Answer::json(200, &shown(&message, problem, received.as_ref()))
}

struct Inbound {
    url: String,
    method: Method,
    from: String,
    to: String,
    body: String,
    media: Vec<String>,
    /// The members of a group, which only Event Streams name.
    recipients: Vec<String>,
    /// The host under which the sandbox was called.
    host: String,
    extra: Vec<(String, String)>,
}

impl Inbound {
    fn read(request: &HttpRequest) -> Result<Self, String> {
        let mut inbound = Self {
            url: String::new(),
            method: Method::POST,
            from: String::new(),
            to: String::new(),
            body: String::new(),
            media: Vec::new(),
            recipients: Vec::new(),
            host: request.host().to_owned(),
            extra: Vec::new(),
        };
        for (name, value) in request.fields()? {
            match name.as_str() {
                "url" => inbound.url = value,
                "method" if value == "GET" => inbound.method = Method::GET,
                "method" if value == "POST" => {}
                "method" => return Err(format!("method {value} is neither GET nor POST")),
                "From" => inbound.from = value,
                "To" => inbound.to = value,
                "Body" => inbound.body = value,
                "MediaUrl" => inbound.media.push(value),
                "recipient" => inbound.recipients.push(value),
                _ => inbound.extra.push((name, value)),
            }
        }
        if inbound.url.is_empty() {
            return Err("url is missing".to_owned());
        }
        for (name, address) in [("From", &inbound.from), ("To", &inbound.to)] {
            Address::parse(address).map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(inbound)
    }

    /// STOP and similar keywords opt a recipient out of a sender's messages, START and similar ones opt it in.
    /// <https://help.twilio.com/articles/223134027>
    fn note_keyword(&self, sandbox: &Sandbox) {
        let service = self
            .extra
            .iter()
            .find(|(name, _)| name == "MessagingServiceSid");
        let sender = service.map_or(self.to.as_str(), |(_, sid)| sid);
        let word = self.body.trim().to_ascii_uppercase();
        if STOP.contains(&word.as_str()) {
            sandbox.store().set_opted_out(&self.from, sender, true);
        } else if START.contains(&word.as_str()) {
            sandbox.store().set_opted_out(&self.from, sender, false);
        }
    }

    fn message(&self, sandbox: &Sandbox) -> Message {
        let now = Moment::now();
        let channel = protocol::address::channel(Some(&self.from), Some(&self.to));
        let service = self
            .extra
            .iter()
            .find(|(name, _)| name == "MessagingServiceSid");
        let mut random = sandbox.random();
        Message {
            number: 0,
            sid: random.sid(if self.media.is_empty() { "SM" } else { "MM" }),
            account_sid: sandbox.accounts.first_sid().to_owned(),
            direction: "inbound",
            from: Some(self.from.clone()),
            to: self.to.clone(),
            service: service.map(|(_, sid)| sid.clone()),
            segments: segments(channel, &self.body),
            body: self.body.clone(),
            media: self
                .media
                .iter()
                .map(|url| Media::new(random.sid("ME"), url))
                .collect(),
            status: Status::Received,
            error: None,
            created: now,
            updated: now,
            sent: Some(now),
            price: None,
            callback: None,
            has_feedback: false,
        }
    }

    /// The webhook's parameters; those given explicitly replace or follow the usual ones.
    fn parameters(&self, message: &Message) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> = [
            ("ToCountry", ""),
            ("ToState", ""),
            ("SmsMessageSid", &message.sid),
            ("NumMedia", &self.media.len().to_string()),
            ("ToCity", ""),
            ("FromZip", ""),
            ("SmsSid", &message.sid),
            ("FromState", ""),
            ("SmsStatus", "received"),
            ("FromCity", ""),
            ("Body", &self.body),
            ("FromCountry", ""),
            ("To", &self.to),
            ("ToZip", ""),
            ("NumSegments", &message.segments.to_string()),
            ("MessageSid", &message.sid),
            ("AccountSid", &message.account_sid),
            ("From", &self.from),
            ("ApiVersion", API_VERSION),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if message.channel() == "whatsapp" {
            // The geography of numbers is known for SMS only.
            list.retain(|(name, value)| !value.is_empty() || name == "Body");
            let digits: String = self.from.chars().filter(char::is_ascii_digit).collect();
            list.push(("WaId".to_owned(), digits));
        }
        for (index, media) in message.media.iter().enumerate() {
            list.push((
                format!("MediaContentType{index}"),
                media.content_type.to_owned(),
            ));
            let url = format!("http://{}{}/Media/{}", self.host, message.uri(), media.sid);
            list.push((format!("MediaUrl{index}"), url));
        }
        for (name, value) in &self.extra {
            list.retain(|(usual, _)| usual != name);
            list.push((name.clone(), value.clone()));
        }
        list
    }
}

fn shown(message: &Message, problem: Option<Problem>, received: Option<&Received>) -> Value {
    let content_type = received.and_then(|r| r.content_type.as_deref());
    let is_text = content_type.map(essence) == Some("text/plain");
    let note = is_text.then(|| "the text would be sent to the sender as a message".to_owned());
    json!({
        "sid": message.sid,
        "status": received.map(|r| r.status),
        "content_type": content_type,
        "body": received.map(|r| String::from_utf8_lossy(&r.body)),
        "problem": problem.map(|(code, name)| format!("{code} {name}")).or(note),
    })
}

/// What Twilio's debugger reports about a webhook's answer.
fn problem(called: &Called, received: Option<&Received>) -> Option<Problem> {
    let received = match (called.problem(), received) {
        (Some(problem), _) => return Some(problem),
        (None, received) => received?,
    };
    let content_type = received.content_type.as_deref().unwrap_or_default();
    if content_type.is_empty() && !received.body.is_empty() {
        Some(RETRIEVAL_FAILURE)
    } else if received.body.len() > 64 * 1024 {
        Some((11750, "TwiML response body too large"))
    } else if received.status != 204 && !TWIML_TYPES.contains(&essence(content_type)) {
        Some((12300, "invalid Content-Type"))
    } else {
        None
    }
}

/// A media type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

const STOP: [&str; 8] = [
    "STOP",
    "UNSUBSCRIBE",
    "END",
    "QUIT",
    "STOPALL",
    "REVOKE",
    "OPTOUT",
    "CANCEL",
];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];
const TWIML_TYPES: [&str; 4] = ["text/xml", "application/xml", "text/html", "text/plain"];
