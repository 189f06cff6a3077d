//! Messages that fail go out another way, once: WhatsApp, then SMS, then an Android phone.

use std::thread;

use end_to_end::client::callback::{STATUS_PATH, status_between};
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::environment::free_port;
use end_to_end::wait::{PATIENCE, wait_until};

const WHATSAPP: &str = "whatsapp:+12025550100";

/// A database whose worker sends to the sandbox, with both presets, and phones that call back.
fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    let url = sandbox.url();
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('{WHATSAPP}'); \
             select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
                 device_id => 'phone-1', signing_key => 'key-1'); \
             select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(); \
             select twilio.start_worker()"
        ))
        .unwrap();
    sandbox.register_webhooks();
}

#[test]
fn a_message_reaches_its_recipient_by_the_third_way() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    set_up(&database, &sandbox);

    // One of ours, and some that other software made: the database first hears of them as they fail.
    let sql = "select twilio.send_message('whatsapp:+150100001405000', 'Grüße 🎉')";
    database.value::<i64>(sql, &[]);
    let texts = [
        "From elsewhere 🎉👩‍👩‍👧",
        "  spaces, \"quotes\" & +%20\nlines  ",
        &"ä".repeat(1600),
    ];
    for (number, text) in texts.iter().enumerate() {
        let to = format!("whatsapp:+15010000{}405000", number + 2);
        sandbox.create_with(WHATSAPP, &to, STATUS_PATH, text);
    }
    let reached = "select count(*) from twilio.message_chain where reached_by = 'smsgate' \
        and steps = 3 and status = 'delivered' and not double_delivered";
    wait_until(PATIENCE, "four chains to end at the phone", || {
        database.value::<i64>(reached, &[]) == 4
    });
    let mut sent = sandbox.sent();
    sent.sort();
    let mut expected = vec![("+150100001405000".to_owned(), "Grüße 🎉".to_owned())];
    expected.extend(
        (texts.iter().enumerate())
            .map(|(number, text)| (format!("+15010000{}405000", number + 2), (*text).to_owned())),
    );
    assert_eq!(sent, expected);
    cluster.assert_no_errors();
}

#[test]
fn fifty_reports_of_one_failure_lead_to_one_fallback() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let shims = [
        Shim::start(&database, &["--listen", &listen]),
        Shim::start(&database, &[]),
        Shim::start(&database, &[]),
    ];
    let sandbox = Sandbox::start(port, &PHONE);
    set_up(&database, &sandbox);

    // Undelivered without a callback, so that all reports are ours.
    let to = "whatsapp:+150000001863049";
    let message = sandbox.create(WHATSAPP, to, STATUS_PATH);
    let sid = message["sid"].as_str().unwrap();
    thread::scope(|scope| {
        for number in 0..50 {
            let name = if number % 2 == 0 {
                "failed"
            } else {
                "undelivered"
            };
            let shim = &shims[number % shims.len()];
            scope.spawn(move || {
                let pairs = status_between(sid, name, Some(63049), WHATSAPP, to);
                let answer = shim.send(&Request::form(STATUS_PATH, &pairs).signed());
                assert_eq!(answer.status, 204, "{}", answer.text());
            });
        }
    });
    let sql = "select count(*) from twilio.message_chain where reached_by = 'sms' and steps = 2";
    wait_until(PATIENCE, "the SMS to arrive", || {
        database.value::<i64>(sql, &[]) == 1
    });
    assert_eq!(database.counts().1, 2);
    let answer = sandbox.send(&Request::new("GET", "/_counts"));
    let counts: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(counts["accepted"], 2, "{counts}");
    cluster.assert_no_errors();
}

#[test]
fn recipients_who_opted_out_are_not_texted() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    set_up(&database, &sandbox);
    // A rule for everything that can fail, the presets beside it, and codes of the class consent.
    let all = "select twilio.add_fallback_rule('all', error_codes => array(select error_code from twilio.error_code), \
        priority => 1)";
    database.connect().batch_execute(all).unwrap();
    let codes = [21610, 30004, 63014, 63033];
    for code in codes {
        let channel = if code >= 63000 { "whatsapp:" } else { "" };
        let from = if code >= 63000 {
            WHATSAPP
        } else {
            "+12025550100"
        };
        sandbox.create(from, &format!("{channel}+1500000001{code:05}"), STATUS_PATH);
    }
    // Whom we block, a failure that would fall back does not reach either.
    database
        .connect()
        .batch_execute("select twilio.block('+150000002163049')")
        .unwrap();
    sandbox.create(WHATSAPP, "whatsapp:+150000002163049", STATUS_PATH);
    let sql = "select count(*) from twilio.message_status where status = 'undelivered'";
    wait_until(PATIENCE, "all five to fail", || {
        database.value::<i64>(sql, &[]) == 5
    });
    // Then one that does fall back: whatever was planned before it would have left before it, too.
    sandbox.create(WHATSAPP, "whatsapp:+150000003163049", STATUS_PATH);
    let sql = "select count(*) from twilio.message_chain where reached_by = 'sms'";
    wait_until(PATIENCE, "the last to arrive", || {
        database.value::<i64>(sql, &[]) == 1
    });
    assert_eq!(database.counts().1, 7);
    assert_eq!(sandbox.sent(), []);
    cluster.assert_no_errors();
}
