//! A dump holds everything: restored into a new cluster, all rows are there, and the copy texts nobody.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use end_to_end::callback::{self, sid};
use end_to_end::cluster::{Cluster, Options};
use end_to_end::database::{Database, FRONT_ROLE};
use end_to_end::environment::{as_postgres, fresh_directory, postgres_program};
use end_to_end::http::Response;
use end_to_end::load::send_all;
use end_to_end::process::run;
use end_to_end::shim::Shim;
use postgres::Client;

/// A message that was purged before the dump.
const PURGED: usize = 300;

#[test]
fn a_restored_copy_has_every_row_goes_on_and_sends_nothing() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    fill(&database);
    let before = contents(&mut database.connect());
    assert!(before.iter().filter(|(_, rows, _)| *rows > 0).count() >= 10);

    let directory = fresh_directory();
    let file = directory.join("dump.sql");
    let mut dump = as_postgres(postgres_program("pg_dump"));
    dump.args(["-U", "postgres", "-h"])
        .arg(cluster.socket_directory())
        .args(["-d", database.name()]);
    std::fs::write(&file, run(dump)).unwrap();

    let other = Cluster::start(&Options::default());
    let copy = other.bare_database();
    // Roles are no part of a database's dump.
    copy.connect()
        .batch_execute(&format!(
            "create role {FRONT_ROLE} login; create role reader"
        ))
        .unwrap();
    let mut restore = as_postgres(postgres_program("psql"));
    restore
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"])
        .arg(other.socket_directory())
        .args(["-d", copy.name(), "-f"])
        .arg(&file);
    run(restore);

    assert_eq!(contents(&mut copy.connect()), before);
    // The copy receives where the original does, numbers on where it left off, and sends nothing.
    let shim = Shim::start(&copy, &["--log-callbacks", "off"]);
    let started = shim.send(&callback::signed_inbound(&sid(PURGED), "START"));
    assert_eq!(started.status, 200);
    let ended: i64 = copy.value(
        "select count(*) from twilio.suppression where ended_at is not null",
        &[],
    );
    assert_eq!(
        ended, 0,
        "what was purged before the dump is known to the copy"
    );
    let answer: Response = shim.send(&callback::signed_status(&sid(9999), "sent", None));
    assert_eq!(answer.status, 204);
    let row = copy
        .connect()
        .query_one(
            "select max(message_id), count(*), (select count(*) from twilio_internal.sending where is_on), \
                (select count(*) from twilio_internal.outbox) from twilio.message",
            &[],
        )
        .unwrap();
    let original: i64 = database.value("select max(message_id) from twilio.message", &[]);
    assert!(row.get::<_, i64>(0) > original);
    assert_eq!((row.get::<_, i64>(2), row.get::<_, i64>(3)), (0, 1));
    let differing: i64 = copy.value("select count(*) from twilio.replay()", &[]);
    assert_eq!(differing, 0);
    copy.connect()
        .batch_execute(
            "select twilio.add_account('AC00000000000000000000000000000abc', 'another'); \
             select twilio.add_sender('whatsapp:+12025550100', 'AC00000000000000000000000000000abc'); \
             select twilio.block('+12025550177')",
        )
        .unwrap();
    // Whoever was confined to an account still is.
    let foreign = "update twilio.message set account_sid = null where message_id = 1";
    let mut client = copy.connect();
    client.batch_execute(foreign).unwrap();
    let count = "select count(*) from twilio.message";
    let all: i64 = client.query_one(count, &[]).unwrap().get(0);
    client.batch_execute("set role reader").unwrap();
    let seen: i64 = client.query_one(count, &[]).unwrap().get(0);
    assert_eq!(seen, all - 1);
    let on: i64 = copy.value(
        "select count(*) from twilio_internal.sending where is_on",
        &[],
    );
    assert_eq!(on, 0, "only people turn sending on where there is a queue");
    other.assert_no_errors();
}

/// Something in every table that people and providers fill, and changes of what is shipped.
fn fill(database: &Database<'_>) {
    let shim = Shim::start(database, &["--log-callbacks", "off"]);
    let mut requests: Vec<_> = (0..50)
        .flat_map(|n| ["sent", "delivered"].map(|s| callback::signed_status(&sid(n), s, None)))
        .collect();
    requests.push(callback::signed_inbound(&sid(200), "STOP"));
    for answer in send_all(&shim.address(), &requests, 1) {
        assert!(answer.unwrap().is_success());
    }
    let refused = callback::signed_status(&sid(1), "sent", None).with("X-Twilio-Signature", "x");
    assert_eq!(shim.send(&refused).status, 403);
    database
        .connect()
        .batch_execute(
            "create role reader; \
             select twilio.grant_read('reader', 'AC00000000000000000000000000000e2e'); \
             select twilio.add_sender('+12025550100'); \
             select twilio.send_message('+12025550101', 'waits'); \
             insert into twilio.error_code_override (error_code, meaning) values (30005, 'our own words'); \
             select twilio.block('+12025550199', 'asked by letter'); \
             select twilio_internal.pause_account('AC00000000000000000000000000000e2e', 'a test'); \
             update twilio.quarantine set max_rows = 7; \
             insert into twilio_internal.attempt (attempt_id, message_id, started_at) values (gen_random_uuid(), 1, now()); \
             insert into twilio.message_media (message_id, place, url, content, fetched_at) \
             values (1, 0, 'https://api.twilio.com/x', '\\x00ff', now())",
        )
        .unwrap();
    let purged =
        "insert into twilio_internal.purged_message values (twilio_internal.sid_digest($1))";
    let sid = sid(PURGED);
    (database.connect().execute(purged, &[&sid])).unwrap();
}

/// Each table of the extension that is to be dumped, with its rows' number and hash, and each sequence.
fn contents(client: &mut Client) -> Vec<(String, i64, String)> {
    let relations = client
        .query(
            "select c.oid::regclass::text, c.relkind::text \
             from pg_extension e join pg_class c on c.oid = any (e.extconfig) \
             where e.extname = 'twilio_callback' order by 1",
            &[],
        )
        .unwrap();
    let contents = relations.iter().map(|row| {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        let sql = if kind == "S" {
            format!("select 1::bigint, last_value::text || is_called from {name}")
        } else {
            format!("select count(*), coalesce(md5(string_agg(t::text, ',' order by t::text)), '') from {name} t")
        };
        let row = client.query_one(&sql, &[]).unwrap();
        (name, row.get(0), row.get(1))
    });
    contents.collect()
}
