//! The sandbox's own endpoints, below `/_`: records of requests and callbacks, and faults.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, error};
use crate::clock::{self, Moment};
use crate::debugger;
use crate::http_request::HttpRequest;
use crate::record::{self, Entry, Filter};
use crate::sandbox::Sandbox;
use crate::smsgate::Gateway;

pub(crate) async fn answer(sandbox: &Arc<Sandbox>, request: &HttpRequest) -> Answer {
    let filter = match filter(request) {
        Ok(filter) => filter,
        Err(reason) => return error(400, &reason),
    };
    match (&request.head.method, request.head.uri.path()) {
        (&Method::GET, "/_requests") => {
            let entries = sandbox.requests().entries(filter.after.unwrap_or(0));
            aside(move || list("requests", &entries, &filter)).await
        }
        (&Method::GET, "/_counts") => {
            let mut entries = sandbox.requests().entries(filter.after.unwrap_or(0));
            entries.retain(|(_, heard)| heard.is_wanted(&filter));
            aside(move || record::counts(&entries)).await
        }
        (&Method::GET, "/_callbacks") => {
            let entries = sandbox.calls().entries(filter.after.unwrap_or(0));
            aside(move || list("callbacks", &entries, &filter)).await
        }
        (&Method::GET, "/_events") => {
            let entries = sandbox
                .streams
                .deliveries()
                .entries(filter.after.unwrap_or(0));
            aside(move || list("events", &entries, &filter)).await
        }
        (&Method::GET, "/_sinks") => Answer::json(200, &sandbox.streams.to_json()),
        (&Method::GET, "/_debugger") => Answer::json(200, &sandbox.debugger.to_json()),
        (&Method::POST, "/_debugger") => match request.fields() {
            Ok(fields) => debugger::answer(sandbox, &fields),
            Err(reason) => error(400, &reason),
        },
        (&Method::DELETE, "/_requests") => {
            sandbox.requests().clear();
            sandbox.calls().clear();
            sandbox.streams.deliveries().clear();
            sandbox.store().forget_tries();
            sandbox.gateway.iter().for_each(Gateway::forget);
            Answer::empty(204)
        }
        (&Method::GET, "/_faults") => Answer::json(200, &sandbox.faults().to_json()),
        (&Method::POST, "/_faults") => match request.fields() {
            Ok(fields) => switch_on(sandbox, &fields),
            Err(reason) => error(400, &reason),
        },
        (&Method::DELETE, "/_faults") => {
            sandbox.faults().clear();
            Answer::empty(204)
        }
        (
            _,
            "/_requests" | "/_counts" | "/_callbacks" | "/_events" | "/_sinks" | "/_debugger"
            | "/_faults",
        ) => error(405, "method not allowed"),
        _ => error(404, "no such endpoint"),
    }
}

fn switch_on(sandbox: &Sandbox, fields: &[(String, String)]) -> Answer {
    match sandbox.faults().add(fields) {
        Ok(fault) => Answer::json(201, &fault),
        Err(reason) => error(400, &reason),
    }
}

/// Writes long lists on another thread, so that they do not delay requests that arrive meanwhile.
async fn aside(write: impl FnOnce() -> Value + Send + 'static) -> Answer {
    let text = tokio::task::spawn_blocking(move || write().to_string()).await;
    match text {
        Ok(text) => Answer::text(200, "application/json", text),
        Err(_) => error(500, "the list could not be written"),
    }
}

fn list<T: Entry>(name: &str, entries: &[(u64, Arc<T>)], filter: &Filter) -> Value {
    let wanted = entries.iter().filter(|(_, entry)| entry.is_wanted(filter));
    let list: Vec<Value> = wanted
        .take(filter.limit.unwrap_or(usize::MAX))
        .map(|(number, entry)| entry.to_json(*number))
        .collect();
    json!({ "count": list.len(), name: list })
}

fn filter(request: &HttpRequest) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for (name, value) in request.query().iter() {
        let bad = || format!("{name}={value} is not understood");
        match name {
            "to" => filter.to = Some(value.to_owned()),
            "id" => filter.id = Some(value.to_owned()),
            "provider" => filter.provider = Some(value.to_owned()),
            "since" => filter.since = Some(moment(value).ok_or_else(bad)?),
            "after" => filter.after = Some(value.parse().map_err(|_| bad())?),
            "limit" => filter.limit = Some(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        }
    }
    Ok(filter)
}

/// A time as in the records: microseconds since 1970, or RFC 3339.
fn moment(text: &str) -> Option<Moment> {
    text.parse().ok().map(Moment).or_else(|| clock::parse(text))
}
