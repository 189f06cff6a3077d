//! States that were corrupted by hand come back from the log, and nothing else is touched.

use std::collections::BTreeSet;
use std::time::Instant;

use end_to_end::client::callback::{self, sid};
use end_to_end::client::load::send_all;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;

const CORRUPTED: usize = 1_000;
/// The callbacks of a message: one of these lists, in any order.
const COURSES: [&[(&str, Option<i32>)]; 5] = [
    &[("sent", None), ("delivered", None)],
    &[("delivered", None), ("read", None)],
    &[
        ("sent", None),
        ("undelivered", Some(30003)),
        ("delivered", None),
    ],
    &[("failed", Some(63049)), ("failed", Some(63016))],
    &[("queued", None), ("beamed", None)],
];
/// Each makes another state of any.
const CORRUPTIONS: [&str; 9] = [
    "status = case m.status when 'delivered' then 'sent' else 'delivered' end",
    "error_code = coalesce(m.error_code, 0) + 1",
    "error_message = coalesce(m.error_message, '') || 'x'",
    "is_corrected = not m.is_corrected",
    "sent_at = case when m.sent_at is null then 'epoch'::timestamptz end",
    "delivered_at = case when m.delivered_at is null then now() end",
    "read_at = case when m.read_at is null then now() end",
    "failed_at = coalesce(m.failed_at, now()) - interval '1 day'",
    "created_at = m.created_at + interval '1 minute'",
];

#[test]
fn replay_restores_what_was_corrupted_and_nothing_else() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut random = Random::new();
    receive(&database, sized(3_000, 200_000), &mut random);
    assert!(replay(&database, true).is_empty());
    assert!(replay(&database, false).is_empty());
    let mut client = database.connect();
    client
        .batch_execute("create table intact as table twilio.message")
        .unwrap();

    let corrupted = corrupt(&database, &mut random);
    assert_eq!(differing(&database), corrupted.len() as i64);
    assert_eq!(replay(&database, true), corrupted, "reported by a dry run");
    assert_eq!(
        differing(&database),
        corrupted.len() as i64,
        "a dry run changes nothing"
    );
    let start = Instant::now();
    assert_eq!(replay(&database, false), corrupted, "repaired");
    eprintln!(
        "{} states repaired in {:.1?}",
        corrupted.len(),
        start.elapsed()
    );
    assert_eq!(differing(&database), 0);
    assert!(replay(&database, true).is_empty());
    cluster.assert_no_errors();
}

fn receive(database: &Database<'_>, messages: usize, random: &mut Random) {
    let mut requests: Vec<_> = (0..messages)
        .flat_map(|number| {
            COURSES[number % COURSES.len()]
                .iter()
                .map(move |said| (number, said))
        })
        .map(|(number, (status, code))| callback::signed_status(&sid(number), status, *code))
        .collect();
    random.shuffle(&mut requests);
    let shim = Shim::start(database, &["--log-callbacks", "off"]);
    let answers = send_all(&shim.address(), &requests, 8);
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().status == 204)
    );
}

/// Changes the state of some messages in one or several columns, and gives their ids.
fn corrupt(database: &Database<'_>, random: &mut Random) -> BTreeSet<i64> {
    let mut client = database.connect();
    let rows = client
        .query("select message_id from twilio.message order by 1", &[])
        .unwrap();
    let mut ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    random.shuffle(&mut ids);
    ids.truncate(CORRUPTED);
    for group in ids.chunks(CORRUPTED / 20) {
        let first = random.below(CORRUPTIONS.len());
        let mut changes = vec![CORRUPTIONS[first]];
        changes.extend(
            (0..CORRUPTIONS.len())
                .filter(|&i| i != first && random.one_in(4))
                .map(|i| CORRUPTIONS[i]),
        );
        let sql = format!(
            "update twilio.message m set {} where m.message_id = any ($1)",
            changes.join(", ")
        );
        assert_eq!(client.execute(&sql, &[&group]).unwrap(), group.len() as u64);
    }
    ids.into_iter().collect()
}

/// The messages that replay reports.
fn replay(database: &Database<'_>, is_dry: bool) -> BTreeSet<i64> {
    let sql = "select distinct r.message_id from twilio.replay(dry_run => $1) r";
    let rows = database.connect().query(sql, &[&is_dry]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// How many messages are not as they were.
fn differing(database: &Database<'_>) -> i64 {
    let sql = "select (select count(*) from (table twilio.message except table intact) d) \
        + abs((select count(*) from twilio.message) - (select count(*) from intact))";
    database.value(sql, &[])
}
