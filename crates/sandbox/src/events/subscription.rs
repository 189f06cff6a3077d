//! Subscriptions: which events a sink is sent.
//!
//! <https://www.twilio.com/docs/events/event-streams/subscription>

use hyper::Method;
use protocol::form::Form;
use serde_json::{Value, json};

use super::event::Kind;
use super::sink::Status;
use super::{State, page};
use crate::clock::Moment;
use crate::error::Refusal;
use crate::http_request::HttpRequest;
use crate::resource::Done;
use crate::sandbox::Sandbox;

/// A subscription with its types of events and the versions of their schemas.
pub(crate) struct Subscription {
    sid: String,
    pub(crate) account_sid: String,
    description: String,
    pub(crate) sink_sid: String,
    pub(crate) types: Vec<(String, u32)>,
    created: Moment,
    updated: Moment,
}

/// Answers requests for the list: a create or a page.
pub(super) fn all(
    sandbox: &Sandbox,
    request: &HttpRequest,
    account_sid: &str,
) -> Result<Done, Refusal> {
    let sid = sandbox.random().sid("DF");
    let mut state = sandbox.streams.state();
    match request.head.method {
        Method::POST => {
            let form = request.form();
            let now = Moment::now();
            let new = Subscription {
                sid,
                account_sid: account_sid.to_owned(),
                description: page::required(&form, "Description")?,
                sink_sid: free_sink(&mut state, account_sid, &form)?,
                types: given_types(&form)?,
                created: now,
                updated: now,
            };
            let json = new.to_json(request);
            state.subscriptions.push(new);
            Ok(("created", 201, json))
        }
        Method::GET => {
            let query = request.query();
            let sink_sid = query.filled("SinkSid");
            let wanted = state.subscriptions.iter().filter(|subscription| {
                subscription.account_sid == account_sid
                    && sink_sid.is_none_or(|sid| sid == subscription.sink_sid)
            });
            let list = wanted.map(|one| one.to_json(request)).collect();
            Ok(("listed", 200, page::page(request, "subscriptions", list)?))
        }
        _ => Err(Refusal::new(20004)),
    }
}

/// Answers requests for one subscription.
pub(super) fn one(
    sandbox: &Sandbox,
    request: &HttpRequest,
    account_sid: &str,
    sid: &str,
) -> Result<Done, Refusal> {
    let mut state = sandbox.streams.state();
    let place = place(&state, request, account_sid, sid)?;
    match request.head.method {
        Method::GET => {}
        Method::POST => {
            let form = request.form();
            let sink_sid = form.filled("SinkSid");
            let is_same = sink_sid.is_none_or(|sid| sid == state.subscriptions[place].sink_sid);
            let sink_sid = match is_same {
                true => None,
                false => Some(free_sink(&mut state, account_sid, &form)?),
            };
            let subscription = &mut state.subscriptions[place];
            if let Some(sink_sid) = sink_sid {
                subscription.sink_sid = sink_sid;
            }
            if let Some(description) = form.filled("Description") {
                subscription.description = description.to_owned();
            }
            subscription.updated = Moment::now();
        }
        Method::DELETE => {
            state.subscriptions.remove(place);
            return Ok(("deleted", 204, Value::Null));
        }
        _ => return Err(Refusal::new(20004)),
    }
    let json = state.subscriptions[place].to_json(request);
    Ok(("fetched", 200, json))
}

/// Answers requests for the types of a subscription, or for the one called `name`.
pub(super) fn types(
    sandbox: &Sandbox,
    request: &HttpRequest,
    account_sid: &str,
    sid: &str,
    name: Option<&str>,
) -> Result<Done, Refusal> {
    let mut state = sandbox.streams.state();
    let place = place(&state, request, account_sid, sid)?;
    let subscription = &mut state.subscriptions[place];
    let known = subscription
        .types
        .iter()
        .position(|(known, _)| Some(known.as_str()) == name);
    match (&request.head.method, name, known) {
        (&Method::GET, None, _) => {
            let types = subscription.types.iter();
            let list = types.map(|one| subscription.type_json(request, one));
            let page = page::page(request, "types", list.collect())?;
            Ok(("listed", 200, page))
        }
        (_, Some(_), None) => Err(request.not_found()),
        (&Method::GET, _, Some(place)) => {
            let json = subscription.type_json(request, &subscription.types[place]);
            Ok(("fetched", 200, json))
        }
        (&Method::DELETE, _, Some(place)) => {
            subscription.types.remove(place);
            Ok(("deleted", 204, Value::Null))
        }
        (&Method::POST, name, _) => {
            let form = request.form();
            let name = match name {
                Some(name) => name.to_owned(),
                None => page::required(&form, "Type")?,
            };
            let version = form.filled("SchemaVersion");
            let version = version.map(|text| json!(text.parse::<u32>().unwrap_or(0)));
            let new = checked(&name, &version.unwrap_or_default())?;
            let status = if known.is_some() { 200 } else { 201 };
            subscription.types.retain(|(known, _)| *known != new.0);
            subscription.types.push(new.clone());
            Ok(("changed", status, subscription.type_json(request, &new)))
        }
        _ => Err(Refusal::new(20004)),
    }
}

