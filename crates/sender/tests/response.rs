//! Responses of all kinds: cut, endless, slow, interim, or not HTTP.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use sender::{BodyEnd, FailureKind, Outcome};
use support::*;

#[test]
fn every_status_is_a_response_and_redirects_are_not_followed() {
    let sender = sender();
    for status in [200, 302, 307, 400, 401, 404, 409, 429, 500, 503] {
        let server = Server::answering(format!(
            "HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        ));
        let response = response(send(&sender, post(server.url())));
        assert_eq!(response.status, status);
        assert_eq!(response.header("location"), Some("http://127.0.0.1:1/"));
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn a_location_is_kept_whole_or_not_at_all() {
    let sender = sender();
    for (length, is_kept) in [(8 * 1024, true), (8 * 1024 + 1, false)] {
        let location = format!("{:a<length$}", "http://127.0.0.1:1/");
        let server = Server::answering(format!(
            "HTTP/1.1 307 x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        let response = response(send(&sender, post(server.url())));
        assert_eq!(response.status, 307);
        assert_eq!(
            response.header("location"),
            is_kept.then_some(location.as_str())
        );
    }
}

#[test]
fn an_answer_cut_in_its_headers_is_unknown() {
    for cut in [
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\n",
    ] {
        let server = Server::start(move |mut stream, _| {
            read_request(&mut stream);
            stream.write_all(cut.as_bytes()).unwrap();
        });
        let outcome = send(&sender(), post(server.url()));
        assert!(
            matches!(outcome, Outcome::Unknown(_)),
            "{cut:?}: {outcome:?}"
        );
    }
}

#[test]
fn an_answer_cut_in_its_body_keeps_its_status_and_says_so() {
    for cut in [
        "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"sid\":",
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"sid\":\r\n5\r\n\"S",
    ] {
        let server = Server::start(move |mut stream, _| {
            read_request(&mut stream);
            stream.write_all(cut.as_bytes()).unwrap();
        });
        let response = response(send(&sender(), post(server.url())));
        assert_eq!(response.status, 201);
        assert_eq!(response.body_end, BodyEnd::Broken, "{cut:?}");
        assert!(
            response.body.starts_with(b"{\"sid\":"),
            "{:?}",
            response.body
        );
    }
}

#[test]
fn a_body_that_stalls_is_broken() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nab")
            .unwrap();
        hold(&mut stream);
    });
    let response = response(send(&sender(), short(server.url())));
    assert_eq!((response.status, response.body_end), (201, BodyEnd::Broken));
    assert_eq!(response.body, b"ab");
}

#[test]
fn bodies_are_bounded() {
    let limit = config().body_limit;
    for (length, end) in [
        (limit, BodyEnd::Complete),
        (limit + 1, BodyEnd::Truncated),
        (10 << 20, BodyEnd::Truncated),
    ] {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        let server = Server::answering(answer);
        let response = response(send(&sender(), post(server.url())));
        assert_eq!(response.body_end, end, "{length}");
        assert_eq!(response.body.len(), length.min(limit));
    }
    // Endless, without a length.
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let response = response(send(&sender(), post(server.url())));
    assert_eq!(response.body_end, BodyEnd::Truncated);
    assert_eq!(response.body.len(), limit);
}

#[test]
fn chunked_bodies_are_put_together() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let response = response(send(&sender(), post(server.url())));
    assert_eq!(response.body, b"abcde");
    assert_eq!(response.body_end, BodyEnd::Complete);
}

#[test]
fn a_response_that_is_not_http_is_unknown() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\0\0\0\r\n\r\n",
        "<html>\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
    ] {
        let server = Server::start(move |mut stream, _| {
            read_request(&mut stream);
            stream.write_all(garbage.as_bytes()).unwrap();
        });
        let outcome = send(&sender(), post(server.url()));
        assert!(
            matches!(outcome, Outcome::Unknown(_)),
            "{garbage:?}: {outcome:?}"
        );
    }
}

#[test]
fn endless_or_huge_headers_are_unknown_in_bounded_memory() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        while stream
            .write_all(b"X-Filler: xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n")
            .is_ok()
        {}
    });
    let outcome = send(&sender(), post(server.url()));
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
}

#[test]
fn headers_up_to_ten_kilobytes_are_read() {
    let filler = format!("X-Filler: {}\r\n", "x".repeat(1000)).repeat(10);
    let server = Server::answering(format!(
        "HTTP/1.1 200 OK\r\n{filler}Content-Length: 2\r\n\r\nok"
    ));
    assert_eq!(response(send(&sender(), post(server.url()))).body, b"ok");
}

#[test]
fn headers_that_trickle_end_by_the_deadline() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while stream.write_all(b"x").is_ok() {
            thread::park_timeout(Duration::from_millis(5));
        }
    });
    let started = Instant::now();
    assert_unknown(&send(&sender(), short(server.url())), FailureKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn interim_responses_are_skipped() {
    for interim in ["100 Continue", "103 Early Hints"] {
        let server = Server::answering(format!(
            "HTTP/1.1 {interim}\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
        ));
        let response = response(send(&sender(), post(server.url())));
        assert_eq!(
            (response.status, &response.body[..]),
            (201, &b"ok"[..]),
            "{interim}"
        );
    }
}
