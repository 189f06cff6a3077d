//! Requests to untrusted URLs never reach internal hosts, whatever the URL or the name server says.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::destination::Destination;
use sender::{Config, FailureKind, Method, Proxies, Reach, Request, Sender};
use support::*;

const MEDIA: &str = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 5000000\r\n\r\n";

/// Answers HEAD as RFC 9110 asks: the headers of a GET without its body.
fn media_server() -> Server {
    Server::answering(MEDIA)
}

#[test]
fn internal_addresses_are_refused_without_a_connection() {
    let server = media_server();
    let port = server.address.port();
    let sender = sender();
    // Other spellings of an address are not destinations at all.
    for host in [
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[127.0.0.1]",
    ] {
        let url = format!("http://{host}:{port}/a.png");
        assert!(Destination::parse(&url).is_err(), "{host}");
    }
    for host in [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
    ] {
        let request = Request::head(1, to(format!("http://{host}:{port}/a.png")));
        let outcome = send(&sender, request);
        assert_not_processed(&outcome, FailureKind::AddressRefused);
    }
    let literal = send(
        &sender,
        Request::head(1, to(format!("http://127.0.0.1:{port}/"))),
    );
    assert_not_processed(&literal, FailureKind::AddressRefused);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_host_of_the_operator_may_be_internal() {
    let server = media_server();
    let request = Request::new(1, Method::Head, to(server.url()));
    assert_eq!(request.reach, Reach::Anywhere);
    assert_eq!(response(send(&sender(), request)).status, 200);
}

fn checked(
    lookup: impl Fn(&str, u16) -> Vec<SocketAddr> + Send + Sync + 'static,
    proxies: Proxies,
) -> Sender {
    let allowed: IpAddr = "127.0.0.1".parse().unwrap();
    Sender::start(Config {
        // 127.0.0.1 plays the public address, the rest of the loopback network is inside.
        address_check: Arc::new(move |address| address == allowed),
        lookup: Some(Arc::new(move |host, port| Ok(lookup(host, port)))),
        proxies,
        ..config()
    })
    .unwrap()
}

#[test]
fn an_allowed_address_answers_with_type_and_length() {
    let server = media_server();
    let sender = checked(
        |_, port| vec![SocketAddr::from(([127, 0, 0, 1], port))],
        Proxies::none(),
    );
    let port = server.address.port();
    for _ in 0..2 {
        let request = Request::head(1, to(format!("http://media.example:{port}/a.png")));
        let response = response(send(&sender, request));
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("image/png"));
        assert_eq!(response.header("content-length"), Some("5000000"));
        assert!(response.body.is_empty());
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn internal_addresses_of_a_name_are_refused_and_public_ones_used() {
    let server = media_server();
    let port = server.address.port();
    let inside = SocketAddr::from(([127, 0, 0, 2], port));
    let outside = SocketAddr::from(([127, 0, 0, 1], port));
    let sender = checked(
        move |host, _| match host {
            "inside.example" => vec![inside],
            _ => vec![inside, outside],
        },
        Proxies::none(),
    );
    let outcome = send(
        &sender,
        Request::head(1, to(format!("http://inside.example:{port}/"))),
    );
    assert_not_processed(&outcome, FailureKind::AddressRefused);
    assert_eq!(server.connections(), 0);
    let outcome = send(
        &sender,
        Request::head(1, to(format!("http://mixed.example:{port}/"))),
    );
    assert_eq!(response(outcome).status, 200);
}

#[test]
fn a_name_that_resolves_differently_later_is_refused() {
    let server = media_server();
    let port = server.address.port();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let sender = checked(
        move |_, _| {
            let last = if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                1
            } else {
                2
            };
            vec![SocketAddr::from(([127, 0, 0, last], port))]
        },
        Proxies::none(),
    );
    let request = || Request::head(1, to(format!("http://rebinding.example:{port}/")));
    assert_eq!(response(send(&sender, request())).status, 200);
    // One look-up: the address that was checked is the one that was connected to.
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_redirect_to_an_internal_host_is_not_followed() {
    let server = Server::answering(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n",
    );
    let sender = checked(
        |_, port| vec![SocketAddr::from(([127, 0, 0, 1], port))],
        Proxies::none(),
    );
    let request = Request::head(
        1,
        to(format!("http://media.example:{}/", server.address.port())),
    );
    assert_eq!(response(send(&sender, request)).status, 302);
    assert_eq!(server.connections(), 1);
}

/// A proxy that notes what it is asked for and plays the target itself.
fn noting_proxy(status: &'static str) -> (Server, std::sync::mpsc::Receiver<String>) {
    let (note, noted) = std::sync::mpsc::channel();
    let note = std::sync::Mutex::new(note);
    let server = Server::start(move |mut stream: TcpStream, _| {
        let request = String::from_utf8(read_request(&mut stream).unwrap()).unwrap();
        note.lock().unwrap().send(request).unwrap();
        write!(stream, "HTTP/1.1 {status}\r\n\r\n").unwrap();
        while read_request(&mut stream).is_some() {
            stream.write_all(MEDIA.as_bytes()).unwrap();
        }
    });
    (server, noted)
}

fn via(proxy: &Server) -> Proxies {
    Proxies {
        http: Some(format!("http://user:secret@{}", proxy.address)),
        ..Proxies::none()
    }
}

#[test]
fn through_a_proxy_the_checked_address_is_asked_for() {
    let (proxy, noted) = noting_proxy("200 OK");
    let sender = checked(
        |host, port| match host {
            "media.example" => vec![SocketAddr::from(([127, 0, 0, 1], port))],
            _ => vec![SocketAddr::from(([127, 0, 0, 2], port))],
        },
        via(&proxy),
    );
    let outcome = send(&sender, Request::head(1, to("http://media.example/a.png")));
    assert_eq!(response(outcome).status, 200);
    let asked = noted.recv().unwrap();
    assert!(asked.starts_with("CONNECT 127.0.0.1:80"), "{asked}");
    assert!(
        asked.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"),
        "{asked}"
    );

    let outcome = send(&sender, Request::head(1, to("http://inside.example/a.png")));
    assert_not_processed(&outcome, FailureKind::AddressRefused);
    // The proxy's own address is no way in either.
    let sender = checked(|_, _| Vec::new(), via(&proxy));
    let mut request = Request::head(1, to("http://127.0.0.2/"));
    assert_not_processed(&send(&sender, request), FailureKind::AddressRefused);
    request = Request::head(1, to(format!("http://127.0.0.3:{}/", proxy.address.port())));
    assert_not_processed(&send(&sender, request), FailureKind::AddressRefused);
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn an_operators_host_is_resolved_by_the_proxy() {
    let (proxy, noted) = noting_proxy("200 OK");
    let sender = checked(|_, _| Vec::new(), via(&proxy));
    let request = Request::new(1, Method::Head, to("http://api.example/"));
    assert_eq!(response(send(&sender, request)).status, 200);
    assert!(noted.recv().unwrap().starts_with("CONNECT api.example:80"));
}

#[test]
fn a_proxy_that_refuses_hangs_or_closes_means_not_processed() {
    let (refusing, _noted) = noting_proxy("407 Proxy Authentication Required");
    let sender = checked(|_, _| Vec::new(), via(&refusing));
    let outcome = send(&sender, post("http://api.example/"));
    assert_not_processed(&outcome, FailureKind::Proxy);
    assert!(!format!("{outcome:?}").contains("secret"));

    let hanging = Server::start(|mut stream, _| hold(&mut stream));
    let sender = checked(|_, _| Vec::new(), via(&hanging));
    let outcome = send(&sender, short("http://api.example/"));
    assert_not_processed(&outcome, FailureKind::Timeout);

    let closing = Server::start(|mut stream, _| {
        read_request(&mut stream);
    });
    let sender = checked(|_, _| Vec::new(), via(&closing));
    let outcome = send(&sender, post("http://api.example/"));
    assert!(
        matches!(outcome, sender::Outcome::NotProcessed(_)),
        "{outcome:?}"
    );
}

#[test]
fn a_request_lost_behind_a_proxy_is_unknown() {
    let proxy = Server::start(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        read_request(&mut stream);
    });
    let sender = checked(|_, _| Vec::new(), via(&proxy));
    let outcome = send(&sender, post("http://api.example/"));
    assert_unknown(&outcome, FailureKind::Closed);
}
