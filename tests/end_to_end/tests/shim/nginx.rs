//! nginx with the file that we ship, in front of the shim and of PostgREST's place.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, INBOUND_PATH, STATUS_PATH, sid};
use end_to_end::client::request::{FORM, Request};
use end_to_end::peer::nginx::{Nginx, Upstreams};
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::AUTH_TOKEN;
use protocol::signature::Algorithm;

#[test]
fn requests_reach_the_shim_unchanged() {
    let database = cluster().database();
    let flags = [
        "--proxy-header",
        "X-Forwarded-For",
        "--trusted-proxy",
        "unix",
    ];
    let shim = Shim::start(&database, &flags);
    let recorder = Recorder::start();
    let nginx = start(&shim, &recorder);

    let mut connection = nginx.connect().unwrap();
    let mut number = 0;
    for target in ["", "?", "?a=%2b+b&c=%zz&d='%27", "?x=//../%2e%2e/&y=ü"] {
        number += 1;
        let pairs = callback::status(&sid(number), "sent", None);
        let request = Request::form(&format!("{STATUS_PATH}{target}"), &pairs).signed();
        assert_eq!(connection.send(&request).unwrap().status, 204, "{target}");
    }
    let inbound = callback::signed_inbound(&sid(90), "hello");
    let answer = connection.send(&inbound).unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/xml; charset=utf-8"))
    );

    // A text of the greatest length in the longest encoding, in a URL.
    let text = "😀".repeat(1600);
    let form = Request::form("", &callback::inbound(&sid(91), &text));
    let target = format!("{INBOUND_PATH}?{}", String::from_utf8(form.body).unwrap());
    assert!(target.len() > 16_000);
    let request = Request::new("GET", &target).signed();
    assert_eq!(connection.send(&request).unwrap().status, 200);
    let sql = "select body from twilio.message_status where message_sid = $1";
    assert_eq!(database.value::<String>(sql, &[&sid(91)]), text);
    assert!(
        !nginx.read_access_log().contains("Body="),
        "a message's text is in the log"
    );
    assert!(nginx.read_access_log().contains("GET /twilio/inbound"));

    let sql = "select count(distinct message_sid) from twilio.message_timeline";
    assert_eq!(database.value::<i64>(sql, &[]), number as i64 + 2);
    assert!(recorder.take().is_empty());
    cluster().assert_no_errors();
}

#[test]
fn a_forged_host_or_source_is_of_no_use() {
    let database = cluster().database();
    let flags = [
        "--proxy-header",
        "X-Forwarded-For",
        "--trusted-proxy",
        "unix",
    ];
    let shim = Shim::start(&database, &flags);
    let recorder = Recorder::start();
    let nginx = start(&shim, &recorder);

    let pairs = callback::status(&sid(1), "sent", None);
    let evil = "https://evil.example.com";
    let forged = Request::form(STATUS_PATH, &pairs)
        .signed_by(Algorithm::HmacSha1, AUTH_TOKEN, evil)
        .header("Host", "evil.example.com")
        .header("X-Forwarded-Host", "evil.example.com")
        .header("X-Forwarded-For", "203.0.113.7");
    assert_eq!(nginx.send(&forged).status, 403);
    assert_eq!(database.counts(), (0, 0));
    let source: String =
        database.value("select source from twilio_internal.rejected_callback", &[]);
    assert_eq!(
        source, "127.0.0.1",
        "what the client says of itself is replaced"
    );

    // Conversely, a Host that a proxy rewrote does not keep a callback out.
    let signed = Request::form(STATUS_PATH, &pairs)
        .signed()
        .header("Host", "internal:8080");
    assert_eq!(nginx.send(&signed).status, 204);
    cluster().assert_no_errors();
}

