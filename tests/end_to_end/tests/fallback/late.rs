//! Fallbacks that come too late: the original is delivered after all, or the phone stays offline for too long.

use end_to_end::client::callback::STATUS_PATH;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::outbox::start_worker;
use end_to_end::wait::{PATIENCE, wait_until};

const WHATSAPP: &str = "whatsapp:+12025550100";

#[test]
fn a_late_delivery_cancels_a_waiting_fallback_and_is_shown_beside_a_sent_one() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(
        &database,
        &["--callback-delay", "5", "--late-delay", "1000"],
    );
    set_up(
        &database,
        &sandbox,
        "select twilio.enable_whatsapp_to_sms(delay => '3 s')",
    );

    // Undelivered with 63049, a second later delivered after all.
    sandbox.create(WHATSAPP, "whatsapp:+150100001620000", STATUS_PATH);
    let sql = "select count(*) from twilio.message where step = 1 and status = 'canceled'";
    wait_until(PATIENCE, "the fallback to be canceled", || {
        database.value::<i64>(sql, &[]) == 1
    });
    assert!(!sandbox.counts().contains_key("+150100001620000"));

    let sql = "select twilio.enable_whatsapp_to_sms()";
    database.connect().batch_execute(sql).unwrap();
    sandbox.create(WHATSAPP, "whatsapp:+150100002620000", STATUS_PATH);
    let sql = "select count(*) from twilio.message_chain where double_delivered and steps = 2";
    wait_until(PATIENCE, "both to be delivered", || {
        database.value::<i64>(sql, &[]) == 1
    });
    assert_eq!(sandbox.counts()["+150100002620000"], (1, 1));
    cluster.assert_no_errors();
}

#[test]
fn a_phone_that_was_offline_sends_no_expired_message_and_neither_does_another() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let flags = "--callback-delay 5 --smsgate-user user --smsgate-password password \
        --device phone-1:key-1 --device phone-2:key-2";
    let (_shim, sandbox) =
        Sandbox::with_shim(&database, &flags.split_whitespace().collect::<Vec<_>>());
    let url = sandbox.url();
    let rules = format!(
        "select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
             device_id => 'phone-1', signing_key => 'key-1'); \
         select twilio.add_fallback_rule('phone', from_channel => 'whatsapp', \
             to_provider => 'smsgate', expires_after => '10 minutes')"
    );
    set_up(&database, &sandbox, &rules);
    let turn = |online: bool| {
        let state = [("online", if online { "true" } else { "false" })];
        assert!(
            sandbox
                .send(&Request::form("/_phones/phone-1", &state))
                .is_success()
        );
    };
    turn(false);
    sandbox.create(WHATSAPP, "whatsapp:+150000001163049", STATUS_PATH);
    let status = "select count(*) from twilio.message where step = 1 and status = any ($1)";
    let count = |statuses: &[&str]| database.value::<i64>(status, &[&statuses]);
    wait_until(PATIENCE, "the message to wait for its phone", || {
        count(&["pending"]) == 1
    });

    // The rule's ten minutes pass; a reload wakes the worker. What loads the library makes the setting known.
    let mut client = database.connect();
    for statement in [
        "select twilio.parse_form('')",
        "alter system set twilio_callback.clock_offset = '11 min'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(statement).unwrap();
    }
    wait_until(PATIENCE, "the message to end", || {
        count(&["expired", "canceled"]) == 1
    });
    turn(true);
    // Then one for the same phone: whatever it still had would leave before it, or with it.
    let rest =
        "select twilio.send_message('+12025550123', 'later', from_address => 'user/phone-1')";
    database.connect().batch_execute(rest).unwrap();
    wait_until(PATIENCE, "the phone to send again", || {
        !sandbox.sent().is_empty()
    });
    assert_eq!(
        sandbox.sent(),
        [("+12025550123".to_owned(), "later".to_owned())]
    );
    cluster.assert_no_errors();
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox, rules: &str) {
    let url = sandbox.url();
    database
        .connect()
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('{WHATSAPP}'); {rules}"
        ))
        .unwrap();
    start_worker(database);
}
