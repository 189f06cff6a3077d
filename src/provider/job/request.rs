//! The request that an errand takes.

use std::time::Duration;

use protocol::smsgate::webhook::Registration;
use protocol::smsgate::{self, Draft, Sealed};
use protocol::trust::{Api, Gateway, Trusted};
use sender::{Authorization, Method, Request};

use super::response::{hindered, refused};
use super::{Errand, Finding, Task};
use crate::clock::Moment;
use crate::credential::NONE;
use crate::setting;

/// The request that an errand takes; a finding where it cannot be made.
pub(super) fn request(errand: &Errand, moment: &Moment) -> Result<Request, Finding> {
    let hindered = |reason| hindered(errand, reason, None, moment);
    let authorization = match &errand.pass.bearer {
        Some(token) => token.clone(),
        None => password(errand).map_err(hindered)?,
    };
    let path = smsgate::message_path(&errand.name);
    let (method, path) = match errand.task {
        Task::Prepare => (Method::Get, errand.name.clone()),
        Task::Send if errand.phone.skip_phone_validation => (
            Method::Post,
            format!("{}?skipPhoneValidation=true", smsgate::SEND_PATH),
        ),
        Task::Send => (Method::Post, smsgate::SEND_PATH.to_owned()),
        Task::Look | Task::Ask => (Method::Get, path),
        Task::Withdraw => (Method::Delete, path),
        Task::Register => (Method::Post, smsgate::WEBHOOKS_PATH.to_owned()),
        Task::Unregister => (
            Method::Delete,
            format!("{}/{}", smsgate::WEBHOOKS_PATH, errand.name),
        ),
    };
    let to = match errand.task {
        Task::Prepare => Api::parse(&errand.base_url)
            .and_then(|api| api.at(&path))
            .map_err(|fault| hindered(format!("api_url cannot be used: {fault}")))?,
        _ => at_gateway(&errand.base_url, &path).map_err(hindered)?,
    };
    let body = match errand.task {
        Task::Send => {
            let sealed = errand.phone.sealing.sealed().map_err(hindered)?;
            let body = draft(errand, sealed).encode();
            Some(body.map_err(|error| refused(errand, error.to_string()))?)
        }
        Task::Register => Some(registration(errand).encode()),
        _ => None,
    };
    let mut request = ask(errand.key(), method, to, authorization, body);
    if errand.task == Task::Prepare {
        request.timeout = setting::request_timeout();
    }
    Ok(request)
}

/// A request to a gateway, which speaks JSON and answers soon.
pub(super) fn ask(
    id: i64,
    method: Method,
    to: Trusted,
    authorization: Authorization,
    body: Option<String>,
) -> Request {
    let json = |header: &str| (header.to_owned(), "application/json".to_owned());
    let mut request = Request::authorized(id, method, to, authorization);
    request.timeout = setting::request_timeout().min(PHONE_TIMEOUT);
    request.headers.push(json("accept"));
    if let Some(body) = body {
        request.headers.push(json("content-type"));
        request.body = body.into_bytes();
    }
    request
}

/// A gateway's resource.
pub(super) fn at_gateway(base_url: &str, path: &str) -> Result<Trusted, String> {
    Gateway::parse(base_url)
        .and_then(|gateway| gateway.at(path))
        .map_err(|fault| format!("base_url cannot be used: {fault}"))
}

fn password(errand: &Errand) -> Result<Authorization, String> {
    let stored = errand.secret.as_ref();
    stored.ok_or_else(|| NONE.to_owned())?.basic(&errand.user)
}

fn draft<'a>(errand: &'a Errand, sealed: Option<Sealed<'a>>) -> Draft<'a> {
    let phone = &errand.phone;
    Draft {
        id: &errand.name,
        device_id: phone.device_id.as_deref(),
        to: &phone.to,
        text: &phone.text,
        sim_number: phone.sim_number,
        priority: phone.priority,
        ttl: phone.ttl,
        with_delivery_report: phone.with_delivery_report,
        sealed,
    }
}

fn registration(errand: &Errand) -> Registration<'_> {
    Registration {
        id: &errand.name,
        url: &errand.webhook.url,
        event: &errand.webhook.event,
        device_id: errand.webhook.device_id.as_deref(),
    }
}

/// A gateway that takes longer to answer is asked again: our id makes that harmless.
const PHONE_TIMEOUT: Duration = Duration::from_secs(5);
