//! The worker and the server are killed at every step of a send: no message goes out twice that must not, and none is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::outbox::{set_up, start_worker, worker_pid};
use end_to_end::server::process::{exists, is_pending, signal};
use end_to_end::wait::{PATIENCE, holds_within, wait_until};
use postgres::{Config, NoTls};
use serde_json::Value;

const LONGEST_LOOK: Duration = Duration::from_secs(2);
const LATENCY_MS: u64 = 30;
const SIGQUIT: u32 = 3;

/// Where a message can be when the worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It waits.
    Queued,
    /// It is being claimed, and that is not committed.
    Claiming,
    /// It is claimed, and its request has not arrived.
    Claimed,
    /// Twilio has it, and has not answered.
    InFlight,
    /// Twilio has answered, and that is not written down.
    Answered,
    /// The outcome is being written, and that is not committed.
    Finishing,
    /// Its work is over.
    Finished,
}

use Phase::{Answered, Claimed, Claiming, Finished, Finishing, InFlight, Queued};

const PHASES: [Phase; 7] = [
    Queued, Claiming, Claimed, InFlight, Answered, Finishing, Finished,
];

/// Ways to end the worker abruptly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    WorkerKilled,
    ImmediateStop,
}

const BLOWS: [Blow; 2] = [Blow::WorkerKilled, Blow::ImmediateStop];

#[test]
fn nothing_is_sent_twice_or_forgotten_whatever_is_killed() {
    let cluster = Cluster::start(&Options {
        // Killed processes leave their writes to the system; with it, commits take longer to hit.
        fsync: sized(false, true),
        // Few at a time: the queue lasts, and every phase is there for a while.
        lines: &["twilio_callback.max_in_flight = 16"],
    });
    let database = cluster.database();
    let latency = LATENCY_MS.to_string();
    let (_shim, sandbox) =
        Sandbox::with_shim(&database, &["--latency", &latency, "--callback-delay", "5"]);
    set_up(&database, &sandbox);

    let mut scene = Scene {
        cluster: &cluster,
        database: &database,
        sandbox: &sandbox,
        queued: 0,
        finished: 0,
        hits: BTreeMap::new(),
    };
    let mut random = Random::new();
    let part = sized(16, 55);
    let strikes: usize = sized(7, 28);
    for strike in 0..strikes {
        // All pairs of a blow and a phase come up, since their numbers share no factor.
        let (blow, phase) = (BLOWS[strike % BLOWS.len()], PHASES[strike % PHASES.len()]);
        scene.enqueue(part);
        scene.strike(blow, phase, &mut random);
        if strike % 3 == 0 {
            scene.cut_connections(part, &mut random);
        }
    }
    scene.settle();
    eprintln!(
        "{} kills, {} messages; when the worker was killed they were {:?}",
        strikes + strikes.div_ceil(3),
        scene.queued,
        scene.hits
    );
    for phase in PHASES {
        assert!(scene.hits.contains_key(&phase), "never hit: {phase:?}");
    }
    scene.check();
}

/// The test's parts, and what it has done so far.
struct Scene<'a> {
    cluster: &'a Cluster,
    database: &'a Database<'a>,
    sandbox: &'a Sandbox,
    queued: usize,
    /// How many attempts were over when something was last killed.
    finished: usize,
    /// How many messages were in which phase when something was killed.
    hits: BTreeMap<Phase, usize>,
}

