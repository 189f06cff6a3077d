//! Gateways with tokens: the password is exchanged for one, which is renewed in time or when it is refused, and is
//! stored nowhere.

use std::time::{Duration, Instant};

use end_to_end::client::request::Request;
use end_to_end::peer::openapi::Description;
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{Database, set_setting};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{start_worker, status};
use end_to_end::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

#[test]
fn a_token_replaces_the_password() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let sandbox = start(&[]);
    add(&database, &sandbox, "the-password");
    start_worker(&database);

    let first = send(&database, "+12025550121");
    wait_until(PATIENCE, "the first message", || has(&database, first));
    let sql = "select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate')";
    assert_eq!(database.value::<i32>(sql, &[]), 4);
    wait_until(PATIENCE, "the webhooks", || {
        let sql = "select count(*) from twilio.smsgate_webhook where registered_at is not null";
        database.value::<i64>(sql, &[]) == 4
    });
    // One token did for all of it, and the password was shown once.
    let heard = heard(&sandbox);
    let shown: Vec<_> = heard.iter().map(|h| (h.0.as_str(), h.1.as_str())).collect();
    let mut expected = vec![("auth/token", "Basic"), ("messages", "Bearer")];
    expected.extend([("webhooks", "Bearer"); 4]);
    assert_eq!(shown, expected);

    // Revoked, it is refused, and another one is bought for the same message.
    revoke(&sandbox);
    let after = heard.len();
    let second = send(&database, "+12025550122");
    wait_until(PATIENCE, "the second message", || has(&database, second));
    assert_eq!(
        self::heard(&sandbox)[after..],
        [
            said("messages", "Bearer", 401),
            said("auth/token", "Basic", 201),
            said("messages", "Bearer", 202),
        ]
    );
    // Its lifetime is by the gateway's clock; by ours it ended a day ago, or never ends.
    let tokens = || {
        requests(&sandbox)
            .iter()
            .filter(|r| r["target"].to_string().contains("/auth/"))
            .count()
    };
    for shift in ["1 d", "-1 d"] {
        set_setting(&database, "clock_offset", shift);
        let id = send(&database, "+12025550123");
        wait_until(PATIENCE, "a message", || has(&database, id));
    }
    assert_eq!(tokens(), 2);
    assert_kept_nowhere(&database, &sandbox);
    cluster.assert_no_errors();
}

#[test]
fn a_token_is_renewed_before_its_end() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let sandbox = start(&["--smsgate-token-ttl", "3"]);
    add(&database, &sandbox, "the-password");
    start_worker(&database);
    wait_until(PATIENCE, "the token to be renewed twice", || {
        let id = send(&database, "+12025550123");
        wait_until(PATIENCE, "a message", || has(&database, id));
        let all = requests(&sandbox);
        let renewals = all.iter().filter(|request| {
            let target = request["target"].as_str().unwrap();
            target.ends_with("/auth/token/refresh") && request["status"] == 201
        });
        renewals.count() == 2
    });
    assert!(heard(&sandbox).contains(&said("auth/token/refresh", "Bearer", 201)));

    // A refresh token that the gateway does not know is none: the password still counts.
    revoke(&sandbox);
    let before = heard(&sandbox).len();
    let revoked = Instant::now();
    wait_until(PATIENCE, "the token to end", || {
        revoked.elapsed() > Duration::from_secs(3)
    });
    let id = send(&database, "+12025550123");
    wait_until(PATIENCE, "a message", || has(&database, id));
    assert_eq!(
        heard(&sandbox)[before..],
        [
            said("auth/token/refresh", "Bearer", 401),
            said("auth/token", "Basic", 201),
            said("messages", "Bearer", 202),
        ]
    );
    assert_kept_nowhere(&database, &sandbox);
    cluster.assert_no_errors();
}

#[test]
fn without_a_token_nothing_is_sent_and_the_reason_is_shown() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let sandbox = start(&[]);
    add(&database, &sandbox, "another-password");
    start_worker(&database);
    let id = send(&database, "+12025550123");
    let sql = "select coalesce((select reason || ' ' || outcome from twilio_internal.attempt where message_id = $1 and finished_at is not null), '')";
    wait_until(PATIENCE, "the first try", || {
        !database.value::<String>(sql, &[&id]).is_empty()
    });
    assert_eq!(
        database.value::<String>(sql, &[&id]),
        "the gateway gives no token: Unauthorized not_processed"
    );
    assert_eq!(heard(&sandbox), [said("auth/token", "Basic", 401)]);
    // As with a wrong password that is shown at each request, it waits for the right one.
    let sql = "select due_at > twilio.now() + interval '50 seconds' from twilio_internal.outbox";
    assert!(database.value::<bool>(sql, &[]));
    add(&database, &sandbox, "the-password");
    let sql = "update twilio_internal.outbox set due_at = twilio.now()";
    database.connect().batch_execute(sql).unwrap();
    wait_until(PATIENCE, "the message", || has(&database, id));
    assert_eq!(
        heard(&sandbox)[1..],
        [
            said("auth/token", "Basic", 201),
            said("messages", "Bearer", 202)
        ]
    );
    assert_kept_nowhere(&database, &sandbox);
    cluster.assert_no_errors();
}

