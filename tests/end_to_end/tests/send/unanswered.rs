//! Messages whose create got no answer, or whose outcome could not be recorded, are settled.

use end_to_end::client::callback::STATUS_PATH;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{SENDER, send, set_up, status, wait_until_empty};
use end_to_end::wait::{PATIENCE, wait_until};

/// Recipient; what becomes of it; how often Twilio is asked to create it.
const OPEN: [(&str, &str, u64); 7] = [
    ("+150000001000007", "delivered", 1),
    ("+150000001000008", "delivered", 1),
    ("+150000001000010", "delivered", 1),
    ("+150000001000011", "delivered", 1),
    ("+150000001000017", "delivered", 1),
    ("+150000001000012", "unknown", 1),
    ("+150000001000014", "unknown", 1),
];

#[test]
fn callbacks_settle_creates_without_an_answer() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--callback-delay", "20"]);
    set_up(&database, &sandbox);
    let ids: Vec<_> = OPEN
        .iter()
        .map(|(to, ..)| send(&database, to, "open"))
        .collect();
    for ((to, expected, _), id) in OPEN.iter().zip(&ids) {
        wait_until(PATIENCE, &format!("{to} to be {expected}"), || {
            status(&database, *id) == *expected
        });
    }
    wait_until(PATIENCE, "what is settled to leave the outbox", || {
        let sql = "select array_agg(message_id order by message_id) from twilio_internal.outbox";
        database.value::<Option<Vec<i64>>>(sql, &[]) == Some(ids[5..].to_vec())
    });
    let counts = sandbox.counts();
    for (to, _, tries) in OPEN {
        assert_eq!(counts[to].0, tries, "{to}");
    }
    assert_eq!(database.counts().1, i64::try_from(OPEN.len()).unwrap());
    cluster.assert_no_errors();
}

#[test]
fn a_look_up_settles_creates_without_answer_or_callback() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    // There is no listener for callbacks.
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let id = send(&database, "+150000002000008", "dropped");
    wait_until(PATIENCE, "the message to be found", || {
        database.value::<bool>(
            "select message_sid is not null from twilio.message where message_id = $1",
            &[&id],
        )
    });
    wait_until_empty(&database, PATIENCE);
    assert_eq!(sandbox.counts()["+150000002000008"], (1, 1));
    let sql = "select outcome from twilio_internal.attempt where message_id = $1";
    assert_eq!(database.value::<String>(sql, &[&id]), "accepted");
    cluster.assert_no_errors();
}

#[test]
fn a_look_up_goes_beyond_the_first_page() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    // There is no listener for callbacks.
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let no_lists = [("on", "read"), ("outcome", "error"), ("count", "unlimited")];
    for fault in [&no_lists[..], &[("outcome", "drop")]] {
        assert_eq!(sandbox.send(&Request::form("/_faults", fault)).status, 201);
    }
    let to = "+12025550131";
    let id = send(&database, to, "dropped");
    wait_until(PATIENCE, "the message to be created", || {
        sandbox.counts().get(to) == Some(&(1, 1))
    });
    // Newer ones fill a page before it can be looked up.
    for n in 0..100 {
        let body = format!("other {n}");
        sandbox.create_with(SENDER, to, STATUS_PATH, &body);
    }
    sandbox.send(&Request::new("DELETE", "/_faults"));
    // It is looked up now, without waiting for its time.
    wait_until(PATIENCE, "the last look-up to end", || {
        let sql = "update twilio_internal.outbox set due_at = twilio.now() where message_id = $1 and lease_token is null";
        database.connect().execute(sql, &[&id]).unwrap();
        status(&database, id) != "unknown"
    });
    wait_until_empty(&database, PATIENCE);
    let sql = "select count(*) from twilio.message where message_sid is not null";
    assert_eq!(database.value::<i64>(sql, &[]), 1);
    cluster.assert_no_errors();
}

#[test]
fn an_outcome_that_cannot_be_recorded_delays_no_other() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let mut client = database.connect();
    // A user's trigger refuses one row, and another session locks another.
    client
        .batch_execute(
            "create function complain() returns trigger language plpgsql as $$ begin raise 'no'; end $$; \
             create trigger complain before update on twilio.message \
             for each row when (new.body = 'odd') execute function complain()",
        )
        .unwrap();
    // Nothing leaves before the lock is there, however slow this is.
    client
        .batch_execute("select twilio.disable_sending()")
        .unwrap();
    let odd = send(&database, "+12025550141", "odd");
    let locked = send(&database, "+12025550142", "locked");
    let mut lock = client.transaction().unwrap();
    lock.execute(
        "select from twilio.message where message_id = $1 for update",
        &[&locked],
    )
    .unwrap();
    let switch = "select twilio.enable_sending()";
    database.connect().batch_execute(switch).unwrap();
    wait_until(PATIENCE, "both to be created", || {
        sandbox.counts().len() == 2
    });
    let other = send(&database, "+12025550143", "text");
    wait_until(PATIENCE, "the other one to be sent", || {
        status(&database, other) == "queued"
    });
    assert_eq!(status(&database, odd), "waiting");
    assert_eq!(status(&database, locked), "waiting");
    lock.commit().unwrap();
    client
        .batch_execute("drop trigger complain on twilio.message")
        .unwrap();
    for id in [odd, locked] {
        wait_until(PATIENCE, "what was hindered to be written", || {
            status(&database, id) == "queued"
        });
    }
    assert!(sandbox.counts().values().all(|count| *count == (1, 1)));
    cluster.assert_no_errors();
}
