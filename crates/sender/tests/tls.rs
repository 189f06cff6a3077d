//! TLS: a request that fails before it is written is not processed, one that fails later is unknown.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sender::{Config, FailureKind, Roots, Sender};
use support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// A server with a certificate for `localhost` and 127.0.0.1, from an authority of the tests.
fn tls_server(handle: impl Fn(TlsStream) + Send + Sync + 'static) -> Server {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("data/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("data/localhost-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    Server::start(move |stream, _| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        handle(StreamOwned::new(connection, stream));
    })
}

fn trusting(tweak: impl FnOnce(&mut Config)) -> Sender {
    let authority = CertificateDer::from_pem_slice(include_bytes!("data/authority.pem")).unwrap();
    let mut config = config();
    config.roots = Roots::Only(vec![authority.to_vec()]);
    tweak(&mut config);
    Sender::start(config).unwrap()
}

fn url(server: &Server) -> String {
    format!("https://{}/", server.address)
}

fn answer_all(mut stream: TlsStream) {
    while read_request(&mut stream).is_some() {
        stream.write_all(OK).unwrap();
    }
}

#[test]
fn a_trusted_server_is_served_over_one_connection() {
    let server = tls_server(answer_all);
    let sender = trusting(|_| {});
    for _ in 0..5 {
        let mut request = post(url(&server));
        request.body = vec![b'x'; 100_000];
        assert_eq!(response(send(&sender, request)).body, b"ok");
    }
    assert_eq!(server.connections(), 1);
    let by_name = format!("https://localhost:{}/", server.address.port());
    assert_eq!(response(send(&sender, post(by_name))).body, b"ok");
}

#[test]
fn an_untrusted_server_is_sent_nothing() {
    let server = tls_server(|mut stream| {
        assert!(read_request(&mut stream).is_none(), "something was sent");
    });
    let outcome = send(&sender(), post(url(&server)));
    assert_not_processed(&outcome, FailureKind::Tls);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let server = tls_server(answer_all);
    let address = server.address;
    let sender = trusting(|config| {
        config.lookup = Some(Arc::new(move |_, _| Ok(vec![address])));
    });
    let outcome = send(&sender, post("https://other.example/"));
    assert_not_processed(&outcome, FailureKind::Tls);
}

#[test]
fn a_server_without_tls_is_not_processed() {
    let plain = Server::start(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        hold(&mut stream);
    });
    let outcome = send(&trusting(|_| {}), post(url(&plain)));
    assert_not_processed(&outcome, FailureKind::Tls);
    let closing = Server::start(|stream, _| drop(stream));
    let outcome = send(&trusting(|_| {}), post(url(&closing)));
    assert_not_processed(&outcome, FailureKind::Closed);
}

#[test]
fn a_handshake_that_hangs_is_not_processed() {
    let silent = Server::start(|mut stream, _| hold(&mut stream));
    let outcome = send(&trusting(|_| {}), short(url(&silent)));
    assert_not_processed(&outcome, FailureKind::Timeout);
    // Also when it goes on for ever, one piece at a time.
    let trickling = Server::start(|mut stream, _| {
        let _ = stream.write_all(&[22, 3, 3, 0x3f, 0xff]);
        while stream.write_all(&[2]).is_ok() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let outcome = send(&trusting(|_| {}), short(url(&trickling)));
    assert_not_processed(&outcome, FailureKind::Timeout);
}

#[test]
fn a_request_without_an_answer_is_unknown() {
    let closing = tls_server(|mut stream| {
        read_request(&mut stream);
    });
    let outcome = send(&trusting(|_| {}), post(url(&closing)));
    assert_unknown(&outcome, FailureKind::Closed);
    let mute = tls_server(|mut stream| {
        read_request(&mut stream);
        hold(&mut stream);
    });
    let mut request = post(url(&mute));
    request.timeout = Duration::from_secs(1);
    assert_unknown(&send(&trusting(|_| {}), request), FailureKind::Timeout);
}

#[test]
fn a_connection_closed_while_idle_is_replaced() {
    for says_goodbye in [true, false] {
        let (closed, closings) = mpsc::channel();
        let closed = Mutex::new(closed);
        let server = tls_server(move |mut stream| {
            read_request(&mut stream);
            stream.write_all(OK).unwrap();
            if says_goodbye {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            stream.sock.shutdown(Shutdown::Both).unwrap();
            closed.lock().unwrap().send(()).unwrap();
        });
        let sender = trusting(|_| {});
        for number in 1..=5 {
            assert_eq!(response(send(&sender, post(url(&server)))).status, 200);
            closings.recv().unwrap();
            assert_eq!(server.connections(), number);
        }
    }
}

#[test]
fn the_systems_authorities_are_read_and_do_not_trust_ours() {
    let server = tls_server(|mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let sender = Sender::start(Config {
        roots: Roots::System,
        ..config()
    })
    .unwrap();
    assert_not_processed(&send(&sender, post(url(&server))), FailureKind::Tls);
}

#[test]
fn a_proxy_carries_tls_without_seeing_it() {
    let server = tls_server(answer_all);
    let proxy = connect_proxy();
    let sender = trusting(|config| {
        config.proxies.https = Some(format!("http://{}", proxy.address));
    });
    for _ in 0..2 {
        assert_eq!(response(send(&sender, post(url(&server)))).body, b"ok");
    }
    assert_eq!((proxy.connections(), server.connections()), (1, 1));
    let untrusting = Sender::start(Config {
        proxies: sender::Proxies {
            https: Some(format!("http://{}", proxy.address)),
            ..sender::Proxies::none()
        },
        ..config()
    })
    .unwrap();
    let outcome = send(&untrusting, post(url(&server)));
    assert_not_processed(&outcome, FailureKind::Tls);
}

/// A proxy that supports CONNECT.
fn connect_proxy() -> Server {
    Server::start(|mut stream, _| {
        let request = String::from_utf8(read_request(&mut stream).unwrap()).unwrap();
        let target: SocketAddr = request.split(' ').nth(1).unwrap().parse().unwrap();
        let mut onward = TcpStream::connect(target).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut back_from, mut back_to) =
            (onward.try_clone().unwrap(), stream.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut stream, &mut onward);
        let _ = onward.shutdown(Shutdown::Both);
    })
}
