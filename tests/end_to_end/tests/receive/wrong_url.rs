//! Callbacks that were refused because of a wrong public URL are recorded once it is corrected, with their own times.

use std::time::Instant;

use end_to_end::client::callback::{self, sid};
use end_to_end::client::load::send_all;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{Database, PUBLIC_URL};

const MESSAGES: usize = 2_500;
/// The callbacks of a message: one of these lists, in any order.
const COURSES: [[(&str, Option<i32>); 4]; 5] = [
    [
        ("queued", None),
        ("sending", None),
        ("sent", None),
        ("delivered", None),
    ],
    [
        ("queued", None),
        ("sent", None),
        ("delivered", None),
        ("read", None),
    ],
    [
        ("sent", None),
        ("undelivered", Some(30003)),
        ("failed", Some(30003)),
        ("delivered", None),
    ],
    [
        ("queued", None),
        ("failed", Some(63049)),
        ("failed", Some(63016)),
        ("failed", None),
    ],
    [
        ("sent", None),
        ("beamed", None),
        ("undelivered", Some(30005)),
        ("undelivered", Some(30006)),
    ],
];

#[test]
fn callbacks_refused_for_a_wrong_url_are_recorded_once_it_is_corrected() {
    let cluster = Cluster::start(&Options::default());
    let (broken, intact) = (cluster.database(), cluster.database());
    let wrong = "delete from twilio.public_url; \
        select twilio.add_public_url('https://old.example.com')";
    broken.connect().batch_execute(wrong).unwrap();
    let requests = requests();
    assert_eq!(send(&broken, &requests), vec![403; requests.len()]);
    assert_eq!(broken.counts(), (0, 0));
    assert_eq!(send(&intact, &requests), vec![204; requests.len()]);
    let refusals = refusals(&broken);
    assert_eq!(refusals.len(), requests.len());

    let mut client = broken.connect();
    let sql = "select twilio.add_public_url($1)";
    client.execute(sql, &[&PUBLIC_URL]).unwrap();
    let start = Instant::now();
    assert_eq!(reverify(&broken), (10_000, 0));
    eprintln!("10000 refused callbacks taken in {:.1?}", start.elapsed());

    assert_eq!(broken.counts(), (10_000, 2_500));
    assert_eq!(events(&broken), refusals, "events with their times");
    assert!(states(&broken) == states(&intact), "states differ");
    assert!(
        parameters(&broken) == parameters(&intact),
        "parameters differ"
    );
    assert_eq!(broken.value::<i64>(FIRST_HEARD_WRONG, &[]), 0);
    let differences = "select string_agg(concat_ws(' ', d, (select array_agg((e.event_id, e.status, e.received_at) \
        order by e.event_id) from twilio.message_event e where e.message_id = d.message_id)), E'\\n') \
        from twilio.replay() d";
    assert_eq!(broken.value::<Option<String>>(differences, &[]), None);
    assert_eq!(kept(&broken), (0, 0, 0));

    let before = everything(&broken);
    assert_eq!(reverify(&broken), (0, 0));
    assert!(
        everything(&broken) == before,
        "the second call did something"
    );
    cluster.assert_no_errors();
}

/// Messages are created at the time of their first callback, not when the URL was corrected.
const FIRST_HEARD_WRONG: &str = "select count(*) from twilio.message m where m.created_at <> \
    (select min(e.received_at) from twilio.message_event e where e.message_id = m.message_id)";

fn requests() -> Vec<Request> {
    let mut requests: Vec<_> = (0..MESSAGES)
        .flat_map(|number| COURSES[number % COURSES.len()].map(|said| (number, said)))
        .map(|(number, (status, code))| callback::signed_status(&sid(number), status, code))
        .collect();
    Random::new().shuffle(&mut requests);
    requests
}

fn send(database: &Database<'_>, requests: &[Request]) -> Vec<u16> {
    let shim = Shim::start(database, &["--log-callbacks", "off"]);
    let answers = send_all(&shim.address(), requests, 8);
    answers
        .into_iter()
        .map(|answer| answer.unwrap().status)
        .collect()
}

fn reverify(database: &Database<'_>) -> (i64, i64) {
    let sql = "select verified, still_refused from twilio.reverify_rejected()";
    let row = database.connect().query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// The reported statuses with their times, as the quarantine holds them.
fn refusals(database: &Database<'_>) -> Vec<String> {
    lines(
        database,
        "select format('%s %s %s %s', f.sid, f.status, f.code, r.received_at) \
        from twilio_internal.rejected_callback r, lateral ( \
            select \
                max(p.value) filter (where p.name = 'MessageSid') as sid, \
                max(p.value) filter (where p.name = 'MessageStatus') as status, \
                max(p.value) filter (where p.name = 'ErrorCode') as code \
            from twilio.parse_form(r.body) p \
        ) f",
    )
}

/// The same as the log has it.
fn events(database: &Database<'_>) -> Vec<String> {
    lines(
        database,
        "select format('%s %s %s %s', m.message_sid, e.status, e.error_code, e.received_at) \
        from twilio.message_event e join twilio.message m using (message_id)",
    )
}

/// The parameters of each callback.
fn parameters(database: &Database<'_>) -> Vec<String> {
    lines(
        database,
        "select format('%s %s %s %s', m.message_sid, e.status, e.error_code, e.params) \
        from twilio.message_event e join twilio.message m using (message_id)",
    )
}

/// All of the messages but their ids and times.
fn states(database: &Database<'_>) -> Vec<String> {
    lines(
        database,
        "select (to_jsonb(m) - array['message_id', 'root_id', 'created_at', 'sent_at', 'delivered_at', \
            'read_at', 'failed_at'] || jsonb_build_object('heard', array[m.sent_at is null, \
            m.delivered_at is null, m.read_at is null, m.failed_at is null]))::text \
        from twilio.message m",
    )
}

fn everything(database: &Database<'_>) -> Vec<String> {
    lines(
        database,
        "select m::text from twilio.message m union all select e::text from twilio.message_event e \
        union all select q::text from twilio.quarantine q",
    )
}

/// Rows in quarantine, and how many rows and bytes are counted.
fn kept(database: &Database<'_>) -> (i64, i64, i64) {
    let sql = "select (select count(*) from twilio_internal.rejected_callback), \
        sum(kept_rows)::bigint, sum(kept_bytes)::bigint from twilio.quarantine";
    let row = database.connect().query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// The first column, sorted.
fn lines(database: &Database<'_>, sql: &str) -> Vec<String> {
    let rows = database.connect().query(sql, &[]).unwrap();
    let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.sort_unstable();
    lines
}
