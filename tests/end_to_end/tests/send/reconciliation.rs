//! Messages whose callbacks are lost get the state that Twilio has, with all that follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, set_setting};
use end_to_end::server::outbox::{
    send, set_up, start_worker, status, wait_until_empty, worker_pid,
};
use end_to_end::server::process::signal;
use end_to_end::wait::{PATIENCE, wait_until};
use serde_json::Value;

/// The status, the error code and the price of each message at Twilio, by SID.
fn at_twilio(sandbox: &Sandbox) -> BTreeMap<String, (String, Option<i32>, Option<String>)> {
    let mut found = BTreeMap::new();
    let mut next = Some(format!(
        "/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json?PageSize=1000"
    ));
    while let Some(path) = next {
        let answer = sandbox.send(&sandbox.authorized(Request::new("GET", &path)));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: Value = serde_json::from_slice(&answer.body).unwrap();
        let text = |message: &Value, name: &str| message[name].as_str().map(str::to_owned);
        for message in page["messages"].as_array().unwrap() {
            let code = message["error_code"].as_i64();
            let state = (
                text(message, "status").unwrap(),
                code.map(|code| i32::try_from(code).unwrap()),
                text(message, "price"),
            );
            found.insert(text(message, "sid").unwrap(), state);
        }
        next = page["next_page_uri"].as_str().map(str::to_owned);
    }
    found
}

/// The same here.
fn here(database: &Database<'_>) -> BTreeMap<String, (String, Option<i32>, Option<String>)> {
    let sql = "select message_sid, status, error_code, price::text from twilio.message where message_sid is not null";
    let rows = database.connect().query(sql, &[]).unwrap();
    rows.iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
        .collect()
}

fn has_same_states(database: &Database<'_>, sandbox: &Sandbox) -> bool {
    let states = |of: BTreeMap<String, (String, Option<i32>, Option<String>)>| -> Vec<_> {
        of.into_iter()
            .map(|(sid, (status, code, _))| (sid, status, code))
            .collect()
    };
    states(here(database)) == states(at_twilio(sandbox))
}

/// Requests that fetched a message: when they came, in microseconds, and with which status they were answered.
fn fetches(sandbox: &Sandbox) -> Vec<(i64, i64)> {
    let requests = sandbox.requests(0);
    let is_fetch = |request: &&Value| {
        let target = request["target"].as_str().unwrap_or_default();
        request["method"] == "GET" && target.contains("/Messages/")
    };
    let fetch = |request: &Value| {
        let status = request["status"].as_i64().unwrap_or_default();
        (request["received_us"].as_i64().unwrap(), status)
    };
    requests.iter().filter(is_fetch).map(fetch).collect()
}

#[test]
fn lost_callbacks_are_made_up_for_whatever_is_killed() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--callback-delay", "5"]);
    set_up(&database, &sandbox);
    set_setting(&database, "reconcile_rate", "50");
    database
        .connect()
        .batch_execute(
            "select twilio.add_sender('whatsapp:+12025550100'); select twilio.enable_whatsapp_to_sms()",
        )
        .unwrap();
    let dropped = [
        ("on", "callback"),
        ("outcome", "drop"),
        ("count", "unlimited"),
        ("percent", "20"),
    ];
    assert_eq!(
        sandbox.send(&Request::form("/_faults", &dropped)).status,
        201
    );
    let part = sized(30, 2000);
    let patience = PATIENCE.max(Duration::from_secs(part as u64));
    for n in 0..part {
        // Lost without exception, lost failures with a fallback that is delivered, and others, of which some are lost.
        for to in [
            format!("+1500{n:05}000006"),
            format!("whatsapp:+1500{n:05}863049"),
            format!("whatsapp:+1500{n:05}163049"),
            format!("+1202{:07}", 5_550_000 + n),
        ] {
            send(&database, &to, "Your table is ready");
        }
    }
    wait_until_empty(&database, patience);
    let mut kills = sized(1, 5);
    wait_until(patience, "all states to be Twilio's", || {
        let queued: i64 = database.value("select twilio.reconcile()", &[]);
        if kills > 0 && queued > 10 {
            kills -= 1;
            let under_way = "select count(*) from twilio.reconciliation_status where in_flight > 0";
            wait_until(PATIENCE, "a state to be fetched", || {
                database.value::<i64>(under_way, &[]) > 0
            });
            let starts = || {
                cluster
                    .read_log()
                    .matches("ready to accept connections")
                    .count()
            };
            let before = starts();
            signal(worker_pid(&database), "KILL");
            wait_until(PATIENCE, "the server to be back", || starts() > before);
            start_worker(&database);
        }
        wait_until(patience, "what is queued to be fetched", || {
            let sql = "select sum(due + in_flight)::bigint from twilio.reconciliation_status";
            database.value::<i64>(sql, &[]) == 0
        });
        wait_until_empty(&database, patience);
        has_same_states(&database, &sandbox)
    });
    assert_eq!(kills, 0);
    // Each failure has its fallback, and none has two.
    let sql = "select count(*) filter (where m.step = 0 and m.status = 'undelivered') - count(*) filter (where m.step = 1), \
               count(*) filter (where m.step = 1), count(*) filter (where m.step > 1 or m.try > 1) from twilio.message m";
    let row = database.connect().query_one(sql, &[]).unwrap();
    assert_eq!(
        (row.get(0), row.get(1), row.get(2)),
        (0_i64, i64::from(2 * part), 0_i64)
    );
    for (to, (requests, accepted)) in sandbox.counts() {
        assert_eq!((requests, accepted), (1, 1), "{to}");
    }
    let sql = "select count(*) from twilio.message_event where source = 'poll'";
    assert!(database.value::<i64>(sql, &[]) >= i64::from(2 * part));
}

