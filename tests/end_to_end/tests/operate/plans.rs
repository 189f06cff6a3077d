//! Frequent statements read only a few rows of each table, even if PostgreSQL has no statistics.

use std::collections::BTreeMap;

use end_to_end::client::callback::{self, STATUS_PATH, sid};
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::peer::shim::Shim;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use end_to_end::wait::{PATIENCE, wait_until};
use postgres::Client;
use serde_json::Value;

/// No autovacuum, so that no table is analyzed; auto_explain logs every plan with the rows that it read.
const OPTIONS: Options = Options {
    fsync: false,
    lines: &[
        "autovacuum = off",
        "max_wal_size = 8GB",
        "shared_buffers = 512MB",
        "client_min_messages = warning",
        "log_line_prefix = '%m [%p] %b/%a '",
        "shared_preload_libraries = 'auto_explain'",
        "auto_explain.log_nested_statements = on",
        "auto_explain.log_analyze = on",
        "auto_explain.log_buffers = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_format = json",
        "twilio_callback.fetch_media = on",
    ],
};
const WHATSAPP: &str = "whatsapp:+12025550100";

/// A scan that reads more rows of one table than this reads too much.
const ROWS: f64 = 1000.0;
/// An index look-up that finds nothing and reads more pages than this reads too much.
const PAGES: f64 = 100.0;

#[test]
fn tables_that_were_never_analyzed_are_read_by_their_indexes() {
    measure("");
}

#[test]
fn tables_that_were_analyzed_while_empty_are_read_by_their_indexes() {
    measure("vacuum analyze");
}

fn measure(statistics: &str) {
    let cluster = Cluster::start(&OPTIONS);
    let database = cluster.database();
    let (shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    set_up(&database, &sandbox);
    if !statistics.is_empty() {
        database.connect().batch_execute(statistics).unwrap();
    }
    let mut run = Run {
        database: &database,
        sandbox: &sandbox,
        next: 0,
        has_retried: false,
    };
    // Connections and the worker keep the plans that they make while the tables are empty.
    let mut old = session(&database, "old");
    run.work(&shim);
    for _ in 0..7 {
        run.calls(&mut old);
    }
    database.connect().batch_execute(&fill()).unwrap();
    set(&database, "log_min_duration = 0");
    let begin = cluster.read_log().len();
    run.work(&shim);
    run.calls(&mut old);
    // These make their plans on full tables.
    let mut new = session(&database, "new");
    run.calls(&mut new);
    let other = Shim::start(&database, &[]);
    database
        .connect()
        .batch_execute("select twilio.stop_worker()")
        .unwrap();
    wait_until(PATIENCE, "the worker to end", || {
        !database.value::<bool>("select twilio_internal.is_worker_running()", &[])
    });
    database
        .connect()
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    run.work(&other);
    set(&database, "log_min_duration = -1");
    assert!(run.has_retried, "no message failed");
    let log = cluster.read_log();
    let (seen, found) = look_at(&log[begin..]);
    eprintln!("{seen} plans");
    assert!(seen > 1000, "{seen} plans were logged");
    for (statement, nodes) in &found {
        eprintln!("--- {statement}\n    {}", nodes.join("\n    "));
    }
    assert!(found.is_empty(), "{} statements read too much", found.len());
    cluster.assert_no_errors();
}

fn session(database: &Database<'_>, name: &str) -> Client {
    let mut client = database.connect();
    client
        .batch_execute(&format!("set application_name = '{name}'"))
        .unwrap();
    client
}

fn set(database: &Database<'_>, setting: &str) {
    let mut client = database.connect();
    client
        .batch_execute(&format!("alter system set auto_explain.{setting}"))
        .unwrap();
    client
        .batch_execute("select pg_reload_conf(), pg_sleep(0.5)")
        .unwrap();
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    let url = sandbox.url();
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "create table public.heard (message_id bigint); \
             create function public.on_event(event jsonb) returns void language sql \
             as $$ insert into public.heard values (($1 ->> 'message_id')::bigint) $$; \
             select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('{WHATSAPP}'); \
             select twilio.add_sender('+12025550101', rate_per_second => 1000, burst => 1000); \
             select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
                 device_id => 'phone-1', signing_key => 'key-1'); \
             select twilio.enable_whatsapp_to_sms(not_before => '00:00'), twilio.enable_sms_to_smsgate(); \
             select twilio.add_fallback_rule('in_time', from_channel => 'whatsapp', no_success_within => '1 hour'); \
             create function public.make_text(original jsonb) returns text language sql \
             as $$ select 'Once more: ' || ($1 ->> 'body') $$; \
             create function public.reply(message jsonb) returns text language sql as $$ select 'Hello' $$; \
             select twilio.set_fallback_text('in_time', 'public.make_text'); \
             select twilio.add_reply_rule(function => 'public.reply'); \
             select twilio.create_consumer('app', 'public.on_event'); \
             select twilio.create_consumer('reader'); \
             select twilio.start_worker()"
        ))
        .unwrap();
    sandbox.register_webhooks();
}

