//! One request to a tool: authorized, read, performed and answered.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::app::App;
use crate::body::{discard, read};
use crate::explain::describe_raised;
use crate::limit::Bucket;
use crate::logfmt::Level;
use crate::refusal::Refusal;
use crate::request_id::RequestId;
use crate::route::MAX_BODY;
use crate::route::is_media_type_accepted;
use crate::server::Guest;
use crate::tool::call::{Call, Tool};
use crate::tool::database::Failure;
use crate::tool::fields::Fields;
use crate::tool::problem::{Problem, json};
use crate::tool::{Tools, page, token};

/// Answers a request. No content of a request makes this fail.
pub(crate) async fn answer(
    app: &App,
    tools: &Tools,
    guest: &Guest,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let task = Task {
        guest,
        received: Instant::now(),
        id: app.ids.of(&head.headers),
        tool: Tool::at(head.uri.path()),
    };
    let response = match handle(app, tools, &task, &head, body).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    guest.place.wait();
    app.metrics.tool_answered(response.status());
    log(app, &task, &head, response.status());
    response
}

/// What is known of a request from the start.
struct Task<'a> {
    guest: &'a Guest,
    received: Instant,
    id: RequestId,
    tool: Option<Tool>,
}

async fn handle(
    app: &App,
    tools: &Tools,
    task: &Task<'_>,
    head: &Parts,
    mut body: Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    let admitted = match admit(task.tool, head, &body) {
        Ok(admitted) => admitted,
        Err(problem) => {
            discard(head, &mut body).await;
            return Err(problem);
        }
    };
    let tool = match admitted {
        Admitted::Page => return Ok(page::send()),
        Admitted::Call(tool) => tool,
    };
    let content = timeout(app.config.body_timeout, read(&mut body, MAX_BODY))
        .await
        .unwrap_or(Err(Refusal::BodyTimeout));
    let content = match content {
        Ok(content) => content,
        Err(refusal) => {
            discard(head, &mut body).await;
            return Err(unread(refusal));
        }
    };
    let mut fields = parse(&head.headers, &content);
    authorize(app, tools, &head.headers, &mut fields).await?;
    task.guest.place.work();
    // A callback's client waits for an acknowledgement, so acknowledgements do not queue behind other calls.
    let (bucket, database) = match tool {
        Tool::Acknowledge => (&tools.acknowledgements, &tools.acknowledging),
        Tool::Send | Tool::Block | Tool::Unblock => (&tools.requests, &tools.database),
    };
    take(bucket)?;
    let call = Call::new(tool, &head.headers, fields?)?;
    let deadline = tokio::time::Instant::from_std(task.received + app.config.deadline);
    let done = database
        .perform(&tools.config.database, &call, deadline)
        .await;
    let members = done.map_err(|failure| explain(app, task.id, failure))?;
    let status = match tool {
        // The message is sent later, or not at all; its state tells.
        Tool::Send => StatusCode::ACCEPTED,
        Tool::Block | Tool::Unblock | Tool::Acknowledge => StatusCode::OK,
    };
    Ok(json(status, "application/json", &members.into()))
}

enum Admitted {
    Page,
    Call(Tool),
}

/// Refuses requests that can be refused without reading body or token.
fn admit(tool: Option<Tool>, head: &Parts, body: &Incoming) -> Result<Admitted, Problem> {
    let Some(tool) = tool else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "there is no such tool",
            "The tools are /send, /block, /unblock and /acknowledge.",
        ));
    };
    if head.method == Method::GET && tool == Tool::Send {
        return Ok(Admitted::Page);
    }
    if head.method != Method::POST {
        let mut problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this method is not supported",
            "POST a form or JSON.",
        );
        problem.allow = Some(tool.methods());
        return Err(problem);
    }
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(unread(Refusal::TooLarge));
    }
    if !is_media_type_accepted(&head.headers, true) {
        return Err(unread(Refusal::MediaType));
    }
    Ok(Admitted::Call(tool))
}

