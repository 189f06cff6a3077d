//! Messages of unknown outcome: Twilio's list, read to its end, settles most of them; the user decides the others.

use end_to_end::client::callback::STATUS_PATH;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, set_setting};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{SENDER, send, set_up, status};
use end_to_end::wait::{PATIENCE, wait_until};

#[test]
fn a_complete_list_shows_that_a_message_was_not_sent() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    fail_reads(&sandbox);
    // Not accepted, and accepted twice; no answer comes in either case.
    let (absent, twice) = ("+150000003000012", "+150000003000008");
    let id = lose(&database, absent);
    let pair = [lose(&database, twice), lose(&database, twice)];
    assert_eq!(doctor(&database), "ok: null");
    sandbox.send(&Request::new("DELETE", "/_faults"));
    // Longer than a request may take, and Twilio until it lists a message.
    set_setting(&database, "clock_offset", "600 s");
    look_up_until(&database, "it to be settled", || {
        status(&database, id) == "expired"
    });
    let sql = "select error_message from twilio.failed_message where message_id = $1 and kind = 'expired'";
    assert_eq!(
        database.value::<String>(sql, &[&id]),
        "not sent: Twilio's list of messages does not show it"
    );
    assert_eq!(sandbox.counts()[absent], (1, 0));
    // It is sent again on demand alone.
    database.value::<i64>("select twilio.retry_message($1)", &[&id]);
    wait_until(PATIENCE, "it to be sent again", || {
        sandbox.counts()[absent].0 == 2
    });

    // A person decides which of two equal messages is which.
    look_up_until(&database, "the look-ups to end", || {
        let sql = "select count(*) from twilio.unknown_message where to_address = $1 \
            and next_look_up_at is null and cardinality(candidates) = 2 and problem = '2 messages at Twilio may be this one'";
        database.value::<i64>(sql, &[&twice]) == 2
    });
    assert!(doctor(&database).starts_with("warning: See: select * from twilio.unknown_message;"));
    let candidates: Vec<String> = database.value(
        "select candidates from twilio.unknown_message where message_id = $1",
        &[&pair[0]],
    );
    for (id, sid) in pair.iter().zip(&candidates) {
        resolve(&database, *id, "sent", Some(sid));
        let sql = "select message_sid from twilio.message where message_id = $1";
        assert_eq!(&database.value::<String>(sql, &[id]), sid);
    }
    assert_eq!(sandbox.counts()[twice], (2, 2));
    cluster.assert_no_errors();
}

#[test]
fn the_user_decides_if_no_list_can_be_read() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    fail_reads(&sandbox);
    let (sent, given_up) = ("+150000004000008", "+150000005000008");
    let not_sent = "+150000006000012";
    let ids = [sent, given_up, not_sent].map(|to| lose(&database, to));
    // A look-up that fails is repeated for a day.
    set_setting(&database, "clock_offset", "25 h");
    look_up_until(&database, "the look-ups to end", || {
        let sql = "select count(*) from twilio.unknown_message where next_look_up_at is null and problem is not null";
        database.value::<i64>(sql, &[]) == 3
    });
    assert!(doctor(&database).starts_with("warning: See: select * from twilio.unknown_message;"));

    let path = format!(
        "/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json?To=%2B{}",
        &sent[1..]
    );
    sandbox.send(&Request::new("DELETE", "/_faults"));
    let list = sandbox.send(&sandbox.authorized(Request::new("GET", &path)));
    let list: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
    let sid = list["messages"][0]["sid"].as_str().unwrap();
    resolve(&database, ids[0], "sent", Some(sid));
    assert_eq!(status(&database, ids[0]), "accepted");
    resolve(&database, ids[1], "give_up", None);
    resolve(&database, ids[2], "not_sent", None);
    for id in &ids[1..] {
        assert_eq!(status(&database, *id), "expired");
    }
    assert_eq!(doctor(&database), "ok: null");
    // Nothing leaves by a decision, and what was not sent is sent again on demand.
    database.value::<i64>("select twilio.retry_message($1)", &[&ids[2]]);
    wait_until(PATIENCE, "it to be sent again", || {
        sandbox.counts()[not_sent].0 == 2
    });
    let counts = sandbox.counts();
    assert_eq!((counts[sent], counts[given_up]), ((1, 1), (1, 1)));
    cluster.assert_no_errors();
}

