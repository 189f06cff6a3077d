//! The server's clock is wrong for a while and then corrected, with messages of every kind under way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::environment::fresh_directory;
use end_to_end::server::outbox::{is_worker_running, start_worker};
use end_to_end::wait::{PATIENCE, holds_within, wait_until};

/// Sender, how the recipient's number begins and ends, and further arguments: delivered at once; by a sender with a
/// rate; after two tries; without an answer; by SMS instead.
const KINDS: [(&str, &str, &str); 5] = [
    ("+12025550100", "+1500", "000000"),
    ("+12025550101", "+1500", "000000"),
    ("+12025550100", "+1500", "400001"),
    ("+12025550100", "+1500", "000008"),
    ("whatsapp:+12025550100", "whatsapp:+1500", "163049"),
];

/// The clock of a server, which a test sets.
struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Starts the server again with a clock of its own.
    fn of(cluster: &Cluster) -> Self {
        let directory = fresh_directory();
        let clock = Self {
            file: directory.join("clock"),
        };
        clock.set(0);
        fs::set_permissions(&clock.file, fs::Permissions::from_mode(0o644)).unwrap();
        let library = library();
        cluster.stop("fast");
        cluster.start_with(&[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.to_str().unwrap()),
            ("FAKETIME_CACHE_DURATION", "1"),
            // The monotonic clock runs on, as it does when an operator sets the time.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]);
        clock
    }

    /// Sets the clock to this many seconds from the true time.
    fn set(&self, seconds: i64) {
        fs::write(&self.file, format!("{seconds:+}\n")).unwrap();
    }
}

/// The path of libfaketime, which Debian installs in a directory of the machine's architecture.
fn library() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").unwrap();
    let candidates = directories.map(|entry| entry.unwrap().path());
    let mut found = candidates
        .map(|directory| directory.join("faketime/libfaketime.so.1"))
        .filter(|path| Path::new(path).exists());
    found
        .next()
        .unwrap_or_else(|| panic!("libfaketime is missing: scripts/setup test installs it"))
}

#[test]
fn an_hour_ahead_and_back() {
    measure(3_600);
}

#[test]
fn a_day_ahead_and_back() {
    measure(86_400);
}

#[test]
fn an_hour_behind_and_back() {
    measure(-3_600);
}

