//! Mistakes of operation lose nothing: rotated tokens, a wrong public URL, floods of strangers, states changed by
//! hand, news of messages that are long gone.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use end_to_end::callback::{self, STATUS_PATH, sid};
use end_to_end::cluster::{Cluster, Options};
use end_to_end::database::{ACCOUNT_SID, AUTH_TOKEN, Database, PUBLIC_URL};
use end_to_end::load::{send_all, send_until};
use end_to_end::request::Request;
use end_to_end::shim::Shim;
use end_to_end::wait::wait_until;
use protocol::signature::Algorithm;

/// Which tokens Twilio signs with, and what was made so far.
#[derive(Default)]
struct Signing {
    tokens: Vec<&'static str>,
    is_old_refused: bool,
    made: Vec<(bool, bool)>,
}

#[test]
fn rotating_a_token_under_load_refuses_nothing_that_a_live_key_signed() {
    const NEW_TOKEN: &str = "fedcba9876543210fedcba9876543210";
    let (database, shim) = start();
    let signing = Mutex::new(Signing {
        tokens: vec![AUTH_TOKEN],
        ..Signing::default()
    });
    let stop = AtomicBool::new(false);
    let make = |number: usize| {
        let mut signing = signing.lock().unwrap();
        let token = signing.tokens[number % signing.tokens.len()];
        let is_refused = token == AUTH_TOKEN && signing.is_old_refused;
        if signing.made.len() <= number {
            signing.made.resize(number + 1, (false, false));
        }
        signing.made[number] = (token == AUTH_TOKEN, is_refused);
        let pairs = callback::status(&sid(number), "sent", None);
        Request::form(STATUS_PATH, &pairs).signed_by(Algorithm::HmacSha1, token, PUBLIC_URL)
    };
    let stored_with = |key_id: &str| -> i64 {
        let sql = "select count(*) from twilio.message_event where key_id = $1";
        database.value(sql, &[&key_id])
    };
    let wait_for_stored = |key_id: &str, count: i64| {
        let what = format!("{count} callbacks signed with {key_id}");
        wait_until(Duration::from_secs(30), &what, || {
            stored_with(key_id) >= count
        });
    };
    let answers = thread::scope(|scope| {
        let answers = scope.spawn(|| send_until(&stop, &shim.address(), 8, make));
        wait_for_stored("auth_token_1", 500);
        let new_key: String = database.value(
            "select twilio.rotate_auth_token($1, $2)",
            &[&ACCOUNT_SID, &NEW_TOKEN],
        );
        assert_eq!(new_key, "auth_token_2");
        signing.lock().unwrap().tokens = vec![AUTH_TOKEN, NEW_TOKEN];
        wait_for_stored("auth_token_2", 1000);
        // Twilio signs with the new token only; what it signed before is all stored; then the old one ends.
        let old = {
            let mut signing = signing.lock().unwrap();
            signing.tokens = vec![NEW_TOKEN];
            signing.made.iter().filter(|(is_old, _)| *is_old).count()
        };
        wait_for_stored("auth_token_1", i64::try_from(old).unwrap());
        database
            .connect()
            .execute(
                "select twilio.retire_signing_key($1, 'auth_token_1')",
                &[&ACCOUNT_SID],
            )
            .unwrap();
        {
            let mut signing = signing.lock().unwrap();
            signing.is_old_refused = true;
            signing.tokens = vec![AUTH_TOKEN, NEW_TOKEN];
        }
        wait_for_stored("auth_token_2", stored_with("auth_token_2") + 500);
        stop.store(true, Ordering::Release);
        answers.join().unwrap()
    });

    let made = &signing.lock().unwrap().made;
    let mut refused = 0;
    for (number, answer) in &answers {
        let (_, is_refused) = made[*number];
        refused += i64::from(is_refused);
        let expected = if is_refused { 403 } else { 204 };
        assert_eq!(answer.as_ref().unwrap().status, expected, "{number}");
    }
    assert!(refused > 0);
    let stored = i64::try_from(answers.len()).unwrap() - refused;
    assert_eq!(database.counts(), (stored, stored));
    let kept: i64 = database.value(
        "select count(*) from twilio_internal.rejected_callback where reason = 'signature does not match'",
        &[],
    );
    assert_eq!(kept, refused);
    let finding: String = database.value(
        "select finding from twilio.explain_rejected((select min(rejected_id) from twilio_internal.rejected_callback))",
        &[],
    );
    assert!(finding.starts_with("the key was retired on"), "{finding}");
    cluster().assert_no_errors();
}

