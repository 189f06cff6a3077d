//! Callbacks to a user's webhook, as Twilio sends them.
//!
//! <https://www.twilio.com/docs/usage/webhooks>

use std::sync::{Arc, Once};

use hyper::Method;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::Moment;
use crate::debugger;
use crate::delivery::{Failure, Limits, Received};
use crate::fault::Scope;
use crate::message::{API_VERSION, Message, Status};
use crate::outcome::Disruption;
use crate::overrides::Overrides;
use crate::record::{Attempt, Body, Called};
use crate::sandbox::Sandbox;
use crate::signed::Signed;

/// The status that a callback reports, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) status: &'static str,
    pub(crate) error: Option<u32>,
    pub(crate) times: u8,
    pub(crate) is_novel: bool,
}

/// A call to be made.
pub(crate) struct Call {
    pub(crate) account_sid: String,
    pub(crate) sid: String,
    pub(crate) status: &'static str,
    /// The URL as given, with its fragment.
    pub(crate) url: String,
    pub(crate) method: Method,
    pub(crate) content_type: &'static str,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Call {
    /// The record of this call, without tries yet.
    fn record(&self, unknown_overrides: Vec<String>) -> Called {
        let encoded = serde_urlencoded::to_string(&self.parameters).unwrap_or_default();
        Called {
            id: self.sid.clone(),
            status: self.status,
            to: self
                .parameters
                .iter()
                .find(|(name, _)| name == "To")
                .map(|(_, to)| to.clone()),
            url: self.url.clone(),
            body: Body::Form(encoded.into_bytes().into()),
            unknown_overrides,
            refused: None,
            attempts: Vec::new(),
        }
    }
}

/// The callback that reports a status, if the message has a URL for callbacks.
pub(crate) fn status(sandbox: &Sandbox, message: &Message, report: &Report) -> Option<Call> {
    let url = message.callback.clone()?;
    Some(Call {
        account_sid: message.account_sid.clone(),
        sid: message.sid.clone(),
        status: report.status,
        url,
        method: Method::POST,
        content_type: "application/x-www-form-urlencoded; charset=utf-8",
        parameters: parameters(sandbox, message, report),
    })
}

/// Makes a status callback about a message to `to` once `previous` is over, unless a fault applies. Returns what
/// the next callback of the message waits for: they leave one after the other, and its statuses do not wait for them.
pub(crate) fn report(
    sandbox: &Arc<Sandbox>,
    call: Call,
    to: &str,
    previous: Option<JoinHandle<()>>,
) -> Option<JoinHandle<()>> {
    let fault = sandbox.disruption(Scope::Callback, to);
    if fault == Some(Disruption::Drop) {
        let mut called = call.record(Vec::new());
        called.refused = Some("dropped".to_owned());
        sandbox.record_call(called);
        return previous;
    }
    let sandbox = sandbox.clone();
    if fault == Some(Disruption::Late) {
        tokio::spawn(async move {
            tokio::time::sleep(sandbox.late_delay).await;
            send_status(&sandbox, &call).await;
        });
        return previous;
    }
    let times = if fault == Some(Disruption::Repeated) {
        3
    } else {
        1
    };
    Some(tokio::spawn(async move {
        if let Some(previous) = previous {
            let _ = previous.await;
        }
        for _ in 0..times {
            send_status(&sandbox, &call).await;
        }
    }))
}

async fn send_status(sandbox: &Arc<Sandbox>, call: &Call) {
    let (called, received) = send(sandbox, call).await;
    if let Some(problem) = called.problem() {
        debugger::report(sandbox, call, problem, received.as_ref());
    }
}

/// Sends the callback, retries as the URL's fragment says, and records everything. Returns the last response.
pub(crate) async fn send(sandbox: &Sandbox, call: &Call) -> (Called, Option<Received>) {
    let (_, fragment) = call.url.split_once('#').unwrap_or((&call.url, ""));
    let (overrides, unknown) = Overrides::parse(fragment);
    let mut called = call.record(unknown);
    let mut received = None;
    match sandbox.targets.find(&call.url) {
        Ok(target) => {
            let signed = Signed::form(sandbox, call, target);
            received = attempts(sandbox, &signed, &overrides, &mut called).await;
        }
        Err(reason) => {
            // Printed once: a full pipe that is not read would block the sandbox.
            COMPLAINT.call_once(|| eprintln!("twilio-sandbox: callback not sent: {reason}"));
            called.refused = Some(reason);
        }
    }
    sandbox.record_call(called.clone());
    (called, received)
}