fn place(
    state: &State,
    request: &HttpRequest,
    account_sid: &str,
    sid: &str,
) -> Result<usize, Refusal> {
    let mut all = state.subscriptions.iter();
    all.position(|one| one.sid == sid && one.account_sid == account_sid)
        .ok_or_else(|| request.not_found())
}

/// The active sink that the form names; a sink has one subscription.
fn free_sink(state: &mut State, account_sid: &str, form: &Form<'_>) -> Result<String, Refusal> {
    let sid = page::required(form, "SinkSid")?;
    let own = state
        .sink(&sid)
        .filter(|sink| sink.account_sid == account_sid);
    match own.map(|sink| sink.status) {
        None => Err(page::invalid(&format!("Sink with SID {sid} not found"))),
        Some(Status::Active) if state.is_in_use(&sid) => Err(page::in_use(&sid)),
        Some(Status::Active) => Ok(sid),
        Some(_) => Err(page::invalid(&format!("Sink with SID {sid} is not active"))),
    }
}

/// The types of a create: one parameter `Types` for each, a JSON object.
fn given_types(form: &Form<'_>) -> Result<Vec<(String, u32)>, Refusal> {
    let given = form.iter().filter(|(name, _)| *name == "Types");
    let types: Vec<(String, u32)> = given
        .enumerate()
        .map(|(index, (_, text))| {
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            let name = value["type"].as_str().ok_or_else(|| {
                let text = format!("Missing required input parameter event_types[{index}].type");
                page::invalid(&text)
            })?;
            checked(name, &value["schema_version"])
        })
        .collect::<Result<_, Refusal>>()?;
    if types.is_empty() {
        return Err(page::missing("Types"));
    }
    Ok(types)
}

/// The type with the version of its schema: the newest unless one is given.
fn checked(name: &str, version: &Value) -> Result<(String, u32), Refusal> {
    let kind = Kind::find(name);
    if kind.is_none() && !name.starts_with("com.twilio.") {
        return Err(page::invalid(&format!("Type {name} not found in system")));
    }
    let newest = kind.map_or(1, |kind| kind.version);
    let version = match version {
        Value::Null => Some(newest),
        version => version
            .as_u64()
            .and_then(|version| version.try_into().ok())
            .filter(|version| *version > 0 && (kind.is_none() || *version <= newest)),
    };
    let version = version.ok_or_else(|| page::invalid("Invalid schema_version"))?;
    Ok((name.to_owned(), version))
}

impl Subscription {
    fn to_json(&self, request: &HttpRequest) -> Value {
        let url = self.url(request);
        json!({
            "account_sid": self.account_sid,
            "date_created": self.created.seconds(),
            "date_updated": self.updated.seconds(),
            "description": self.description,
            "sid": self.sid,
            "sink_sid": self.sink_sid,
            "url": url,
            "receive_events_from_subaccounts": false,
            "links": { "subscribed_events": format!("{url}/SubscribedEvents") },
        })
    }

    fn type_json(&self, request: &HttpRequest, (name, version): &(String, u32)) -> Value {
        json!({
            "account_sid": self.account_sid,
            "subscription_sid": self.sid,
            "type": name,
            "schema_version": version,
            "url": format!("{}/SubscribedEvents/{name}", self.url(request)),
        })
    }

    fn url(&self, request: &HttpRequest) -> String {
        format!("http://{}/v1/Subscriptions/{}", request.host(), self.sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(body: &str) -> Result<Vec<(String, u32)>, String> {
        given_types(&Form::parse(body.as_bytes())).map_err(|refusal| refusal.message)
    }

    #[test]
    fn each_type_is_a_parameter_of_its_own() {
        let sent = "com.twilio.messaging.message.sent";
        let body = format!(
            r#"Types={{"type":"{sent}"}}&Types={{"type":"com.twilio.a.b","schema_version":3}}"#
        );
        let expected = vec![(sent.to_owned(), 8), ("com.twilio.a.b".to_owned(), 3)];
        assert_eq!(types(&body), Ok(expected));
        assert_eq!(types("").unwrap_err(), "Missing required parameter Types");
        for body in [
            format!(r#"Types=[{{"type":"{sent}"}}]"#),
            format!(r#"Types={{"type":"{sent}","schema_version":9}}"#),
            format!(r#"Types={{"type":"{sent}","schema_version":0}}"#),
            r#"Types={"type":"nonsense"}"#.to_owned(),
            "Types=nonsense".to_owned(),
        ] {
            assert!(types(&body).is_err(), "{body}");
        }
    }
}
