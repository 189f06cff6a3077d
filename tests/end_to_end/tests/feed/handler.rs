//! Users' functions fail or are slow, and processes are killed at random: each event has its effect once, and messages
//! are sent meanwhile.

use std::time::{Duration, Instant};

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::outbox::{is_worker_running, send, set_up, status};
use end_to_end::server::process::signal;
use end_to_end::wait::{holds_within, wait_until};
use postgres::{Client, NoTls};

const FAILING: &str = "create sequence public.call; \
    create table public.effect (event_id bigint); \
    create function public.on_event(event jsonb) returns void language plpgsql as $$ \
    begin \
        insert into effect values ((event ->> 'event_id')::bigint); \
        if nextval('call') % 3 = 0 then raise 'every third time'; end if; \
    end $$; \
    select twilio.create_consumer('app', 'public.on_event', max_tries => 100)";

#[test]
fn every_event_has_its_effect_exactly_once() {
    let events: i64 = sized(2_000, 20_000);
    let kills = sized(3, 40);
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut client = database.connect();
    client.batch_execute(FAILING).unwrap();
    record(&mut client, events);
    client
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    drop(client);

    let mut random = Random::new();
    let (mut killed, mut ended) = (0, 0);
    let mut next = Instant::now();
    let deadline = Duration::from_secs(sized(90, 600));
    let is_done = holds_within(deadline, || {
        // The test's own connection ends too when a kill makes the server restart.
        let Some((effects, is_empty, processes)) = look(&database) else {
            return false;
        };
        if next <= Instant::now()
            && killed + ended < 2 * kills
            && effects < events
            && !processes.is_empty()
        {
            let victim = *random.pick(&processes);
            if killed < kills && !random.one_in(4) {
                signal(victim, "KILL");
                killed += 1;
            } else {
                signal(victim, "TERM");
                ended += 1;
            }
            next = Instant::now() + Duration::from_millis(300 + random.number() % 1500);
        }
        effects >= events && is_empty
    });
    let (all, distinct, dead): (i64, i64, i64) = (
        database.value("select count(*) from public.effect", &[]),
        database.value("select count(distinct event_id) from public.effect", &[]),
        database.value("select count(*) from twilio.feed_dead_letter", &[]),
    );
    // A sequence can only skip, after a crash, so this is no less than the number of calls.
    let calls: i64 = database.value("select last_value from public.call", &[]);
    eprintln!(
        "{all} effects of {distinct} events, about {calls} calls; processes killed {killed} and ended {ended} times"
    );
    assert!(is_done, "not done in time");
    assert_eq!((all, distinct, dead), (events, events, 0));
    assert!(calls > events && killed > 0);
    wait_until(Duration::from_secs(20), "the worker to be back", || {
        is_worker_running(&database)
    });
}

#[test]
fn a_slow_handler_does_not_delay_messages() {
    const MESSAGES: usize = 10;
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let sandbox = Sandbox::start(1, &[]);
    let mut client = database.connect();
    client
        .batch_execute(
            "create function public.on_event(event jsonb) returns void language sql \
             as 'select pg_sleep(1)'; \
             select twilio.create_consumer('slow', 'public.on_event')",
        )
        .unwrap();
    record(&mut client, 100);
    set_up(&database, &sandbox);
    let is_called = "select exists (select from pg_stat_activity \
        where backend_type = 'twilio_callback handler' and wait_event = 'PgSleep')";
    wait_until(Duration::from_secs(20), "the handler to be called", || {
        database.value(is_called, &[])
    });
    for number in 0..MESSAGES {
        let id = send(&database, &format!("+1500000000{number}"), "Hello");
        wait_until(Duration::from_secs(20), "the message to be sent", || {
            status(&database, id) != "waiting"
        });
        assert!(database.value::<bool>(is_called, &[]), "nothing is slow");
    }
    let delays = "select (percentile_cont(array[0.5, 1]) within group (order by \
            extract(epoch from a.started_at - m.created_at) * 1000))::float8[] \
        from twilio_internal.attempt a join twilio.message m using (message_id)";
    let delays: Vec<f64> = database.value(delays, &[]);
    eprintln!(
        "from the commit to the claim, while a handler sleeps for 1 s: p50 {:.1} ms, max {:.1} ms",
        delays[0], delays[1]
    );
    assert!(delays[0] < 250.0, "{delays:?}");
    cluster.assert_no_errors();
}

/// Logs that many events, each of a message of its own.
fn record(client: &mut Client, events: i64) {
    client
        .execute(
            "select count(*) from generate_series(1, $1::bigint) n cross join lateral twilio_internal.record(array[ \
                 twilio_internal.make_report('sent', account_sid => $2, message_sid => 'SM' || lpad(n::text, 32, '0'))])",
            &[&events, &ACCOUNT_SID],
        )
        .unwrap();
}

/// How many effects there are, whether nothing is left to do, and which processes may be killed; nothing
/// while the server is starting again.
fn look(database: &Database<'_>) -> Option<(i64, bool, Vec<u32>)> {
    let mut client = Client::connect(&database.url("postgres"), NoTls).ok()?;
    // The pauses between tries grow, and are not what is tested here.
    let hurry = "update twilio_internal.feed_delivery set due_at = twilio.now() where tries > 0 and due_at > twilio.now()";
    client.execute(hurry, &[]).ok()?;
    let sql = "select (select count(*) from public.effect), \
        not exists (select from twilio_internal.feed_delivery), \
        array(select pid from pg_stat_activity where backend_type like 'twilio_callback%' \
            and datname = current_database())";
    let row = client.query_one(sql, &[]).ok()?;
    let processes: Vec<i32> = row.get(2);
    let processes = processes.into_iter().map(i32::unsigned_abs).collect();
    Some((row.get(0), row.get(1), processes))
}
