//! The worker downloads the files of incoming messages from Twilio alone, and sends the account's credentials to no
//! other host.

use std::time::Duration;

use end_to_end::client::callback::{self, INBOUND_PATH};
use end_to_end::client::request::Request;
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::peer::tunnel::Tunnel;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use end_to_end::server::environment::fresh_directory;
use end_to_end::server::outbox::{is_worker_running, set_up, start_worker};
use end_to_end::server::tls::Certificate;
use end_to_end::wait::{holds_within, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// Holds for a file that waits for its retry; the lease of a download under way is longer.
const LATER: &str = "due_at > now() and due_at < now() + interval '60 s'";

#[test]
fn files_are_fetched_kept_and_converted() {
    let stage = stage(&["twilio_callback.fetch_media = on"]);
    let place = Place::new(&stage);
    place
        .database
        .connect()
        .batch_execute(
            "create function public.shorten(event jsonb) returns void language sql as $$ \
                 select twilio.store_media( \
                     f.message_id, f.place, convert_to(md5(f.content), 'UTF8'), 'text/x-md5' \
                 ) \
                 from twilio.message_media f \
                 where f.message_id = (event ->> 'message_id')::bigint \
                     and f.place = (event ->> 'place')::int \
                     and f.content_type = 'application/pdf' \
             $$; \
             create role shortener; \
             select twilio.grant_read('shortener'); \
             grant execute on function twilio.store_media(bigint, int, bytea, text) to shortener; \
             select twilio.create_consumer( \
                 'files', handler => 'public.shorten', kinds => array['media.fetched'], run_as => 'shortener')",
        )
        .unwrap();
    place.receive("+12025550123", &["70000.jpg", "5.pdf"]);
    place.until(2, "fetched_at is not null");
    place.until(1, "converted_at is not null");
    let sql = "select string_agg(concat_ws(' ', place, content_type, length(content), tries), '; ' \
        order by place) from twilio.message_media where due_at is null and error is null";
    let kept: String = place.database.value(sql, &[]);
    assert_eq!(kept, "0 image/jpeg 70000 1; 1 text/x-md5 32 1");
    let sids = "select url from twilio.message_media order by place";
    let rows = place.database.connect().query(sids, &[]).unwrap();
    let sid = |n: usize| {
        let url: String = rows[n].get(0);
        url.rsplit('/').next().unwrap().to_owned()
    };
    let holds: bool = place.database.value(
        "select content = convert_to(left(repeat($1, 3000), 70000), 'UTF8') \
         from twilio.message_media where place = 0",
        &[&sid(0)],
    );
    assert!(holds, "the content is another");
    let is_of: bool = place.database.value(
        "select content = convert_to(md5(left($1, 5)), 'UTF8') from twilio.message_media where place = 1",
        &[&sid(1)],
    );
    assert!(is_of, "what was converted is another");
    // To the API with credentials, to where it sends without.
    assert_eq!(
        place.outcomes(),
        ["handed out", "handed out", "redirected", "redirected"]
    );
    place
        .database
        .connect()
        .batch_execute("call twilio.redact('0 s')")
        .unwrap();
    place.until(0, "true");
    stage.assert_no_errors();
}

#[test]
fn a_file_that_is_too_large_or_gone_is_given_up_and_a_failed_download_is_retried() {
    let stage = stage(&[
        "twilio_callback.fetch_media = on",
        "twilio_callback.media_size_limit = '64kB'",
    ]);
    let place = Place::new(&stage);
    place.receive("+12025550123", &["65536.png", "65537.png"]);
    place.until(1, "fetched_at is not null and length(content) = 65536");
    place.until(
        1,
        "failed_at is not null and error ~ 'larger than' and content is null",
    );
    place.set("media_size_limit", "65kB");
    assert_eq!(place.ask_again(1), 1);
    place.until(2, "fetched_at is not null");

    place.break_reads(2);
    place.receive("+12025550123", &["10.png"]);
    place.until(1, "error ~ '^HTTP status 5'");
    place.until_hastened("fetched_at is not null and tries = 3 and error is null");

    // Gone: not there yet, it may be, so it is looked for three times.
    place.set("fetch_media", "off");
    place.receive("+12025550123", &["11.png"]);
    place.until(3, "true");
    place.delete_last();
    place.set("fetch_media", "on");
    assert_eq!(place.ask_again(3), 1);
    place.until_hastened("error = 'HTTP status 404' and tries = 3 and failed_at is not null");
    let sql = "select string_agg(f.kind, ' ' order by f.event_id) from twilio_internal.feed_event f \
        where f.message_id = 3";
    assert_eq!(place.database.value::<String>(sql, &[]), "media.failed");

    // As if the worker had ended during each try.
    let sql = "update twilio.message_media \
        set failed_at = null, error = null, tries = 10, due_at = twilio.now() where message_id = 3";
    place.database.connect().execute(sql, &[]).unwrap();
    place.until(
        1,
        "failed_at is not null and error = 'given up after 10 tries'",
    );
    stage.assert_no_errors();
}

#[test]
fn files_are_not_fetched_if_off_from_other_hosts_or_for_blocked_senders() {
    let stage = stage(&[]);
    let place = Place::new(&stage);
    place.receive("+12025550123", &["1.png"]);
    place.until(0, "true");
    let refused = place
        .database
        .connect()
        .execute("select twilio.fetch_media(1)", &[]);
    let refused = refused.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "55000");

    place.set("fetch_media", "on");
    place
        .database
        .connect()
        .batch_execute("select twilio.block('+12025550124')")
        .unwrap();
    place.receive("+12025550124", &["2.png"]);
    // The URL is in the message, but it is not Twilio's.
    let mut pairs = callback::inbound(&callback::sid(1), "look");
    callback::set(&mut pairs, "NumMedia", "2");
    callback::set(&mut pairs, "MediaUrl0", "http://localhost:1/secret");
    callback::set(
        &mut pairs,
        "MediaUrl1",
        "https://api.twilio.com.evil.example/x",
    );
    let answer = place
        .shim
        .send(&Request::form(INBOUND_PATH, &pairs).signed());
    assert_eq!(answer.status, 200);
    place.until(
        2,
        "failed_at is not null and error = 'it is not a file of this account at Twilio' and tries = 1",
    );
    place.until(2, "true");
    assert!(place.outcomes().is_empty());
    assert_eq!(place.ask_again(1), 1);
    place.until(1, "fetched_at is not null");

    // An advertisement's picture is fetched from Twilio, not from Meta.
    let kept: String = place.database.value(
        "select url from twilio.message_media where message_id = 1",
        &[],
    );
    place.refer(2, "https://scontent.example.fbcdn.net/v/t45/1.jpg");
    place.refer(3, "https://twilio.com.evil.example/1.jpg");
    place.refer(4, &kept);
    let sql =
        "fetched_at is not null and place = 0 and content_type = 'image/png' and message_id <> 1";
    place.until(1, sql);
    place.until(4, "true");
}

