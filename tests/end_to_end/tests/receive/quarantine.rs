//! However many unsigned requests arrive, the quarantine stays within its bounds, and signed requests are recorded.

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::load::send_all;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;

const ROUNDS: usize = 10;
/// One request in so many is signed.
const SHARE_SIGNED: usize = 20;

#[test]
fn unsigned_requests_cannot_fill_the_disk_or_keep_signed_ones_out() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    // The bounds' rows are there from the first refusal on.
    assert_eq!(shim.send(&unsigned(&mut Random::new())).status, 403);
    let bound = set_bounds(&database);
    let mut random = Random::new();
    let (mut refused, mut signed) = (1, Vec::new());
    for round in 0..ROUNDS {
        let requests = round_of(round, &mut random);
        let answers = send_all(&shim.address(), &requests, 8);
        for (request, answer) in requests.iter().zip(answers) {
            let is_ours = request.value_of("I-Twilio-Idempotency-Token").is_some();
            assert_eq!(answer.unwrap().status, if is_ours { 204 } else { 403 });
            if is_ours {
                signed.push(request.pairs()[0].1.clone());
            } else {
                refused += 1;
            }
        }
        let (size, rows) = size(&database);
        eprintln!(
            "round {round}: {refused} refused, {rows} kept in {size} bytes of at most {bound}"
        );
        assert!(size <= bound, "{size} bytes are beyond {bound}");
    }
    check_counts(&database, refused);
    signed.sort_unstable();
    let sql = "select m.message_sid from twilio.message m \
        join twilio.message_event e using (message_id) order by m.message_sid";
    let rows = database.connect().query(sql, &[]).unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(
        stored == signed,
        "{} signed, {} stored",
        signed.len(),
        stored.len()
    );
    cluster.assert_no_errors();
}

/// Sets what is shorter than the defaults, with a rate at which the bounds are met by rows and bytes,
/// and gives what the tables may take at most: the bytes, each row's and index entry's own, and pages.
fn set_bounds(database: &Database<'_>) -> i64 {
    let short = "update twilio.quarantine set max_rows = case when is_plausible then 2000 else 1000 end, \
        max_bytes = case when is_plausible then 1000000 else 1500000 end, burst_rows = 5000, rows_per_second = 1e6";
    // Of the defaults, requests of this length meet the bytes alone.
    let full = "update twilio.quarantine set max_rows = case when is_plausible then max_rows else 2000 end, \
        burst_rows = 50000, rows_per_second = 1e6";
    database
        .connect()
        .batch_execute(sized(short, full))
        .unwrap();
    let sql = "select sum(max_bytes)::bigint, sum(max_rows)::bigint from twilio.quarantine";
    let row = database.connect().query_one(sql, &[]).unwrap();
    let (bytes, rows): (i64, i64) = (row.get(0), row.get(1));
    bytes + bytes / 4 + 400 * rows + (1 << 19)
}

/// Bytes of the quarantine's tables with indexes and TOAST, and how many requests are in it.
fn size(database: &Database<'_>) -> (i64, i64) {
    let sql = "select pg_total_relation_size('twilio_internal.rejected_callback') \
        + pg_total_relation_size('twilio.quarantine'), (select count(*) from twilio_internal.rejected_callback)";
    let row = database.connect().query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// Every refusal is counted, and the bounds were met: by rows, by bytes, or by both.
fn check_counts(database: &Database<'_>, refused: i64) {
    let sql = "select sum(refused)::bigint, sum(kept_rows + not_kept)::bigint, \
            bool_and(not_kept > 0 and (kept_rows = max_rows or kept_bytes > max_bytes * 9 / 10)), \
            bool_or(kept_rows = max_rows), bool_or(kept_bytes > max_bytes * 9 / 10), \
            bool_and(kept_rows <= max_rows), \
            bool_and((kept_rows, kept_bytes) = (select count(*), sum(twilio_internal.bytes_of(r)) \
                from twilio_internal.rejected_callback r where r.kind = q.kind)) \
        from twilio.quarantine_status q";
    let row = database.connect().query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), refused, "counted");
    assert_eq!(row.get::<_, i64>(1), refused, "kept or only counted");
    for (column, what) in [
        (2, "both at a bound"),
        (3, "one by rows"),
        (4, "one by bytes"),
        (5, "none beyond the bound on rows"),
        (6, "counters true"),
    ] {
        assert!(row.get::<_, bool>(column), "{what}");
    }
}

/// Unsigned requests, with signed callbacks between them.
fn round_of(round: usize, random: &mut Random) -> Vec<Request> {
    let count = sized(3_000, 100_000);
    let signed = count / SHARE_SIGNED;
    let mut requests: Vec<_> = (0..count).map(|_| unsigned(random)).collect();
    requests.extend((0..signed).map(|number| {
        callback::signed_status(&sid(round * signed + number), "delivered", None)
            .header("I-Twilio-Idempotency-Token", "x")
    }));
    random.shuffle(&mut requests);
    requests
}

/// A status callback as anyone can make it: without a signature, or with an invented one.
fn unsigned(random: &mut Random) -> Request {
    let mut pairs = callback::status(&sid(random.below(1_000)), "delivered", None);
    if random.one_in(4) {
        let length = random.below(sized(2_000, 8_500));
        let text: String = random
            .bytes(length)
            .iter()
            .map(|byte| char::from(byte % 64 + 48))
            .collect();
        pairs.push(("Body".to_owned(), text));
    }
    let request = Request::form(STATUS_PATH, &pairs);
    // It has the length of a real one, so that it is taken for ours with a wrong key.
    if random.one_in(3) {
        return request.header("X-Twilio-Signature", &format!("{}=", "A".repeat(27)));
    }
    request
}