#[test]
fn messages_without_a_final_status_are_fetched_in_time() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--callback-delay", "5"]);
    set_up(&database, &sandbox);
    let lost = send(&database, "+150000001000006", "lost");
    let seen = send(&database, "+12025550123", "seen");
    wait_until(PATIENCE, "one to be delivered", || {
        status(&database, seen) == "delivered"
    });
    wait_until(PATIENCE, "the messages to be marked", || {
        let sql = "select count(*) from twilio_internal.reconciliation_mark where not is_examined and message_id >= $1";
        database.value::<i64>(sql, &[&seen]) > 0
    });
    assert_eq!(fetches(&sandbox).len(), 0);
    set_setting(&database, "clock_offset", "16 min");
    wait_until(PATIENCE, "the lost state to be fetched", || {
        status(&database, lost) == "delivered"
    });
    assert_eq!(fetches(&sandbox).len(), 1);
    let sql = "select count(*) from twilio_internal.reconciliation";
    assert_eq!(database.value::<i64>(sql, &[]), 0);
    cluster.assert_no_errors();
}

#[test]
fn a_busy_twilio_slows_reconciliation_and_nothing_else() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let (_shim, sandbox) =
        Sandbox::with_shim(&database, &["--callback-delay", "5", "--retry-after", "3"]);
    set_up(&database, &sandbox);
    set_setting(&database, "reconcile_rate", "20");
    let count = sized(20, 200);
    for n in 0..count {
        send(&database, &format!("+1500{n:05}000006"), "lost");
    }
    wait_until_empty(&database, PATIENCE);
    let busy = [("on", "read"), ("outcome", "busy"), ("count", "2")];
    assert_eq!(sandbox.send(&Request::form("/_faults", &busy)).status, 201);
    assert_eq!(
        database.value::<i64>("select twilio.reconcile()", &[]),
        i64::from(count)
    );
    wait_until(PATIENCE, "the account to be left alone", || {
        let sql = "select count(*) from twilio.reconciliation_status where paused_until > twilio.now() + interval '1 second'";
        database.value::<i64>(sql, &[]) == 1
    });
    let other = send(&database, "+12025550143", "sent meanwhile");
    wait_until(
        Duration::from_secs(2),
        "a message to be sent meanwhile",
        || sandbox.counts().contains_key("+12025550143"),
    );
    wait_until(PATIENCE, "all to be fetched", || {
        has_same_states(&database, &sandbox)
    });
    assert_eq!(status(&database, other), "delivered");
    // Nothing came within three seconds after an answer 429, but what was under way with it.
    let fetches = fetches(&sandbox);
    let refused: Vec<_> = fetches
        .iter()
        .filter(|(_, status)| *status == 429)
        .collect();
    assert_eq!(refused.len(), 2, "{fetches:?}");
    let early = |at: &i64, from: i64| (from + 500_000..from + 2_900_000).contains(at);
    for (refused_at, _) in &refused {
        let came = fetches.iter().filter(|(at, _)| early(at, *refused_at));
        assert_eq!(came.count(), 0, "{fetches:?}");
    }
    // As many as there are messages, and one more for each that was refused.
    assert_eq!(fetches.len(), usize::try_from(count).unwrap() + 2);
    cluster.assert_no_errors();
}

