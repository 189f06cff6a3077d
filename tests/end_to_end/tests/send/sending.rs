//! The worker sends committed messages, once, and gives way to commands that need the database.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{
    is_worker_running, send, set_up, start_worker, status, wait_until_empty, worker_pid,
};
use end_to_end::server::process::signal;
use end_to_end::wait::{PATIENCE, holds_within, wait_until};

#[test]
fn exactly_what_was_committed_is_sent() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &["--latency", "20"]);
    set_up(&database, &sandbox);
    let total = sized(900, 10_000);
    let committed = thread::scope(|scope| {
        let enqueuers: Vec<_> = (0..3)
            .map(|thread| {
                let database = &database;
                scope.spawn(move || enqueue(&mut database.connect(), thread, total / 3))
            })
            .collect();
        // The worker is down for about half of the time.
        while !enqueuers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let mut client = database.connect();
            client.execute("select twilio.stop_worker()", &[]).unwrap();
            wait_until(PATIENCE, "the worker to end", || {
                !is_worker_running(&database)
            });
            thread::sleep(Duration::from_millis(200));
            start_worker(&database);
            thread::sleep(Duration::from_millis(200));
        }
        let sets = enqueuers.into_iter().map(|e| e.join().unwrap());
        sets.flatten().collect::<BTreeSet<_>>()
    });
    wait_until_empty(&database, Duration::from_secs(300));
    let counts = sandbox.counts();
    let received: BTreeSet<_> = counts.keys().cloned().collect();
    assert_eq!(received, committed);
    let twice: Vec<_> = counts.iter().filter(|(_, n)| **n != (1, 1)).collect();
    assert_eq!(twice, Vec::new());
    let sql = "select count(*), count(message_sid), count(*) filter (where status = 'queued') from twilio.message";
    let row = database.connect().query_one(sql, &[]).unwrap();
    let all = i64::try_from(committed.len()).unwrap();
    let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(found, (all, all, all));
    cluster.assert_no_errors();
}

/// Queues messages in transactions of up to 20, of which a third roll back; gives the recipients of the rest.
fn enqueue(client: &mut postgres::Client, thread: usize, count: usize) -> Vec<String> {
    let mut random = Random::new();
    let mut committed = Vec::new();
    let mut next = 0;
    while next < count {
        let size = (1 + random.below(20)).min(count - next);
        let recipients: Vec<_> = (next..next + size)
            .map(|n| format!("+1202{:07}", 1_000_000 * (thread + 2) + n))
            .collect();
        next += size;
        let mut transaction = client.transaction().unwrap();
        for to in &recipients {
            transaction
                .execute(
                    "select twilio.send_message($1, 'Your table is ready')",
                    &[to],
                )
                .unwrap();
        }
        if random.one_in(3) {
            transaction.rollback().unwrap();
        } else {
            transaction.commit().unwrap();
            committed.extend(recipients);
        }
        thread::sleep(Duration::from_millis(5));
    }
    committed
}

#[test]
fn no_transaction_is_open_while_the_network_is_waited_for() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    database
        .connect()
        .execute(
            "select twilio.send_message('+1500' || lpad(n::text, 5, '0') || '000009', 'hangs') from generate_series(1, 100) n",
            &[],
        )
        .unwrap();
    let in_flight = || database.value::<i64>("select in_flight from twilio.queue_status", &[]);
    wait_until(PATIENCE, "100 requests to hang", || {
        in_flight() == 100 && sandbox.counts().len() == 100
    });
    let sql = "select a.state, a.xact_start is null and a.backend_xid is null and a.backend_xmin is null \
        from pg_stat_activity a join twilio_internal.worker w using (pid)";
    // A look at the queue, begun just now, is over in no time.
    wait_until(Duration::from_secs(5), "the worker to wait", || {
        let row = database.connect().query_one(sql, &[]).unwrap();
        (row.get::<_, Option<String>>(0), row.get::<_, bool>(1)) == (Some("idle".to_owned()), true)
    });
    for _ in 0..20 {
        let row = database.connect().query_one(sql, &[]).unwrap();
        assert!(row.get::<_, bool>(1), "the worker holds a snapshot");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(in_flight(), 100);
    cluster.assert_no_errors();
}

#[test]
fn nothing_is_sent_while_nothing_can_be_written() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        lines: &[
            "client_min_messages = warning",
            "twilio_callback.max_in_flight = 1",
        ],
    });
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let mut client = database.connect();
    client
        .batch_execute(
            "create function complain() returns trigger language plpgsql as $$ begin raise 'no'; end $$; \
             create trigger complain before update on twilio.message for each row execute function complain(); \
             select count(twilio.send_message('+120255502' || n, 'text')) from generate_series(10, 49) n",
        )
        .unwrap();
    // Twenty for the one place.
    wait_until(
        PATIENCE,
        "as many to be created as may stay unwritten",
        || sandbox.counts().len() >= 20,
    );
    let tries = || cluster.read_log().matches("cannot finish message").count();
    let before = tries();
    wait_until(PATIENCE, "them to be tried again and again", || {
        tries() > before + 10
    });
    let begun = sandbox.counts().len();
    assert!(begun < 23, "{begun}");
    let sql = "drop trigger complain on twilio.message";
    client.batch_execute(sql).unwrap();
    wait_until_empty(&database, 3 * PATIENCE);
    assert_eq!(sandbox.counts().len(), 40);
    assert!(sandbox.counts().values().all(|count| *count == (1, 1)));
    cluster.assert_no_errors();
}

