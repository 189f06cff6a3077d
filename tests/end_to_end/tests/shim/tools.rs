//! Sending, blocking and acknowledging over HTTP, by the rules of the SQL functions.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use end_to_end::client::callback::{self, sid};
use end_to_end::client::http::Response;
use end_to_end::client::request::Request;
use end_to_end::peer::tools::{TOKEN, Tools, with_token};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::wait::wait_until;
use serde_json::{Value, json};

pub(crate) const TO: &str = "+12025550123";
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_message_is_sent_by_form_and_by_json_once_per_key() {
    let database = cluster().database();
    let tools = Tools::start(&database, &[]);
    let sent = tools.post(
        "/send",
        &json!({"recipient_number": TO, "body": "hi & bye"}),
    );
    assert_eq!(
        (sent.status, sent.header("cache-control")),
        (202, Some("no-store"))
    );
    let id = json_of(&sent)["message_id"].as_i64().unwrap();
    // No worker runs here, which a caller of the SQL function is told in a notice as well.
    let notice = json_of(&sent)["notices"][0]["message"].to_string();
    assert!(notice.contains("the message waits"), "{notice}");

    // curl's users forget to escape the plus.
    let body = "recipient_number=+12025550123&body=hi&metadata=%7B%22a%22%3A1%7D&from_address=";
    let form = Request::post("/send", end_to_end::client::request::FORM, body);
    let keyed = |request: &Request| {
        let request = request.clone().header("Idempotency-Key", "order-1");
        let answer = tools.send(&with_token(request));
        assert_eq!(answer.status, 202, "{}", answer.text());
        json_of(&answer)["message_id"].as_i64().unwrap()
    };
    let first = keyed(&form);
    assert_eq!((first, keyed(&form)), (id + 1, id + 1));
    let other = tools.send(&with_token(
        Request::form("/send", &[("recipient_number", TO), ("body", "else")])
            .header("Idempotency-Key", "order-1"),
    ));
    assert_problem(&other, 409, "23505");

    let sql = "select string_agg(concat_ws('|', to_address, body, idempotency_key, metadata), E'\\n' \
        order by message_id) from twilio.message";
    let stored: String = database.value(sql, &[]);
    assert_eq!(
        stored,
        "+12025550123|hi & bye\n+12025550123|hi|order-1|{\"a\": 1}"
    );
}

#[test]
fn errors_are_those_of_sql() {
    let database = cluster().database();
    let tools = Tools::start(&database, &[]);
    let blocked = tools.post("/block", &json!({"number": TO, "reason": "asked us"}));
    assert_eq!(
        (blocked.status, json_of(&blocked)),
        (200, json!({"suppression_id": 1}))
    );
    let bodies = [
        ("/send", json!({"recipient_number": TO, "body": "hi"}), 409),
        (
            "/send",
            json!({"recipient_number": "12025550123", "body": "hi"}),
            400,
        ),
        ("/send", json!({"recipient_number": TO}), 400),
        (
            "/send",
            json!({"recipient_number": TO, "body": "x\u{0}"}),
            400,
        ),
        (
            "/send",
            json!({"recipient_number": TO, "body": "x", "send_at": "soon"}),
            400,
        ),
        (
            "/send",
            json!({"recipient_number": TO, "body": "x", "from_address": "+12025550199"}),
            404,
        ),
        ("/block", json!({"number": "nobody at all"}), 400),
        ("/acknowledge", json!({"message_id": 99}), 404),
    ];
    let calls = [
        "select twilio.send_message('+12025550123', 'hi')",
        "select twilio.send_message('12025550123', 'hi')",
        "select twilio.send_message('+12025550123')",
        "",
        "select twilio.send_message('+12025550123', 'x', send_at => 'soon'::text::timestamptz)",
        "select twilio.send_message('+12025550123', 'x', '+12025550199')",
        "select twilio.block('nobody at all')",
        "select twilio.acknowledge_inbound(99)",
    ];
    let mut client = database.connect();
    for ((path, body, status), sql) in bodies.iter().zip(calls) {
        let answer = tools.post(path, body);
        let problem = json_of(&answer);
        if sql.is_empty() {
            assert_problem(&answer, *status, "22021");
            continue;
        }
        let raised = client.query_one(sql, &[]).unwrap_err();
        let raised = raised.as_db_error().unwrap();
        assert_problem(&answer, *status, raised.code().code());
        assert_eq!(problem["detail"], raised.message());
        assert_eq!(problem["explanation"].as_str(), raised.detail());
        assert_eq!(problem["hint"].as_str(), raised.hint());
    }

    let unblocked = tools.post(
        "/unblock",
        &json!({"number": TO, "including_opt_out": false}),
    );
    assert_eq!(
        (unblocked.status, json_of(&unblocked)),
        (200, json!({"ended": 1}))
    );
    let sent = tools.post("/send", &json!({"recipient_number": TO, "body": "hi"}));
    assert_eq!(sent.status, 202);
}

