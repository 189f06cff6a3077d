//! One callback over HTTP: checked, read within the limits, queued, and answered with its row.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

use crate::admission::Reservation;
use crate::app::App;
use crate::arguments::LogCallbacks;
use crate::body::{discard, read};
use crate::header::Head;
use crate::item::{Answer, Item};
use crate::logfmt::{Level, Line};
use crate::proxy::Peer;
use crate::refusal::Refusal;
use crate::reply;
use crate::request_id::RequestId;
use crate::route::{Endpoint, is_media_type_accepted, resolve};
use crate::server::Guest;

/// Answers a request. No content of a request makes this fail.
pub(crate) async fn answer(
    app: &App,
    guest: &Guest,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let received = Instant::now();
    let response = match enqueue(app, &guest.peer, received, request).await {
        Ok(ticket) => {
            guest.place.work();
            let response = wait(app, ticket, received).await;
            guest.place.wait();
            response
        }
        Err(response) => response,
    };
    let elapsed = received.elapsed();
    app.metrics.answered(response.status(), elapsed);
    response
}

/// Waits for the answer of a queued request.
struct Ticket {
    id: RequestId,
    answer: oneshot::Receiver<Answer>,
    deadline: Instant,
}

/// Checks, reads and queues a request, or refuses it. The request itself ends here, so that its
/// connection's buffers are free while it waits.
async fn enqueue(
    app: &App,
    peer: &Peer,
    received: Instant,
    request: Request<Incoming>,
) -> Result<Ticket, Response<Full<Bytes>>> {
    let (head, mut body) = request.into_parts();
    let result = match admit(app, &head, &body) {
        Ok(admitted) => timeout(
            app.config.body_timeout,
            read(&mut body, admitted.endpoint.max_body()),
        )
        .await
        .unwrap_or(Err(Refusal::BodyTimeout))
        .map(|body| (admitted, body)),
        Err(refusal) => Err(refusal),
    };
    let id = app.ids.of(&head.headers);
    match result {
        Ok((admitted, body)) => Ok(admitted.queue(app, peer, received, id, &head, body)),
        Err(refusal) => {
            if !matches!(refusal, Refusal::BadBody | Refusal::BodyTimeout) {
                discard(&head, &mut body).await;
            }
            log_refusal(app, refusal, id, received, |line| {
                let line = line
                    .word("method", head.method.as_str())
                    .text("path", head.uri.path());
                match app.config.proxy.source(peer, &head.headers) {
                    Some(source) => line.word("source", &source),
                    None => line,
                }
            });
            Err(refuse(app, &head, refusal))
        }
    }
}

/// Waits for the writer's answer.
async fn wait(app: &App, ticket: Ticket, received: Instant) -> Response<Full<Bytes>> {
    let deadline = tokio::time::Instant::from_std(ticket.deadline);
    let refusal = match timeout_at(deadline, ticket.answer).await {
        Ok(Ok(answer)) => match complete(app, answer).await {
            Ok(answer) => return into_response(answer),
            Err(refusal) => refusal,
        },
        // The writer ended without answering, so the outcome is unknown.
        Ok(Err(_)) => Refusal::ConnectionLost,
        Err(_) => Refusal::Deadline,
    };
    log_refusal(app, refusal, ticket.id, received, |line| line);
    into_response(Answer::bare(refusal.status()))
}

/// Waits for the acknowledgement of the message and for the body that a user's function produces, where the
/// answer needs them. It waits for both at the same time, because Twilio's limit is 15 seconds.
async fn complete(app: &App, mut answer: Answer) -> Result<Answer, Refusal> {
    let acknowledgement = async {
        match answer.wait {
            Some((id, limit)) => app.acknowledgements.wait(id, limit).await,
            None => true,
        }
    };
    let body = async {
        match answer.to_be_made {
            Some(id) => Some(reply::ask(app, id).await),
            None => None,
        }
    };
    let (is_acknowledged, body) = tokio::join!(acknowledgement, body);
    if let Some(body) = body {
        answer.body = body.into();
    }
    if is_acknowledged {
        Ok(answer)
    } else {
        Err(Refusal::Unacknowledged)
    }
}

