//! One HTTP exchange with a local address, over reused connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Sends a limited number of requests at once, and reuses connections.
pub(crate) struct Client {
    permits: Semaphore,
    idle: Mutex<HashMap<SocketAddr, Vec<Kept>>>,
}

/// The response.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) asks_for_user: bool,
    pub(crate) body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect(String),
    Read(String),
}

/// The times that an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) read: Duration,
}

type Sender = SendRequest<Full<Bytes>>;

struct Kept {
    sender: Sender,
    since: Instant,
}

impl Client {
    pub(crate) fn new(connections: usize) -> Self {
        Self {
            permits: Semaphore::new(connections.max(1)),
            idle: Mutex::default(),
        }
    }

    /// Sends `request` to `address` and reads the answer.
    pub(crate) async fn exchange(
        &self,
        address: SocketAddr,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Received, Failure> {
        // The semaphore is never closed, so this cannot fail.
        let _permit = self.permits.acquire().await;
        let mut request = request;
        // A reused connection may have closed; a request that was not sent uses another.
        while let Some(sender) = self.take(address) {
            match self.attempt(address, sender, request, limits).await {
                Ok(received) => return received,
                Err(unsent) => request = unsent,
            }
        }
        let sender = connect(address, limits.connect).await?;
        match self.attempt(address, sender, request, limits).await {
            Ok(received) => received,
            Err(_) => Err(Failure::Read(
                "connection closed before the request".to_owned(),
            )),
        }
    }

    /// `Err` returns a request of which nothing was sent.
    async fn attempt(
        &self,
        address: SocketAddr,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Result<Received, Failure>, Request<Full<Bytes>>> {
        if sender.ready().await.is_err() {
            return Err(request);
        }
        let response = match timeout(limits.read, sender.try_send_request(request)).await {
            Err(_) => return Ok(Err(Failure::Read("no answer in time".to_owned()))),
            Ok(Err(mut error)) => match error.take_message() {
                Some(unsent) => return Err(unsent),
                None => return Ok(Err(Failure::Read(error.error().to_string()))),
            },
            Ok(Ok(response)) => response,
        };
        let received = read(response, limits.read).await;
        if received.is_ok() && !sender.is_closed() {
            let kept = Kept {
                sender,
                since: Instant::now(),
            };
            self.idle().entry(address).or_default().push(kept);
        }
        Ok(received)
    }

    fn take(&self, address: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle();
        let kept = idle.get_mut(&address)?;
        kept.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < IDLE);
        kept.pop().map(|kept| kept.sender)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Vec<Kept>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> Result<Sender, Failure> {
    let stream = timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| Failure::Connect("no connection in time".to_owned()))?
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::Connect(error.to_string()))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(response: Response<Incoming>, limit: Duration) -> Result<Received, Failure> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    loop {
        match timeout(limit, body.frame()).await {
            Err(_) => return Err(Failure::Read("the answer stopped".to_owned())),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(Failure::Read(error.to_string())),
            Ok(Some(Ok(frame))) => {
                bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()))
            }
        }
        if bytes.len() > MAX_ANSWER {
            return Err(Failure::Read("the answer is larger than 1 MiB".to_owned()));
        }
    }
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    Ok(Received {
        status: head.status.as_u16(),
        content_type: content_type.map(str::to_owned),
        asks_for_user: head.headers.contains_key(WWW_AUTHENTICATE),
        body: bytes.into(),
    })
}

/// Shorter than servers keep idle connections, so that one rarely closes just when it is reused.
const IDLE: Duration = Duration::from_secs(1);
const MAX_ANSWER: usize = 1 << 20;
