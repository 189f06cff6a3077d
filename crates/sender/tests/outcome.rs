//! Each way a request can end, staged with real servers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sender::{
    Authorization, BodyEnd, Config, FailureKind, Method, Outcome, Request, Sender, Timeouts,
};
use support::*;

#[test]
fn a_request_arrives_whole_and_its_answer_comes_back() {
    let (seen, requests) = mpsc::channel();
    let seen = Mutex::new(seen);
    let server = Server::start(move |mut stream, _| {
        let request = read_request(&mut stream).unwrap();
        seen.lock().unwrap().send(request).unwrap();
        stream
            .write_all(
                b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nRetry-After: 7\r\n\
                  Twilio-Request-Id: RQ1\r\nX-Other: dropped\r\nContent-Length: 2\r\n\r\n{}",
            )
            .unwrap();
    });
    let credentials = Authorization::basic("AC1", "token");
    let mut request = authorized(&server, "/2010-04-01/Accounts?x=1", credentials);
    // Longer than any buffer, so that it goes in several pieces.
    request.body = (0..100_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    let body = request.body.clone();
    let response = response(send(&sender(), request));
    assert_eq!(response.status, 201);
    assert_eq!(response.body, b"{}");
    assert_eq!(response.body_end, BodyEnd::Complete);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("retry-after"), Some("7"));
    assert_eq!(response.header("twilio-request-id"), Some("RQ1"));
    assert_eq!(response.header("x-other"), None);

    let request = requests.recv().unwrap();
    let head_end = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(request[..head_end].to_vec()).unwrap();
    assert!(head.starts_with("POST /2010-04-01/Accounts?x=1 HTTP/1.1\r\n"));
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("\r\nauthorization: basic qumxonrva2vu\r\n"),
        "{head}"
    );
    assert!(lower.contains("\r\nuser-agent: twilio_callback/"), "{head}");
    assert!(
        lower.contains(&format!("\r\nhost: {}\r\n", server.address)),
        "{head}"
    );
    assert!(!lower.contains("accept-encoding"), "{head}");
    assert_eq!(&request[head_end..], &body[..]);
}

#[test]
fn an_empty_post_has_a_length() {
    let (seen, requests) = mpsc::channel();
    let seen = Mutex::new(seen);
    let server = Server::start(move |mut stream, _| {
        let request = read_request(&mut stream).unwrap();
        seen.lock().unwrap().send(request).unwrap();
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    });
    let request = Request::new(1, Method::Post, to(server.url()));
    assert_eq!(response(send(&sender(), request)).status, 204);
    let request = String::from_utf8(requests.recv().unwrap()).unwrap();
    assert!(
        request
            .to_ascii_lowercase()
            .contains("content-length: 0\r\n"),
        "{request}"
    );
}

#[test]
fn delete_and_get_carry_no_body() {
    for method in [Method::Get, Method::Delete, Method::Head] {
        let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let request = Request::new(1, method, to(server.url()));
        assert_eq!(response(send(&sender(), request)).status, 200, "{method:?}");
    }
}

#[test]
fn refused_is_not_processed() {
    let server = Server::answering("");
    // No process can listen on the local port of an open connection.
    let client = TcpStream::connect(server.address).unwrap();
    let closed = client.local_addr().unwrap();
    let outcome = send(&sender(), post(format!("http://{closed}/")));
    assert_not_processed(&outcome, FailureKind::Connect);
}

#[test]
fn a_connection_that_is_not_answered_is_not_processed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: changes the backlog of a listening socket that lives until the end of the test.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    // Fill the backlog until the kernel drops what comes.
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the backlog never fills");
    }
    let outcome = send(&sender(), short(format!("http://{address}/")));
    assert_not_processed(&outcome, FailureKind::Timeout);
}