/// Creates a message at Twilio of which nothing is known here.
fn create_elsewhere(sandbox: &Sandbox, to: &str) {
    let form = [("From", "+12025550100"), ("To", to), ("Body", "of others")];
    let path = format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json");
    let answer = sandbox.send(&sandbox.authorized(Request::form(&path, &form)));
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// The number of list requests.
fn lists(sandbox: &Sandbox) -> usize {
    let requests = sandbox.requests(0);
    let is_list = |request: &&Value| {
        let target = request["target"].as_str().unwrap_or_default();
        request["method"] == "GET" && target.contains("/Messages.json?DateSent=")
    };
    requests.iter().filter(is_list).count()
}

#[test]
fn a_sweep_brings_prices_and_messages_of_others_a_thousand_with_each_request() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--callback-delay", "5"]);
    set_up(&database, &sandbox);
    set_setting(&database, "reconcile_rate", "1");
    let own = send(&database, "+150000001000006", "lost");
    wait_until_empty(&database, PATIENCE);
    let count: usize = sized(1_100, 99_999);
    for n in 0..count {
        // Some fail.
        create_elsewhere(
            &sandbox,
            &match n % 10 {
                0 => format!("+1500{:05}130003", n / 10),
                _ => format!("+1202{:07}", 5_550_000 + n),
            },
        );
    }
    let pages = (count + 1).div_ceil(1000);
    wait_until(
        PATIENCE.max(Duration::from_secs(count as u64 / 200)),
        "all to be final",
        || {
            at_twilio(&sandbox).values().all(|(status, _, price)| {
                ["delivered", "undelivered"].contains(&status.as_str()) && price.is_some()
            })
        },
    );
    let sweep = || -> i32 {
        let sql = "select twilio.sweep_messages((twilio.now() at time zone 'UTC')::date)";
        database.value(sql, &[])
    };
    let state = |column: &str| -> i64 {
        let sql =
            format!("select coalesce({column}, 0)::bigint from twilio_internal.message_sweep");
        database.value(&sql, &[])
    };
    assert_eq!(sweep(), 1);
    wait_until(PATIENCE, "the first page to be recorded", || {
        state("pages") > 0
    });
    let starts = || {
        cluster
            .read_log()
            .matches("ready to accept connections")
            .count()
    };
    let before = starts();
    signal(worker_pid(&database), "KILL");
    wait_until(PATIENCE, "the server to be back", || starts() > before);
    start_worker(&database);
    set_setting(&database, "reconcile_rate", "5");
    let is_finished = || state("(finished_at is not null)::int") == 1;
    let patience = PATIENCE.max(Duration::from_secs(pages as u64 * 2));
    wait_until(patience, "the list to be read", is_finished);
    let total = i64::try_from(count + 1).unwrap();
    assert_eq!((state("messages"), state("skipped")), (total, 0));
    // The page that was being read when the worker was killed may have been read twice.
    assert!(
        [pages, pages + 1].contains(&lists(&sandbox)),
        "{}",
        lists(&sandbox)
    );
    assert_eq!(here(&database), at_twilio(&sandbox));
    assert_eq!(status(&database, own), "delivered");
    let sql = "select count(*) from twilio.message where direction = 'outbound' and created_at > now() - interval '1 hour'";
    assert_eq!(database.value::<i64>(sql, &[]), total);
    // Again nothing is new, and nothing is written.
    let read = lists(&sandbox);
    assert_eq!(sweep(), 1);
    wait_until(patience, "the list to be read again", is_finished);
    assert_eq!(
        (state("changed"), state("pages")),
        (0, i64::try_from(pages).unwrap())
    );
    assert_eq!(lists(&sandbox) - read, pages);
}
