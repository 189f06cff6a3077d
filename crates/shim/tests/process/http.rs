//! Every status that needs no database, whatever is sent.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::shim::{FORM, Shim, SocketPath, connect, post, read_to_end, status};

#[test]
fn paths_methods_sizes_and_media_types_are_refused_as_documented() {
    let shim = Shim::start(&["--status-path", "/sms,/api/twilio"]);
    let big = "x".repeat(65_537);
    let plain = "Content-Type: text/plain\r\n";
    for (request, expected) in [
        (post("/", FORM, "a=b"), 404),
        (post("/twilio/status/", FORM, "a=b"), 404),
        (post("/twilio/status", plain, "a=b"), 415),
        (post("/twilio/status", "", "a=b"), 415),
        (post("/twilio/status", FORM, &big), 413),
        (post("/sms", plain, "a=b"), 415),
        (post("/api/twilio?x=1", plain, "a=b"), 415),
        (post("/smsgate", plain, "a=b"), 415),
        (
            "PUT /twilio/inbound HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(),
            405,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(),
            404,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(),
            404,
        ),
    ] {
        let answer = shim.exchange(&request);
        assert_eq!(status(&answer), expected, "{request:.100}: {answer}");
        assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
    }
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let shim = Shim::start(&[]);
    for (method, path, allowed) in [
        ("GET", "/twilio/status", "POST"),
        ("HEAD", "/twilio/inbound", "GET, POST"),
        ("DELETE", "/smsgate", "POST"),
    ] {
        let answer = shim.exchange(format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(status(&answer), 405);
        assert!(
            answer.contains(&format!("\r\nallow: {allowed}\r\n")),
            "{answer}"
        );
    }
}

#[test]
fn without_a_database_callbacks_get_503_and_when_to_come_back() {
    let shim = Shim::start(&[]);
    for request in [
        post("/twilio/status?a=b", FORM, "MessageSid=SM1"),
        post(
            "/twilio/inbound",
            "content-type: Application/JSON ; x=y\r\n",
            "{}",
        ),
        post("/smsgate", "Content-Type: application/json\r\n", "{}"),
        post("/twilio/status", "", ""),
        post("http://other.example/twilio/status?x=%00", FORM, "a=b"),
        post(
            "/twilio/status",
            &format!("{FORM}Expect: 100-continue\r\n"),
            "a=b",
        ),
        post("/twilio/status", FORM, &"x".repeat(65_536)),
        "GET /twilio/inbound?Body=%ff%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(),
        chunked(&["a=", "b"]),
    ] {
        let answer = shim.exchange(&request);
        let answer = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(status(answer), 503, "{request:.200}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
}

#[test]
fn a_chunked_body_has_the_same_limit() {
    let shim = Shim::start(&[]);
    let half = "x".repeat(32_768);
    assert_eq!(status(&shim.exchange(chunked(&[&half, &half]))), 503);
    assert_eq!(status(&shim.exchange(chunked(&[&half, &half, "x"]))), 413);
}

#[test]
fn a_refused_client_that_still_sends_sees_its_answer() {
    let shim = Shim::start(&[]);
    let huge = "x".repeat(900_000);
    assert_eq!(status(&shim.exchange(post("/nowhere", FORM, &huge))), 404);
    assert_eq!(
        status(&shim.exchange(post("/twilio/status", FORM, &huge))),
        413
    );
}

#[test]
fn input_that_is_not_http_gets_a_4xx_or_no_response() {
    let shim = Shim::start(&[]);
    let many: String = (0..65).map(|n| format!("X-{n}: y\r\n")).collect();
    let wide = format!("X-Wide: {}\r\n", "y".repeat(100_000));
    let huge_length = "Content-Length: 99999999999999999999999999\r\n";
    for request in [
        b"\x00\x01\x02\x03\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /twilio/\x00status HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"POST /twilio/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nX-Bad: a\x00b\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nno colon here\r\n\r\n".to_vec(),
        post("/twilio/status", &many, "").into_bytes(),
        post("/twilio/status", &wide, "").into_bytes(),
        format!("POST /twilio/status HTTP/1.1\r\n{huge_length}\r\n").into_bytes(),
    ] {
        let answer = shim.exchange(&request);
        let text = String::from_utf8_lossy(&request);
        assert!(
            answer.is_empty() || (400..500).contains(&status(&answer)),
            "{text:.80}: {answer}"
        );
    }
    assert_eq!(
        status(&shim.exchange(post("/x", FORM, ""))),
        404,
        "it must go on"
    );
    assert!(!shim.log().contains("panicked"), "{}", shim.log());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let shim = Shim::start(&[]);
    let put = "PUT /twilio/status HTTP/1.1\r\nHost: a\r\n\r\n";
    let get = "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = post("/twilio/status", "Content-Type: text/plain\r\n", "a");
    let answer = shim.exchange(format!("{put}{get}{last}"));
    let statuses: Vec<u16> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(start, _)| status(&answer[start..]))
        .collect();
    assert_eq!(statuses, [405, 404, 415]);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let shim = Shim::start(&["--deadline", "5s"]);
    let mut stream = connect(&shim.address);
    let head =
        format!("POST /twilio/status HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n{FORM}\r\nabc");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(status(&read_to_end(&mut stream)), 408);
    shim.wait_for_log("decision=body_timeout status=408");
}

#[test]
fn a_head_that_does_not_come_is_given_up() {
    let shim = Shim::start(&[]);
    for sent in ["", "POST /twilio/status HT"] {
        let mut stream = connect(&shim.address);
        stream.write_all(sent.as_bytes()).unwrap();
        // Closed by the shim, with an answer or without; the read would time out otherwise.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
}

#[test]
fn requests_over_the_budget_are_refused_at_once() {
    let shim = Shim::start(&[
        "--max-in-flight",
        "1",
        "--deadline",
        "5s",
        "--statement-timeout",
        "4s",
    ]);
    let mut first = connect(&shim.address);
    first
        .write_all(post("/twilio/status", FORM, "a=b").as_bytes())
        .unwrap();
    crate::shim::until("the first request in flight", || {
        shim.operate("GET", "/metrics")
            .contains("\ntwilio_callback_shim_requests_in_flight 1\n")
            .then_some(())
    });
    let answer = shim.exchange(post("/twilio/status", FORM, "a=b"));
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    shim.wait_for_log("decision=overload status=503");
    assert_eq!(status(&read_to_end(&mut first)), 503);
}

#[test]
fn a_long_target_counts_among_the_bytes_in_hand() {
    let flags = ["--max-in-flight-bytes", "80KiB", "--deadline", "5s"];
    let shim = Shim::start(&[&flags[..], &["--statement-timeout", "4s"]].concat());
    let query = "a".repeat(30_000);
    let get = format!("GET /twilio/inbound?Body={query} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut held = Vec::new();
    for number in 1..=2 {
        let mut stream = connect(&shim.address);
        stream.write_all(get.as_bytes()).unwrap();
        held.push(stream);
        crate::shim::until("the request in flight", || {
            let metrics = shim.operate("GET", "/metrics");
            let is_in_hand = metrics.contains(&format!("requests_in_flight {number}\n"));
            is_in_hand.then(|| assert!(bytes_in_flight(&metrics) > number * 30_000))
        });
    }
    assert_eq!(status(&shim.exchange(get)), 503);
    shim.wait_for_log("decision=overload status=503");
}

fn bytes_in_flight(metrics: &str) -> usize {
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix("twilio_callback_shim_bytes_in_flight "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_unix_socket_serves_the_same() {
    let socket = SocketPath::new();
    let listen = format!("unix:{}", socket.path().display());
    let shim = Shim::start_on(&listen, &["--socket-mode", "600"]);
    assert_eq!(shim.address, listen);
    let mut stream = UnixStream::connect(socket.path()).unwrap();
    stream
        .write_all(post("/twilio/status", FORM, "a=b").as_bytes())
        .unwrap();
    assert_eq!(status(&read_to_end(&mut stream)), 503);
}

#[test]
fn the_log_names_requests_and_holds_nothing_of_theirs() {
    let shim = Shim::start(&[
        "--proxy-header",
        "X-Forwarded-For",
        "--trusted-proxy",
        "127.0.0.0/8",
    ]);
    let headers = format!(
        "{FORM}X-Request-Id: trace-7\r\nX-Twilio-Signature: c2lnbmF0dXJl\r\n\
         X-Forwarded-For: 203.0.113.7\r\n"
    );
    shim.exchange(post("/twilio/status?token=hush", &headers, "Body=hush"));
    shim.exchange(post(
        "/no\"where?token=hush",
        &headers.replace("trace-7", "x\" level=error"),
        "Body=hush",
    ));
    let line = shim.wait_for_log("id=trace-7 ");
    assert!(line.starts_with("decision=deadline status=503"), "{line}");
    shim.wait_for_log("path=\"/no\\");
    let log = shim.log();
    assert!(log.contains(" source=203.0.113.7 "), "{log}");
    for secret in ["hush", "c2lnbmF0dXJl", "level=error"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}

fn chunked(chunks: &[&str]) -> String {
    let mut request = format!(
        "POST /twilio/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n{FORM}\r\n"
    );
    for chunk in chunks {
        request.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    request.push_str("0\r\nX-Trailer: y\r\n\r\n");
    request
}