#[test]
fn a_name_that_does_not_exist_is_not_processed() {
    let outcome = send(&sender(), post("http://nothing.invalid/"));
    let Outcome::NotProcessed(failure) = &outcome else {
        panic!("{outcome:?}");
    };
    // A machine without a name server times out instead.
    assert!(
        matches!(
            failure.kind,
            FailureKind::NameNotFound | FailureKind::Timeout
        ),
        "{failure}"
    );

    let sender = Sender::start(Config {
        lookup: Some(Arc::new(|_, _| Err(std::io::Error::other("staged")))),
        ..config()
    })
    .unwrap();
    let outcome = send(&sender, post("http://nothing.example/"));
    assert_not_processed(&outcome, FailureKind::NameNotFound);
}

#[test]
fn a_name_server_that_hangs_is_not_processed() {
    let sender = Sender::start(Config {
        lookup: Some(Arc::new(|_, _| {
            thread::park_timeout(Duration::from_secs(60));
            Ok(Vec::new())
        })),
        timeouts: Timeouts {
            resolve: Duration::from_millis(100),
            ..Timeouts::default()
        },
        ..config()
    })
    .unwrap();
    let outcome = send(&sender, post("http://slow.example/"));
    assert_not_processed(&outcome, FailureKind::Timeout);
}

#[test]
fn hanging_before_or_after_reading_is_unknown() {
    let sender = sender();
    let silent = Server::start(|stream, _| {
        // Never reads: the kernel takes the request all the same.
        thread::park_timeout(Duration::from_secs(60));
        drop(stream);
    });
    assert_unknown(&send(&sender, short(silent.url())), FailureKind::Timeout);
    let mute = Server::start(|mut stream, _| {
        read_request(&mut stream);
        hold(&mut stream);
    });
    assert_unknown(&send(&sender, short(mute.url())), FailureKind::Timeout);
}

#[test]
fn closing_or_resetting_without_an_answer_is_unknown() {
    let sender = sender();
    let closing = Server::start(|mut stream, _| {
        read_request(&mut stream);
    });
    assert_unknown(&send(&sender, post(closing.url())), FailureKind::Closed);
    let resetting = Server::start(|mut stream, _| {
        // Closing with something unread makes the kernel reset the connection. One byte of the
        // body tells that all of it has been written.
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\nT") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
    });
    assert_unknown(&send(&sender, post(resetting.url())), FailureKind::Closed);
}

#[test]
fn a_request_that_could_not_be_written_in_full_is_not_processed() {
    let server = Server::start(|mut stream, _| {
        stream.read_exact(&mut [0; 10]).unwrap();
    });
    let mut request = post(server.url());
    request.body = vec![b'x'; 64 << 20];
    assert_not_processed(&send(&sender(), request), FailureKind::Closed);
}

#[test]
fn a_request_whose_time_is_up_is_not_sent() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let mut request = post(server.url());
    request.timeout = Duration::ZERO;
    assert_not_processed(&send(&sender(), request), FailureKind::Timeout);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_malformed_request_is_refused_without_sending() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let sender = sender();
    for (name, value) in [
        ("a b", "x"),
        ("x", "a\r\nEvil: 1"),
        ("Content-Length", "3"),
        ("host", "other.example"),
        ("Transfer-Encoding", "chunked"),
        ("authorization", "Basic x"),
        ("expect", "100-continue"),
    ] {
        let mut request = post(server.url());
        request.headers.push((name.into(), value.into()));
        assert_not_processed(&send(&sender, request), FailureKind::InvalidRequest);
    }
    let request = authorized(&server, "/", Authorization::bearer("hush\r\nEvil: 1"));
    let outcome = send(&sender, request);
    assert_not_processed(&outcome, FailureKind::InvalidRequest);
    assert!(!format!("{outcome:?}").contains("hush"));
    let mut request = Request::new(1, Method::Get, to(server.url()));
    request.body = b"x".to_vec();
    assert_not_processed(&send(&sender, request), FailureKind::InvalidRequest);
    assert_eq!(server.connections(), 0);
}