#[test]
fn credentials_never_go_to_a_host_that_only_ends_like_one_of_twilio() {
    let stage = stage(&["twilio_callback.fetch_media = on"]);
    let directory = fresh_directory();
    let authority = Certificate::authority(&directory, "authority");
    let certificate = authority.sign(&directory, "127.0.0.1");
    let server = Recorder::answering(|request| {
        let to = "https://[127.0.0.1].twilio.com/redirected";
        match request.target.ends_with("/away") {
            true => format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
            false => "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1\r\n\r\nx"
                .to_owned(),
        }
    });
    let port = server.serve_tls(&certificate);
    // The tunnel leads every request to the server, for any host and port.
    let tunnel = Tunnel::to(port);
    stage.stop("fast");
    stage.start_with(&[
        ("SSL_CERT_FILE", authority.certificate.to_str().unwrap()),
        ("HTTPS_PROXY", &tunnel.url()),
        ("HTTP_PROXY", &tunnel.url()),
    ]);
    let database = stage.database();
    let shim = Shim::start(&database, &[]);
    start_worker(&database);

    let hostile = [
        "https://[127.0.0.1].twilio.com/a",
        "https://[127.0.0.1].twilio.com:443/b",
        "https://[127.0.0.1]twilio.com/c",
        "https://127.0.0.1/d",
        "https://[::ffff:127.0.0.1]/e",
        "https://0x7f.1/f",
        "https://2130706433/g",
        "https://api.twilio.com@127.0.0.1/h",
        "https://127.0.0.1#.twilio.com/i",
        "https://127.0.0.1\\.twilio.com/j",
    ];
    receive_from(&shim, 1, &hostile);
    let until = |count: usize, condition: &str| {
        let sql = format!("select count(*) from twilio.message_media where {condition}");
        wait_until(PATIENCE, condition, || {
            database.value::<i64>(&sql, &[]) == i64::try_from(count).unwrap()
        });
    };
    until(
        hostile.len(),
        "failed_at is not null or fetched_at is not null",
    );
    let reached: Vec<_> = server.take().into_iter().map(|r| r.target).collect();
    assert_eq!(reached, Vec::<String>::new(), "{:?}", tunnel.asked());
    assert_eq!(tunnel.asked(), Vec::<String>::new());
    until(
        hostile.len(),
        "error = 'it is not a file of this account at Twilio'",
    );

    // The server gets credentials if the owner names it as the API, and no redirect leads elsewhere.
    let api_url = format!("https://127.0.0.1:{port}");
    let sql = "select twilio_internal.set_api_url($1, $2)";
    let mut client = database.connect();
    client.execute(sql, &[&ACCOUNT_SID, &api_url]).unwrap();
    receive_from(
        &shim,
        2,
        &[&format!("{api_url}/x"), &format!("{api_url}/away")],
    );
    until(1, "fetched_at is not null");
    until(
        1,
        "error = 'it is redirected to a host that is not Twilio''s'",
    );
    let reached = server.take();
    let mut targets: Vec<_> = reached.iter().map(|r| r.target.as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/away", "/x"]);
    let is_shown = |r: &Request| {
        r.headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case("authorization"))
    };
    assert!(reached.iter().all(is_shown));
    stage.assert_no_errors();
}

