//! With `check_media` on, the worker checks a message's files before it sends the message: an unsuitable file refuses
//! it, an unreachable one delays it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use end_to_end::client::request::Request;
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{is_worker_running, set_up, start_worker, status};
use end_to_end::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const QUICK: Options = Options {
    fsync: false,
    lines: &[
        "client_min_messages = warning",
        "twilio_callback.stop_grace = '100ms'",
    ],
};

#[test]
fn files_are_checked_before_the_message_is_sent() {
    let cluster = Cluster::start(&QUICK);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    let server = Recorder::answering(answer);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", server.port());
    set_up(&database, &sandbox);

    // Off, as it is by default, nothing is looked at.
    let unseen = send(&database, 0, &[url("/page")]);
    wait_until_sent(&database, unseen);
    assert_eq!(looks(&server), [""; 0]);

    turn_on(&database);
    let good = send(&database, 1, &[url("/picture"), url("/film")]);
    let bare = send(&database, 2, &[]);
    wait_until_sent(&database, good);
    wait_until_sent(&database, bare);
    assert_eq!(looks(&server), ["/picture", "/film"]);

    let inside = "its host has no public address";
    let cases: [(Vec<String>, &str, &[&str]); 8] = [
        (
            vec![url("/picture"), url("/page")],
            "media 2 of 2: its type is \"text/html; charset=utf-8\", which is none of image/jpeg, ",
            &["/picture", "/page"],
        ),
        (
            vec![url("/untold")],
            "media 1 of 1: it has no type",
            &["/untold"],
        ),
        (
            vec![url("/large")],
            "media 1 of 1: it has 5242881 bytes, at most 5242880 are allowed",
            &["/large"],
        ),
        (
            vec![url("/gone")],
            "media 1 of 1: HTTP status 404",
            &["/gone"],
        ),
        (
            vec![url("/moved")],
            "media 1 of 1: it is redirected",
            &["/moved"],
        ),
        // A name that leads inside, and addresses that are there.
        (
            vec![url("/picture").replace("127.0.0.1", "localhost")],
            inside,
            &[],
        ),
        (
            vec![url("/picture").replace("127.0.0.1", "[::1]")],
            inside,
            &[],
        ),
        (vec!["http://169.254.169.254/x".to_owned()], inside, &[]),
    ];
    for (n, (urls, error, looked_at)) in (10..).zip(&cases) {
        let id = send(&database, n, urls);
        wait_until(PATIENCE, "the message to be refused", || {
            status(&database, id) == "refused"
        });
        let sql =
            "select kind || ' ' || error_message from twilio.failed_message where message_id = $1";
        let said: String = database.value(sql, &[&id]);
        let expected = match *error {
            error if error == inside => format!("refused media 1 of 1: {inside}"),
            error => format!("refused {error}"),
        };
        assert!(said.starts_with(&expected), "{urls:?}: {said}");
        assert_eq!(looks(&server), *looked_at, "{urls:?}");
    }
    let sent: Vec<_> = sandbox.counts().into_iter().collect();
    let once = |n| (recipient(n), (1, 1));
    assert_eq!(sent, [once(0), once(1), once(2)]);
    cluster.assert_no_errors();
}

