//! Once a provider can be reached again, messages that waited for it are sent soon, even if their own pauses are longer.

use std::time::Duration;

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::ACCOUNT_SID;
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{SENDER, send, set_up_at};
use end_to_end::wait::{PATIENCE, wait_until};

const MESSAGES: i64 = 60;

#[test]
fn waiting_messages_are_sent_soon_after_the_provider_is_back() {
    let cluster = Cluster::start(&Options::QUIET);
    let database = cluster.database();
    // There is no listener.
    set_up_at(&database, &format!("http://127.0.0.1:{}", free_port()));
    for n in 0..MESSAGES {
        send(&database, &format!("+12025550{n:03}"), "waits");
    }
    let mut client = database.connect();
    wait_until(PATIENCE, "all to be tried in vain", || {
        let sql = "select count(*) from twilio_internal.outbox where is_provider_away and lease_token is null";
        database.value::<i64>(sql, &[]) == MESSAGES
    });
    // As after two minutes: their own pauses are ten minutes by then. One of them looks whether it is back.
    let sql = "update twilio_internal.outbox set due_at = twilio.now() + interval '10 minutes', tries = 4 \
        where is_provider_away and lease_token is null";
    client.execute(sql, &[]).unwrap();
    let sql = "update twilio_internal.outbox set due_at = twilio.now() where message_id = (select min(message_id) from twilio_internal.outbox)";
    client.execute(sql, &[]).unwrap();
    wait_until(PATIENCE, "it to have been away for some time", || {
        let sql = "select away_since < twilio.now() - interval '5 seconds' from twilio.sender";
        database.value::<Option<bool>>(sql, &[]) == Some(true)
    });

    let sandbox = Sandbox::start(free_port(), &[]);
    // As fast as the sender may, and not all at once.
    let sql = "update twilio.sender set rate_per_second = 20, burst = 5, tokens = 0";
    client.execute(sql, &[]).unwrap();
    let sql = "select twilio_internal.set_api_url($1, $2)";
    client
        .execute(sql, &[&ACCOUNT_SID, &sandbox.url()])
        .unwrap();
    // The next look is at most 15 seconds away, and 60 messages take 3.
    wait_until(Duration::from_secs(30), "all to leave", || {
        database.value::<i64>("select count(*) from twilio_internal.outbox", &[]) == 0
    });
    let counts = sandbox.counts();
    assert_eq!(counts.len(), usize::try_from(MESSAGES).unwrap());
    assert!(counts.values().all(|count| *count == (1, 1)), "{counts:?}");
    let sql = "select away_since is null from twilio.sender where address = $1";
    assert!(database.value::<bool>(sql, &[&SENDER]));
    cluster.assert_no_errors();
}
