//! Users' triggers and locks on the worker's tables: a message that cannot be processed delays no other, and is sent
//! once the trigger or lock is gone.

use std::time::{Duration, Instant};

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{send, set_up, status, wait_until_empty};
use end_to_end::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const QUICK: Options = Options {
    fsync: false,
    lines: &[],
};

#[test]
fn a_message_that_cannot_be_claimed_delays_no_other() {
    let cluster = Cluster::start(&QUICK);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    let mut client = database.connect();
    // Nothing leaves before all of it is in the way, however slow this is.
    client
        .batch_execute("select twilio.disable_sending()")
        .unwrap();
    let [refused, untried, locked] =
        ["refused", "untried", "locked"].map(|body| send(&database, "+12025550141", body));
    let others = [1, 2, 3, 4].map(|n| send(&database, &format!("+1202555015{n}"), "free"));
    let triggers = format!(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$; \
         create trigger refuse before update on twilio_internal.outbox \
            for each row when (new.message_id = {refused}) execute function refuse(); \
         create trigger refuse before insert on twilio_internal.attempt \
            for each row when (new.message_id = {untried}) execute function refuse()"
    );
    client.batch_execute(&triggers).unwrap();
    let mut lock = client.transaction().unwrap();
    let sql = "select from twilio_internal.outbox where message_id = $1 for update";
    lock.execute(sql, &[&locked]).unwrap();
    let switch = "select twilio.enable_sending()";
    database.connect().batch_execute(switch).unwrap();
    for id in others {
        wait_until(PATIENCE, "the others to be sent", || {
            status(&database, id) == "queued"
        });
    }
    for id in [refused, untried, locked] {
        assert_eq!(status(&database, id), "waiting");
    }

    // It is asked for again, and not all the time.
    let refusals = || {
        let line = format!("message {refused} is left for later: \"lease\" failed");
        cluster.read_log().matches(&line).count()
    };
    let more = |count: usize| {
        let seen = refusals();
        wait_until(PATIENCE, "the worker to try again", || {
            refusals() >= seen + count
        });
    };
    more(12);
    let start = Instant::now();
    more(12);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(500), "12 polls in {took:?}");

    lock.commit().unwrap();
    // The test does not wait until postponed messages are due.
    client
        .batch_execute(
            "drop trigger refuse on twilio_internal.outbox; drop trigger refuse on twilio_internal.attempt; \
             update twilio_internal.outbox set due_at = now() where lease_token is null; select twilio_internal.wake_worker()",
        )
        .unwrap();
    wait_until_empty(&database, PATIENCE);
    let sent = "select bool_and(status = 'queued') and count(*) = 7 from twilio.message";
    assert!(database.value::<bool>(sent, &[]));
    assert_eq!(sandbox.counts()["+12025550141"], (3, 3));
    for n in 1..=4 {
        assert_eq!(sandbox.counts()[&format!("+1202555015{n}")], (1, 1));
    }
    cluster.assert_no_errors();
}