#[test]
fn an_unreachable_file_is_waited_for() {
    let cluster = Cluster::start(&QUICK);
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    // The server's answer changes when the test says so, since the number of requests in between depends on the time.
    let mood = Arc::new(AtomicU32::new(0));
    let its_mood = Arc::clone(&mood);
    let server = Recorder::answering(move |request| match request.target.as_str() {
        "/late" => match its_mood.load(Ordering::SeqCst) {
            0 => String::new(),
            1 => "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => answer(request),
        },
        _ => {
            let _ = gate.lock().unwrap().recv();
            answer(request)
        }
    });
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", server.port());
    set_up(&database, &sandbox);
    turn_on(&database);

    let late = send(&database, 1, &[url("/late")]);
    let hurry = || {
        let sql = "update twilio_internal.outbox set due_at = now() where lease_token is null and due_at > now(); \
            select twilio_internal.wake_worker()";
        database.connect().batch_execute(sql).unwrap();
    };
    for reason in ["closed", "HTTP status 503"] {
        let sql = "select exists (select from twilio.message_attempt where message_id = $1 \
            and outcome = 'not_processed' and starts_with(reason, 'media 1 of 1: ' || $2))";
        wait_until(PATIENCE, "the file to be out of reach", || {
            hurry();
            database.value::<bool>(sql, &[&late, &reason])
        });
        assert_eq!(status(&database, late), "waiting");
        mood.fetch_add(1, Ordering::SeqCst);
    }
    wait_until(PATIENCE, "the message to be sent", || {
        hurry();
        status(&database, late) == "queued"
    });
    let sql = "select count(*) from twilio.message_attempt where message_id = $1";
    let tries = usize::try_from(database.value::<i64>(sql, &[&late])).unwrap();
    assert!(tries >= 3);
    assert_eq!(looks(&server), vec!["/late"; tries]);

    // A worker that ends while it looks has sent nothing, and holds nothing meanwhile.
    let held = send(&database, 2, &[url("/picture")]);
    wait_until(PATIENCE, "the look to hang", || {
        looks(&server) == ["/picture"]
    });
    let sql = "select a.xact_start is null and a.backend_xmin is null \
        from pg_stat_activity a join twilio_internal.worker w using (pid)";
    wait_until(PATIENCE, "the worker to wait", || {
        database.value::<bool>(sql, &[])
    });
    stop_worker(&database);
    let sql = "select outcome || ' ' || reason from twilio.message_attempt where message_id = $1";
    let said: String = database.value(sql, &[&held]);
    assert_eq!(said, "not_processed the worker ended");
    drop(go_on);
    start_worker(&database);
    wait_until_sent(&database, held);
    assert_eq!(sandbox.counts().len(), 2);
    cluster.assert_no_errors();
}

/// The server's answers about its files.
fn answer(request: &Request) -> String {
    assert_eq!(
        (request.method.as_str(), request.value_of("authorization")),
        ("HEAD", None)
    );
    let (status, headers) = match request.target.as_str() {
        "/picture" => (
            "200 OK",
            "Content-Type: image/jpeg\r\nContent-Length: 5242880",
        ),
        // Without Content-Length.
        "/film" => (
            "200 OK",
            "Content-Type: Video/MP4; codecs=avc1\r\nTransfer-Encoding: chunked",
        ),
        "/late" => (
            "200 OK",
            "Content-Type: application/pdf\r\nContent-Length: 9",
        ),
        "/page" => (
            "200 OK",
            "Content-Type: text/html; charset=utf-8\r\nContent-Length: 9",
        ),
        "/untold" => ("200 OK", "Content-Length: 9"),
        "/large" => (
            "200 OK",
            "Content-Type: image/png\r\nContent-Length: 5242881",
        ),
        "/moved" => ("302 Found", "Location: /picture\r\nContent-Length: 0"),
        _ => ("404 Not Found", "Content-Length: 0"),
    };
    format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n")
}

/// The files that were looked at since the last call.
fn looks(server: &Recorder) -> Vec<String> {
    server
        .take()
        .into_iter()
        .map(|request| request.target)
        .collect()
}

fn recipient(n: u32) -> String {
    format!("+1202555{n:04}")
}

/// Queues a message with files and gives its id.
fn send(database: &Database<'_>, n: u32, urls: &[String]) -> i64 {
    let sql = "select twilio.send_message($1, 'Look', media_urls => $2)";
    database.value(sql, &[&recipient(n), &urls])
}

fn wait_until_sent(database: &Database<'_>, message_id: i64) {
    wait_until(PATIENCE, "the message to be sent", || {
        status(database, message_id) == "queued"
    });
}

/// Turns the setting on for a worker that starts afterwards.
fn turn_on(database: &Database<'_>) {
    stop_worker(database);
    let mut client = database.connect();
    for sql in [
        // The library brings its settings along.
        "load 'twilio_callback'",
        "alter system set twilio_callback.check_media = on",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(sql).unwrap();
    }
    wait_until(PATIENCE, "the setting to count", || {
        let row = client.query_one("show twilio_callback.check_media", &[]);
        row.unwrap().get::<_, String>(0) == "on"
    });
    start_worker(database);
}

fn stop_worker(database: &Database<'_>) {
    let mut client = database.connect();
    client.execute("select twilio.stop_worker()", &[]).unwrap();
    wait_until(PATIENCE, "the worker to end", || {
        !is_worker_running(database)
    });
}
