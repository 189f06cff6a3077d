//! PostgREST v16.2's statements, replayed against the extension as its roles.

use std::fs;
use std::sync::OnceLock;

use end_to_end::client::callback::{self, sid};
use end_to_end::client::request::{FORM, Request, encode};
use end_to_end::peer::postgrest::{Answer, Replay, Returns};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::checkout;

const STATUS: &str = "/postgrest/status";
const INBOUND: &str = "/postgrest/inbound";

#[test]
fn status_callbacks_are_stored_once_and_answered_without_a_body() {
    let (database, mut postgrest) = start();
    let request = Request::form(STATUS, &callback::status(&sid(1), "sent", None)).signed();
    for _ in 0..3 {
        let answer = post(&mut postgrest, &request).unwrap();
        assert_eq!((answer.status, answer.body.len()), (204, 0));
    }
    assert_eq!(database.counts(), (1, 1));

    // Parameters that Twilio invents, and a query of one's own, are signed like the rest.
    let mut pairs = callback::status(&sid(1), "delivered", None);
    callback::set(&mut pairs, "Invented", "ü &=%+");
    let request = Request::form("/postgrest/status?attempt=a%20b&x", &pairs).signed();
    assert_eq!(post(&mut postgrest, &request).unwrap().status, 204);
    let sql = "select status from twilio.message_status where message_sid = $1";
    assert_eq!(database.value::<String>(sql, &[&sid(1)]), "delivered");
    cluster().assert_no_errors();
}

#[test]
fn refused_callbacks_are_kept() {
    let (database, mut postgrest) = start();
    let signed = Request::form(STATUS, &callback::status(&sid(1), "sent", None)).signed();
    let mut without_status = callback::status(&sid(1), "sent", None);
    without_status.retain(|(name, _)| !name.ends_with("Status"));
    let mut with_nul = callback::status(&sid(1), "sent", None);
    callback::set(&mut with_nul, "MessageSid", "SM\0");
    let refused = [
        (
            403,
            "no signature",
            signed.clone().without("X-Twilio-Signature"),
        ),
        (
            403,
            "another target",
            Request {
                target: "/postgrest/status?".to_owned(),
                ..signed.clone()
            },
        ),
        (
            403,
            "another body",
            Request {
                body: b"MessageStatus=sent".to_vec(),
                ..signed.clone()
            },
        ),
        (
            403,
            "another media type",
            signed.clone().with("Content-Type", "application/json"),
        ),
        (
            400,
            "no status",
            Request::form(STATUS, &without_status).signed(),
        ),
        (
            400,
            "a NUL in a SID",
            Request::form(STATUS, &with_nul).signed(),
        ),
    ];
    let count = i64::try_from(refused.len()).unwrap();
    for (status, name, request) in refused {
        let answer = post(&mut postgrest, &request).unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{name}");
    }
    assert_eq!(database.counts(), (0, 0));
    let kept: i64 = database.value(
        "select count(*) from twilio_internal.rejected_callback",
        &[],
    );
    assert_eq!(
        kept, count,
        "what is refused is committed to the quarantine"
    );
    cluster().assert_no_errors();
}

#[test]
fn inbound_messages_are_answered_in_twiml() {
    let (database, mut postgrest) = start();
    let request = Request::form(INBOUND, &callback::inbound(&sid(1), "Grüße 😀")).signed();
    for _ in 0..2 {
        let answer = post(&mut postgrest, &request).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/xml; charset=utf-8")
        );
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>"
        );
    }
    let sql = "select body from twilio.message_status where direction = 'inbound'";
    assert_eq!(database.value::<String>(sql, &[]), "Grüße 😀");

    let forged = request.without("X-Twilio-Signature");
    let answer = post(&mut postgrest, &forged).unwrap();
    assert_eq!((answer.status, answer.body.len()), (403, 0));
    cluster().assert_no_errors();
}

