//! Many requests over several connections at once.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::http::{Address, Connection, Response};
use crate::client::request::Request;

/// Sends each request once, over `connections` at once, and gives the answers in the requests' order.
/// A connection that breaks is opened anew for the next request.
pub fn send_all(
    address: &Address,
    requests: &[Request],
    connections: usize,
) -> Vec<io::Result<Response>> {
    let mut answers: Vec<_> = (0..requests.len()).map(|_| None).collect();
    let next = Mutex::new(requests.iter().zip(answers.iter_mut()));
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::new(address);
                loop {
                    let job = next.lock().unwrap().next();
                    let Some((request, answer)) = job else { return };
                    *answer = Some(client.send(request));
                }
            });
        }
    });
    answers.into_iter().map(Option::unwrap).collect()
}

/// Sends each request until it is taken, as Twilio does if asked to retry; counts the taken
/// ones in `done`. Fails the test if a request is refused, or not taken within a minute.
pub fn deliver_all(
    address: &Address,
    requests: &[&Request],
    connections: usize,
    done: &AtomicUsize,
) {
    let next = AtomicUsize::new(0);
    let end = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::new(address);
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    client.deliver(request, end);
                    done.fetch_add(1, Ordering::Release);
                }
            });
        }
    });
}

/// Makes and sends requests over `connections` at once until `stop` is set, for a minute at most, and
/// gives the number of each with its answer.
pub fn send_until(
    stop: &AtomicBool,
    address: &Address,
    connections: usize,
    make: impl Fn(usize) -> Request + Sync,
) -> Vec<(usize, io::Result<Response>)> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let end = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::new(address);
                while !stop.load(Ordering::Acquire) && Instant::now() < end {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let answer = client.send(&make(number));
                    answers.lock().unwrap().push((number, answer));
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

/// A client that keeps its connection for as long as the server does.
pub(crate) struct Client<'a> {
    address: &'a Address,
    connection: Option<Connection>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(address: &'a Address) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    pub(crate) fn send(&mut self, request: &Request) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.address.connect()?,
        };
        let response = connection.send(request)?;
        let closes = response
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn deliver(&mut self, request: &Request, end: Instant) {
        loop {
            match self.send(request) {
                Ok(response) if response.is_success() => return,
                Ok(response) if response.status < 500 => {
                    panic!("{} for {}", response.status, request.target)
                }
                Ok(_) | Err(_) => {}
            }
            assert!(Instant::now() < end, "a request was not taken in time");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
