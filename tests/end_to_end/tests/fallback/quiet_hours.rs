//! Nothing is sent in the quiet hours of a recipient, by whatever way; all of it is sent when they end.

use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::outbox::{send, set_up, status};
use end_to_end::wait::{PATIENCE, wait_until};

/// Messages with hours of their own: by SMS, by WhatsApp and by a phone.
const LIMITED: [(&str, &str); 3] = [
    ("+150000001000000", "+12025550100"),
    ("whatsapp:+150000002000000", "whatsapp:+12025550100"),
    ("+150000003000000", "user/phone-1"),
];

#[test]
fn nothing_is_sent_in_quiet_hours_by_any_way() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        // The clock is shifted, and that of the phone is not.
        lines: &["twilio_callback.smsgate_clock_tolerance = '2 h'"],
    });
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    let url = sandbox.url();
    let mut client = database.connect();
    // Its hours begin in an hour, and rules go by the zone of the number.
    client
        .batch_execute(&format!(
            "create function soon(hours int) returns time language sql stable \
                 return (twilio.now() at time zone 'UTC')::time + make_interval(hours => hours); \
             insert into twilio.number_zone values ('+1500', '{{UTC}}'), ('+1501', '{{UTC}}'); \
             select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
                 device_id => 'phone-1', signing_key => 'key-1'); \
             select twilio.enable_whatsapp_to_sms(not_before => soon(1), not_after => soon(3)), \
                 twilio.enable_sms_to_smsgate(not_before => soon(1), not_after => soon(3))"
        ))
        .unwrap();
    sandbox.register_webhooks();
    set_up(&database, &sandbox);
    client
        .batch_execute("select twilio.add_sender('whatsapp:+12025550100')")
        .unwrap();

    for (to, from) in LIMITED {
        let sql = "select twilio.send_message($1, 'by day', $2, not_before => soon(1), not_after => soon(3))";
        database.value::<i64>(sql, &[&to, &from]);
    }
    // One whose hours are not over when it is queued, and are when it is claimed: it was made due at once.
    let sql = "update twilio_internal.outbox set due_at = now() where message_id = (select min(message_id) from twilio.message)";
    client.batch_execute(sql).unwrap();
    // These have no hours, but the rules have.
    let failed = [
        send(&database, "whatsapp:+150000004163049", "by SMS"),
        send(&database, "+150100005005000", "by phone"),
    ];
    wait_until(PATIENCE, "five messages to wait", || {
        failed
            .iter()
            .all(|id| status(&database, *id) == "undelivered")
            && database.value::<i64>("select quiet from twilio.queue_status", &[]) == 5
    });
    // Twilio refuses this one for quiet hours: it is tried again after an hour, as the table of error codes says.
    let refused = send(&database, "+150000009330610", "too early");
    let sql = "select count(*) from twilio_internal.outbox o join twilio.message_attempt a using (message_id) \
        where a.error_code = 30610 and a.outcome = 'not_processed' and o.due_at > now() + interval '59 min' and o.message_id = $1";
    wait_until(PATIENCE, "the refused one to be due later", || {
        database.value::<i64>(sql, &[&refused]) == 1
    });
    // The worker goes on meanwhile, by both providers.
    let sql = "select twilio.send_message('+150000006000000', 'at any hour', 'user/phone-1')";
    let others = [
        send(&database, "+150000007000000", "at any hour"),
        database.value::<i64>(sql, &[]),
        database.value::<i64>(
            "select twilio.send_message('+150000008000000', '123456', not_before => soon(1), not_after => soon(3), purpose => 'otp')",
            &[],
        ),
    ];
    wait_until(PATIENCE, "the others to arrive", || {
        others
            .iter()
            .all(|id| status(&database, *id) == "delivered")
    });
    let counts = sandbox.counts();
    for (to, _) in LIMITED {
        assert!(!counts.contains_key(to), "{to}: {counts:?}");
    }
    assert!(!counts.contains_key("+150000004163049"), "{counts:?}");
    assert_eq!(counts["+150100005005000"], (1, 1));
    let sql = "select explanation from twilio.explain_fallback($1)";
    let explanation: String = database.value(sql, &[&failed[0]]);
    assert!(explanation.contains(": it waits until "), "{explanation}");

    for sql in [
        "alter system set twilio_callback.clock_offset = '61 min'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let sql = "select count(*) from twilio.message_chain where reached_by is not null";
    wait_until(PATIENCE, "all to arrive", || {
        database.value::<i64>(sql, &[]) == 8
    });
    let counts = sandbox.counts();
    for (to, _) in LIMITED {
        assert_eq!(counts[to], (1, 1), "{to}");
    }
    assert_eq!(counts["+150000004163049"], (1, 1));
    assert_eq!(counts["+150100005005000"], (2, 2));
    cluster.assert_no_errors();
}
