//! A steady flow of requests, each with its times, while a test does something else beside it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::http::Address;
use crate::client::load::Client;
use crate::client::request::Request;
use crate::wait::wait_until;

/// How requests are sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many are under way at most.
    pub connections: usize,
    /// A connection's requests begin at least so far apart; zero for as fast as answers come.
    pub interval: Duration,
}

/// A request that was sent, and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// The request's number.
    pub number: usize,
    /// When sending began.
    pub began: Instant,
    /// When the answer was there.
    pub ended: Instant,
    /// The answer's status; `None` if there was no answer.
    pub status: Option<u16>,
}

impl Exchange {
    /// How long the answer took.
    pub fn latency(&self) -> Duration {
        self.ended - self.began
    }
}

/// Makes and sends requests numbered from 0 while `body` runs, which can look how many were answered;
/// gives the requests in the order in which they began, with what `body` gave.
pub fn flow_during<T>(
    address: &Address,
    pace: Pace,
    make: impl Fn(usize) -> Request + Sync,
    body: impl FnOnce(&AtomicUsize) -> T,
) -> (Vec<Exchange>, T) {
    let stop = AtomicBool::new(false);
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all = Mutex::new(Vec::new());
    let result = thread::scope(|scope| {
        for _ in 0..pace.connections {
            scope.spawn(|| {
                let own = send_while(&stop, &next, &answered, address, pace.interval, &make);
                all.lock().unwrap().extend(own);
            });
        }
        // The senders end with the body, also if it panics, or the scope would wait for ever.
        let _guard = SetOnDrop(&stop);
        body(&answered)
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|exchange: &Exchange| exchange.began);
    (all, result)
}

/// Waits until `count` more requests are answered.
pub fn wait_for_more(answered: &AtomicUsize, count: usize) {
    let target = answered.load(Ordering::Acquire) + count;
    wait_until(Duration::from_secs(600), "requests to be answered", || {
        answered.load(Ordering::Acquire) >= target
    });
}

/// The latency that a share of `permille` of the exchanges kept to.
pub fn percentile(exchanges: &[Exchange], permille: usize) -> Duration {
    let mut latencies: Vec<_> = exchanges.iter().map(Exchange::latency).collect();
    latencies.sort_unstable();
    let index = (latencies.len() * permille / 1000).min(latencies.len() - 1);
    latencies[index]
}

/// One line on how many exchanges there were and how long they took.
pub fn summary(exchanges: &[Exchange]) -> String {
    let (Some(first), Some(last)) = (exchanges.first(), exchanges.last()) else {
        return "no requests".to_owned();
    };
    let seconds = (last.ended - first.began).as_secs_f64();
    format!(
        "{} requests in {seconds:.1} s, {:.0} a second; latency p50 {:.1?} p99 {:.1?} max {:.1?}",
        exchanges.len(),
        exchanges.len() as f64 / seconds,
        percentile(exchanges, 500),
        percentile(exchanges, 990),
        percentile(exchanges, 1000)
    )
}

fn send_while(
    stop: &AtomicBool,
    next: &AtomicUsize,
    answered: &AtomicUsize,
    address: &Address,
    interval: Duration,
    make: &impl Fn(usize) -> Request,
) -> Vec<Exchange> {
    let mut client = Client::new(address);
    let mut sent = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let request = make(number);
        let began = Instant::now();
        let status = client.send(&request).ok().map(|response| response.status);
        let ended = Instant::now();
        answered.fetch_add(1, Ordering::Release);
        sent.push(Exchange {
            number,
            began,
            ended,
            status,
        });
        thread::sleep((began + interval).saturating_duration_since(ended));
    }
    sent
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
