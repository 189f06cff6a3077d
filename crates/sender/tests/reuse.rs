//! Connections are reused, and a reused connection that the server has closed loses no request.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use sender::{Config, FailureKind, Sender};
use support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::answering(OK);
    let sender = sender();
    for _ in 0..20 {
        assert_eq!(response(send(&sender, post(server.url()))).body, b"ok");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_replaced() {
    let (closed, closings) = mpsc::channel();
    let closed = Mutex::new(closed);
    let server = Server::start(move |mut stream, _| {
        read_request(&mut stream);
        stream.write_all(OK).unwrap();
        // The answer promised to keep the connection, and now it is closed.
        stream.shutdown(Shutdown::Both).unwrap();
        closed.lock().unwrap().send(()).unwrap();
    });
    let sender = sender();
    for number in 1..=20 {
        assert_eq!(response(send(&sender, post(server.url()))).status, 200);
        closings.recv().unwrap();
        assert_eq!(server.connections(), number);
    }
}

#[test]
fn a_connection_that_the_server_reset_while_idle_is_replaced() {
    let (closed, closings) = mpsc::channel();
    let closed = Mutex::new(closed);
    let server = Server::start(move |mut stream, _| {
        // The rest of the request stays unread, so closing resets.
        let mut byte = [0];
        std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
        stream.write_all(OK).unwrap();
        drop(stream);
        closed.lock().unwrap().send(()).unwrap();
    });
    let sender = sender();
    for number in 1..=20 {
        // Whether the answer is read before the reset is a matter of luck, the next one is not.
        let _ = send(&sender, post(server.url()));
        closings.recv().unwrap();
        assert_eq!(server.connections(), number);
    }
}

#[test]
fn closing_on_receipt_of_the_second_request_is_unknown() {
    // It might have been processed: nothing tells this from a server that died at work.
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(OK).unwrap();
        read_request(&mut stream);
    });
    let sender = sender();
    assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    assert_unknown(&send(&sender, post(server.url())), FailureKind::Closed);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_is_closed_if_the_response_says_so() {
    let server =
        Server::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let sender = sender();
    for _ in 0..3 {
        assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_connection_with_leftovers_is_not_reused() {
    // An unsolicited second response must not be taken for the response to the next request.
    let mut answer = OK.to_vec();
    answer.extend_from_slice(b"HTTP/1.1 500 Stray\r\nContent-Length: 0\r\n\r\n");
    let server = Server::answering(answer);
    let sender = sender();
    for _ in 0..3 {
        assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn connections_are_not_reused_beyond_their_age() {
    let server = Server::answering(OK);
    let sender = Sender::start(Config {
        idle_age: Duration::ZERO,
        ..config()
    })
    .unwrap();
    for _ in 0..3 {
        assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn an_idle_sender_ends_its_threads_and_connections() {
    let (ended, endings) = mpsc::channel();
    let ended = Mutex::new(ended);
    let server = Server::start(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            stream.write_all(OK).unwrap();
        }
        ended.lock().unwrap().send(()).unwrap();
    });
    let sender = Sender::start(Config {
        thread_idle: Duration::from_millis(20),
        ..config()
    })
    .unwrap();
    assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    endings.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(response(send(&sender, post(server.url()))).status, 200);
    assert_eq!(server.connections(), 2);
}