#[test]
fn a_busy_gateway_is_left_alone_for_as_long_as_it_asks() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    // Its tokens end at once, and are not renewed at this time.
    let gateway = Recorder::answering(|request| {
        let (head, body) = match request.target.as_str() {
            "/auth/token" => (
                "201 Created\r\nDate: Sun, 06 Nov 2022 08:49:37 GMT",
                r#"{"access_token": "first", "refresh_token": "next", "expires_at": "2022-11-06T08:49:37Z"}"#,
            ),
            "/messages" => (
                "202 Accepted",
                r#"{"id": "x", "deviceId": "phone-1", "state": "Pending"}"#,
            ),
            _ => (
                "429 Too Many Requests\r\nRetry-After: 35",
                r#"{"message": "slow down"}"#,
            ),
        };
        let length = body.len();
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}")
    });
    let url = format!("http://127.0.0.1:{}", gateway.port());
    let sql =
        "select twilio.add_smsgate('user', 'x', $1, device_id => 'phone-1', use_tokens => true)";
    database.connect().execute(sql, &[&url]).unwrap();
    start_worker(&database);
    let first = send(&database, "+12025550121");
    wait_until(PATIENCE, "the first message", || has(&database, first));

    let second = send(&database, "+12025550122");
    let sql = "select coalesce((select reason || ' ' || outcome from twilio_internal.attempt where message_id = $1 and finished_at is not null), '')";
    wait_until(PATIENCE, "the second one's try", || {
        !database.value::<String>(sql, &[&second]).is_empty()
    });
    assert_eq!(
        database.value::<String>(sql, &[&second]),
        "slow down not_processed"
    );
    let sql = "select due_at - (select max(finished_at) from twilio_internal.attempt) between '34 s' and '40 s' from twilio_internal.outbox";
    assert!(database.value::<bool>(sql, &[]));
    // The password was not shown in its place.
    let asked: Vec<_> = gateway.take().into_iter().map(|r| r.target).collect();
    assert_eq!(asked, ["/auth/token", "/messages", "/auth/token/refresh"]);
    cluster.assert_no_errors();
}

fn start(more: &[&str]) -> Sandbox {
    let flags = "--callback-delay 5 --smsgate-user user --smsgate-password the-password --device phone-1:key-1";
    let flags: Vec<_> = flags
        .split_whitespace()
        .chain(more.iter().copied())
        .collect();
    // There is no listener for webhooks.
    Sandbox::start(free_port(), &flags)
}

fn add(database: &Database<'_>, sandbox: &Sandbox, password: &str) {
    let base = format!("{}/3rdparty/v1", sandbox.url());
    let sql =
        "select twilio.add_smsgate('user', $1, $2, device_id => 'phone-1', use_tokens => true)";
    database
        .connect()
        .execute(sql, &[&password, &base])
        .unwrap();
}

fn send(database: &Database<'_>, to: &str) -> i64 {
    let sql = "select twilio.send_message($1, 'Hello', from_address => 'user/phone-1')";
    database.value(sql, &[&to])
}

fn has(database: &Database<'_>, id: i64) -> bool {
    status(database, id) != "waiting"
}

/// The requests to the gateway: the path's end, how it was authorized, and the answer's status. All of it is in the
/// gateway's description.
fn heard(sandbox: &Sandbox) -> Vec<(String, String, u64)> {
    let description = Description::parse(include_str!("../../data/smsgate_openapi.json"));
    let of = |request: &Value| {
        let (method, target) = (
            request["method"].as_str().unwrap(),
            request["target"].as_str().unwrap(),
        );
        // Shown for a request without a body.
        let body = Some(&request["parameters"]).filter(|body| **body != json!({}));
        let problems = description.problems(method, target, body.unwrap_or(&Value::Null));
        assert_eq!(problems, [""; 0], "{request:#}");
        let path = target.trim_start_matches("/3rdparty/v1/").to_owned();
        let scheme = request["authorization"].as_str().unwrap().to_owned();
        (path, scheme, request["status"].as_u64().unwrap())
    };
    requests(sandbox).iter().map(of).collect()
}

fn requests(sandbox: &Sandbox) -> Vec<Value> {
    let path = "/_requests?provider=smsgate&limit=100000";
    let answer = sandbox.send(&Request::new("GET", path));
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    answer["requests"].as_array().unwrap().clone()
}

fn said(path: &str, scheme: &str, status: u64) -> (String, String, u64) {
    (path.to_owned(), scheme.to_owned(), status)
}

/// Ends every token there is, as a stolen one would be ended.
fn revoke(sandbox: &Sandbox) {
    let answer = sandbox.send(&Request::new("DELETE", "/_tokens"));
    assert_eq!(answer.status, 204);
}

fn assert_kept_nowhere(database: &Database<'_>, sandbox: &Sandbox) {
    // Every JWT begins so.
    let log = database.cluster().read_log() + &sandbox.read_log();
    for secret in ["eyJ", "the-password"] {
        assert!(!log.contains(secret), "{log}");
    }
    let sql = "select array_agg(c.oid::regclass::text) from pg_catalog.pg_class c \
               where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind = 'r'";
    let tables: Vec<String> = database.value(sql, &[]);
    let holding = |secret: &str| {
        let holds = |table: &&String| {
            let sql =
                format!("select exists (select from {table} t where strpos(t::text, $1) > 0)");
            database.value::<bool>(&sql, &[&secret])
        };
        tables.iter().filter(holds).collect::<Vec<_>>()
    };
    assert_eq!(holding("eyJ"), [""; 0]);
    // The one table that stores it.
    assert_eq!(holding("the-password"), ["twilio.smsgate"]);
}
