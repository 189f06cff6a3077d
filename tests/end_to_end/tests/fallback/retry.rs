//! Messages that Twilio accepted and that failed for a reason that passes are tried again, before they go out another way.

use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::outbox::{send, set_up, status};
use end_to_end::wait::{PATIENCE, wait_until};

#[test]
fn a_transient_failure_is_tried_again_before_the_fallback() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        // The clock is shifted, and that of the phone is not.
        lines: &["twilio_callback.smsgate_clock_tolerance = '2 h'"],
    });
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    let url = sandbox.url();
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
                 device_id => 'phone-1', signing_key => 'key-1'); \
             select twilio.enable_sms_to_smsgate()"
        ))
        .unwrap();
    sandbox.register_webhooks();
    set_up(&database, &sandbox);

    // The sender's queue is full, whenever it is tried; and one that fails once and is reported as delivered afterwards.
    let full = send(&database, "+150100001005800", "Your table is ready");
    let late = send(&database, "+150000001000004", "It was late");
    wait_until(PATIENCE, "the first to fail, the other to be sent", || {
        status(&database, full) == "failed" && status(&database, late) == "sent"
    });
    for said in ["'failed', 30001", "'delivered'"] {
        let sql = format!("select twilio.simulate_callback({late}, {said})");
        client.batch_execute(&sql).unwrap();
    }
    let sql = "select count(*) from twilio.message where try = 2 and status = 'waiting'";
    assert_eq!(database.value::<i64>(sql, &[]), 2);
    let sql = "select outcome from twilio.explain_fallback($1)";
    assert_eq!(database.value::<String>(sql, &[&full]), "retried");
    assert_eq!(sandbox.sent(), []);

    for sql in [
        "alter system set twilio_callback.clock_offset = '14 min'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let sql = "select count(*) from twilio.message_chain where reached_by = 'smsgate' and steps = 2 and cardinality(message_ids) = 3";
    wait_until(PATIENCE, "the phone to reach the recipient", || {
        database.value::<i64>(sql, &[]) == 1
    });
    let text = "Your table is ready".to_owned();
    assert_eq!(sandbox.sent(), [("+150100001005800".to_owned(), text)]);
    let sql = "select status from twilio.message where root_id = $1 and try = 2";
    wait_until(PATIENCE, "the retry of the other to be withdrawn", || {
        database.value::<String>(sql, &[&late]) == "canceled"
    });
    let counts = sandbox.counts();
    // Two at Twilio and one at the gateway.
    assert_eq!(counts["+150100001005800"], (3, 3));
    assert_eq!(counts["+150000001000004"], (1, 1));
    cluster.assert_no_errors();
}
