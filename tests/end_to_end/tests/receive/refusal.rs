//! Each kind of refusal has its status, and no answer says why a signature was not accepted.

use std::sync::OnceLock;

use end_to_end::client::callback::{self, INBOUND_PATH, STATUS_PATH, sid};
use end_to_end::client::http::Response;
use end_to_end::client::request::{FORM, Request, encode};
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{AUTH_TOKEN, Database};
use protocol::signature::Algorithm;

#[test]
fn an_answer_does_not_say_which_check_failed() {
    let (database, shim) = start();
    let refused = forgeries();
    let count = i64::try_from(refused.len()).unwrap();
    let mut first: Option<Response> = None;
    for (name, request) in refused {
        let answer = without_what_varies(shim.send(&request));
        assert_eq!(answer.status, 403, "{name}");
        assert_eq!(
            *first.get_or_insert_with(|| answer.clone()),
            answer,
            "{name}"
        );
    }
    assert_eq!(database.counts(), (0, 0));
    let kept: i64 = database.value(
        "select count(*) from twilio_internal.rejected_callback",
        &[],
    );
    assert_eq!(kept, count, "each is kept, with its reason");
    cluster().assert_no_errors();
}

#[test]
fn wrong_paths_methods_sizes_and_media_types_have_statuses_of_their_own() {
    let (database, shim) = start();
    let form = callback::signed_status(&sid(1), "sent", None);
    let at = |target: &str| Request {
        target: target.to_owned(),
        ..form.clone()
    };
    let by = |method: &str, target: &str| Request {
        method: method.to_owned(),
        ..at(target)
    };
    let large = |length: usize| {
        let mut pairs = callback::status(&sid(1), "sent", None);
        pairs.push(("Filler".to_owned(), String::new()));
        let own = encode(&pairs).len();
        pairs.last_mut().unwrap().1 = "x".repeat(length - own);
        Request::form(STATUS_PATH, &pairs).signed()
    };
    for (status, name, request) in [
        (404, "the root", at("/")),
        (404, "a longer path", at("/twilio/status/")),
        (404, "a path in another case", at("/Twilio/Status")),
        (404, "a path with an escape", at("/twilio/%73tatus")),
        (404, "a path with dots", at("/twilio/x/../status")),
        (404, "a path with a double slash", at("//twilio/status")),
        (404, "operations", at("/metrics")),
        (405, "GET of a status", by("GET", STATUS_PATH)),
        (405, "PUT", by("PUT", STATUS_PATH)),
        (
            405,
            "DELETE of an inbound message",
            by("DELETE", INBOUND_PATH),
        ),
        (405, "an unknown method", by("BREW", STATUS_PATH)),
        (413, "one byte too many", large(65_537)),
        (413, "a large body", large(1_000_000)),
        (415, "text", form.clone().with("Content-Type", "text/plain")),
        (
            415,
            "a file",
            form.clone()
                .with("Content-Type", "multipart/form-data; boundary=x"),
        ),
        (415, "XML", form.clone().with("Content-Type", "text/xml")),
        (
            415,
            "an empty media type",
            form.clone().with("Content-Type", ""),
        ),
        (
            415,
            "two media types",
            form.clone().header("Content-Type", "text/plain"),
        ),
        (
            403,
            "JSON without a hash",
            form.clone().with("Content-Type", "application/json"),
        ),
    ] {
        let answer = shim.send(&request);
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{name}");
    }
    assert_eq!(database.counts(), (0, 0));
    // The largest body that is taken, and one whose length is not announced.
    assert_eq!(shim.send(&large(65_536)).status, 204);
    let chunked = |request: Request| {
        let body = [
            format!("{:x}\r\n", request.body.len()).as_bytes(),
            &request.body,
            b"\r\n0\r\n\r\n",
        ]
        .concat();
        Request { body, ..request }.header("Transfer-Encoding", "chunked")
    };
    assert_eq!(shim.send(&chunked(form)).status, 204);
    assert_eq!(shim.send(&chunked(large(65_537))).status, 413);
    assert_eq!(database.counts(), (1, 1));
    cluster().assert_no_errors();
}

/// Requests without a valid signature.
fn forgeries() -> Vec<(&'static str, Request)> {
    let pairs = callback::status(&sid(1), "sent", None);
    let request = Request::form(STATUS_PATH, &pairs);
    let with = |signature: &str| request.clone().header("X-Twilio-Signature", signature);
    let elsewhere =
        request
            .clone()
            .signed_by(Algorithm::HmacSha1, AUTH_TOKEN, "https://evil.example.com");
    let mut stranger = pairs.clone();
    callback::set(
        &mut stranger,
        "AccountSid",
        "AC11111111111111111111111111111111",
    );
    let anonymous = Request::post(STATUS_PATH, FORM, "MessageStatus=sent");
    let inbound = Request::form(INBOUND_PATH, &callback::inbound(&sid(1), "hello"));
    let settings = "X-Twilio-Webhooks-Signature-Settings";
    vec![
        ("no signature", request.clone()),
        ("an empty signature", with("")),
        ("a short signature", with("AAAA")),
        ("a signature that is not base64", with(&"\"".repeat(28))),
        ("a wrong signature", with("AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        (
            "a wrong signature of SHA-256",
            with(&format!("{}=", "A".repeat(43))),
        ),
        ("a long signature", with(&"A".repeat(4000))),
        (
            "an unknown account",
            Request::form(STATUS_PATH, &stranger).signed(),
        ),
        ("no account", anonymous.header("X-Twilio-Signature", "A")),
        ("no body", Request::post(STATUS_PATH, FORM, "")),
        ("another base URL", elsewhere.clone()),
        (
            "a forged Host",
            elsewhere
                .header("Host", "evil.example.com")
                .header("X-Forwarded-Host", "evil.example.com")
                .header("X-Original-URI", "https://evil.example.com/twilio/status"),
        ),
        (
            "an unknown algorithm",
            request
                .clone()
                .signed()
                .header(settings, "algorithm=HMAC_MD5"),
        ),
        ("an inbound message without a signature", inbound),
        (
            "an inbound message by GET",
            Request::new("GET", INBOUND_PATH),
        ),
    ]
}

/// The answer without the headers that differ from request to request.
fn without_what_varies(mut answer: Response) -> Response {
    answer
        .headers
        .retain(|(name, _)| !["date", "x-request-id"].contains(&name.to_lowercase().as_str()));
    answer
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