async fn attempts(
    sandbox: &Sandbox,
    signed: &Signed,
    overrides: &Overrides,
    called: &mut Called,
) -> Option<Received> {
    let limits = Limits {
        connect: overrides.connect,
        read: overrides.read,
    };
    let deadline = tokio::time::Instant::now() + overrides.total;
    let mut user = None;
    let mut retries = overrides.retries;
    loop {
        let started = Moment::now();
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let result = timeout(left, exchange(sandbox, signed, user, limits)).await;
        let is_over = result.is_err();
        let result = result.unwrap_or_else(|_| Err(Failure::Read("total time is up".to_owned())));
        called.attempts.push(Attempt::new(started, &result));
        // If the server asks for a user, Twilio repeats the request with the URL's user. That does not count as a retry.
        let asks = matches!(&result, Ok(r) if r.status == 401 && r.asks_for_user);
        if asks && user.is_none() && signed.target.user.is_some() {
            user = signed.target.user.as_deref();
            continue;
        }
        if is_over || retries == 0 || !is_retried(&result, overrides) {
            return result.ok();
        }
        retries -= 1;
    }
}

async fn exchange(
    sandbox: &Sandbox,
    signed: &Signed,
    user: Option<&str>,
    limits: Limits,
) -> Result<Received, Failure> {
    let request = signed
        .request(user)
        .map_err(|error| Failure::Connect(error.to_string()))?;
    sandbox
        .client
        .exchange(signed.target.address, request, limits)
        .await
}

fn is_retried(result: &Result<Received, Failure>, overrides: &Overrides) -> bool {
    let policy = overrides.policy;
    match result {
        Ok(received) => match received.status {
            400..=499 => policy.client_error,
            500..=599 => policy.server_error,
            _ => false,
        },
        Err(Failure::Connect(_)) => policy.connect,
        Err(Failure::Read(_)) => policy.read,
    }
}

/// The parameters of a status callback by channel, as captured from Twilio.
fn parameters(sandbox: &Sandbox, message: &Message, report: &Report) -> Vec<(String, String)> {
    let mut list: Vec<(&str, String)> = vec![
        ("SmsSid", message.sid.clone()),
        ("SmsStatus", report.status.to_owned()),
        ("MessageStatus", report.status.to_owned()),
        ("To", message.to.clone()),
        ("MessageSid", message.sid.clone()),
        ("AccountSid", message.account_sid.clone()),
        ("From", message.from.clone().unwrap_or_default()),
        ("ApiVersion", API_VERSION.to_owned()),
    ];
    if let Some(service) = &message.service {
        list.push(("MessagingServiceSid", service.clone()));
    }
    if let Some(code) = report.error {
        list.push(("ErrorCode", code.to_string()));
    }
    let is_final = matches!(report.status, "delivered" | "undelivered");
    if message.channel() != "sms" {
        channel_parameters(sandbox, message, report, &mut list);
    } else if is_final {
        list.push(("RawDlrDoneDate", message.updated.carrier()));
    }
    if report.is_novel {
        list.push(("HandsetTime", "2031-01-01T00:00:00+14:00".to_owned()));
        list.push(("Ünïcode näme", "🙂 + & = %41".to_owned()));
        list.push(("Empty", String::new()));
    }
    list.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn channel_parameters(
    sandbox: &Sandbox,
    message: &Message,
    report: &Report,
    list: &mut Vec<(&str, String)>,
) {
    list.push(("ChannelInstallSid", sandbox.channel_install_sid.clone()));
    list.push(("ChannelPrefix", message.channel().to_owned()));
    if message.channel() == "whatsapp" {
        let bare = protocol::address::split_channel(&message.to).1;
        let shown = bare.len().saturating_sub(4);
        list.push((
            "ChannelToAddress",
            format!("{}XXXX", bare.get(..shown).unwrap_or_default()),
        ));
        match report.status {
            "sent" => list.push(("StructuredMessage", "false".to_owned())),
            "delivered" | "read" => {
                list.push((
                    "ExternalUserId",
                    format!("whatsapp:US.{}", bare.trim_start_matches('+')),
                ));
            }
            _ => {}
        }
    }
    if let Some(code) = report.error {
        list.push(("ChannelStatusMessage", crate::error::text(code).to_owned()));
    }
}

impl Call {
    /// The call of a user's webhook for a message that came in.
    pub(crate) fn inbound(
        message: &Message,
        url: &str,
        method: Method,
        parameters: Vec<(String, String)>,
    ) -> Self {
        Self {
            account_sid: message.account_sid.clone(),
            sid: message.sid.clone(),
            status: Status::Received.as_str(),
            url: url.to_owned(),
            method,
            content_type: "application/x-www-form-urlencoded",
            parameters,
        }
    }
}

static COMPLAINT: Once = Once::new();
