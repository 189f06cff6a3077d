//! The pool: its limits, its descriptor, and how it stops.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use sender::{Config, FailureKind, Outcome, PushError, Sender};
use support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that does not respond until opened; it counts the requests that wait.
#[derive(Default)]
struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn server(self: &Arc<Self>) -> Server {
        let gate = Arc::clone(self);
        Server::start(move |mut stream, _| {
            while read_request(&mut stream).is_some() {
                let mut state = gate.state.lock().unwrap();
                state.0 += 1;
                while !state.1 {
                    state = gate.changed.wait(state).unwrap();
                }
                drop(state);
                if stream.write_all(OK).is_err() {
                    return;
                }
            }
        })
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap().0
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

#[test]
fn requests_in_flight_run_together_and_no_more_are_accepted() {
    let gate = Arc::new(Gate::default());
    let server = gate.server();
    let sender = sender();
    assert_eq!(sender.room(), 200);
    for id in 0..200 {
        let mut request = post(server.url());
        request.id = id;
        sender.push(request).unwrap();
    }
    assert_eq!((sender.room(), sender.in_flight()), (0, 200));
    match sender.push(post(server.url())) {
        Err(PushError::Full(request)) => assert_eq!(request.id, 7),
        other => panic!("{other:?}"),
    }
    until("all to be running", || {
        (gate.waiting() == 200).then_some(())
    });
    assert!(sender.receive().is_empty());
    gate.open();
    let mut ids = HashSet::new();
    until("all reports", || {
        for report in sender.receive() {
            assert!(matches!(report.outcome, Outcome::Response(_)), "{report:?}");
            assert!(ids.insert(report.id), "reported twice: {}", report.id);
        }
        (ids.len() == 200).then_some(())
    });
    assert_eq!((sender.room(), sender.in_flight()), (200, 0));
}

#[test]
fn a_report_holds_its_place_until_it_is_taken() {
    let server = Server::answering(OK);
    let sender = Sender::start(Config {
        in_flight: 1,
        ..config()
    })
    .unwrap();
    sender.push(post(server.url())).unwrap();
    let mut flag = UnixStream::from(sender.as_fd().try_clone_to_owned().unwrap());
    until("the flag", || match flag.read(&mut [0]) {
        Ok(length) => Some(length),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            None
        }
    });
    assert!(matches!(
        sender.push(post(server.url())),
        Err(PushError::Full(_))
    ));
    assert_eq!(sender.receive().len(), 1);
    sender.push(post(server.url())).unwrap();
    receive_one(&sender);
}

#[test]
fn the_flag_is_raised_whenever_there_are_reports() {
    let server = Server::answering(OK);
    let sender = sender();
    let mut flag = UnixStream::from(sender.as_fd().try_clone_to_owned().unwrap());
    for _ in 0..300 {
        sender.push(post(server.url())).unwrap();
        // Only the flag is looked at: were it ever not raised, this would wait in vain.
        until("the flag", || flag.read(&mut [0]).ok());
        until("the report", || sender.receive().pop());
    }
}

#[test]
fn pushing_does_not_wait() {
    let gate = Arc::new(Gate::default());
    let server = gate.server();
    let sender = sender();
    let started = Instant::now();
    for _ in 0..200 {
        sender.push(post(server.url())).unwrap();
    }
    // The server does not respond, so anything that waits for the network would hang here.
    assert!(started.elapsed() < Duration::from_secs(5));
    gate.open();
}

#[test]
fn threads_leave_all_signals_to_the_owner() {
    let server = Server::start(|mut stream, _| hold(&mut stream));
    let sender = sender();
    let here = Path::new("/proc/thread-self/status");
    let own = blocked_signals(here);
    assert!(own.is_some());
    for _ in 0..3 {
        sender.push(short(server.url())).unwrap();
    }
    assert_eq!(blocked_signals(here), own);
    let mut seen = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == "sender" {
            // A thread of another test's sender may end at any time.
            let Some(blocked) = blocked_signals(&task.path().join("status")) else {
                continue;
            };
            // All standard signals but KILL (9) and STOP (19), which nothing can block.
            let standard: u64 = (1..32)
                .filter(|n| ![9, 19].contains(n))
                .map(|n| 1u64 << (n - 1))
                .sum();
            assert_eq!(blocked & standard, standard, "{blocked:x}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// None where the thread is gone.
fn blocked_signals(status: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.starts_with("SigBlk:"))?;
    Some(u64::from_str_radix(line.trim_start_matches("SigBlk:").trim(), 16).unwrap())
}

#[test]
fn stopping_waits_for_running_requests() {
    let gate = Arc::new(Gate::default());
    let server = gate.server();
    let sender = sender();
    for id in 0..10 {
        let mut request = post(server.url());
        request.id = id;
        sender.push(request).unwrap();
    }
    until("all to be running", || (gate.waiting() == 10).then_some(()));
    sender.close();
    assert!(matches!(
        sender.push(post(server.url())),
        Err(PushError::Closed(_))
    ));
    assert_eq!(sender.room(), 0);
    gate.open();
    let stopped = sender.stop(Duration::from_secs(30));
    assert!(stopped.unfinished.is_empty());
    assert_eq!(stopped.reports.len(), 10);
    for report in stopped.reports {
        assert!(matches!(report.outcome, Outcome::Response(_)), "{report:?}");
    }
}

#[test]
fn stopping_reports_unfinished_requests_and_breaks_them() {
    let (ended, endings) = mpsc::channel();
    let ended = Mutex::new(ended);
    let (begun, beginnings) = mpsc::channel();
    let begun = Mutex::new(begun);
    let server = Server::start(move |mut stream, _| {
        read_request(&mut stream);
        begun.lock().unwrap().send(()).unwrap();
        hold(&mut stream);
        ended.lock().unwrap().send(()).unwrap();
    });
    let sender = sender();
    for id in [3, 4] {
        let mut request = post(server.url());
        request.id = id;
        sender.push(request).unwrap();
        beginnings.recv().unwrap();
    }
    let started = Instant::now();
    let stopped = sender.stop(Duration::from_millis(50));
    assert!(started.elapsed() < Duration::from_secs(10));
    let unfinished: HashSet<_> = stopped.unfinished.into_iter().collect();
    assert_eq!(unfinished, HashSet::from([3, 4]));
    assert!(stopped.reports.is_empty());
    for _ in 0..2 {
        endings.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

#[test]
fn an_idle_sender_stops_at_once() {
    let server = Server::answering(OK);
    let sender = sender();
    assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    let started = Instant::now();
    let stopped = sender.stop(Duration::from_secs(60));
    assert!(stopped.reports.is_empty() && stopped.unfinished.is_empty());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_sender_that_panics_inside_still_reports() {
    let sender = Sender::start(Config {
        address_check: Arc::new(|_| panic!("staged")),
        ..config()
    })
    .unwrap();
    for _ in 0..3 {
        let outcome = send(&sender, sender::Request::head(1, to("http://127.0.0.1:1/")));
        assert_not_processed(&outcome, FailureKind::Internal);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    for config in [
        Config {
            in_flight: 0,
            ..config()
        },
        Config {
            in_flight: 100_000,
            ..config()
        },
        Config {
            stack_size: 1024,
            ..config()
        },
        Config {
            proxies: sender::Proxies {
                https: Some("nonsense://user:hush@x".into()),
                ..sender::Proxies::none()
            },
            ..config()
        },
    ] {
        let error = Sender::start(config).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}