fn measure(offset: i64) {
    let cluster = Cluster::start(&Options::QUIET);
    let clock = Clock::of(&cluster);
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--callback-delay", "20"]);
    set_up(&database, &sandbox);

    send_all(&database, 0);
    clock.set(offset);
    wait_for(&database, offset);
    let last: i64 = database.value("select max(message_id) from twilio.message", &[]);
    send_all(&database, 1);
    // Some attempts are made under the wrong clock, and some messages are unfinished when it is corrected.
    let answered = "select count(*) from twilio_internal.attempt where finished_at is not null and message_id > $1";
    wait_until(PATIENCE, "attempts under the wrong clock", || {
        database.value::<i64>(answered, &[&last]) > 20
    });
    clock.set(0);
    wait_for(&database, 0);

    // Only scheduled messages still wait: the longest retry pause is 5 s, the slow sender's queue takes 10 s.
    let open = "select count(*) from twilio.message m where m.direction = 'outbound' \
        and m.send_at is null and m.status in ('waiting', 'unknown', 'accepted', 'queued', 'sending', 'sent')";
    let in_time = holds_within(PATIENCE, || database.value::<i64>(open, &[]) == 0);
    let left = "select coalesce(string_agg(x.line, ', '), '') from ( \
        select format('%s %s %s due in %s', m.to_address, m.status, o.state, o.due_at - twilio.now()) as line \
        from twilio.message m left join twilio_internal.outbox o using (message_id) where m.send_at is null \
        and m.status in ('waiting', 'unknown', 'accepted', 'queued', 'sending', 'sent') limit 10) x";
    assert!(in_time, "held up: {}", database.value::<String>(left, &[]));
    let states = "select coalesce(string_agg(format('%s %s', m.to_address, m.status), ', '), '') from twilio.message m \
        where m.send_at is null and m.status not in ('delivered', 'read') \
        and not (m.channel = 'whatsapp' and m.status = 'undelivered') and m.status <> 'expired'";
    assert_eq!(database.value::<String>(states, &[]), "");
    // A day ahead, all waiting messages expire by that clock. Otherwise only those with ten seconds and a slow sender do.
    let expired =
        "select count(*) from twilio.message m where m.status = 'expired' and m.body <> 'short'";
    if offset.abs() < 14_400 {
        assert_eq!(database.value::<i64>(expired, &[]), 0, "expired");
    }
    // Once each: the sandbox counts the requests that it accepted.
    for (to, (_, accepted)) in sandbox.counts() {
        assert!(accepted <= 1, "{to} was sent {accepted} times");
    }
    let kept = "select count(*) from twilio_internal.outbox o join twilio.message m using (message_id) \
        where m.send_at = o.due_at and o.expires_at = m.send_at + interval '4 hours'";
    assert_eq!(database.value::<i64>(kept, &[]), 20, "scheduled");
    // Messages with an expiry of ten seconds are not sent later.
    let short = || {
        let counts = sandbox.counts();
        let of_short = counts.iter().filter(|(to, _)| to.starts_with("+150009"));
        of_short.map(|(_, (_, accepted))| accepted).sum::<u64>()
    };
    let before = short();
    assert!(before < 20, "{before} of 20 left within ten seconds");
    let waiting = "select count(*) from twilio.message where body = 'short' and status = 'waiting'";
    wait_until(PATIENCE, "short messages to expire", || {
        database.value::<i64>(waiting, &[]) == 0
    });
    assert_eq!(short(), before);
    if offset > 0 {
        let verdict = "select verdict from twilio.doctor() where \"check\" = 'clock'";
        assert_eq!(database.value::<String>(verdict, &[]), "warning");
    }
    assert!(is_worker_running(&database));
    // PostgreSQL measures statement_timeout by the server's clock, so it cancels a statement during which the clock is put
    // ahead. Such a callback is answered with 503 and repeated.
    cluster.assert_no_errors_but(&["ERROR:  canceling statement due to statement timeout"]);
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    database
        .connect()
        .batch_execute(&format!(
            "update twilio.signing_key set not_before = '-infinity'; \
             select twilio_internal.set_api_url('{ACCOUNT_SID}', '{}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100'); \
             select twilio.add_sender('+12025550101', rate_per_second => 5, burst => 2); \
             select twilio.add_sender('+12025550102', rate_per_second => 0.2, burst => 1); \
             select twilio.enable_whatsapp_to_sms(from_address => '+12025550100')",
            sandbox.url()
        ))
        .unwrap();
    start_worker(database);
}

/// Half of the messages: twenty of each kind, ten scheduled ones and ten with little time.
fn send_all(database: &Database<'_>, half: usize) {
    let mut client = database.connect();
    let mut transaction = client.transaction().unwrap();
    for number in 0..20 {
        for (kind, (from, begin, end)) in KINDS.iter().enumerate() {
            let to = format!("{begin}{:05}{end}", 1000 * (kind + 1) + 100 * half + number);
            let sql = "select twilio.send_message($1, 'text', from_address => $2)";
            transaction.execute(sql, &[&to, from]).unwrap();
        }
    }
    for number in 0..10 {
        let to = format!("+150008{:03}000000", 100 * half + number);
        let sql = "select twilio.send_message($1, 'scheduled', send_at => twilio.now() + interval '60 hours')";
        transaction.execute(sql, &[&to]).unwrap();
        let to = format!("+150009{:03}000000", 100 * half + number);
        let sql = "select twilio.send_message($1, 'short', from_address => '+12025550102', expires_after => '10 s')";
        transaction.execute(sql, &[&to]).unwrap();
    }
    transaction.commit().unwrap();
}

/// Waits until the server's clock is `offset` seconds from the true time.
fn wait_for(database: &Database<'_>, offset: i64) {
    wait_until(PATIENCE, "the clock", || {
        let server: f64 = database.value("select extract(epoch from twilio.now())::float8", &[]);
        let own = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "it is a day at most")]
        let wanted = own + offset as f64;
        (server - wanted).abs() < 2.0
    });
}
