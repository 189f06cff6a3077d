//! Clients that keep connections and do nothing with them, and the log of those that do too much.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::shim::{FORM, Shim, connect, post, read_to_end, status, until};

/// Longer than any of these tests takes.
const NEVER: [&str; 6] = [
    "--header-timeout",
    "5m",
    "--body-timeout",
    "5m",
    "--write-timeout",
    "5m",
];

#[test]
fn a_full_house_makes_room_for_who_comes() {
    let shim = start(&["--max-connections", "8"]);
    let mut idle: Vec<_> = (0..30).map(|_| connect(&shim.address)).collect();
    // One that has begun a request, and one that waits for its body to be asked for, are no better.
    idle[28].write_all(b"POST /twilio/status HT").unwrap();
    let head = format!("POST /twilio/status HTTP/1.1\r\nContent-Length: 9\r\n{FORM}\r\n");
    idle[29].write_all(head.as_bytes()).unwrap();
    let mut answered = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&shim.address);
        stream.write_all(b"GET /nowhere HTTP/1.1\r\n\r\n").unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 404");
        answered.push(stream);
    }
    for mut stream in idle {
        assert_is_closed(&mut stream);
    }
}

#[test]
fn requests_in_flight_are_answered_when_all_places_are_taken() {
    let limits = ["--deadline", "2s", "--statement-timeout", "1s"];
    let shim = start(&[&limits[..], &["--max-connections", "3"]].concat());
    let mut waiting = connect(&shim.address);
    let request = post("/twilio/status", FORM, "a=b");
    waiting.write_all(request.as_bytes()).unwrap();
    until("the request in flight", || {
        let page = shim.operate("GET", "/metrics");
        page.contains("\ntwilio_callback_shim_requests_in_flight 1\n")
            .then_some(())
    });
    let _others: Vec<_> = (0..20).map(|_| connect(&shim.address)).collect();
    assert_eq!(status(&read_to_end(&mut waiting)), 503);
}

#[test]
fn a_client_address_has_so_many_connections_and_others_keep_theirs() {
    let shim = start(&["--max-connections-per-client", "4"]);
    let other = connect_from("127.0.0.3", &shim.address);
    let mut streams: Vec<_> = (0..10)
        .map(|_| connect_from("127.0.0.2", &shim.address))
        .collect();
    for stream in &mut streams[..6] {
        assert_is_closed(stream);
    }
    streams.push(other);
    for stream in &mut streams[6..] {
        assert_is_answered(stream);
    }
    let page = shim.operate("GET", "/metrics");
    assert!(
        page.contains("\ntwilio_callback_shim_connections_displaced_total 6\n"),
        "{page}"
    );
}

#[test]
fn a_client_address_whose_requests_are_all_in_hand_gets_no_further_connection() {
    let limits = ["--deadline", "2s", "--statement-timeout", "1s"];
    let shim = start(&[&limits[..], &["--max-connections-per-client", "1"]].concat());
    let mut first = connect_from("127.0.0.2", &shim.address);
    let request = post("/twilio/status", FORM, "a=b");
    first.write_all(request.as_bytes()).unwrap();
    until("the request in flight", || {
        let page = shim.operate("GET", "/metrics");
        page.contains("\ntwilio_callback_shim_requests_in_flight 1\n")
            .then_some(())
    });
    assert_is_closed(&mut connect_from("127.0.0.2", &shim.address));
    assert_is_answered(&mut connect_from("127.0.0.3", &shim.address));
    assert_eq!(status(&read_to_end(&mut first)), 503);
}

#[test]
fn a_trusted_proxy_has_no_limit_of_its_own() {
    let flags = [
        "--max-connections-per-client",
        "4",
        "--proxy-header",
        "X-Forwarded-For",
    ];
    let shim = start(&[&flags[..], &["--trusted-proxy", "127.0.0.2"]].concat());
    let mut streams: Vec<_> = (0..10)
        .map(|_| connect_from("127.0.0.2", &shim.address))
        .collect();
    for stream in &mut streams {
        assert_is_answered(stream);
    }
}

#[test]
fn a_client_that_never_reads_its_answers_is_cut_off() {
    let shim = Shim::start(&["--write-timeout", "300ms"]);
    for (address, request) in [
        (&shim.address, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"),
        (&shim.operations, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut stream = connect(address);
        let started = Instant::now();
        // Written until the other end breaks it off; what stands still runs into the stream's own limit of 30 s.
        let error = loop {
            if let Err(error) = stream.write_all(request.repeat(1000).as_bytes()) {
                break error;
            }
        };
        assert!(
            started.elapsed() < Duration::from_secs(25),
            "{address}: {error} after {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn idle_scrapers_do_not_keep_out_others() {
    let shim = Shim::start(&[]);
    let _idle: Vec<_> = (0..100).map(|_| connect(&shim.operations)).collect();
    let started = Instant::now();
    assert_eq!(status(&shim.operate("GET", "/live")), 200);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn lines_about_refused_requests_are_so_many_a_second_and_the_rest_is_counted() {
    let shim = Shim::start(&["--log-refused-rate", "5"]);
    let started = Instant::now();
    for _ in 0..50 {
        let request = "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10);
        shim.exchange(request + &post("/nowhere", FORM, ""));
    }
    let sent = 50 * 11;
    let counted = |log: &str| -> (usize, usize) {
        let left_out = log
            .match_indices("event=left_out msg=\"")
            .map(|(start, words)| {
                let rest = &log[start + words.len()..];
                rest[..rest.find(' ').unwrap()].parse::<usize>().unwrap()
            });
        (log.matches("decision=not_found").count(), left_out.sum())
    };
    let (written, _) = until("the count of the lines left out", || {
        let (written, left_out) = counted(&shim.log());
        (written + left_out == sent).then_some((written, left_out))
    });
    let most = 5 * (started.elapsed().as_secs() as usize + 2);
    assert!((5..=most).contains(&written), "{written} of at most {most}");
}

fn start(flags: &[&str]) -> Shim {
    Shim::start(&[&NEVER[..], flags].concat())
}

/// A connection from another address of this machine.
fn connect_from(source: &str, address: &str) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(source.parse().unwrap(), 0))
            .unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        stream.into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

fn assert_is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

fn assert_is_answered(stream: &mut TcpStream) {
    stream
        .write_all(b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(status(&read_to_end(stream)), 404);
}
