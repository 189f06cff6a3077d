//! The ten statements of the README, from nothing to a delivered fallback, with their results.

use std::fs;
use std::time::Duration;

use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, AUTH_TOKEN, FRONT_ROLE};
use end_to_end::server::environment::{checkout, free_port};
use end_to_end::wait::wait_until;

#[test]
fn ten_statements_lead_to_a_delivered_fallback() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.bare_database();
    let port = free_port();
    let sandbox = Sandbox::start(port, &["--callback-delay", "5"]);
    // The recipient's WhatsApp fails, as the statements pretend.
    let fault = [
        ("outcome", "undelivered"),
        ("argument", "63049"),
        ("to", "whatsapp:+12025550123"),
    ];
    assert!(
        sandbox
            .send(&Request::form("/_faults", &fault))
            .is_success()
    );

    let statements = statements();
    assert_eq!(statements.len(), 10, "{statements:#?}");
    let mut client = database.connect();
    let run = |client: &mut postgres::Client, number: usize| {
        let statement = statements[number - 1]
            .replace("AC0123456789abcdef0123456789abcdef", ACCOUNT_SID)
            .replace("an auth token", AUTH_TOKEN)
            .replace("http://127.0.0.1:4010", &sandbox.url());
        client
            .query(&statement, &[])
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    };
    run(&mut client, 1);
    let grant =
        format!("create role {FRONT_ROLE} login; select twilio.grant_front('{FRONT_ROLE}')");
    client.batch_execute(&grant).unwrap();
    let _shim = Shim::start(&database, &["--listen", &format!("127.0.0.1:{port}")]);
    for number in 2..=5 {
        run(&mut client, number);
    }
    assert_eq!(run(&mut client, 6)[0].get::<_, i64>(0), 1);
    run(&mut client, 7);
    let explained = run(&mut client, 8);
    let text = |column: &str| explained[0].get::<_, String>(column);
    assert_eq!(
        (text("rule"), text("outcome")),
        ("whatsapp_to_sms".into(), "planned".into())
    );
    assert_eq!(explained[0].get::<_, i64>("fallback_message_id"), 2);
    wait_until(Duration::from_secs(60), "the SMS to arrive", || {
        let chain = run(&mut client, 10);
        chain[0].get::<_, Option<String>>("reached_by").is_some()
    });
    let chain = run(&mut client, 10);
    assert_eq!(chain.len(), 1);
    let chain = &chain[0];
    assert_eq!(chain.get::<_, i64>("root_id"), 1);
    assert_eq!(chain.get::<_, i32>("steps"), 2);
    assert_eq!(chain.get::<_, String>("reached_by"), "sms");
    assert_eq!(chain.get::<_, String>("status"), "delivered");
    assert!(!chain.get::<_, bool>("double_delivered"));
    let timeline = run(&mut client, 9);
    let said: Vec<(i64, String, Option<i32>)> = timeline
        .iter()
        .map(|row| {
            (
                row.get("message_id"),
                row.get("status"),
                row.get("error_code"),
            )
        })
        .collect();
    assert!(
        said.contains(&(1, "undelivered".into(), Some(63049))),
        "{said:?}"
    );
    assert!(said.contains(&(2, "delivered".into(), None)), "{said:?}");
    cluster.assert_no_errors();
}

/// The statements of the README's section: each ends with a semicolon, and the rest of its line is a comment.
fn statements() -> Vec<String> {
    let readme = fs::read_to_string(checkout().join("README.md")).unwrap();
    let (_, section) = readme.split_once("## Run-through\n").unwrap();
    let section = section.split_once("docs/fallback.md").unwrap().0;
    let mut statements = Vec::new();
    for fence in section.split("```sql\n").skip(1) {
        let sql = fence.split_once("```").unwrap().0;
        for line in sql.lines() {
            let (statement, comment) = line.split_once(';').unwrap();
            assert!(
                comment.trim().is_empty() || comment.trim().starts_with("--"),
                "{line}"
            );
            statements.push(statement.to_owned());
        }
    }
    statements
}