/// What is known of a request before its body is read.
struct Admitted {
    endpoint: Endpoint,
    method: &'static str,
    reservation: Reservation,
}

/// Refuses requests that can be refused without their body, cheapest check first.
fn admit(app: &App, head: &Parts, body: &Incoming) -> Result<Admitted, Refusal> {
    let (endpoint, method) = resolve(&app.config.routes, &head.method, head.uri.path())?;
    if endpoint == Endpoint::Smsgate && app.health.lacks_smsgate() {
        return Err(Refusal::NotFound);
    }
    let length = body.size_hint();
    let max_body = endpoint.max_body();
    if length.lower() > max_body as u64 {
        return Err(Refusal::TooLarge);
    }
    if method == "POST" && !is_media_type_accepted(&head.headers, !body.is_end_stream()) {
        return Err(Refusal::MediaType);
    }
    if app.health.is_away() {
        return Err(Refusal::DatabaseAway);
    }
    let length = length.exact().map_or(max_body, |length| length as usize);
    let reservation = app
        .admission
        .reserve(length + head_share(head), endpoint == Endpoint::Events)
        .ok_or(Refusal::Overload)?;
    Ok(Admitted {
        endpoint,
        method,
        reservation,
    })
}

impl Admitted {
    fn queue(
        self,
        app: &App,
        peer: &Peer,
        received: Instant,
        id: RequestId,
        head: &Parts,
        body: Bytes,
    ) -> Ticket {
        let (sender, answer) = oneshot::channel();
        let mut reservation = self.reservation;
        // An absolute target is reduced to its path and query.
        let url = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let passed_on = Head::new(url, &head.headers, self.endpoint);
        reservation.shrink(body.len() + passed_on.len().max(HEAD_SHARE));
        app.queue.push(Item {
            endpoint: self.endpoint,
            method: self.method,
            head: passed_on,
            body,
            source: app.config.proxy.source(peer, &head.headers),
            id,
            received,
            answer: sender,
            reservation,
        });
        let deadline = received + self.endpoint.deadline(app.config.deadline);
        Ticket {
            id,
            answer,
            deadline,
        }
    }
}

/// The memory that the head of a request needs. It may be most of the request: a message fits into the query of
/// a GET.
fn head_share(head: &Parts) -> usize {
    let pairs = head.headers.iter();
    let headers: usize = pairs
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    HEAD_SHARE.max(target + headers)
}

fn into_response(answer: Answer) -> Response<Full<Bytes>> {
    let has_content = answer.status != StatusCode::NO_CONTENT;
    let body = if has_content {
        answer.body
    } else {
        Bytes::new()
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if let Some(content_type) = answer.content_type.filter(|_| has_content) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response
}

fn refuse(app: &App, head: &Parts, refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = into_response(Answer::bare(refusal.status()));
    if refusal == Refusal::MethodNotAllowed
        && let Some(endpoint) = app.config.routes.find(head.uri.path())
    {
        let methods = HeaderValue::from_static(endpoint.methods());
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// Counts and logs a request that is refused without a row of the database.
fn log_refusal(
    app: &App,
    refusal: Refusal,
    id: RequestId,
    received: Instant,
    describe: impl FnOnce(Line<'_>) -> Line<'_>,
) {
    app.metrics.refused(refusal);
    if app.config.log_callbacks == LogCallbacks::Off || !app.noise.admits() {
        return;
    }
    let mut bytes = Vec::with_capacity(256);
    let line = app
        .log
        .line(&mut bytes, Level::Info, "callback")
        .word("id", id.as_str())
        .word("decision", refusal.name())
        .number("status", refusal.status().as_u16().into());
    describe(line).milliseconds("ms", received.elapsed()).end();
    app.log.write(&bytes);
}

/// The least memory that a request's head and its place in the queue need, in bytes.
const HEAD_SHARE: usize = 1 << 10;
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
