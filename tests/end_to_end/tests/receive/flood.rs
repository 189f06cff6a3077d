//! Forged requests, however many, cannot keep genuine ones out of the quarantine.

use std::sync::OnceLock;

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::load::send_all;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use protocol::signature::Algorithm;

/// The token that Twilio signs with and that is not known yet.
const NEW_TOKEN: &str = "fedcba9876543210fedcba9876543210";
const FORGING_ADDRESSES: usize = 50;
const GENUINE_ADDRESSES: usize = 40;

#[test]
fn genuine_callbacks_are_kept_after_a_flood_of_forgeries() {
    let (database, shim) = start();
    send(
        &shim,
        &forgeries(|number| format!("192.0.2.{}", number % FORGING_ADDRESSES)),
    );
    send(&shim, &genuine());
    check(&database);
}

#[test]
fn genuine_callbacks_stay_kept_during_a_flood_of_forgeries() {
    let (database, shim) = start();
    send(&shim, &genuine());
    send(
        &shim,
        &forgeries(|number| format!("192.0.2.{}", number % FORGING_ADDRESSES)),
    );
    check(&database);
}

#[test]
fn an_address_of_its_own_for_each_forgery_is_of_no_use() {
    let (database, shim) = start();
    let forged =
        forgeries(|number| format!("2001:db8:{:x}::{number:x}", number % FORGING_ADDRESSES));
    let (before, after) = forged.split_at(forged.len() / 2);
    send(&shim, before);
    send(&shim, &genuine());
    send(&shim, after);
    check(&database);
}

/// A database whose store is far smaller than the flood.
fn start() -> (Database<'static>, Shim) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let database = CLUSTER
        .get_or_init(|| Cluster::start(&Options::default()))
        .database();
    let bounds = format!(
        "select twilio.set_quarantine(true, max_rows => {})",
        sized(2_500, 25_000)
    );
    database.connect().batch_execute(&bounds).unwrap();
    let flags = [
        "--proxy-header",
        "X-Forwarded-For",
        "--trusted-proxy",
        "unix",
    ];
    let shim = Shim::start(
        &database,
        &[&flags[..], &["--log-callbacks", "off"]].concat(),
    );
    (database, shim)
}

/// A request that an attacker can make who knows the account's SID.
fn forgeries(source: impl Fn(usize) -> String) -> Vec<Request> {
    let count = sized(20_000, 200_000);
    let forgery = |number| {
        Request::form(
            STATUS_PATH,
            &callback::status(&sid(number), "failed", Some(30_003)),
        )
        .header("X-Twilio-Signature", &format!("{}=", "A".repeat(27)))
        .header("X-Forwarded-For", &source(number))
    };
    (0..count).map(forgery).collect()
}

fn genuine() -> Vec<Request> {
    let callback = |number| {
        let source = format!("198.51.100.{}", number % GENUINE_ADDRESSES);
        Request::form(
            STATUS_PATH,
            &callback::status(&sid(number), "delivered", None),
        )
        .signed_by(Algorithm::HmacSha1, NEW_TOKEN, PUBLIC_URL)
        .header("X-Forwarded-For", &source)
    };
    (0..genuine_count()).map(callback).collect()
}

fn genuine_count() -> usize {
    sized(200, 1_000)
}

fn send(shim: &Shim, requests: &[Request]) {
    for answer in send_all(&shim.address(), requests, 32) {
        assert_eq!(answer.unwrap().status, 403);
    }
}

/// The store is within its bounds, its counters are true, and once the token is known every genuine callback is in.
fn check(database: &Database<'_>) {
    let sql = "select q.kept_rows = q.max_rows and q.kept_bytes <= q.max_bytes \
            and (q.kept_rows, q.kept_bytes) = (select count(*), sum(twilio_internal.bytes_of(r)) \
                from twilio_internal.rejected_callback r where r.is_plausible) \
        from twilio.quarantine_status q where q.is_plausible";
    assert!(database.value::<bool>(sql, &[]), "bounds and counters");
    let sql = "select twilio.rotate_auth_token($1, $2)";
    database.value::<String>(sql, &[&ACCOUNT_SID, &NEW_TOKEN]);
    let sql = "select verified from twilio.reverify_rejected(100000)";
    let verified: i64 = database.value(sql, &[]);
    let sql = "select count(*) from twilio.message where status = 'delivered'";
    let stored: i64 = database.value(sql, &[]);
    let count = i64::try_from(genuine_count()).unwrap();
    assert_eq!((verified, stored), (count, count));
    database.cluster().assert_no_errors();
}
