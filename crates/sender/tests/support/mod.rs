//! Servers that misbehave on purpose, and a sender to try them with.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use protocol::destination::Destination;
use protocol::trust::Gateway;
use sender::{
    Authorization, Config, FailureKind, Method, Outcome, Proxies, Report, Request, Response, Roots,
    Sender,
};

/// A server whose connections are each handled on a thread, numbered from 0.
pub struct Server {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(handle: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let handle = Arc::new(handle);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let handle = Arc::clone(&handle);
                thread::spawn(move || handle(stream, number));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// A server that answers every request on every connection with `response`.
    pub fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |mut stream, _| {
            while read_request(&mut stream).is_some() {
                if stream.write_all(&response).is_err() {
                    return;
                }
            }
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads one request with its body; `None` when the connection ends first.
pub fn read_request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |value| value.trim().parse().unwrap());
    let start = request.len();
    request.resize(start + length, 0);
    stream.read_exact(&mut request[start..]).ok()?;
    Some(request)
}

/// Waits until the client has gone.
pub fn hold(stream: &mut impl Read) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer), Ok(length) if length > 0) {}
}

pub fn config() -> Config {
    Config {
        proxies: Proxies::none(),
        roots: Roots::Only(Vec::new()),
        ..Config::default()
    }
}

pub fn sender() -> Sender {
    Sender::start(config()).unwrap()
}

/// Where a URL leads.
pub fn to(url: impl AsRef<str>) -> Destination {
    Destination::parse(url.as_ref()).unwrap()
}

pub fn post(url: impl AsRef<str>) -> Request {
    complete(Request::new(7, Method::Post, to(url)))
}

/// The same with credentials, which the server may be shown.
pub fn authorized(server: &Server, path: &str, authorization: Authorization) -> Request {
    let gateway = Gateway::parse(server.url().trim_end_matches('/')).unwrap();
    let trusted = gateway.at(path).unwrap();
    complete(Request::authorized(7, Method::Post, trusted, authorization))
}

fn complete(mut request: Request) -> Request {
    request.headers = vec![(
        "content-type".into(),
        "application/x-www-form-urlencoded".into(),
    )];
    request.body = b"To=%2B12025550123&Body=hello".to_vec();
    request.timeout = Duration::from_secs(20);
    request
}

/// A request that is not given long.
pub fn short(url: impl AsRef<str>) -> Request {
    let mut request = post(url);
    request.timeout = Duration::from_millis(200);
    request
}

pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

pub fn receive_one(sender: &Sender) -> Report {
    until("a report", || {
        let mut reports = sender.receive();
        assert!(reports.len() < 2, "one was asked for: {reports:?}");
        reports.pop()
    })
}

pub fn send(sender: &Sender, request: Request) -> Outcome {
    let id = request.id;
    sender.push(request).unwrap();
    let report = receive_one(sender);
    assert_eq!(report.id, id);
    report.outcome
}

#[track_caller]
pub fn assert_not_processed(outcome: &Outcome, kind: FailureKind) {
    match outcome {
        Outcome::NotProcessed(failure) => assert_eq!(failure.kind, kind, "{failure}"),
        other => panic!("expected not processed for {kind:?}: {other:?}"),
    }
}

#[track_caller]
pub fn assert_unknown(outcome: &Outcome, kind: FailureKind) {
    match outcome {
        Outcome::Unknown(failure) => assert_eq!(failure.kind, kind, "{failure}"),
        other => panic!("expected unknown for {kind:?}: {other:?}"),
    }
}

#[track_caller]
pub fn response(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Response(response) => response,
        other => panic!("expected a response: {other:?}"),
    }
}
