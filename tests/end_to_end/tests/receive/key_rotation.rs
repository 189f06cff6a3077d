//! While the auth token is rotated, requests signed by a live key are accepted, and those by a retired key refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::flow::{Exchange, Pace, flow_during, summary, wait_for_more};
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, AUTH_TOKEN, Database, PUBLIC_URL};
use protocol::signature::Algorithm;

const NEW_TOKEN: &str = "fedcba9876543210fedcba9876543210";
const FULL_RATE: Pace = Pace {
    connections: 8,
    interval: Duration::ZERO,
};

/// When the old key was retired.
struct Moments {
    retiring: Instant,
    retired: Instant,
}

#[test]
fn a_rotation_refuses_nothing_that_a_live_key_signed() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let is_rotated = AtomicBool::new(false);
    let make = |number: usize| {
        // Twilio switches to the new token on one machine after the other.
        let is_new = is_rotated.load(Ordering::Acquire) && number % 2 == 1;
        signed(number, if is_new { NEW_TOKEN } else { AUTH_TOKEN })
    };
    let (exchanges, moments) = flow_during(&shim.address(), FULL_RATE, make, |answered| {
        rotate(&database, &is_rotated, answered)
    });
    eprintln!("{}", summary(&exchanges));

    // The answers are checked first; the keys are checked afterwards, by the log and the quarantine.
    let mut by_answer = BTreeMap::new();
    for exchange in &exchanges {
        *by_answer.entry(exchange.status.unwrap()).or_insert(0_i64) += 1;
    }
    assert_eq!(by_answer.keys().collect::<Vec<_>>(), [&204, &403]);
    check_by_time(&exchanges, &moments);
    check_log(&database, &exchanges);
    check_quarantine(&database, by_answer[&403]);
    cluster.assert_no_errors();
}

/// Rotates, then retires the old token, each after a share of the callbacks has gone through.
fn rotate(database: &Database<'_>, is_rotated: &AtomicBool, answered: &AtomicUsize) -> Moments {
    let share = sized(2_000, 100_000);
    let mut client = database.connect();
    wait_for_more(answered, share);
    let sql = "select twilio.rotate_auth_token($1, $2)";
    let row = client.query_one(sql, &[&ACCOUNT_SID, &NEW_TOKEN]).unwrap();
    assert_eq!(row.get::<_, String>(0), "auth_token_2");
    is_rotated.store(true, Ordering::Release);
    wait_for_more(answered, share);
    let retiring = Instant::now();
    let sql = "select twilio.retire_signing_key($1, 'auth_token_1')";
    client.execute(sql, &[&ACCOUNT_SID]).unwrap();
    let retired = Instant::now();
    wait_for_more(answered, share);
    Moments { retiring, retired }
}

/// Answers follow from the key and the time; only what was under way while the key ended may go either way.
fn check_by_time(exchanges: &[Exchange], moments: &Moments) {
    let (before, rest): (Vec<Exchange>, Vec<Exchange>) = exchanges
        .iter()
        .copied()
        .partition(|exchange| exchange.ended < moments.retiring);
    assert!(before.iter().all(|exchange| exchange.status == Some(204)));
    let is_late = |exchange: &Exchange| exchange.began > moments.retired;
    let late: Vec<_> = rest.into_iter().filter(is_late).collect();
    assert!(
        late.len() > 1_000,
        "only {} callbacks came late",
        late.len()
    );
    for exchange in late {
        let expected = if exchange.number % 2 == 1 { 204 } else { 403 };
        assert_eq!(exchange.status, Some(expected), "{}", exchange.number);
    }
}

/// Each callback that was answered with 204 has one event, by the key that signed it.
fn check_log(database: &Database<'_>, exchanges: &[Exchange]) {
    let is_taken = |exchange: &&Exchange| exchange.status == Some(204);
    let mut taken: Vec<_> = (exchanges.iter().filter(is_taken))
        .map(|exchange| sid(exchange.number))
        .collect();
    taken.sort_unstable();
    let sql = "select m.message_sid, e.key_id from twilio.message_event e \
        join twilio.message m using (message_id) order by m.message_sid";
    let rows = database.connect().query(sql, &[]).unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(
        stored == taken,
        "{} taken, {} stored",
        taken.len(),
        stored.len()
    );
    let of_new = rows
        .iter()
        .filter(|row| row.get::<_, &str>(1) == "auth_token_2");
    let of_new = of_new.count();
    eprintln!(
        "{of_new} of {} events are signed with the new token",
        rows.len()
    );
    assert!(of_new > 1_000 && rows.len() - of_new > 1_000);
}

/// Each refusal is counted, and kept as far as the bounds of the quarantine allow.
fn check_quarantine(database: &Database<'_>, refused: i64) {
    let sql = "select q.refused, q.kept_rows, q.not_kept, q.max_rows::bigint, \
            (select count(*) from twilio_internal.rejected_callback) \
        from twilio.quarantine_status q where q.is_plausible";
    let row = database.connect().query_one(sql, &[]).unwrap();
    let [counted, kept, not_kept, most, rows] = [0, 1, 2, 3, 4].map(|i| row.get::<_, i64>(i));
    assert_eq!((counted, kept + not_kept, rows), (refused, refused, kept));
    assert!(not_kept == 0 || kept == most, "{kept} kept of {refused}");
    let sql = "select count(*) from twilio_internal.rejected_callback \
        where not is_plausible or reason <> 'signature does not match'";
    assert_eq!(database.value::<i64>(sql, &[]), 0);
    let sql = "select e.finding from twilio_internal.rejected_callback r, twilio.explain_rejected(r.rejected_id) e limit 1";
    let finding: String = database.value(sql, &[]);
    assert!(finding.starts_with("the key was retired on"), "{finding}");
}

fn signed(number: usize, token: &str) -> Request {
    let pairs = callback::status(&sid(number), "delivered", None);
    Request::form(STATUS_PATH, &pairs).signed_by(Algorithm::HmacSha1, token, PUBLIC_URL)
}