/// Lets a message with these files come in.
fn receive_from(shim: &Shim, number: usize, urls: &[&str]) {
    let mut pairs = callback::inbound(&callback::sid(number), "look");
    callback::set(&mut pairs, "NumMedia", &urls.len().to_string());
    for (place, url) in urls.iter().enumerate() {
        callback::set(&mut pairs, &format!("MediaUrl{place}"), url);
    }
    let answer = shim.send(&Request::form(INBOUND_PATH, &pairs).signed());
    assert_eq!(answer.status, 200);
}

/// A database whose worker fetches from a sandbox, and a shim for what comes in.
struct Place<'c> {
    database: Database<'c>,
    shim: Shim,
    sandbox: Sandbox,
}

impl<'c> Place<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let database = cluster.database();
        let (shim, sandbox) = Sandbox::with_shim(&database, &["--latency", "0"]);
        set_up(&database, &sandbox);
        Self {
            database,
            shim,
            sandbox,
        }
    }

    /// Lets a message come in.
    fn receive(&self, from: &str, files: &[&str]) {
        let url = format!("{PUBLIC_URL}{INBOUND_PATH}");
        let media: Vec<_> = files
            .iter()
            .map(|file| format!("https://example.com/{file}"))
            .collect();
        let mut form = vec![
            ("From", from),
            ("To", "+12025550100"),
            ("Body", ""),
            ("url", &url),
        ];
        form.extend(media.iter().map(|url| ("MediaUrl", url.as_str())));
        // The sandbox's files lie where it was called.
        let host = self.sandbox.url();
        let host = host.strip_prefix("http://").unwrap();
        let request = Request::form("/_inbound", &form).header("Host", host);
        let answer = self.sandbox.send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Lets a message come in whose sender has clicked on an advertisement with a picture.
    fn refer(&self, number: usize, picture: &str) {
        let mut pairs = callback::inbound(&callback::sid(number), "hello");
        callback::set(&mut pairs, "ReferralNumMedia", "1");
        callback::set(&mut pairs, "ReferralMediaUrl", picture);
        let request = Request::form(INBOUND_PATH, &pairs).signed();
        assert_eq!(self.shim.send(&request).status, 200);
    }

    /// Waits until `condition` holds for so many files.
    fn until(&self, count: i64, condition: &str) {
        let sql = format!("select count(*) from twilio.message_media where {condition}");
        let what = format!("{count} files: {condition}");
        let is_so = holds_within(PATIENCE, || self.database.value::<i64>(&sql, &[]) == count);
        if !is_so {
            let sql = "select coalesce(string_agg(to_jsonb(f)::text, E'\\n'), 'no files') from ( \
                select media_id, url, tries, due_at, error, fetched_at from twilio.message_media) f";
            panic!(
                "waited for {what}, have\n{}",
                self.database.value::<String>(sql, &[])
            );
        }
    }

    fn ask_again(&self, message_id: i64) -> i32 {
        let sql = "select twilio.fetch_media($1)";
        self.database.value(sql, &[&message_id])
    }

    /// Waits until `condition` holds for a file, making every waiting retry due at once.
    fn until_hastened(&self, condition: &str) {
        let hasten = format!(
            "update twilio.message_media set due_at = now() where {LATER}; select twilio_internal.wake_worker()"
        );
        let sql = format!("select count(*) from twilio.message_media where {condition}");
        let mut client = self.database.connect();
        wait_until(PATIENCE, condition, || {
            client.batch_execute(&hasten).unwrap();
            client.query_one(&sql, &[]).unwrap().get::<_, i64>(0) == 1
        });
    }

    /// Changes a setting, for those who are connected, too.
    fn set(&self, name: &str, value: &str) {
        let mut client = self.database.connect();
        // The library brings its settings along.
        client.batch_execute("load 'twilio_callback'").unwrap();
        client
            .batch_execute(&format!(
                "alter system set twilio_callback.{name} = '{value}'"
            ))
            .unwrap();
        client.batch_execute("select pg_reload_conf()").unwrap();
        let sql = format!("select current_setting('twilio_callback.{name}')");
        wait_until(PATIENCE, "the setting to count", || {
            client.query_one(&sql, &[]).unwrap().get::<_, String>(0) == value
        });
        // The server has it by now, and with it a worker that starts.
        client.batch_execute("select twilio.stop_worker()").unwrap();
        wait_until(PATIENCE, "the worker to end", || {
            !is_worker_running(&self.database)
        });
        start_worker(&self.database);
    }

    /// Has the sandbox answer its next reads with an error of its own.
    fn break_reads(&self, count: usize) {
        let form = [
            ("on", "read"),
            ("outcome", "proxy-before"),
            ("count", &count.to_string()),
        ];
        let answer = self.sandbox.send(&Request::form("/_faults", &form));
        assert!(answer.is_success(), "{}", answer.text());
    }

    /// Deletes the files of the last message at Twilio.
    fn delete_last(&self) {
        let sql = "select media_urls[1] from twilio.message order by message_id desc limit 1";
        let url: String = self.database.value(sql, &[]);
        let (_, path) = url.split_once("/2010").unwrap();
        let request = Request::new("DELETE", &format!("/2010{path}.json"));
        let answer = self.sandbox.send(&self.sandbox.authorized(request));
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// The sandbox's answers to requests for files, sorted.
    fn outcomes(&self) -> Vec<String> {
        let answer = self.sandbox.send(&Request::new("GET", "/_requests"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        let all = value["requests"].as_array().unwrap();
        let mut outcomes: Vec<_> = all
            .iter()
            .map(|request| request["outcome"].as_str().unwrap().to_owned())
            .collect();
        outcomes.sort();
        outcomes
    }
}

fn stage(lines: &'static [&'static str]) -> Cluster {
    Cluster::start(&Options {
        fsync: false,
        lines,
    })
}