struct Run<'a> {
    database: &'a Database<'a>,
    sandbox: &'a Sandbox,
    next: usize,
    has_retried: bool,
}

impl Run<'_> {
    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Callbacks of every kind through the shim, messages of every kind by the worker, and events to the handler.
    fn work(&mut self, shim: &Shim) {
        let send = |request: Request, expected: u16| {
            let answer = shim.send(&request);
            assert_eq!(answer.status, expected, "{}", answer.text());
        };
        for _ in 0..7 {
            let n = self.number() * 100;
            let to = format!("whatsapp:+1202556{:04}", n / 100);
            let status = |n: usize, status: &str, code: Option<i32>| {
                Request::form(
                    STATUS_PATH,
                    &callback::status_between(&sid(n), status, code, WHATSAPP, &to),
                )
                .signed()
            };
            send(status(n, "sent", None), 204);
            send(status(n, "delivered", None), 204);
            send(status(n, "delivered", None), 204);
            send(status(n + 1, "sent", None), 204);
            send(status(n + 1, "undelivered", Some(63016)), 204);
            // The recipient does not want it.
            send(status(n + 2, "failed", Some(63050)), 204);
            send(status(n + 3, "failed", Some(63049)), 204);
            send(status(n + 3, "delivered", None), 204);
            for (offset, word) in [(10, "hello"), (11, "STOP"), (12, "START")] {
                let mut pairs = callback::inbound(&sid(n + offset), word);
                callback::set(&mut pairs, "From", &format!("+1202557{:04}", n / 100));
                if offset == 10 {
                    callback::set(&mut pairs, "NumMedia", "1");
                    callback::set(
                        &mut pairs,
                        "MediaUrl0",
                        &format!(
                            "{}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{}/Media/ME{n:032}",
                            self.sandbox.url(),
                            sid(n)
                        ),
                    );
                    callback::set(&mut pairs, "MediaContentType0", "image/png");
                }
                send(Request::form(callback::INBOUND_PATH, &pairs).signed(), 200);
            }
            send(
                Request::form(STATUS_PATH, &callback::status(&sid(n), "sent", None)),
                403,
            );
        }
        let first = self.number();
        let mut client = self.database.connect();
        // Through WhatsApp, by SMS and at a phone; one that others made; one without an answer; one that waits.
        for number in 0..7 {
            let n = first * 10 + number;
            for to in [
                format!("whatsapp:+1501{:05}405000", n),
                format!("+1501{:05}000000", n),
            ] {
                client
                    .execute(
                        "select twilio.send_message($1, 'text', not_before => '00:00')",
                        &[&to],
                    )
                    .unwrap();
            }
            self.sandbox.create(
                WHATSAPP,
                &format!("whatsapp:+1501{:05}405000", 50_000 + n),
                STATUS_PATH,
            );
        }
        self.next += 10;
        let unanswered = format!("+1500{:05}000012", first % 100_000);
        client
            .execute(
                "select twilio.send_message($1, 'text', delivery => 'at_least_once')",
                &[&unanswered],
            )
            .unwrap();
        let done = "select not exists (select from twilio_internal.outbox o join twilio.message m using (message_id) \
            where m.body is distinct from 'filled' and o.state = 'waiting' and o.due_at < twilio.now() + interval '1 hour') \
            and exists (select from twilio_internal.outbox o join twilio.message m using (message_id) \
                where m.to_address = $1 and o.state = 'unknown')";
        wait_until(PATIENCE, "the work to be done", || {
            self.database.value::<bool>(done, &[&unanswered])
        });
        // It is looked up now, so that the test need not wait for its time.
        let sql = "update twilio_internal.outbox o set due_at = twilio.now() from twilio.message m \
            where m.message_id = o.message_id and m.to_address = $1 and o.lease_token is null and o.tries = $2";
        for tries in 0..3_i16 {
            wait_until(PATIENCE, "a look-up", || {
                client.execute(sql, &[&unanswered, &tries]).unwrap() > 0 || tries == 0
            });
        }
        // Rules by time.
        client
            .execute(
                "update twilio_internal.fallback_watch w set due_at = twilio.now() from twilio.message m \
                 where m.message_id = w.message_id and m.body is distinct from 'filled'",
                &[],
            )
            .unwrap();
        client
            .batch_execute("select twilio_internal.wake_worker()")
            .unwrap();
        wait_until(PATIENCE, "the watched messages to be looked at", || {
            self.database.value::<i64>(
                "select count(*) from twilio_internal.fallback_watch w where w.due_at <= twilio.now()",
                &[],
            ) == 0
        });
        wait_until(PATIENCE, "the handler", || {
            self.database.value::<i64>(
                "select count(*) from twilio_internal.feed_delivery d where d.consumer = 'app'",
                &[],
            ) == 0
        });
    }

    /// Calls of applications and administrators.
    fn calls(&mut self, client: &mut Client) {
        let n = self.number();
        let mut control = self.database.connect();
        let failed: i64 = control
            .query_one(
                "select max(m.message_id) from twilio.message m where m.status in ('failed', 'undelivered') \
                 and m.from_address = '+12025550100' and not exists (select from twilio.message x \
                 where x.root_id = m.root_id and x.step = m.step and x.try > m.try) \
                 and m.direction = 'outbound' and m.body is not null",
                &[],
            )
            .unwrap()
            .get::<_, Option<i64>>(0)
            .unwrap_or_default();
        let sent: i64 = control
            .query_one("select max(message_id) from twilio.message where status = 'delivered' and direction = 'outbound'", &[])
            .unwrap()
            .get(0);
        let inbound: i64 = control
            .query_one(
                "select max(message_id) from twilio.message where direction = 'inbound'",
                &[],
            )
            .unwrap()
            .get(0);
        let refused: i64 = control
            .query_one(
                "select max(rejected_id) from twilio_internal.rejected_callback",
                &[],
            )
            .unwrap()
            .get(0);
        let mut sqls = vec![
            format!("select twilio.send_message('+1202558{n:04}', 'x', idempotency_key => 'key {n}', send_at => now() + interval '2 days')"),
            format!("select twilio.send_message('+1202558{n:04}', 'x', idempotency_key => 'key {n}', send_at => (select send_at from twilio.message where idempotency_key = 'key {n}'))"),
            format!("select twilio.cancel_message((select message_id from twilio.message where idempotency_key = 'key {n}'))"),
            format!("select twilio.simulate_callback({sent}, 'read')"),
            format!("select twilio.block('+1202559{n:04}')"),
            format!("select twilio.unblock('+1202559{n:04}')"),
            "select * from twilio.doctor()".into(),
            "select * from twilio.queue_status".into(),
            "select * from twilio.sender_status".into(),
            "select * from twilio.quarantine_status".into(),
            "select * from twilio.feed_lag".into(),
            format!("select * from twilio.explain_fallback({sent})"),
            format!("select * from twilio.explain_rejected({refused})"),
            format!("select * from twilio.message_status where message_id = {sent}"),
            format!("select * from twilio.message_timeline where message_id = {sent}"),
            format!("select * from twilio.message_chain where root_id = (select root_id from twilio.message where message_id = {sent})"),
            format!("select * from twilio.message_attempt where message_id = {sent}"),
            format!("select * from twilio.failed_message where message_id = {sent}"),
            format!("select * from twilio.inbound_message where message_id = {inbound}"),
            "select * from twilio.message_status order by created_at desc limit 20".into(),
            "select * from twilio.message_timeline order by received_at desc limit 20".into(),
            "select * from twilio.message_chain order by created_at desc limit 20".into(),
            "select * from twilio.inbound_message order by received_at desc limit 20".into(),
            format!("select * from twilio.message_status where to_address = '+1202558{n:04}' order by created_at desc limit 20"),
            format!("select * from twilio.number_health where person_key = twilio.person_key('+1202558{n:04}')"),
            "select * from twilio.find_messages(max_rows => 20)".into(),
            format!("select * from twilio.find_messages(recipient => '+1 202 558 {n:04}')"),
            format!("select * from twilio.find_messages(before => twilio.now(), before_id => {sent}, max_rows => 20)"),
            format!("select twilio_internal.redact_batch('-infinity', 0, twilio.now(), '+1202558{n:04}', false, 20), twilio_internal.must_examine_all('+1202558{n:04}')"),
            format!("select twilio.fetch_media({inbound})"),
            format!("select twilio.acknowledge_inbound({inbound})"),
            "select * from twilio.reverify_rejected(20, 20)".into(),
            "select twilio.feed_tick()".into(),
            "select count(twilio.feed_ack('reader', r.event_id)) from twilio.feed_read('reader', 20) r".into(),
            "select count(twilio.feed_nack('reader', r.event_id, 'later')) from twilio.feed_read('reader', 3) r".into(),
            "select count(twilio.feed_release('reader', array[r.event_id])) from twilio.feed_read('reader', 3) r".into(),
            "select twilio_internal.purge_batch(0, twilio.now() - interval '30 days', false, 20)".into(),
            "select twilio_internal.redact_batch('-infinity', 0, twilio.now() - interval '30 days', null, true, 20)".into(),
            "select twilio_internal.purge_rejected_batch(twilio.now() - interval '90 days', 20)".into(),
            "select twilio_internal.expire_due(), twilio_internal.rescue_orphaned(), twilio_internal.next_due(), twilio_internal.next_smsgate(), twilio_internal.next_original_fetch(), \
             twilio_internal.next_media(), twilio_internal.next_timed_out(), twilio_internal.next_webhook(), twilio_internal.has_text()".into(),
            "select twilio_internal.next_reconciliation(), twilio_internal.next_sweep(), twilio_internal.examine_messages() \
             from twilio_internal.claim_reconciliation(10)".into(),
        ];
        if failed > 0 {
            self.has_retried = true;
            sqls.push(format!("select twilio.retry_message({failed})"));
        }
        for sql in sqls {
            client
                .batch_execute(&sql)
                .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
}

/// Many rows in every table that grows, most of which are over and some of which wait.
fn fill() -> String {
    let messages = sized(100_000, 400_000);
    FILL.replace("MESSAGES", &messages.to_string())
        .replace("ACCOUNT", ACCOUNT_SID)
        .replace("URL", PUBLIC_URL)
}

/// Statements that may read a whole table, each with that table: they count or sweep waiting rows every ten seconds or
/// at an administrator's request, and the table is only as large as the number of waiting rows, not as the log.
const WHOLE: [(&str, &str); 12] = [
    ("from twilio.queue_status", "outbox"),
    ("from twilio.sender_status", "outbox"),
    ("from twilio.sender_status", "outbox_sender_due"),
    ("from twilio.feed_lag", "feed_delivery"),
    ("from twilio.feed_lag", "feed_delivery_pkey"),
    ("from twilio.feed_lag", "feed_dead_letter"),
    ("from twilio.feed_lag", "feed_dead_letter_pkey"),
    ("count(*), min(o.due_at) filter", "outbox"),
    ("where x.lease_token is not null and (is_start", "outbox"),
    ("A late callback may have settled an open outcome", "outbox"),
    // Kept within the bounds of the quarantine.
    (
        "from twilio_internal.rejected_callback c",
        "rejected_callback",
    ),
    (
        "from twilio_internal.rejected_callback c",
        "rejected_callback_pkey",
    ),
];

const FILL: &str = include_str!("plans.sql");

/// The number of plans in a log, and the nodes that read too much, by statement.
fn look_at(log: &str) -> (usize, BTreeMap<String, Vec<String>>) {
    let mut seen = 0;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        // The test's own queries come from connections without a name.
        if !line.ends_with(" plan:") || line.contains("client backend/[unknown] ") {
            continue;
        }
        let (_, who) = line.split_once("] ").unwrap();
        let (who, _) = who.split_once(" LOG:").unwrap();
        let mut text = String::new();
        while let Some(more) = lines.next_if(|more| more.starts_with('\t')) {
            text.push_str(more);
        }
        let plan: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        seen += 1;
        let mut nodes = Vec::new();
        walk(&plan["Plan"], &mut nodes);
        let text = plan["Query Text"].as_str().unwrap_or_default();
        nodes.retain(|(relation, _)| {
            !WHOLE
                .iter()
                .any(|(part, whole)| text.contains(part) && relation == whole)
        });
        let context = lines
            .next_if(|more| more.contains(" CONTEXT:  "))
            .unwrap_or_default();
        let context = context.split(" CONTEXT:  ").nth(1).unwrap_or_default();
        // With a scan turned off, a plan that needs it seems so costly that PostgreSQL compiles it, at each call.
        if !plan["JIT"].is_null() && !context.is_empty() {
            nodes.push((String::new(), "compiled by JIT".to_owned()));
        }
        if !nodes.is_empty() {
            let query = plan["Query Text"].as_str().unwrap_or_default();
            let query: String = query.split_whitespace().collect::<Vec<_>>().join(" ");
            let query = format!("{context}: {query}");
            let known = found.entry(query).or_default();
            for (_, node) in nodes {
                let node = format!("{who}: {node}");
                if known.len() < 8 {
                    known.push(node);
                }
            }
        }
    }
    (seen, found)
}

