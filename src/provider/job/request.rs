//! The request of a job.

use std::time::Duration;

use protocol::smsgate::webhook::Registration;
use protocol::smsgate::{self, Draft, Sealed};
use protocol::trust::{Api, Gateway, Trusted};
use sender::{Authorization, Method, Request};

use super::response::{blocked, refused};
use super::{Job, JobResult, Task};
use crate::clock::Now;
use crate::credential::NONE;
use crate::setting;

/// The request of a job, or the result if there can be none.
pub(super) fn request(job: &Job, now: &Now) -> Result<Request, JobResult> {
    let blocked = |reason| blocked(job, reason, None, now);
    let authorization = match &job.token_auth.bearer {
        Some(token) => token.clone(),
        None => password(job).map_err(blocked)?,
    };
    let path = smsgate::message_path(&job.name);
    let (method, path) = match job.task {
        Task::FetchOriginal | Task::FetchState => (Method::Get, job.name.clone()),
        Task::Send if job.phone.skip_phone_validation => (
            Method::Post,
            format!("{}?skipPhoneValidation=true", smsgate::SEND_PATH),
        ),
        Task::Send => (Method::Post, smsgate::SEND_PATH.to_owned()),
        Task::Reconcile | Task::Poll => (Method::Get, path),
        Task::Cancel => (Method::Delete, path),
        Task::Register => (Method::Post, smsgate::WEBHOOKS_PATH.to_owned()),
        Task::Unregister => (
            Method::Delete,
            format!("{}/{}", smsgate::WEBHOOKS_PATH, job.name),
        ),
        Task::EventSink => {
            let method = match job.sink.method.as_str() {
                "POST" => Method::Post,
                "DELETE" => Method::Delete,
                _ => Method::Get,
            };
            (method, job.name.clone())
        }
    };
    let to = match job.task {
        Task::FetchOriginal | Task::FetchState => Api::parse(&job.base_url)
            .and_then(|api| api.at(&path))
            .map_err(|fault| blocked(format!("api_url cannot be used: {fault}")))?,
        Task::EventSink => Api::parse(&job.base_url)
            .and_then(|api| api.events().at(&path))
            .map_err(|fault| blocked(format!("api_url cannot be used: {fault}")))?,
        _ => at_gateway(&job.base_url, &path).map_err(blocked)?,
    };
    let body = match job.task {
        Task::Send => {
            let sealed = job.phone.encryption.sealed().map_err(blocked)?;
            let body = draft(job, sealed).encode();
            Some(body.map_err(|error| refused(job, error.to_string()))?)
        }
        Task::Register => Some(registration(job).encode()),
        _ => None,
    };
    let mut request = ask(job.key(), method, to, authorization, body);
    if matches!(
        job.task,
        Task::FetchOriginal | Task::FetchState | Task::EventSink
    ) {
        request.timeout = setting::request_timeout();
    }
    if let Some(form) = &job.sink.form {
        let form_type = "application/x-www-form-urlencoded".to_owned();
        request.headers.push(("content-type".to_owned(), form_type));
        request.body = form.clone().into_bytes();
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

fn password(job: &Job) -> Result<Authorization, String> {
    let stored = job.secret.as_ref();
    stored.ok_or_else(|| NONE.to_owned())?.basic(&job.user)
}

fn draft<'a>(job: &'a Job, sealed: Option<Sealed<'a>>) -> Draft<'a> {
    let phone = &job.phone;
    Draft {
        id: &job.name,
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

fn registration(job: &Job) -> Registration<'_> {
    Registration {
        id: &job.name,
        url: &job.webhook.url,
        event: &job.webhook.event,
        device_id: job.webhook.device_id.as_deref(),
    }
}

/// A gateway that takes longer to answer is asked again: our id makes that harmless.
const PHONE_TIMEOUT: Duration = Duration::from_secs(5);
