//! The owner alters a table so that callbacks cannot be recorded: Twilio is asked to retry, and whether it does or not,
//! all of them are recorded after the repair.

use end_to_end::client::callback::{self, sid};
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};

#[test]
fn callbacks_that_meet_an_altered_table_are_recorded_after_the_repair() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    let sent = |n| shim.send(&callback::signed_status(&sid(n), "sent", None));
    // From here on the shim's connections know the tables.
    assert_eq!(sent(1).status, 204);

    let run = |sql: &str| database.connect().batch_execute(sql).unwrap();
    run(
        "alter table twilio.message_event drop constraint message_event_is_said_once; \
         create unique index message_event_is_said_once \
            on twilio.message_event (status, message_id, error_code)",
    );
    for n in 2..=20 {
        let answer = sent(n);
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(database.counts(), (1, 1));
    let remedy: String = database.value(
        "select string_agg(remedy, '') from twilio.doctor() where \"check\" = 'tables' and verdict = 'error'",
        &[],
    );

    run(&remedy);
    // One comes again by itself, and is there once all the same.
    assert_eq!(sent(2).status, 204);
    let taken: i64 = database.value("select verified from twilio.reverify_rejected()", &[]);
    assert_eq!(taken, 19);
    assert_eq!(database.counts(), (20, 20));
    cluster.assert_no_errors();
}
