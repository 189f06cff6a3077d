//! A request's body, read within limits.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use tokio::time::timeout;

use crate::refusal::Refusal;

/// Reads the whole body, of at most `limit` bytes. A body that arrives in one piece is copied too: its few hundred bytes would keep the
/// connection's whole buffer alive.
pub(crate) async fn read(body: &mut Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let Some(first) = next_chunk(body, limit).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() {
        return Ok(Bytes::copy_from_slice(&first));
    }
    let mut whole = Vec::with_capacity(first.len() + body.size_hint().lower() as usize);
    whole.extend_from_slice(&first);
    while let Some(chunk) = next_chunk(body, limit).await? {
        if whole.len() + chunk.len() > limit {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

async fn next_chunk(body: &mut Incoming, limit: usize) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BadBody)?;
        match frame.into_data() {
            Ok(chunk) if chunk.len() > limit => return Err(Refusal::TooLarge),
            Ok(chunk) => return Ok(Some(chunk)),
            // Trailers are ignored.
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Reads and discards what a refused client still sends, within limits: closing a socket with unread bytes
/// resets it, and the client would not see the response. A client that waits for "100 Continue" sends nothing
/// more after the response.
pub(crate) async fn discard(head: &Parts, body: &mut Incoming) {
    if body.is_end_stream() || head.headers.contains_key(EXPECT) {
        return;
    }
    let read = async {
        let mut rest = MAX_DISCARDED;
        while let Ok(Some(chunk)) = next_chunk(body, MAX_DISCARDED).await {
            match rest.checked_sub(chunk.len()) {
                Some(less) => rest = less,
                None => break,
            }
        }
    };
    let _ = timeout(DISCARD_TIMEOUT, read).await;
}

const MAX_DISCARDED: usize = 1 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
