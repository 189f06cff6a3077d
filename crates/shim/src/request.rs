//! One callback over HTTP: checked, read under the limits, queued, and answered as the row says.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

use crate::budget::Reservation;
use crate::config::LogCallbacks;
use crate::front::Front;
use crate::header;
use crate::line::Level;
use crate::metrics::Refusal;
use crate::proxy::Peer;
use crate::queue::{Answer, Item};
use crate::route::{Endpoint, is_media_type_accepted, resolve};

/// Answers a request. Nothing that a request contains makes this fail.
pub(crate) async fn answer(
    front: &Front,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let received = Instant::now();
    let (head, mut body) = request.into_parts();
    let result = match admit(front, &head, &body) {
        Ok(admitted) => deliver(front, peer, received, admitted, &head, &mut body).await,
        Err(refusal) => Err(refusal),
    };
    let response = match result {
        Ok(answer) => into_response(answer),
        Err(refusal) => {
            if !matches!(refusal, Refusal::BadBody | Refusal::BodyTimeout) {
                discard(&head, &mut body).await;
            }
            front.metrics.refused(refusal);
            log_refusal(front, peer, &head, refusal, received);
            refuse(front, &head, refusal)
        }
    };
    front
        .metrics
        .answered(response.status(), received.elapsed());
    response
}

/// What is known of a request before its body is read.
struct Admitted {
    endpoint: Endpoint,
    method: &'static str,
    reservation: Reservation,
}

/// Refuses what needs no body to be refused, cheapest check first.
fn admit(front: &Front, head: &Parts, body: &Incoming) -> Result<Admitted, Refusal> {
    let (endpoint, method) = resolve(&front.config.routes, &head.method, head.uri.path())?;
    if endpoint == Endpoint::Smsgate && front.health.lacks_smsgate() {
        return Err(Refusal::NotFound);
    }
    let length = body.size_hint();
    if length.lower() > MAX_BODY as u64 {
        return Err(Refusal::TooLarge);
    }
    if method == "POST" && !is_media_type_accepted(&head.headers, !body.is_end_stream()) {
        return Err(Refusal::MediaType);
    }
    if front.health.is_away() {
        return Err(Refusal::DatabaseAway);
    }
    let length = length.exact().map_or(MAX_BODY, |length| length as usize);
    let reservation = front
        .budget
        .reserve(length + HEAD_SHARE)
        .ok_or(Refusal::Overload)?;
    Ok(Admitted {
        endpoint,
        method,
        reservation,
    })
}

/// Reads the body, queues the request and waits for its answer.
async fn deliver(
    front: &Front,
    peer: &Peer,
    received: Instant,
    admitted: Admitted,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let Admitted {
        endpoint,
        method,
        mut reservation,
    } = admitted;
    let body = timeout(front.config.body_timeout, read(body))
        .await
        .map_err(|_| Refusal::BodyTimeout)??;
    reservation.shrink(body.len() + HEAD_SHARE);
    let (sender, answer) = oneshot::channel();
    // A path was matched, so there is one.
    let url = head
        .uri
        .path_and_query()
        .cloned()
        .ok_or(Refusal::NotFound)?;
    front.queue.push(Item {
        endpoint,
        method,
        url,
        headers: header::render(&head.headers, endpoint),
        body,
        source: front.config.proxy.source(peer, &head.headers),
        id: front.ids.of(&head.headers),
        received,
        answer: sender,
        reservation,
    });
    let deadline = tokio::time::Instant::from_std(received + front.config.deadline);
    match timeout_at(deadline, answer).await {
        // An answer whose `wait` is set is held back here, once something can acknowledge it.
        Ok(Ok(answer)) => Ok(answer),
        // A writer that ends without answering knows nothing of the outcome.
        Ok(Err(_)) => Err(Refusal::ConnectionLost),
        Err(_) => Err(Refusal::Deadline),
    }
}

/// The body in one piece; the usual one arrives as one and is not copied.
async fn read(body: &mut Incoming) -> Result<Bytes, Refusal> {
    let Some(first) = next_chunk(body).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = Vec::with_capacity(first.len() + body.size_hint().lower() as usize);
    whole.extend_from_slice(&first);
    while let Some(chunk) = next_chunk(body).await? {
        if whole.len() + chunk.len() > MAX_BODY {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BadBody)?;
        match frame.into_data() {
            Ok(chunk) if chunk.len() > MAX_BODY => return Err(Refusal::TooLarge),
            Ok(chunk) => return Ok(Some(chunk)),
            // Trailers mean nothing here.
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Reads what a refused client still sends, within limits: closing a socket that holds unread
/// bytes resets it, and the client would never see the answer. One that waits for "100 Continue"
/// sends nothing more once it is answered.
async fn discard(head: &Parts, body: &mut Incoming) {
    if body.is_end_stream() || head.headers.contains_key(EXPECT) {
        return;
    }
    let read = async {
        let mut rest = MAX_DISCARDED;
        while let Ok(Some(chunk)) = next_chunk(body).await {
            match rest.checked_sub(chunk.len()) {
                Some(less) => rest = less,
                None => break,
            }
        }
    };
    let _ = timeout(DISCARD_TIMEOUT, read).await;
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

fn refuse(front: &Front, head: &Parts, refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = into_response(Answer::bare(refusal.status()));
    if refusal == Refusal::MethodNotAllowed
        && let Some(endpoint) = front.config.routes.find(head.uri.path())
    {
        let methods = HeaderValue::from_static(endpoint.methods());
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

fn log_refusal(front: &Front, peer: &Peer, head: &Parts, refusal: Refusal, received: Instant) {
    if front.config.log_callbacks == LogCallbacks::Off {
        return;
    }
    let mut bytes = Vec::with_capacity(256);
    let mut line = front
        .log
        .line(&mut bytes, Level::Info, "callback")
        .word("id", front.ids.of(&head.headers).as_str())
        .word("decision", refusal.name())
        .number("status", refusal.status().as_u16().into())
        .word("method", head.method.as_str())
        .text("path", head.uri.path());
    if let Some(source) = front.config.proxy.source(peer, &head.headers) {
        line = line.word("source", &source);
    }
    line.milliseconds("ms", received.elapsed()).end();
    front.log.write(&bytes);
}

const MAX_BODY: usize = 64 << 10;
/// What a request's head and its place in the queue are taken to need.
const HEAD_SHARE: usize = 1 << 10;
const MAX_DISCARDED: usize = 1 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