#[test]
fn requests_for_postgrest_become_raw_bodies() {
    let database = cluster().database();
    let shim = Shim::start(&database, &[]);
    let recorder = Recorder::start();
    let nginx = start(&shim, &recorder);

    let body = b"a=%00&b=\xff\0&c=1&c=2".to_vec();
    for (location, function) in [("status", "sms_callback"), ("inbound", "sms_inbound")] {
        let target = format!("/postgrest/{location}?tenant=a%20b&select=x&x=eq.1");
        let media_type = "application/x-www-form-urlencoded; charset=utf-8";
        let request = Request::post(&target, media_type, body.clone())
            .header("Host", "evil.example.com")
            .header("X-Twilio-Signature", "a signature")
            .header("X-Twilio-Webhooks-Signature-Settings", "key=a,algorithm=b")
            .header("I-Twilio-Idempotency-Token", "token")
            .header("User-Agent", "TwilioProxy/1.1")
            .header("X-Original-URI", "/forged")
            .header("X-Original-Content-Type", "forged/forged")
            .header("X-Forwarded-For", "203.0.113.7")
            .header("Accept", "application/json")
            .header("Accept-Profile", "other")
            .header("Content-Profile", "other")
            .header("Authorization", "Bearer forged")
            .header("Prefer", "params=single-object")
            .header("Range", "0-1")
            .header("Cookie", "a=b");
        let answer = nginx.send(&request);
        assert_eq!((answer.status, answer.header("content-range")), (204, None));
        let received = recorder.take();
        assert_eq!(received.len(), 1);
        let received = &received[0];
        assert_eq!(received.method, "POST");
        assert_eq!(
            received.target,
            format!("/rpc/{function}"),
            "the query would be a filter"
        );
        assert_eq!(received.body, body);
        for (name, value) in [
            ("Content-Type", "application/octet-stream"),
            ("X-Original-Content-Type", media_type),
            ("X-Original-URI", &target),
            ("X-Twilio-Signature", "a signature"),
            ("X-Twilio-Webhooks-Signature-Settings", "key=a,algorithm=b"),
            ("I-Twilio-Idempotency-Token", "token"),
            ("User-Agent", "TwilioProxy/1.1"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", "https"),
            ("Accept", "*/*"),
        ] {
            let values: Vec<_> = received
                .headers
                .iter()
                .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.as_str())
                .collect();
            assert_eq!(values, [value], "{name}");
        }
        for name in [
            "Authorization",
            "Prefer",
            "Content-Profile",
            "Accept-Profile",
            "Range",
            "Cookie",
        ] {
            assert_eq!(received.value_of(name), None, "{name}");
        }
    }
}

#[test]
fn limits_hold() {
    let database = cluster().database();
    let shim = Shim::start(&database, &[]);
    let recorder = Recorder::start();
    let nginx = start(&shim, &recorder);
    let post = |target: &str, length: usize| Request::post(target, FORM, vec![b'x'; length]);
    let by = |method: &str, target: &str| Request::new(method, target);
    for (status, request) in [
        (404, by("GET", "/")),
        (404, post("/rpc/sms_callback", 1)),
        (404, post("/postgrest/", 1)),
        (404, post("/postgrest/status/", 1)),
        (404, post("/twilio/status/x", 1)),
        (404, by("GET", "/metrics")),
        (405, by("GET", "/postgrest/status")),
        (405, by("GET", "/postgrest/inbound")),
        (405, by("PUT", "/postgrest/status")),
        (405, by("GET", STATUS_PATH)),
        (405, by("DELETE", INBOUND_PATH)),
        (413, post("/postgrest/status", 65_537)),
        (413, post(STATUS_PATH, 65_537)),
        (413, post(INBOUND_PATH, 200_000)),
        (
            414,
            by("GET", &format!("{INBOUND_PATH}?{}", "x".repeat(40_000))),
        ),
        (415, post(STATUS_PATH, 1).with("Content-Type", "text/plain")),
    ] {
        assert_eq!(
            nginx.send(&request).status,
            status,
            "{} {:.60}",
            request.method,
            request.target
        );
    }
    assert!(recorder.take().is_empty());
    assert_eq!(nginx.send(&post("/postgrest/status", 65_536)).status, 204);
    assert_eq!(recorder.take()[0].body.len(), 65_536);
    assert_eq!(database.counts(), (0, 0));
}

#[test]
fn a_flood_from_one_address_is_held_back() {
    let database = cluster().database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let recorder = Recorder::start();
    let nginx = start(&shim, &recorder);
    let request = Request::post("/postgrest/status", FORM, "a=1");
    let (sent, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let end = Instant::now() + Duration::from_secs(20);
    let refused = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = nginx.connect().unwrap();
                    // nginx closes a connection after 1000 requests.
                    for _ in 0..900 {
                        let answer = connection.send(&request).unwrap();
                        sent.fetch_add(1, Ordering::Relaxed);
                        if answer.status != 204 {
                            is_over.store(true, Ordering::Relaxed);
                            return Some(answer);
                        }
                        if is_over.load(Ordering::Relaxed) || Instant::now() > end {
                            return None;
                        }
                    }
                    None
                })
            })
            .collect();
        let answers: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect();
        answers.into_iter().flatten().next()
    });
    let sent = sent.into_inner();
    let answer = refused.unwrap_or_else(|| panic!("none of {sent} requests was held back"));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert!(
        sent > 1000,
        "a burst of 1000 is let through, but {sent} were too many"
    );
}

#[test]
fn an_upstream_that_is_away_is_503() {
    let database = cluster().database();
    let mut shim = Shim::start(&database, &[]);
    let recorder = Recorder::start();
    let nginx = start(&shim, &recorder);
    shim.ask_to_stop();
    assert!(shim.wait().success());
    let answer = nginx.send(&callback::signed_status(&sid(1), "sent", None));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    shim.start_again();
    assert_eq!(
        nginx
            .send(&callback::signed_status(&sid(1), "sent", None))
            .status,
        204
    );
}

fn start(shim: &Shim, recorder: &Recorder) -> Nginx {
    Nginx::start(&Upstreams {
        shim: &shim.socket(),
        postgrest: &recorder.socket(),
    })
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