#[test]
fn a_message_that_may_have_been_sent_does_not_count_as_absent() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    // There is no listener for callbacks.
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    fail_reads(&sandbox);
    let (changed, ours, respelled) = ("+12025550151", "+12025550152", "+5215511112222");
    let [changed_id, ours_id, respelled_id] = [changed, ours, respelled].map(|to| {
        let fault = [("to", to), ("outcome", "drop-before")];
        assert_eq!(sandbox.send(&Request::form("/_faults", &fault)).status, 201);
        lose(&database, to)
    });
    let obfuscated = "+12025550153";
    let fault = [("to", obfuscated), ("outcome", "drop-before")];
    assert_eq!(sandbox.send(&Request::form("/_faults", &fault)).status, 201);
    let sql = "select twilio.send_message($1, 'text', delivery => 'at_most_once', \
        twilio_parameters => '{\"AddressRetention\": \"obfuscate\"}')";
    let obfuscated_id: i64 = database.value(sql, &[&obfuscated]);
    // One that differs from what was sent in its text, and one that is another message of ours.
    let created = sandbox.create_with(SENDER, changed, STATUS_PATH, "text https://s.example/1");
    let other = send(&database, ours, "other");
    wait_until(PATIENCE, "the other one to be sent", || {
        status(&database, other) == "queued"
    });
    sandbox.send(&Request::new("DELETE", "/_faults"));
    set_setting(&database, "clock_offset", "30 min");
    look_up_until(&database, "the look-ups to end", || {
        let sql = "select count(*) from twilio.unknown_message where next_look_up_at is null";
        status(&database, ours_id) == "expired" && database.value::<i64>(sql, &[]) == 3
    });
    let shown = |id: i64| {
        let sql = "select array[candidates[1], problem] from twilio.unknown_message where message_id = $1";
        database.value::<Vec<Option<String>>>(sql, &[&id])
    };
    let sid = created["sid"].as_str().map(str::to_owned);
    let problem = |text: &str| Some(text.to_owned());
    assert_eq!(
        shown(changed_id),
        [
            sid,
            problem("a message at Twilio may be this one, though not all of it is as it was sent")
        ]
    );
    for id in [respelled_id, obfuscated_id] {
        assert_eq!(
            shown(id),
            [
                None,
                problem("Twilio may list the message under another spelling of its recipient")
            ]
        );
    }
    assert_eq!(sandbox.counts()[respelled], (1, 0));
    cluster.assert_no_errors();
}

/// Makes all requests to the sandbox that read fail, look-ups among them.
fn fail_reads(sandbox: &Sandbox) {
    let fault = [("on", "read"), ("outcome", "error"), ("count", "unlimited")];
    assert_eq!(sandbox.send(&Request::form("/_faults", &fault)).status, 201);
}

/// Sends a message whose answer does not come.
fn lose(database: &Database<'_>, to: &str) -> i64 {
    let sql = "select twilio.send_message($1, 'text', delivery => 'at_most_once')";
    let id: i64 = database.value(sql, &[&to]);
    wait_until(PATIENCE, "the outcome to be open", || {
        status(database, id) == "unknown"
    });
    id
}

/// Has look-ups done at once until `is_done`.
fn look_up_until(database: &Database<'_>, what: &str, is_done: impl Fn() -> bool) {
    wait_until(PATIENCE, what, || {
        let sql = "update twilio_internal.outbox set due_at = twilio.now() where state = 'unknown' and lease_token is null \
            and due_at between twilio.now() and twilio.now() + interval '1 day'";
        database.connect().execute(sql, &[]).unwrap();
        is_done()
    });
}

fn resolve(database: &Database<'_>, id: i64, outcome: &str, sid: Option<&str>) {
    let sql = "select twilio.resolve_unknown($1, $2, $3)";
    let mut client = database.connect();
    client.execute(sql, &[&id, &outcome, &sid]).unwrap();
}

/// Verdict and remedy of the doctor.
fn doctor(database: &Database<'_>) -> String {
    let sql = "select verdict || ': ' || coalesce(remedy, 'null') from twilio.doctor() where \"check\" = 'unknown outcomes'";
    database.value(sql, &[])
}
