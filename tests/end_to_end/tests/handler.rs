//! Users' functions that fail, and a worker that is ended at random: every event's effect is there once.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use std::sync::OnceLock;
use std::time::Duration;

use end_to_end::cluster::{Cluster, Options};
use end_to_end::random::Random;
use end_to_end::wait::{holds_within, wait_until};

const EVENTS: i64 = 3_000;

#[test]
fn every_effect_is_there_exactly_once() {
    let database = cluster().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "create sequence public.call; \
             create table public.effect (event_id bigint); \
             create function public.on_event(event jsonb) returns void language plpgsql as $$ \
             begin \
                 insert into effect values ((event ->> 'event_id')::bigint); \
                 if nextval('call') % 3 = 0 then raise 'every third time'; end if; \
             end $$; \
             select twilio.create_consumer('app', 'public.on_event')",
        )
        .unwrap();
    client
        .execute(
            "select count(*) from generate_series(1, $1::bigint) n cross join lateral twilio.record( \
                 array[null::bigint], array[$2], array['SM' || lpad(n::text, 32, '0')], array['outbound'], \
                 array['sms'], array[null], array[null], array[null], array[null], array[null], \
                 array['sent'], array[null::int], array['callback'], array[null], array[null], \
                 array['{}'], array[null::timestamptz])",
            &[&EVENTS, &end_to_end::database::ACCOUNT_SID],
        )
        .unwrap();
    client
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    let done = "select count(*) = 0 and (select count(*) from public.effect) > 0 \
        from twilio.feed_delivery";
    let all = "select count(*) from public.effect";
    let mut random = Random::new();
    let mut ended = 0;
    let is_done = holds_within(Duration::from_secs(90), || {
        if random.one_in(100) {
            let sql = "select count(pg_terminate_backend(pid)) from twilio.worker";
            ended += database.value::<i64>(sql, &[]);
            // The pauses between tries grow, and are not what is tested here.
            client
                .batch_execute(
                    "update twilio.feed_delivery set due_at = twilio.now() where tries > 0",
                )
                .unwrap();
        }
        database.value::<i64>(all, &[]) >= EVENTS && database.value::<bool>(done, &[])
    });
    assert!(is_done, "{} effects", database.value::<i64>(all, &[]));
    let distinct = "select count(distinct event_id) from public.effect";
    assert_eq!(database.value::<i64>(all, &[]), EVENTS);
    assert_eq!(database.value::<i64>(distinct, &[]), EVENTS);
    let dead = "select count(*) from twilio.feed_dead_letter";
    assert_eq!(database.value::<i64>(dead, &[]), 0);
    let calls: i64 = database.value("select last_value from public.call", &[]);
    eprintln!("{EVENTS} effects of {calls} calls, worker ended {ended} times");
    assert!(calls > EVENTS && ended > 0);
    wait_until(
        Duration::from_secs(20),
        "the worker is there at the end",
        || {
            let sql =
                "select count(*) from twilio.worker w join pg_stat_activity a on a.pid = w.pid";
            database.value::<i64>(sql, &[]) == 1
        },
    );
    client.batch_execute("select twilio.stop_worker()").unwrap();
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