/// The scans that read too much: of what, and how.
fn walk(node: &Value, found: &mut Vec<(String, String)>) {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let relation = (node["Relation Name"].as_str())
        .or(node["Index Name"].as_str())
        .unwrap_or_default();
    if kind.contains("Scan") && !kind.contains("Function") && !relation.starts_with("pg_") {
        let loops = number("Actual Loops");
        let rows = loops
            * (number("Actual Rows")
                + number("Rows Removed by Filter")
                + number("Rows Removed by Index Recheck"));
        let pages = number("Shared Hit Blocks") + number("Shared Read Blocks");
        // A look-up reads a few pages for a row; more are an index that is read from its begin to its end.
        // Rows that a function in the filter reads count elsewhere.
        let filter = node["Filter"].as_str().unwrap_or_default();
        let is_whole = node["Plans"].is_null()
            && !["twilio.", "twilio_internal."]
                .iter()
                .any(|schema| filter.contains(schema))
            && pages > PAGES * loops + 5.0 * rows;
        if rows > ROWS || is_whole {
            let said = format!(
                "{kind} of {relation} {} ({}): {rows} rows, {pages} pages; {} {}",
                node["Alias"].as_str().unwrap_or_default(),
                node["Index Name"].as_str().unwrap_or_default(),
                node["Index Cond"].as_str().unwrap_or_default(),
                filter,
            );
            found.push((relation.to_owned(), said));
        }
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, found);
    }
}
