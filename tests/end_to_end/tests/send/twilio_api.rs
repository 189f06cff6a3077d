//! Requests to Twilio, and the sandbox's answers, match Twilio's own description of its API.

use std::collections::BTreeSet;

use end_to_end::client::callback::{STATUS_PATH, status_between};
use end_to_end::client::request::Request;
use end_to_end::peer::prism::Prism;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{set_up_at, wait_until_empty};
use end_to_end::wait::{PATIENCE, wait_until};

const WHATSAPP: &str = "whatsapp:+12025550100";

/// Every kind of message, by the arguments of send_message.
const SHAPES: [&str; 13] = [
    "'+12025550123', 'Grüße 🎉 & more=1; +'",
    "'+12025550123', 'text', from_address => '+12025550100', status_callback => 'https://hooks.example.com/own?a=b#rc=3'",
    "'+12025550123', media_urls => '{https://example.com/a.png}'",
    "'+12025550123', 'ten', media_urls => array(select 'https://example.com/' || n || '.png' from generate_series(1, 10) n)",
    "'+12025550123', repeat('x', 1600), expires_after => '10 min'",
    "'whatsapp:+12025550123', 'text'",
    "'whatsapp:+12025550123', 'text', media_urls => '{https://example.com/a.pdf}'",
    "'rcs:+12025550123', 'text', from_address => 'rcs:agent'",
    "'+12025550123', 'text', from_address => 'MG00000000000000000000000000000001'",
    "'whatsapp:+12025550123', from_address => 'MG00000000000000000000000000000001', \
        twilio_parameters => '{\"ContentSid\": \"HX00000000000000000000000000000001\", \"ContentVariables\": {\"1\": \"table\"}}'",
    "'+12025550123', 'text', twilio_parameters => '{\"ProvideFeedback\": true, \"Attempt\": 2, \"ForceDelivery\": false, \
        \"ContentRetention\": \"discard\", \"AddressRetention\": \"obfuscate\", \"SmartEncoded\": true, \"MaxPrice\": 0.5}'",
    "'+12025550123', 'text', twilio_parameters => '{\"TrafficType\": \"free\", \"RiskCheck\": \"disable\", \"SendAsMms\": true, \
        \"ShortenUrls\": false, \"ApplicationSid\": \"AP00000000000000000000000000000001\"}'",
    "'whatsapp:+12025550123', 'here', twilio_parameters => '{\"PersistentAction\": [\"appointment\", \"table\"]}'",
];

#[test]
fn every_create_matches_twilios_description() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let prism = Prism::mock();
    prepare(&database, &prism);
    for shape in SHAPES {
        let sql = format!("select twilio.send_message({shape})");
        database.connect().execute(&sql, &[]).unwrap();
    }
    let all = i64::try_from(SHAPES.len()).unwrap();
    wait_until(PATIENCE, "every message to be taken", || {
        let over = "select count(*) from twilio_internal.attempt where finished_at is not null";
        database.value::<i64>(over, &[]) == all
    });
    let refused = "select string_agg(concat_ws(' ', m.to_address, t.http_status, t.reason, t.response), E'\\n') \
        from twilio_internal.attempt t join twilio.message m using (message_id) where t.http_status is distinct from 201";
    assert_eq!(database.value::<Option<String>>(refused, &[]), None);
    assert_eq!(prism.violations(), Vec::<String>::new());
}

#[test]
fn prism_finds_requests_that_twilio_does_not_describe() {
    let prism = Prism::mock();
    let path = format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json");
    for (form, field) in [
        (&[("From", "+12025550100"), ("Body", "text")][..], "To"),
        (
            &[("To", "+12025550123"), ("ScheduleType", "now")],
            "ScheduleType",
        ),
        (
            &[("To", "+12025550123"), ("MessagingServiceSid", "MG1")],
            "MessagingServiceSid",
        ),
    ] {
        let before = prism.violations().len();
        // user:password
        let authorization = "Basic dXNlcjpwYXNzd29yZA==";
        let request = Request::form(&path, form).header("Authorization", authorization);
        assert!(prism.send(&request).status >= 400, "{field}");
        let violations = prism.violations().split_off(before);
        assert!(
            violations.iter().any(|v| v.contains(field)),
            "{violations:?}"
        );
    }
}

fn prepare(database: &Database<'_>, prism: &Prism) {
    set_up_at(database, &prism.url());
    database
        .connect()
        .batch_execute(
            "select twilio.add_sender('whatsapp:+12025550100'); select twilio.add_sender('rcs:agent'); \
             select twilio.add_sender('MG00000000000000000000000000000001', channel => 'sms'); \
             select twilio.add_sender('MG00000000000000000000000000000001', channel => 'whatsapp')",
        )
        .unwrap();
}

#[test]
fn requests_and_the_sandboxes_answers_match_twilios_description() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    // There is no listener for callbacks.
    let sandbox = Sandbox::start(free_port(), &["--callback-delay", "5"]);
    let prism = Prism::proxy(&sandbox);
    prepare(&database, &prism);
    // A create, one that gets no answer and is looked up, and a fallback whose text is asked for.
    database
        .connect()
        .batch_execute(
            "select twilio.send_message('+12025550123', 'text'); \
             select twilio.send_message('+150000001000008', 'dropped')",
        )
        .unwrap();
    wait_until_empty(&database, PATIENCE);
    let unbound = "select count(*) from twilio.message where message_sid is null";
    assert_eq!(database.value::<i64>(unbound, &[]), 0);
    // A failure of a message that we know nothing about: its text has to be asked for.
    let to = "whatsapp:+150000001863049";
    let failed = sandbox.create(WHATSAPP, to, STATUS_PATH);
    let sid = failed["sid"].as_str().unwrap();
    database
        .connect()
        .batch_execute(
            "select twilio.add_fallback_rule('sms', from_channel => 'whatsapp', error_codes => '{63049}', to_channel => 'sms')",
        )
        .unwrap();
    let pairs = status_between(sid, "undelivered", Some(63049), WHATSAPP, to);
    let told = shim.send(&Request::form(STATUS_PATH, &pairs).signed());
    assert_eq!(told.status, 204);
    wait_until(PATIENCE, "the fallback to be sent", || {
        let sql = "select count(*) from twilio.message where step = 1 and message_sid is not null";
        database.value::<i64>(sql, &[]) == 1
    });
    let requests = sandbox.requests(0);
    let asked: BTreeSet<_> = requests
        .iter()
        .map(|request| {
            let target = request["target"].as_str().unwrap();
            let path = target.split('?').next().unwrap();
            let kind = if path.ends_with("/Messages.json") {
                "list"
            } else {
                "one"
            };
            (request["method"].as_str().unwrap().to_owned(), kind)
        })
        .collect();
    let expected = [("GET", "list"), ("GET", "one"), ("POST", "list")];
    assert_eq!(asked, expected.map(|(m, k)| (m.to_owned(), k)).into());
    // Twilio's own examples have paths there too.
    let is_path = |violation: &String| {
        violation.contains("response.body.") && violation.ends_with("must match format \"uri\"")
    };
    let mut violations = prism.violations();
    violations.retain(|violation| !is_path(violation));
    assert_eq!(violations, Vec::<String>::new());
}
