//! Random requests, and bytes that are not a request, are answered or cut off, and nothing breaks.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, INBOUND_PATH, STATUS_PATH, sid};
use end_to_end::client::request::{FORM, Request, encode};
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};

#[test]
fn random_requests_are_answered() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let (database, shim) = start();
    let mut random = Random::new();
    let start = Instant::now();
    let address = shim.address();
    let mut connection = address.connect().unwrap();
    let mut statuses = BTreeMap::new();
    for round in 0..4000 {
        if round >= 500 && start.elapsed() > PATIENCE {
            break;
        }
        let request = noise(&mut random);
        let Ok(answer) = connection.send(&request) else {
            panic!("no answer to {request:?}");
        };
        assert!(answer.status < 500, "{}: {request:?}", answer.status);
        *statuses.entry(answer.status).or_insert(0) += 1;
        if answer
            .header("connection")
            .is_some_and(|value| value == "close")
        {
            connection = address.connect().unwrap();
        }
    }
    for status in [204, 400, 403] {
        assert!(
            statuses.contains_key(&status),
            "no answer was {status}: {statuses:?}"
        );
    }
    let sql = "select count(*) from twilio.message where account_sid is distinct from $1";
    let strangers: i64 = database.value(sql, &[&ACCOUNT_SID]);
    assert_eq!(strangers, 0);
    assert!(shim.is_ready());
    cluster().assert_no_errors();
}

#[test]
fn bytes_that_are_not_http_are_answered_or_cut_off() {
    let (_database, shim) = start();
    let mut random = Random::new();
    let mut head = vec![b"POST /twilio/status HTTP/1.1\r\nHost: x\r\n".to_vec()];
    head.extend([
        b"GET\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
            .to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"POST /twilio/status HTTP/1.1\r\nX: a\0b\r\n\r\n".to_vec(),
        b"POST /twilio/status\0 HTTP/1.1\r\n\r\n".to_vec(),
        [
            b"POST /".to_vec(),
            vec![b'a'; 100_000],
            b" HTTP/1.1\r\n\r\n".to_vec(),
        ]
        .concat(),
        [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"X: y\r\n".repeat(500),
            b"\r\n".to_vec(),
        ]
        .concat(),
    ]);
    head.extend((0..50).map(|_| {
        let length = random.below(300);
        random.bytes(length)
    }));
    for bytes in head {
        let mut connection = shim.address().connect().unwrap();
        // The server may be done with the connection before all is written.
        let _ = connection.write(&bytes);
        let is_whole = bytes.windows(4).any(|part| part == b"\r\n\r\n");
        if let Some(Ok(answer)) = is_whole.then(|| connection.read("GET")) {
            assert!(
                (400..500).contains(&answer.status),
                "{}: {bytes:?}",
                answer.status
            );
        }
    }
    assert!(shim.is_ready());
    assert_eq!(
        shim.send(&callback::signed_status(&sid(1), "sent", None))
            .status,
        204
    );
    cluster().assert_no_errors();
}

/// A request of random parts; some are signed, so that what follows the signature is reached as well.
fn noise(random: &mut Random) -> Request {
    let mut body = Vec::new();
    if !random.one_in(3) {
        body = encode(&callback::status(&sid(random.below(50)), "sent", None)).into_bytes();
    }
    for _ in 0..random.below(4) {
        let length = random.below(40);
        let piece = match random.below(4) {
            0 => random.bytes(length),
            1 => (*random.pick(&[
                &b"&ErrorCode="[..],
                b"&MessageStatus=",
                b"&To=",
                b"&Body=%00",
                b"%",
                b"&&=",
            ]))
            .to_vec(),
            2 => format!("&{}={}", random.number(), random.number()).into_bytes(),
            _ => b"%f0%9f".repeat(length),
        };
        let position = if random.one_in(2) {
            body.len()
        } else {
            random.below(body.len() + 1)
        };
        body.splice(position..position, piece);
    }
    let path = *random.pick(&[STATUS_PATH, STATUS_PATH, INBOUND_PATH, "/smsgate", "/"]);
    let query = match random.below(4) {
        0 => "?".to_owned(),
        1 => format!("?{}", random.number()),
        2 => format!(
            "?a=%{:02x}&%00=%ff%&AccountSid={ACCOUNT_SID}",
            random.below(256)
        ),
        _ => String::new(),
    };
    let content_type = *random.pick(&[
        FORM,
        FORM,
        FORM,
        "application/json",
        "application/json;charset=x",
    ]);
    let request = Request::post(&format!("{path}{query}"), content_type, body);
    match random.below(4) {
        0 => request,
        1 => request.header("X-Twilio-Signature", &"A".repeat(random.below(60))),
        _ => request.signed(),
    }
}

fn start() -> (Database<'static>, Shim) {
    let database = cluster().database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    (database, shim)
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