#[test]
fn refusals_are_final_and_throttling_is_not() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &["--retry-after", "1"]);
    set_up(&database, &sandbox);
    let refused = send(&database, "+150000003321211", "refused");
    let throttled = send(&database, "+150000003000022", "throttled");
    wait_until_empty(&database, PATIENCE);
    assert_eq!(status(&database, refused), "refused");
    let sql =
        "select kind, error_code, more_info, tries, request ->> 'Body' from twilio.failed_message";
    let row = database.connect().query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, String>(0), "refused");
    assert_eq!(row.get::<_, i32>(1), 21211);
    assert!(row.get::<_, String>(2).ends_with("/21211"));
    assert_eq!(
        (row.get::<_, i32>(3), row.get::<_, String>(4)),
        (1, "refused".to_owned())
    );
    assert_eq!(status(&database, throttled), "queued");
    assert_eq!(sandbox.counts()["+150000003000022"], (2, 1));

    // An account that cannot send is paused until an operator resumes it.
    let suspended = send(&database, "+150000003000018", "suspended");
    wait_until(PATIENCE, "the account to be paused", || {
        database.value::<i64>("select paused_accounts from twilio.queue_status", &[]) == 1
    });
    let waiting = send(&database, "+12025550123", "waits");
    assert_eq!(
        (status(&database, suspended), status(&database, waiting)),
        ("waiting".into(), "waiting".into())
    );
    database
        .connect()
        .batch_execute(&format!(
            "select twilio.cancel_message({suspended}); select twilio.resume_account(account_sid) from twilio.account"
        ))
        .unwrap();
    wait_until_empty(&database, PATIENCE);
    assert_eq!(status(&database, waiting), "queued");
    assert!(!sandbox.counts().contains_key("") && sandbox.counts()["+150000003000018"].0 == 1);
    cluster.assert_no_errors();
}

#[test]
fn the_worker_restarts_and_blocks_no_other_command() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let deliver = |to: &str| {
        let id = send(&database, to, "text");
        wait_until(PATIENCE, &format!("{to} to be sent"), || {
            status(&database, id) == "queued"
        });
    };
    deliver("+12025550201");

    // Terminated, it comes back.
    let pid = worker_pid(&database);
    let sql = format!("select pg_terminate_backend({pid})");
    database.connect().execute(&sql, &[]).unwrap();
    wait_until(PATIENCE, "another worker", || {
        is_worker_running(&database) && worker_pid(&database) != pid
    });
    deliver("+12025550202");

    // Killed, it takes the server's other processes along, as PostgreSQL has it, and comes back with them.
    signal(worker_pid(&database), "KILL");
    wait_until(PATIENCE, "the server to be back", || {
        cluster
            .read_log()
            .matches("ready to accept connections")
            .count()
            == 2
    });
    wait_until(PATIENCE, "another worker", || is_worker_running(&database));
    deliver("+12025550203");

    // Between a new library and ALTER EXTENSION it waits: this is how the database looks then.
    let set_version = |version: &str| {
        let sql = "update pg_extension set extversion = $1 where extname = 'twilio_callback'";
        database.connect().execute(sql, &[&version]).unwrap();
    };
    let version: String = database.value(
        "select extversion from pg_extension where extname = 'twilio_callback'",
        &[],
    );
    set_version("older");
    wait_until(PATIENCE, "the worker to wait for the extension", || {
        let sql = "select count(*) from pg_stat_activity where query = 'waiting for the extension'";
        database.value::<i64>(sql, &[]) == 1
    });
    let waiting = send(&database, "+12025550205", "text");
    let is_sent = || status(&database, waiting) != "waiting";
    assert!(!holds_within(Duration::from_secs(1), is_sent));
    set_version(&version);
    deliver("+12025550206");
    wait_until(PATIENCE, "what waited to be sent", is_sent);

    // Dropped and created again, the extension has a new worker as soon as one is asked for.
    database
        .connect()
        .batch_execute("drop extension twilio_callback; create extension twilio_callback")
        .unwrap();
    set_up(&database, &sandbox);
    deliver("+12025550204");

    // The server stops in time while a request hangs.
    send(&database, "+150000004000009", "hangs");
    wait_until(PATIENCE, "the request to hang", || {
        sandbox.counts().contains_key("+150000004000009")
    });
    let begun = Instant::now();
    cluster.stop("fast");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    cluster.start_again();
    start_worker(&database);
    // A create that hung is unknown until a look-up settles it, and is not sent a second time.
    let sql = "select status from twilio.message where to_address = '+150000004000009'";
    let settled = [
        "unknown",
        "accepted",
        "queued",
        "sending",
        "sent",
        "delivered",
    ];
    wait_until(PATIENCE, "the outcome of what hung", || {
        settled.contains(&database.value::<String>(sql, &[]).as_str())
    });
    assert_eq!(sandbox.counts()["+150000004000009"].0, 1);
}

#[test]
fn a_dropped_database_leaves_no_worker_behind() {
    let cluster = Cluster::start(&Options::QUIET);
    let sandbox = Sandbox::start(free_port(), &[]);
    let database = cluster.database();
    set_up(&database, &sandbox);
    drop(database);
    // Time for two starts of a worker that would be started again.
    // The database takes along a connection of the test's that is just about to end.
    let ours = "terminating connection due to administrator command";
    let is_missed = holds_within(Duration::from_secs(2), || {
        let log = cluster.read_log();
        log.lines()
            .any(|line| line.contains("FATAL") && !line.contains(ours))
    });
    assert!(!is_missed, "{}", cluster.read_log());
}