#[test]
fn nothing_is_no_body_and_never_a_success() {
    let (database, mut postgrest) = start();
    let headers = [
        ("X-Original-URI", STATUS),
        ("X-Original-Content-Type", FORM),
    ];
    for (function, returns) in [
        ("sms_callback", Returns::Void),
        ("sms_inbound", Returns::Anything),
    ] {
        for body in [None, Some(&b""[..])] {
            for headers in [&headers[..], &[]] {
                let answer = postgrest.post(function, returns, headers, body).unwrap();
                assert_eq!(
                    (answer.status, answer.body.len()),
                    (403, 0),
                    "{function} {body:?}"
                );
            }
        }
    }
    let empty = Request::post(STATUS, FORM, "").signed();
    assert_eq!(post(&mut postgrest, &empty).unwrap().status, 400);
    assert_eq!(database.counts(), (0, 0));
    cluster().assert_no_errors();
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    let (database, mut postgrest) = start();
    let mut body = encode(&callback::status(&sid(1), "sent", None)).into_bytes();
    body.extend(b"&Raw=\0\xff\x01&Escaped=%00%ff&Long=");
    body.extend([b'x'; 60_000]);
    let request = Request::post(STATUS, FORM, body).signed();
    assert_eq!(post(&mut postgrest, &request).unwrap().status, 204);
    let sql = "select params ->> 'Raw' from twilio.message_timeline";
    assert_eq!(database.value::<String>(sql, &[]), "\u{fffd}\u{fffd}\u{1}");
    cluster().assert_no_errors();
}

#[test]
fn headers_that_a_client_forges_change_nothing() {
    let (database, mut postgrest) = start();
    let pairs = callback::status(&sid(1), "sent", None);
    let body = encode(&pairs);
    let token = end_to_end::server::database::AUTH_TOKEN;
    let algorithm = protocol::signature::Algorithm::HmacSha1;
    let elsewhere = "https://evil.example.com";
    let signed_elsewhere = Request::form(STATUS, &pairs).signed_by(algorithm, token, elsewhere);
    let signature = signed_elsewhere.value_of("X-Twilio-Signature").unwrap();
    for forged in [
        &[(
            "X-Original-URI",
            "https://evil.example.com/postgrest/status",
        )][..],
        &[("X-Original-URI", STATUS), ("Host", "evil.example.com")],
        &[
            ("X-Original-URI", STATUS),
            ("X-Forwarded-Host", "evil.example.com"),
        ],
        &[
            ("X-Original-URI", "\n\nx"),
            ("X-Forwarded-For", "'; drop table twilio.message; --"),
        ],
        &[
            ("X-Original-URI", STATUS),
            ("User-Agent", "a\nx-twilio-signature: b\r\nc: d"),
        ],
    ] {
        let headers = [
            forged,
            &[
                ("X-Twilio-Signature", signature),
                ("X-Original-Content-Type", FORM),
            ],
        ];
        let answer = postgrest.post(
            "sms_callback",
            Returns::Void,
            &headers.concat(),
            Some(body.as_bytes()),
        );
        assert_eq!(answer.unwrap().status, 403, "{forged:?}");
    }
    assert_eq!(database.counts(), (0, 0));
    cluster().assert_no_errors();
}

#[test]
fn the_role_of_requests_can_do_nothing_else() {
    let (database, _) = start();
    let mut client = cluster().connect_as("twilio_authenticator", database.name());
    client.batch_execute("set role twilio_anonymous").unwrap();
    for sql in [
        "select * from twilio.message",
        "select * from twilio.message_status",
        "select * from twilio.signing_key",
        "select * from twilio_internal.rejected_callback",
        "select twilio.simulate_callback(1, 'sent')",
        "select twilio.add_account('AC', 'token')",
        "select twilio.grant_front('twilio_anonymous')",
        "insert into twilio.public_url (url) values ('https://evil.example.com')",
    ] {
        let error = client.batch_execute(sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    }
}

/// Sends `request` as nginx and then PostgREST would.
fn post(postgrest: &mut Replay, request: &Request) -> Result<Answer, String> {
    let (function, returns) = if request.target.starts_with(INBOUND) {
        ("sms_inbound", Returns::Anything)
    } else {
        ("sms_callback", Returns::Void)
    };
    let mut headers = vec![
        ("Host", "hooks.example.com"),
        ("Content-Type", "application/octet-stream"),
        ("X-Original-URI", request.target.as_str()),
    ];
    for (name, value) in &request.headers {
        let name = match name.as_str() {
            "Content-Type" => "X-Original-Content-Type",
            name => name,
        };
        headers.push((name, value));
    }
    postgrest.post(function, returns, &headers, Some(&request.body))
}

fn start() -> (Database<'static>, Replay) {
    let database = cluster().database();
    // It creates roles, which all databases share: two tests at once would both find them missing.
    static ROLES: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = ROLES.lock().unwrap();
    let roles = fs::read_to_string(checkout().join("deploy/postgrest/roles.sql")).unwrap();
    database.connect().batch_execute(&roles).unwrap();
    drop(guard);
    let client = cluster().connect_as("twilio_authenticator", database.name());
    (
        database,
        Replay::new(client, "twilio_api", "twilio_anonymous"),
    )
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
