//! If a request got no answer, its outcome is looked up in Twilio's list of messages.

use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::set_setting;
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{set_up, status};
use end_to_end::wait::{PATIENCE, wait_until};

#[test]
fn a_list_counts_as_of_the_time_of_its_request() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let no_lists = [("on", "read"), ("outcome", "error"), ("count", "unlimited")];
    sandbox.send(&Request::form("/_faults", &no_lists));
    // Not accepted, and the connection closes without an answer.
    let to = "+150000003000012";
    let sql = "select twilio.send_message($1, 'text', delivery => 'at_least_once')";
    let id: i64 = database.value(sql, &[&to]);
    wait_until(PATIENCE, "the outcome to be open", || {
        status(&database, id) == "unknown"
    });
    // Another session locks the message before the look-up.
    let (mut client, mut other) = (database.connect(), database.connect());
    let mut lock = client.transaction().unwrap();
    wait_until(PATIENCE, "the look-up to pause", || {
        let mut pause = other.transaction().unwrap();
        let sql = "select from twilio_internal.outbox where message_id = $1 and lease_token is null for update";
        let is_paused = pause.execute(sql, &[&id]).unwrap() == 1;
        if is_paused {
            let sql = "select from twilio.message where message_id = $1 for update";
            lock.execute(sql, &[&id]).unwrap();
        }
        pause.commit().unwrap();
        is_paused
    });
    set_setting(&database, "clock_offset", "95 s");
    sandbox.send(&Request::new("DELETE", "/_faults"));
    wait_until(PATIENCE, "a list to be read", || {
        let sql = "update twilio_internal.outbox set due_at = twilio.now() where message_id = $1 and lease_token is null";
        database.connect().execute(sql, &[&id]).unwrap();
        lists(&sandbox) == 1
    });
    wait_until(PATIENCE, "it to stay unwritten", || {
        cluster.read_log().contains("worker cannot finish message")
    });
    // What it showed can be written down only once the time is over after which it would prove something: two
    // minutes, and as long as the request and a look at its files may take.
    set_setting(&database, "clock_offset", "180 s");
    lock.commit().unwrap();
    wait_until(PATIENCE, "the message to be created anew", || {
        let sql = "update twilio_internal.outbox set due_at = twilio.now() where message_id = $1 and lease_token is null";
        database.connect().execute(sql, &[&id]).unwrap();
        sandbox.counts()[to].0 > 1
    });
    assert!(lists(&sandbox) >= 2, "{:#?}", sandbox.requests(0));
    cluster.assert_no_errors();
}

#[test]
fn a_list_proves_nothing_while_the_request_may_be_under_way() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    set_setting(&database, "request_timeout", "300 s");
    let to = "+150000003000012";
    let sql = "select twilio.send_message($1, 'text', delivery => 'at_least_once')";
    let id: i64 = database.value(sql, &[&to]);
    wait_until(PATIENCE, "the outcome to be open", || {
        status(&database, id) == "unknown"
    });
    // Each is asked for as soon as it is known what came of the one before.
    let again = || {
        let sql = "update twilio_internal.outbox set due_at = twilio.now() where message_id = $1 and lease_token is null \
                   and due_at > twilio.now() + interval '1 second'";
        database.connect().execute(sql, &[&id]).unwrap();
    };
    set_setting(&database, "clock_offset", "400 s");
    wait_until(PATIENCE, "two lists to be read and judged", || {
        again();
        let sql = "select lease_token is null and tries > 1 from twilio_internal.outbox where message_id = $1";
        lists(&sandbox) > 1 && database.value::<bool>(sql, &[&id])
    });
    assert_eq!(sandbox.counts()[to].0, 1);
    let sql = "select state || case when due_at < 'infinity' then ' due' else '' end from twilio_internal.outbox where message_id = $1";
    assert_eq!(database.value::<String>(sql, &[&id]), "unknown due");
    set_setting(&database, "clock_offset", "450 s");
    wait_until(PATIENCE, "the message to be created anew", || {
        again();
        sandbox.counts()[to].0 > 1
    });
    cluster.assert_no_errors();
}

/// How many lists were read before the last create.
fn lists(sandbox: &Sandbox) -> usize {
    let requests = sandbox.requests(0);
    let last = (requests.iter())
        .rposition(|request| request["method"] == "POST")
        .filter(|index| *index > 0);
    let before = &requests[..last.unwrap_or(requests.len())];
    let is_list =
        |request: &&serde_json::Value| request["method"] == "GET" && request["status"] == 200;
    before.iter().filter(is_list).count()
}