#[test]
fn what_a_wrong_public_url_refused_is_taken_in_once_it_is_mended() {
    let callbacks = shuffled_callbacks(2500);
    let (right, right_shim) = start();
    for answer in send_all(&right_shim.address(), &callbacks, 16) {
        assert_eq!(answer.unwrap().status, 204);
    }
    let (wrong, wrong_shim) = start();
    wrong
        .connect()
        .batch_execute(
            "delete from twilio.public_url; select twilio.add_public_url('https://wrong.example.com')",
        )
        .unwrap();
    for answer in send_all(&wrong_shim.address(), &callbacks, 16) {
        assert_eq!(answer.unwrap().status, 403);
    }
    assert_eq!(wrong.counts(), (0, 0));
    let mut client = wrong.connect();
    let row = client
        .query_one(
            "select min(received_at), max(received_at) from twilio_internal.rejected_callback",
            &[],
        )
        .unwrap();
    let span: (std::time::SystemTime, std::time::SystemTime) = (row.get(0), row.get(1));
    client
        .execute("select twilio.add_public_url($1)", &[&PUBLIC_URL])
        .unwrap();
    let reverify = "select verified, still_refused from twilio.reverify_rejected()";
    let row = client.query_one(reverify, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (10_000i64, 0i64));
    // Its states and its log are those of the database that was right all along; its times are the original ones.
    for sql in [
        "select md5(string_agg(message_sid || status || coalesce(error_code, 0) || is_corrected || coalesce(error_message, ''), ',' order by message_sid)) from twilio.message",
        "select md5(string_agg(m.message_sid || e.status || coalesce(e.error_code, 0) || e.params::text, ',' order by m.message_sid, e.status, e.error_code)) from twilio.message_event e join twilio.message m using (message_id)",
    ] {
        let (as_it_was, as_it_is): (String, String) =
            (right.value(sql, &[]), wrong.value(sql, &[]));
        assert_eq!(as_it_is, as_it_was);
    }
    let row = client
        .query_one(
            "select count(*), min(received_at), max(received_at) from twilio.message_event",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 10_000);
    assert_eq!((row.get(1), row.get(2)), span);
    let row = client.query_one(reverify, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (0i64, 0i64));
    assert_eq!(wrong.counts(), (10_000, 2500));
    let kept: i64 = wrong.value(
        "select sum(kept_rows + kept_bytes)::bigint from twilio.quarantine",
        &[],
    );
    assert_eq!(kept, 0);
    cluster().assert_no_errors();
}

/// `FLOOD_REQUESTS` unsigned requests a round; a release is tried with 100,000.
#[test]
fn strangers_can_neither_fill_the_disk_nor_keep_callbacks_out() {
    let size: usize = std::env::var("FLOOD_REQUESTS").map_or(2000, |text| text.parse().unwrap());
    let (database, shim) = start();
    let stranger = |number: usize| {
        let mut pairs = callback::status(&sid(number), "sent", None);
        pairs.push(("Filler".to_owned(), "x".repeat(number % 3000)));
        Request::form(STATUS_PATH, &pairs)
    };
    let mut stored = 0;
    for round in 0..10 {
        for part in (0..size).collect::<Vec<_>>().chunks(10_000) {
            let flood: Vec<_> = part.iter().map(|number| stranger(*number)).collect();
            for answer in send_all(&shim.address(), &flood, 16) {
                assert_eq!(answer.unwrap().status, 403);
            }
        }
        let signed: Vec<_> = (0..100)
            .map(|n| callback::signed_status(&sid(round * 100 + n), "delivered", None))
            .collect();
        for answer in send_all(&shim.address(), &signed, 4) {
            assert_eq!(answer.unwrap().status, 204);
        }
        stored += 100;
        assert_eq!(database.counts(), (stored, stored));
        let bytes: i64 = database.value(
            "select pg_total_relation_size('twilio_internal.rejected_callback') + pg_total_relation_size('twilio.quarantine')",
            &[],
        );
        let bound: i64 = database.value(
            "select max_bytes from twilio.quarantine where not is_plausible",
            &[],
        );
        assert!(bytes < bound * 5 / 4, "{bytes} bytes after round {round}");
    }
    let row = database
        .connect()
        .query_one(
            "select refused, refused - not_kept, kept_rows, kept_rows <= max_rows from twilio.quarantine_status where not is_plausible",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), i64::try_from(10 * size).unwrap());
    assert_eq!(row.get::<_, i64>(1), row.get::<_, i64>(2));
    assert!(row.get::<_, bool>(3));
    cluster().assert_no_errors();
}