fn unread(refusal: Refusal) -> Problem {
    let (detail, hint) = match refusal {
        Refusal::TooLarge => ("the body is over 64 KiB", "Send less."),
        Refusal::MediaType => (
            "the body is neither a form nor JSON",
            "Set Content-Type to application/x-www-form-urlencoded or application/json.",
        ),
        Refusal::BodyTimeout => ("the body did not come in time", "Send it faster."),
        _ => ("the body cannot be read", "Send it again."),
    };
    Problem::new(refusal.status(), detail, hint)
}

fn parse(headers: &HeaderMap, content: &[u8]) -> Result<Fields, Problem> {
    if is_form(headers) {
        Fields::parse_form(content)
    } else {
        Fields::parse_json(content)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let form = b"application/x-www-form-urlencoded";
    let value = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let start = value.and_then(|value| value.trim_ascii_start().get(..form.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(form))
}

/// Checks the token, in the header or in a form field, because a browser's form cannot set a header (RFC 6750,
/// section 2.2). Cookies do not count and a browser does not add a token by itself, so that a page of another
/// site cannot make a user's browser call a tool.
async fn authorize(
    app: &App,
    tools: &Tools,
    headers: &HeaderMap,
    fields: &mut Result<Fields, Problem>,
) -> Result<(), Problem> {
    let in_form = match fields {
        Ok(fields) if is_form(headers) => fields.text(&["access_token"]).unwrap_or_default(),
        _ => None,
    };
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let given = match (all.next(), all.next(), &in_form) {
        (Some(value), None, None) => bearer(value.as_bytes()),
        (None, None, Some(token)) => Some(token.as_bytes()),
        _ => None,
    };
    let path = tools.config.token_file.clone();
    // The file may be on a slow disk, and callbacks must not wait for it.
    let token = tokio::task::spawn_blocking(move || token::read(&path)).await;
    let token = token.unwrap_or_else(|_| Err("it was not read".to_owned()));
    let token = token.map_err(|why| {
        let text = format!("the tools' token cannot be read: {why}");
        app.log.message(Level::Warn, "no_token", &text);
        Problem::unavailable(
            "the token cannot be checked; nothing was done",
            "The log of this program has the reason.",
        )
    })?;
    if given.is_some_and(|given| token.is(given)) {
        return Ok(());
    }
    take(&tools.strangers)?;
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "the token is missing or wrong",
        "Send \"Authorization: Bearer\" and the token, once.",
    ))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then_some(token.trim_ascii())
}

fn take(bucket: &Bucket) -> Result<(), Problem> {
    bucket.take(Instant::now()).map_err(|after| {
        let mut problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests; nothing was done",
            "Retry after the number of seconds in Retry-After.",
        );
        problem.retry_after = Some(after);
        problem
    })
}

/// The problem for the caller; the log gets the full reason.
fn explain(app: &App, id: RequestId, failure: Failure) -> Problem {
    let (problem, reason) = match failure {
        Failure::Away(error) => (
            Problem::unavailable("the database is away; nothing was done", "Try again."),
            error.to_string(),
        ),
        Failure::Busy => {
            let detail = "too many requests wait for the database; nothing was done";
            (
                Problem::unavailable(detail, "Try again."),
                detail.to_owned(),
            )
        }
        Failure::Raised(error) => (Problem::raised(&error), describe_raised(&error)),
        Failure::Unknown(reason) => (
            Problem::unavailable(
                "the database was lost: whether it was done is unknown",
                "Repeat it; a message with the same Idempotency-Key is not made twice.",
            ),
            reason,
        ),
    };
    if problem.status.is_server_error() {
        let text = format!("request {}: {reason}", id.as_str());
        app.log.message(Level::Warn, "tool_failed", &text);
    }
    problem
}

fn log(app: &App, task: &Task<'_>, head: &Parts, status: StatusCode) {
    if status.is_client_error() && !app.noise.admits() {
        return;
    }
    let mut bytes = Vec::with_capacity(256);
    let line = app
        .log
        .line(&mut bytes, Level::Info, "tool")
        .word("id", task.id.as_str())
        .word("tool", task.tool.map_or("none", Tool::name))
        .word("method", head.method.as_str())
        .number("status", status.as_u16().into());
    let line = match app.config.proxy.source(&task.guest.peer, &head.headers) {
        Some(source) => line.word("source", &source),
        None => line,
    };
    line.milliseconds("ms", task.received.elapsed()).end();
    app.log.write(&bytes);
}