impl Scene<'_> {
    /// Queues messages, each to a recipient of its own, every other one to be sent at least once.
    fn enqueue(&mut self, count: usize) {
        let mut client = self.database.connect();
        let mut transaction = client.transaction().unwrap();
        for n in self.queued..self.queued + count {
            let to = match n / 2 % 8 {
                // All callbacks come before the answer.
                0 => format!("+1500{n:05}000007"),
                // No callbacks.
                1 => format!("+1500{n:05}000005"),
                // No answer. One that is sent again then would be sent at a time that Twilio does not share.
                2 if delivery(n) == "at_most_once" => format!("+1500{n:05}000008"),
                _ => format!("+1202{:07}", 2_000_000 + n),
            };
            let sql = "select twilio.send_message($1, 'Your table is ready', delivery => $2)";
            transaction.execute(sql, &[&to, &delivery(n)]).unwrap();
        }
        transaction.commit().unwrap();
        self.queued += count;
    }

    /// Kills the worker as soon as it is stopped with some message in `phase`.
    fn strike(&mut self, blow: Blow, phase: Phase, random: &mut Random) {
        let pid = worker_pid(self.database);
        let end = Instant::now() + PATIENCE;
        // On a busy machine an unhindered look takes longer too.
        let mut patience = Duration::from_millis(200);
        let seen = loop {
            assert!(Instant::now() < end, "no message was ever {phase:?}");
            thread::sleep(Duration::from_micros(random.below(3000) as u64));
            signal(pid, "STOP");
            match self.look(patience) {
                Some(seen) if seen.contains_key(&phase) => break seen,
                Some(seen) if !seen.contains_key(&Queued) => {
                    signal(pid, "CONT");
                    self.enqueue(16);
                }
                Some(_) => signal(pid, "CONT"),
                None => {
                    signal(pid, "CONT");
                    patience = (patience + patience / 4).min(LONGEST_LOOK);
                }
            }
        };
        for (phase, count) in seen {
            *self.hits.entry(phase).or_default() += count;
            if phase == Finished {
                self.finished += count;
            }
        }
        if blow == Blow::WorkerKilled {
            self.kill_worker(pid);
        } else {
            self.stop_server(pid);
        }
        start_worker(self.database);
    }

    fn kill_worker(&self, pid: u32) {
        const READY: &str = "ready to accept connections";
        let starts = self.cluster.read_log().matches(READY).count();
        signal(pid, "KILL");
        // The server restarts all its processes with it.
        wait_until(PATIENCE, "the server to be back", || {
            self.cluster.read_log().matches(READY).count() > starts
        });
    }

    fn stop_server(&self, pid: u32) {
        thread::scope(|scope| {
            scope.spawn(|| self.cluster.stop("immediate"));
            // The stopped worker follows the server's signal before it does anything else.
            holds_within(PATIENCE, || is_pending(pid, SIGQUIT) || !exists(pid));
            signal(pid, "CONT");
        });
        self.cluster.start_again();
    }

    /// Queues messages and has Twilio cut some of their connections: before it answers, or before it
    /// takes them.
    fn cut_connections(&mut self, count: usize, random: &mut Random) {
        let outcome = *random.pick(&["drop", "drop-before"]);
        let form = [("outcome", outcome), ("count", "5")];
        let made = self.sandbox.send(&Request::form("/_faults", &form));
        assert_eq!(made.status, 201, "{}", made.text());
        self.enqueue(count);
        let sql = "select count(*) from twilio_internal.outbox where state = 'waiting'";
        wait_until(PATIENCE, "the queue to be worked off", || {
            self.database.value::<i64>(sql, &[]) == 0
        });
    }

    /// In which phases messages are while the worker is stopped; nothing if it holds what the look needs.
    fn look(&self, patience: Duration) -> Option<BTreeMap<Phase, usize>> {
        let stopped_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (sender, receiver) = mpsc::channel();
        let mut config = Config::new();
        config
            .host_path(self.cluster.socket_directory())
            .user("postgres")
            .dbname(self.database.name());
        // On a thread that can be left behind: what the worker holds within the server is waited for
        // without end, until the worker goes on.
        thread::spawn(move || {
            let sql = "with unlocked as (select message_id from twilio_internal.outbox for update skip locked) \
                select o.lease_token::text, u.message_id is null \
                from twilio_internal.outbox o left join unlocked u using (message_id) where o.state = 'waiting'";
            let finished =
                "select count(*) from twilio_internal.attempt where finished_at is not null";
            let found = config.connect(NoTls).ok().and_then(|mut client| {
                let rows = client.query(sql, &[]).ok()?;
                let rows: Vec<(Option<String>, bool)> =
                    rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                let finished: i64 = client.query_one(finished, &[]).ok()?.get(0);
                Some((rows, finished))
            });
            let _ = sender.send(found);
        });
        let (rows, finished) = receiver.recv_timeout(patience).ok()??;
        let arrivals = self.arrivals();
        let answered_before = i64::try_from(stopped_at.as_micros()).unwrap()
            - i64::try_from(LATENCY_MS).unwrap() * 1000;
        let mut seen = BTreeMap::new();
        for (lease, is_locked) in rows {
            let arrived = lease.as_ref().and_then(|lease| arrivals.get(lease));
            let phase = match (&lease, is_locked, arrived) {
                (None, false, _) => Queued,
                (None, true, _) => Claiming,
                (Some(_), true, _) => Finishing,
                (Some(_), false, None) => Claimed,
                (Some(_), false, Some(at)) if *at > answered_before => InFlight,
                (Some(_), false, Some(_)) => Answered,
            };
            *seen.entry(phase).or_default() += 1;
        }
        let finished = usize::try_from(finished).unwrap() - self.finished;
        if finished > 0 {
            seen.insert(Finished, finished);
        }
        Some(seen)
    }

    /// When the creates of attempts came to Twilio, in microseconds since 1970.
    fn arrivals(&self) -> BTreeMap<String, i64> {
        let requests = self.sandbox.requests(0);
        let creates = requests.iter().filter_map(|request| {
            let callback = request["parameters"]["StatusCallback"].as_str()?;
            let (_, attempt) = callback.split_once("attempt=")?;
            Some((
                attempt.get(..36)?.to_owned(),
                request["received_us"].as_i64()?,
            ))
        });
        creates.collect()
    }

    /// Waits until nothing is under way, lets the time for look-ups pass, and has what was given up
    /// after three deaths of the worker tried once more.
    fn settle(&self) {
        let wait_for_none = |what: &str, condition: &str| {
            let sql = format!(
                "select string_agg(o::text || m::text, E'\\n') from twilio_internal.outbox o join twilio.message m using (message_id) where {condition}"
            );
            let mut left = None;
            let is_none = holds_within(PATIENCE, || {
                left = self.database.value::<Option<String>>(&sql, &[]);
                left.is_none()
            });
            assert!(is_none, "not {what}: {}", left.unwrap_or_default());
        };
        wait_for_none(
            "sent or unknown",
            "o.state = 'waiting' or lease_token is not null",
        );
        // Two minutes after its attempt Twilio's list would show a message; what the worker died over
        // again and again is looked up ten minutes later.
        let mut client = self.database.connect();
        for sql in [
            // Makes the setting known.
            "select twilio.now()",
            "alter system set twilio_callback.clock_offset = '12 min'",
            "select pg_reload_conf()",
        ] {
            client.batch_execute(sql).unwrap();
        }
        wait_for_none(
            "settled or closed",
            "o.state = 'waiting' or due_at < 'infinity'",
        );
        let sql = "select count(twilio.retry_message(message_id)) \
            from twilio_internal.outbox o join twilio.message m using (message_id) \
            where o.state = 'dead' and o.is_repeatable and m.message_sid is null";
        let retried: i64 = self.database.value(sql, &[]);
        eprintln!("{retried} had to be retried by hand");
        wait_for_none("sent by hand", "o.state = 'waiting' or due_at < 'infinity'");
    }

    /// Compares the messages at Twilio with the database.
    fn check(&self) {
        let counts = self.sandbox.counts();
        let mut twice = 0;
        let mut unknown = 0;
        let sql = "select m.to_address, m.step, array_agg(m.message_sid order by m.try) filter (where m.message_sid is not null), \
                bool_or(o.is_repeatable), count(*), count(f.message_id) filter (where f.kind in ('unknown', 'dead') or f.error_message like 'not sent: %') \
            from twilio.message m left join twilio_internal.outbox o using (message_id) left join twilio.failed_message f using (message_id) \
            group by 1, 2 order by 1";
        let rows = self.database.connect().query(sql, &[]).unwrap();
        assert_eq!(rows.len(), self.queued);
        let mut listed = 0;
        let mut sids = BTreeSet::new();
        for row in rows {
            let to: String = row.get(0);
            let bound: Option<Vec<String>> = row.get(2);
            let (tries, open): (i64, i64) = (row.get(4), row.get(5));
            let (requests, accepted) = counts.get(&to).copied().unwrap_or_default();
            sids.extend(bound.into_iter().flatten());
            let number = number_of(&to);
            if delivery(number) == "at_most_once" {
                assert!(
                    requests <= 1 && accepted <= 1,
                    "{to} was sent {accepted} times"
                );
                assert_eq!(tries, 1, "{to}");
                assert_eq!(
                    open,
                    i64::from(accepted == 0),
                    "{to}: what is not sent is listed"
                );
                unknown += open;
            } else {
                assert!(accepted >= 1, "{to} was lost");
                twice += u64::from(accepted > 1);
                listed += open;
            }
        }
        let accepted: BTreeSet<String> = self
            .sandbox
            .requests(0)
            .iter()
            .filter(|request| {
                request["accepted"] == Value::Bool(true) && request["method"] == "POST"
            })
            .map(|request| request["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(sids, accepted, "every message at Twilio has one row");
        assert_eq!(listed, 0, "at least once: nothing is left open");
        eprintln!(
            "at most once: {unknown} unknown and not sent; at least once: {twice} sent twice"
        );
    }
}

fn delivery(number: usize) -> &'static str {
    if number.is_multiple_of(2) {
        "at_most_once"
    } else {
        "at_least_once"
    }
}

/// Which message this recipient was thought up for.
fn number_of(to: &str) -> usize {
    to.strip_prefix("+1500").map_or_else(
        || to["+1202".len()..].parse::<usize>().unwrap() - 2_000_000,
        |rest| rest[..5].parse().unwrap(),
    )
}
