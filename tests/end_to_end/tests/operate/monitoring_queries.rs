//! The monitoring queries of a set-up guide for a home-made webhook run on our views with only names
//! changed, and show the same.
//!
//! message_events became twilio.message_timeline, messages twilio.message_status, and their columns
//! created_at received_at, message_status status, twilio_sid message_sid, fallback_sms_message_id
//! fallback_message_id.

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use postgres::Row;

const RECENT: &str = "
    -- View recent events
    SELECT * FROM twilio.message_timeline
    ORDER BY received_at DESC
    LIMIT 100";

const WHATSAPP_FAILURES: &str = "
    -- View WhatsApp failures
    SELECT * FROM twilio.message_timeline
    WHERE channel = 'whatsapp'
      AND status = 'failed'
      AND error_code = '63049'";

const FALLBACKS: &str = "
    -- View SMS fallbacks
    SELECT * FROM twilio.message_timeline
    WHERE fallback_message_id IS NOT NULL";

const FAILED: &str = "
    -- Messages that failed
    SELECT m.*, me.error_code, me.error_message
    FROM twilio.message_status m
    JOIN twilio.message_timeline me ON m.message_sid = me.message_sid
    WHERE me.status = 'failed'
    ORDER BY me.received_at DESC";

#[test]
fn the_queries_of_the_guide_give_the_results_that_they_gave_there() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    let whatsapp = ("whatsapp:+12025550100", "whatsapp:+12025550123");
    let sms = ("+12025550100", "+12025550123");
    for (number, status, code, (from, to)) in [
        (1, "sent", None, whatsapp),
        (1, "failed", Some(63049), whatsapp),
        (2, "failed", Some(63016), whatsapp),
        (3, "undelivered", Some(63049), whatsapp),
        (4, "failed", Some(63049), sms),
        (5, "sent", None, sms),
        (5, "delivered", None, sms),
        // The stand-in for the first message, see below.
        (6, "delivered", None, sms),
    ] {
        let mut pairs = callback::status_between(&sid(number), status, code, from, to);
        if status == "failed" {
            callback::set(&mut pairs, "ErrorMessage", "so it goes");
        }
        let answer = shim.send(&Request::form(STATUS_PATH, &pairs).signed());
        assert_eq!(answer.status, 204);
    }

    let recent = query(&database, RECENT);
    assert_eq!(recent.len(), 8);
    assert_eq!(
        recent[0].get::<_, String>("message_sid"),
        sid(6),
        "the newest comes first"
    );

    assert_eq!(sids(&query(&database, WHATSAPP_FAILURES)), [sid(1)]);

    assert!(query(&database, FALLBACKS).is_empty());
    let sql = "update twilio.message f set root_id = m.message_id, step = 1
        from twilio.message m where m.message_sid = $1 and f.message_sid = $2";
    database
        .connect()
        .execute(sql, &[&sid(1), &sid(6)])
        .unwrap();
    assert_eq!(sids(&query(&database, FALLBACKS)), [sid(1), sid(1)]);

    let failed = query(&database, FAILED);
    assert_eq!(sids(&failed), [sid(4), sid(2), sid(1)]);
    let last = failed[0].len() - 1;
    assert_eq!(failed[0].get::<_, Option<i32>>(last - 1), Some(63049));
    assert_eq!(
        failed[0].get::<_, Option<String>>(last).as_deref(),
        Some("so it goes")
    );
    cluster.assert_no_errors();
}

/// Runs a query as a reader of the views would.
fn query(database: &Database<'_>, sql: &str) -> Vec<Row> {
    let mut client = database.connect();
    client
        .batch_execute(
            "do $$ begin create role reader; exception when duplicate_object then null; end $$;
            select twilio.grant_read('reader');
            set role reader",
        )
        .unwrap();
    client.query(sql, &[]).unwrap()
}

fn sids(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.get("message_sid")).collect()
}
