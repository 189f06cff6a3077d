//! Sinks: where an account's events go.
//!
//! <https://www.twilio.com/docs/events/event-streams/sink-resource>

use std::sync::Arc;

use hyper::Method;
use protocol::url::Url;
use serde_json::{Value, json};

use super::event::Event;
use super::{page, queue};
use crate::clock::Moment;
use crate::error::Refusal;
use crate::http_request::HttpRequest;
use crate::resource::Done;
use crate::sandbox::Sandbox;

/// A sink with its events that wait to be sent.
pub(crate) struct Sink {
    pub(crate) sid: String,
    pub(crate) account_sid: String,
    description: String,
    /// As it was given.
    configuration: Value,
    pub(crate) destination: String,
    pub(crate) method: Method,
    pub(crate) is_batched: bool,
    pub(crate) status: Status,
    created: Moment,
    updated: Moment,
    test_id: Option<String>,
    pub(crate) waiting: Vec<Event>,
    pub(crate) counts: Counts,
}

/// Twilio's statuses of a sink; webhooks are active from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Validating,
    Active,
    Failed,
}

/// Numbers of events.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) pending: u64,
    pub(crate) delivered: u64,
    pub(crate) discarded: u64,
    pub(crate) given_up: u64,
}

/// Answers requests for the list: a create or a page.
pub(super) fn all(
    sandbox: &Sandbox,
    request: &HttpRequest,
    account_sid: &str,
) -> Result<Done, Refusal> {
    match request.head.method {
        Method::POST => {
            let sink = Sink::new(sandbox, request, account_sid)?;
            let json = sink.to_json(request);
            let mut state = sandbox.streams.state();
            let own = state.sinks.iter().filter(|s| s.account_sid == account_sid);
            if own.count() >= MAX_SINKS {
                return Err(page::invalid("Too many sinks"));
            }
            state.sinks.push(sink);
            Ok(("created", 201, json))
        }
        Method::GET => {
            let query = request.query();
            let (status, in_use) = (query.filled("Status"), query.filled("InUse"));
            let state = sandbox.streams.state();
            let wanted = state.sinks.iter().filter(|sink| {
                sink.account_sid == account_sid
                    && status.is_none_or(|status| status == sink.status.as_str())
                    && in_use.is_none_or(|is| (is == "true") == state.is_in_use(&sink.sid))
            });
            let list = wanted.map(|sink| sink.to_json(request)).collect();
            Ok(("listed", 200, page::page(request, "sinks", list)?))
        }
        _ => Err(Refusal::new(20004)),
    }
}

/// Answers requests for one sink.
pub(super) fn one(
    sandbox: &Sandbox,
    request: &HttpRequest,
    account_sid: &str,
    sid: &str,
) -> Result<Done, Refusal> {
    let mut state = sandbox.streams.state();
    let is_in_use = state.is_in_use(sid);
    let sink = state
        .sink(sid)
        .filter(|sink| sink.account_sid == account_sid)
        .ok_or_else(|| request.not_found())?;
    match request.head.method {
        Method::GET => Ok(("fetched", 200, sink.to_json(request))),
        Method::POST => {
            sink.description = page::required(&request.form(), "Description")?;
            sink.updated = Moment::now();
            Ok(("updated", 200, sink.to_json(request)))
        }
        Method::DELETE if is_in_use => Err(page::in_use(sid)),
        Method::DELETE => {
            state.sinks.retain(|sink| sink.sid != sid);
            Ok(("deleted", 204, Value::Null))
        }
        _ => Err(Refusal::new(20004)),
    }
}

/// Sends a test event, or takes its id as the proof that it has arrived.
pub(super) fn act(
    sandbox: &Arc<Sandbox>,
    request: &HttpRequest,
    account_sid: &str,
    sid: &str,
    action: &str,
) -> Result<Done, Refusal> {
    let new_id = sandbox.random().uuid();
    let mut state = sandbox.streams.state();
    let sink = state
        .sink(sid)
        .filter(|sink| sink.account_sid == account_sid)
        .ok_or_else(|| request.not_found())?;
    if action == "Test" {
        let event = Event::test(account_sid, &new_id);
        // The newest test counts.
        sink.test_id = Some(new_id);
        sink.status = Status::Validating;
        drop(state);
        queue::push(sandbox, sid, event);
        return Ok(("tested", 201, json!({ "result": "submitted" })));
    }
    let test_id = page::required(&request.form(), "TestId")?;
    if sink.test_id.as_ref() != Some(&test_id) {
        return Err(page::invalid("Invalid TestId"));
    }
    sink.status = Status::Active;
    Ok(("validated", 201, json!({ "result": "valid" })))
}

impl Sink {
    fn new(sandbox: &Sandbox, request: &HttpRequest, account_sid: &str) -> Result<Self, Refusal> {
        let form = request.form();
        let description = page::required(&form, "Description")?;
        let configuration = page::required(&form, "SinkConfiguration")?;
        let sink_type = page::required(&form, "SinkType")?;
        if sink_type != "webhook" {
            return Err(page::invalid(&format!("SinkType {sink_type} is not known")));
        }
        let bad = |what: &str| page::invalid(&format!("Invalid SinkConfiguration: {what}"));
        let configuration: Value =
            serde_json::from_str(&configuration).map_err(|_| bad("not JSON"))?;
        let destination = configuration["destination"].as_str().unwrap_or_default();
        let is_web = Url::parse(destination)
            .is_some_and(|url| url.is_https() || url.scheme.eq_ignore_ascii_case("http"));
        if !is_web {
            return Err(bad("destination"));
        }
        let method = configuration["method"].as_str().unwrap_or("POST");
        let method = match method.to_ascii_uppercase().as_str() {
            "POST" => Method::POST,
            "GET" => Method::GET,
            _ => return Err(bad("method")),
        };
        let is_batched = match &configuration["batch_events"] {
            Value::Null => true,
            Value::Bool(is) => *is,
            Value::String(text) if text == "true" || text == "false" => text == "true",
            _ => return Err(bad("batch_events")),
        };
        let now = Moment::now();
        Ok(Self {
            sid: sandbox.random().sid("DG"),
            account_sid: account_sid.to_owned(),
            description,
            destination: destination.to_owned(),
            configuration,
            method,
            is_batched,
            status: Status::Active,
            created: now,
            updated: now,
            test_id: None,
            waiting: Vec::new(),
            counts: Counts::default(),
        })
    }

    fn to_json(&self, request: &HttpRequest) -> Value {
        let url = format!("http://{}/v1/Sinks/{}", request.host(), self.sid);
        json!({
            "date_created": self.created.seconds(),
            "date_updated": self.updated.seconds(),
            "description": self.description,
            "sid": self.sid,
            "sink_configuration": self.configuration,
            "sink_type": "webhook",
            "status": self.status.as_str(),
            "url": url,
            "links": {
                "sink_test": format!("{url}/Test"),
                "sink_validate": format!("{url}/Validate"),
            },
        })
    }

    pub(super) fn counts_json(&self) -> Value {
        json!({
            "sid": self.sid,
            "account": self.account_sid,
            "destination": self.destination,
            "status": self.status.as_str(),
            "pending": self.counts.pending,
            "delivered": self.counts.delivered,
            "discarded": self.counts.discarded,
            "given_up": self.counts.given_up,
        })
    }
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Active => "active",
            Self::Failed => "failed",
        }
    }
}

const MAX_SINKS: usize = 100;