#[test]
fn replay_mends_a_thousand_states_and_leaves_the_others() {
    let (database, shim) = start();
    for answer in send_all(&shim.address(), &shuffled_callbacks(2000), 16) {
        assert_eq!(answer.unwrap().status, 204);
    }
    let mut client = database.connect();
    let replayed = "select count(distinct message_id) from twilio.replay(dry_run => $1)";
    let mut replay =
        |dry_run: bool| -> i64 { client.query_one(replayed, &[&dry_run]).unwrap().get(0) };
    assert_eq!((replay(true), replay(false)), (0, 0));
    let mut other = database.connect();
    other
        .batch_execute(
            "create table before as table twilio.message; \
             update twilio.message set status = 'queued', error_code = 11200, error_message = 'nonsense', \
                 is_corrected = not is_corrected, sent_at = null, delivered_at = 'epoch', read_at = 'epoch', failed_at = 'epoch' \
             where message_id in (select message_id from twilio.message order by md5(message_sid) limit 1000)",
        )
        .unwrap();
    assert_eq!((replay(true), replay(false), replay(true)), (1000, 1000, 0));
    let differing: i64 = database.value(
        "select count(*) from (table twilio.message except table before) d",
        &[],
    );
    assert_eq!(differing, 0);
    cluster().assert_no_errors();
}

#[test]
fn news_of_purged_messages_touch_nothing_that_lives() {
    let (database, shim) = start();
    let old = shuffled_callbacks(200);
    let living: Vec<_> = (1000..1100)
        .map(|n| callback::signed_status(&sid(n), "sent", None))
        .collect();
    for answer in send_all(&shim.address(), &[old.clone(), living].concat(), 8) {
        assert_eq!(answer.unwrap().status, 204);
    }
    let mut client = database.connect();
    client
        .batch_execute("call twilio.purge('0 s', effort => 1)")
        .unwrap();
    // Every one of the 200 has failed or arrived; what is under way stays.
    assert_eq!(database.counts(), (100, 100));
    client
        .batch_execute("create table before as table twilio.message")
        .unwrap();
    for answer in send_all(&shim.address(), &old, 8) {
        assert_eq!(answer.unwrap().status, 204);
    }
    let untouched: i64 = database.value(
        "select count(*) from (table before intersect table twilio.message) u",
        &[],
    );
    assert_eq!(untouched, 100);
    assert_eq!(database.counts(), (900, 300));
    let queued: i64 = database.value("select count(*) from twilio_internal.outbox", &[]);
    assert_eq!(queued, 0, "nobody is texted for it");
    cluster().assert_no_errors();
}

/// Four callbacks each of so many messages, in disorder: half of them delivered, half failed.
fn shuffled_callbacks(messages: usize) -> Vec<Request> {
    let mut callbacks: Vec<_> = (0..messages * 4)
        .map(|n| {
            let (number, step) = (n / 4, n % 4);
            let (status, code) = match (step, number % 2) {
                (0, _) => ("queued", None),
                (1, _) => ("sent", None),
                (2, 0) => ("delivered", None),
                (3, 0) => ("read", None),
                (2, _) => ("undelivered", Some(30005)),
                _ => ("failed", Some(30008)),
            };
            let pairs = callback::status(&sid(number), status, code);
            Request::form(STATUS_PATH, &pairs).signed()
        })
        .collect();
    // A stride that shares no factor with the count visits all, far apart.
    let count = callbacks.len();
    let stride = (count / 3..).find(|s| gcd(*s, count) == 1).unwrap();
    let order: Vec<_> = (0..count).map(|n| n * stride % count).collect();
    callbacks = order.iter().map(|n| callbacks[*n].clone()).collect();
    callbacks
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn start() -> (Database<'static>, Shim) {
    let database = cluster().database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    (database, shim)
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