#[test]
fn the_form_is_shown_and_does_nothing_by_itself() {
    let database = cluster().database();
    let tools = Tools::start(&database, &[]);
    let target =
        format!("/send?recipient_number=%2B12025550177&body=%3Cscript%3E&access_token={TOKEN}");
    let page = tools.send(&Request::new("GET", &target));
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    let text = page.text();
    assert!(!text.contains("script") && !text.contains("2025550177") && !text.contains(TOKEN));
    assert_eq!(database.counts().1, 0);

    let (_, rest) = text
        .split_once("name=\"idempotency_key\" value=\"")
        .unwrap();
    let key = rest.split('"').next().unwrap();
    let submit = |token: &str| {
        tools.send(&Request::form(
            "/send",
            &[
                ("idempotency_key", key),
                ("recipient_number", TO),
                ("from_address", ""),
                ("body", "typed"),
                ("access_token", token),
            ],
        ))
    };
    assert_problem(&submit("guess"), 401, "");
    let (first, again) = (submit(TOKEN), submit(TOKEN));
    assert_eq!((first.status, again.status), (202, 202), "{}", first.text());
    assert_eq!(json_of(&first)["message_id"], json_of(&again)["message_id"]);
    assert_eq!(database.counts().1, 1);
}

#[test]
fn too_many_requests_are_told_when_to_retry() {
    let database = cluster().database();
    let tools = Tools::start(
        &database,
        &["--tools-rate", "1", "--tools-acknowledge-rate", "60000"],
    );
    let block = json!({"number": TO});
    assert_eq!(tools.post("/block", &block).status, 200);
    // More than the rate can let through, however slow this is.
    let answers: Vec<_> = (0..60).map(|_| tools.post("/block", &block)).collect();
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert!(!refused.is_empty());
    for answer in refused {
        assert_problem(answer, 429, "");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Acknowledgements and those without the token have limits of their own.
    assert_eq!(
        tools.post("/acknowledge", &json!({"message_id": 1})).status,
        404
    );
    let stranger = Request::form("/block", &[("number", TO)]);
    // At once from many sides, so that a slow machine comes to the limit as well.
    let statuses: Vec<_> = thread::scope(|scope| {
        let ask = || {
            (0..50)
                .map(|_| tools.send(&stranger).status)
                .collect::<Vec<_>>()
        };
        let sides: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        (sides.into_iter())
            .flat_map(|side| side.join().unwrap())
            .collect()
    });
    assert!(
        statuses.contains(&401) && statuses.contains(&429),
        "{statuses:?}"
    );
    let metrics = tools.shim.ask("/metrics").text();
    assert!(
        metrics.contains("tool_requests_total{status=\"429\"}"),
        "{metrics}"
    );
}

#[test]
fn an_acknowledgement_over_http_answers_the_request_that_waits() {
    let database = cluster().database();
    database
        .connect()
        .batch_execute("select twilio.require_acknowledgement(wait_ms => 14000)")
        .unwrap();
    let tools = Tools::start(&database, &[]);
    let mut waiting = tools.shim.address().connect().unwrap();
    let request = callback::signed_inbound(&sid(1), "hello");
    waiting.write(&request.to_bytes()).unwrap();
    wait_until(PATIENCE, "the message to be stored", || {
        database.counts().1 == 1
    });
    let form = with_token(Request::form("/acknowledge", &[("message_id", "1")]));
    let answer = tools.send(&form);
    assert_eq!(
        (answer.status, json_of(&answer)),
        (200, json!({"acknowledged": true}))
    );
    assert_eq!(waiting.read("POST").unwrap().status, 200);
}

#[test]
fn a_database_that_comes_back_is_found() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let tools = Tools::start(&database, &[]);
    let block = json!({"number": TO});
    assert_eq!(tools.post("/block", &block).status, 200);
    cluster.stop("fast");
    let away = tools.post("/block", &block);
    assert_problem(&away, 503, "");
    assert_eq!(away.header("retry-after"), Some("1"));
    cluster.start_again();
    wait_until(PATIENCE, "the tools to work again", || {
        tools.post("/block", &block).status == 200
    });
    tools.shim.ask_to_stop();
    let mut tools = tools;
    assert!(tools.shim.wait().success());
}

pub(crate) fn json_of(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
}

pub(crate) fn assert_problem(answer: &Response, status: u16, sqlstate: &str) {
    let problem = json_of(answer);
    assert_eq!(answer.status, status, "{problem}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    assert_eq!(problem["status"], status);
    assert_eq!(
        problem["sqlstate"].as_str().unwrap_or_default(),
        sqlstate,
        "{problem}"
    );
}

pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
