//! A dump restores into a new cluster with every row and edit; the copy goes on where the original was,
//! and sends nothing until `enable_sending()` is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use end_to_end::client::callback::{self, INBOUND_PATH, STATUS_PATH, sid};
use end_to_end::client::load::send_until;
use end_to_end::client::request::Request;
use end_to_end::peer::recorder::Recorder;
use end_to_end::peer::shim::Shim;
use end_to_end::peer::signer;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, FRONT_ROLE};
use end_to_end::server::environment::{as_postgres, fresh_directory, postgres_program};
use end_to_end::server::outbox::{is_worker_running, start_worker};
use end_to_end::server::process::run;
use end_to_end::wait::holds_within;
use postgres::Client;

/// Tables that a copy must not take over, since they are about the old cluster or its switch.
const NOT_DUMPED: [&str; 7] = [
    "twilio_internal.feed_position",
    "twilio_internal.feed_state",
    "twilio_internal.open_gap",
    "twilio_internal.reconciliation_mark",
    "twilio_internal.sending",
    "twilio_internal.tick",
    "twilio_internal.worker",
];

#[test]
fn a_dump_restores_into_a_new_cluster() {
    let (old, new) = (
        Cluster::start(&Options::default()),
        Cluster::start(&Options::default()),
    );
    let original = old.database();
    populate(&original);
    let dumped = tables(&original, true);
    let empty: Vec<_> = dumped
        .iter()
        .filter(|(_, rows)| rows.is_empty())
        .map(|(name, _)| name)
        .collect();
    assert!(
        empty.is_empty(),
        "{empty:?} are empty: let populate fill them"
    );
    let left_out = tables(&original, false);
    assert_eq!(left_out.keys().collect::<Vec<_>>(), NOT_DUMPED.each_ref());
    let numbers = sequences(&original);

    let copy = new.bare_database();
    // Roles are the cluster's, and a dump of a database grants to them.
    copy.connect()
        .batch_execute("create role front login")
        .unwrap();
    restore(&dump(&original), &copy);
    for (name, rows) in &tables(&copy, true) {
        assert_eq!(rows, &dumped[name], "rows of {name}");
    }
    assert_eq!(tables(&copy, true).len(), dumped.len());
    for (name, rows) in &tables(&copy, false) {
        assert!(rows.is_empty(), "{name} was restored: {rows:?}");
    }
    assert_eq!(sequences(&copy), numbers);
    let indexes = "select string_agg(indexdef, E'\n' order by indexdef) from pg_indexes where schemaname like 'twilio%'";
    assert_eq!(
        copy.value::<String>(indexes, &[]),
        original.value::<String>(indexes, &[])
    );
    assert_eq!(
        copy.value::<i64>("select count(*) from twilio.replay()", &[]),
        0
    );

    let row = "select http_status from twilio.receive(array['POST'], array['/'], array[''], array[''::bytea], array[null])";
    assert_eq!(copy.value::<i32>(row, &[]), 403);
    check_sending(&original, &copy);
    check_purged(&copy);
    check_next_rows(&original, &copy);
    check_feed(&copy);
    check_reader(&copy);
    old.assert_no_errors();
    new.assert_no_errors();
}

#[test]
fn a_restored_copy_makes_no_request_whatever_is_called_before_enable_sending() {
    check_silence("", &KINDS);
}

#[test]
fn a_restored_copy_whose_outbox_is_empty_makes_no_request_either() {
    let kinds = [
        "create",
        "fetch of a file",
        "list of a day",
        "original of a fallback, or state",
        "state at a phone",
        "webhook",
    ];
    check_silence("delete from twilio_internal.outbox", &kinds);
}

#[test]
fn parallel_restores_of_a_dump_under_load_are_complete() {
    let (old, new) = (
        Cluster::start(&Options::default()),
        Cluster::start(&Options::default()),
    );
    let original = old.database();
    populate(&original);
    add_referring_rows(&original);
    let shim = Shim::start(&original, &[]);
    let address = shim.address();
    let is_over = AtomicBool::new(false);
    let make = |n: usize| callback::signed_status(&sid(1000 + n), "sent", None);
    let (dumped, files) = thread::scope(|scope| {
        let load = scope.spawn(|| send_until(&is_over, &address, 2, make));
        // Both dumps and the comparison see one moment, whatever comes in meanwhile.
        let mut client = original.connect();
        client
            .batch_execute("begin isolation level repeatable read")
            .unwrap();
        let snapshot: String = client
            .query_one("select pg_export_snapshot()", &[])
            .unwrap()
            .get(0);
        let files = [&["-Fc"][..], &["-Fd", "-j", "2"]].map(|format| {
            let path = fresh_directory().join("dump");
            let mut command = of_postgres("pg_dump", &original);
            command.args(format).arg("--file").arg(&path);
            command.args(["--snapshot", &snapshot, original.name()]);
            // pg_dump runs under the server's account.
            fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
            run(command);
            path
        });
        let dumped = tables_seen_by(&mut client, true);
        is_over.store(true, Ordering::Release);
        let taken = load.join().unwrap();
        assert!(taken.iter().any(|(_, answer)| answer.is_ok()));
        (dumped, files)
    });
    for (name, rows) in &dumped {
        assert!(!rows.is_empty(), "{name} is empty: let populate fill it");
    }
    new.bare_database()
        .connect()
        .batch_execute("create role front login")
        .unwrap();
    for (file, jobs) in [(0, "1"), (0, "2"), (0, "8"), (1, "2"), (1, "8"), (1, "8")] {
        let copy = new.bare_database();
        let mut command = of_postgres("pg_restore", &copy);
        command.args(["--exit-on-error", "--jobs", jobs, "--dbname", copy.name()]);
        command.arg(&files[file]);
        run(command);
        for (name, rows) in &tables(&copy, true) {
            assert!(
                rows == &dumped[name],
                "{name} has {} rows after --jobs {jobs}, not {}",
                rows.len(),
                dumped[name].len()
            );
        }
        check_orphans(&copy);
    }
    new.assert_no_errors();
}

/// Adds so many referring rows that one table is restored while another is still being filled.
fn add_referring_rows(database: &Database<'_>) {
    let sql = "select twilio.send_message('+1202555' || to_char(n, 'FM0000'), 'one of many') from generate_series(1000, 3000) n; \
        insert into twilio.reply (message_id, rule_id, twiml) \
            select message_id, 1, '' from twilio.message where body = 'one of many'; \
        insert into twilio_internal.feed_delivery (consumer, event_id, due_at) \
            select 'reader', -n, now() from generate_series(1, 5000) n";
    database.connect().batch_execute(sql).unwrap();
}

/// Checks that the doctor reports missing rows as long as the database is a copy.
fn check_orphans(copy: &Database<'_>) {
    let verdict =
        "select verdict || ': ' || detail from twilio.doctor() where \"check\" = 'references'";
    let mut client = copy.connect();
    let mut verdict = || -> String { client.query_one(verdict, &[]).unwrap().get(0) };
    assert_eq!(verdict(), "ok: all rows that others refer to are here");
    let mut other = copy.connect();
    // Deletes a row without triggers, as if a failed restore had left it out.
    other
        .batch_execute(
            "set session_replication_role = replica; delete from twilio.sender where address = '+12025550100'",
        )
        .unwrap();
    let found = verdict();
    assert!(
        found.starts_with("error: references are broken: ")
            && found.contains(" of \"outbox\" refer to missing rows of \"sender\""),
        "{found}"
    );
}

/// Restores a copy after such a change, has it make no request whatever is called, and then requests of these kinds.
fn check_silence(change: &str, kinds: &[&str]) {
    let options = Options {
        lines: &[
            "shared_preload_libraries = 'twilio_callback'",
            "twilio_callback.fetch_media = on",
            "twilio_callback.check_media = on",
        ],
        ..Options::default()
    };
    let (old, new) = (
        Cluster::start(&Options::default()),
        Cluster::start(&options),
    );
    let original = old.database();
    populate(&original);
    // All that the copy could ask is this one server, and it has something to ask it of every kind.
    let asked = Recorder::answering(|_| {
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned()
    });
    make_due(&original, &asked.url());
    let empty: Vec<_> = tables(&original, true)
        .into_iter()
        .filter_map(|(name, rows)| rows.is_empty().then_some(name))
        .collect();
    assert!(empty.is_empty(), "nothing in {empty:?}");
    original.connect().batch_execute(change).unwrap();

    let copy = new.bare_database();
    copy.connect()
        .batch_execute("create role front login")
        .unwrap();
    restore(&dump(&original), &copy);
    let mut client = copy.connect();
    for call in calls(&asked.url()) {
        client
            .batch_execute(&call)
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    check_all_are_called(&copy, &asked.url());
    start_worker(&copy);
    let is_asked = || !asked.take().is_empty();
    let silence = Duration::from_secs(sized(15, 60));
    assert!(!holds_within(silence, is_asked), "the copy made a request");
    assert!(is_worker_running(&copy));

    // The same copy asks for each of these once it is to: nothing but the switch kept it.
    client
        .batch_execute("select twilio.enable_sending()")
        .unwrap();
    let mut seen = BTreeSet::new();
    holds_within(Duration::from_secs(60), || {
        seen.extend(asked.take().iter().filter_map(kind));
        seen.len() == kinds.len()
    });
    assert_eq!(Vec::from_iter(seen), kinds);
}

/// The kinds of requests, in the order of the alphabet.
const KINDS: [&str; 9] = [
    "create",
    "fetch of a file",
    "list of a day",
    "look at a file",
    "look-up",
    "original of a fallback, or state",
    "phone's message",
    "state at a phone",
    "webhook",
];

fn kind(request: &Request) -> Option<&'static str> {
    let target = request.target.as_str();
    let path = target.split('?').next().unwrap_or_default();
    match request.method.as_str() {
        "HEAD" => Some("look at a file"),
        "POST" if path.ends_with("/Messages.json") => Some("create"),
        "GET" if target.contains("/Messages.json?DateSent=") => Some("list of a day"),
        "GET" if path.ends_with("/Messages.json") => Some("look-up"),
        "GET" if path.ends_with("/photo") => Some("fetch of a file"),
        "GET" if path.contains("/Messages/") => Some("original of a fallback, or state"),
        "POST" if path.contains("/webhooks") => Some("webhook"),
        "POST" if path.contains("/messages") => Some("phone's message"),
        "GET" if path.contains("/messages/") => Some("state at a phone"),
        _ => None,
    }
}

/// Points everything at one server and lets everything be due, so that a copy that asked would do so at once.
fn make_due(database: &Database<'_>, url: &str) {
    let sql = format!(
        "select twilio.resume_account('AC000000000000000000000000000000ff'), twilio_internal.pause_account('AC000000000000000000000000000000ff'), \
             twilio.send_message('+12025550144', 'by phone', from_address => '+12025550160'); \
         update twilio.account set api_url = '{url}'; \
         update twilio.smsgate set base_url = '{url}/gateway'; \
         update twilio.message set media_urls = array['{url}/picture'] where media_urls is not null and direction = 'outbound'; \
         insert into twilio.message_media (message_id, place, url, due_at) \
         select message_id, 1, '{url}/photo', now() from twilio.message where media_urls is not null and direction = 'inbound'; \
         insert into twilio_internal.smsgate_message (message_id, sender_id, device_id, is_open, due_at) \
         select m.message_id, g.sender_id, 'a-phone', true, now() from twilio.message m, twilio.smsgate g \
         where m.to_address = '+12025550140'; \
         update twilio.smsgate_webhook set due_at = now(); \
         update twilio_internal.fallback_watch set due_at = now(); \
         update twilio_internal.fallback set due_at = now() where is_preparing; \
         update twilio_internal.outbox set due_at = now() where lease_token is null and due_at < 'infinity'"
    );
    database.connect().batch_execute(&sql).unwrap();
}

/// A call of every function that users or their roles call, but for enable_sending.
fn calls(url: &str) -> Vec<String> {
    let account = "AC00000000000000000000000000000e2e";
    let other = "AC000000000000000000000000000000aa";
    let outbound = "(select max(message_id) from twilio.message where direction = 'outbound')";
    let inbound = "(select max(message_id) from twilio.message where direction = 'inbound')";
    let text = CALLS
        .replace("URL", url)
        .replace("ACCOUNT", account)
        .replace("OTHER", other)
        .replace("OUTBOUND", outbound)
        .replace("INBOUND", inbound);
    text.split(";\n")
        .map(|call| call.trim().to_owned())
        .filter(|call| !call.is_empty())
        .collect()
}

/// Every function of ours that README or the pages below docs name, or that a role may execute, is among the calls.
fn check_all_are_called(database: &Database<'_>, url: &str) {
    let called = calls(url).join("\n");
    let sql = "select distinct p.proname::text, exists (select from aclexplode(p.proacl) a where a.grantee <> p.proowner) \
        from pg_proc p where p.pronamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace, 'twilio_api'::regnamespace)";
    let named = documented();
    let rows = database.connect().query(sql, &[]).unwrap();
    let missing: Vec<String> = rows
        .iter()
        .map(|row| (row.get::<_, String>(0), row.get::<_, bool>(1)))
        .filter(|(name, is_granted)| *is_granted || named.contains(name))
        .map(|(name, _)| name)
        .filter(|name| name != "enable_sending")
        .filter(|name| {
            !["twilio.", "twilio_internal.", "twilio_api."]
                .iter()
                .any(|schema| called.contains(&format!("{schema}{name}(")))
        })
        .collect();
    assert!(missing.is_empty(), "CALLS lacks {missing:?}");
}

/// The names that README and the pages below docs write as functions.
fn documented() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pages = fs::read_dir(root.join("docs")).unwrap();
    let pages = pages.map(|entry| entry.unwrap().path());
    let text = pages
        .chain([root.join("README.md")])
        .map(fs::read_to_string);
    let text: String = text.map(Result::unwrap).collect();
    let calls = text.split('(').map(|before| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        before.rsplit(|c| !is_part(c)).next().unwrap_or_default()
    });
    calls.map(str::to_owned).collect()
}

const CALLS: &str = "
select twilio.grant_front('front');
create role copy_read;
create role copy_send;
create role copy_relay;
create role copy_admin;
select twilio.grant_read('copy_read'), twilio.grant_send('copy_send'), twilio.grant_relay('copy_relay'), twilio.grant_admin('copy_admin');
select twilio.add_account('OTHER', 'a secret', 'https://other.example.com', 'SK00000000000000000000000000000001', 'its secret', 'URL');
select twilio.add_account('ACCOUNT', '0123456789abcdef0123456789abcdef', api_url => 'URL');
do $$ begin perform twilio_internal.upsert_account('OTHER', null); exception when object_not_in_prerequisite_state then null; end $$;
do $$ begin perform twilio.accept_rejected(0); exception when no_data_found then null; end $$;
select twilio.add_consent_keywords('de'), twilio.language_keywords(), twilio_internal.bare_word('x'), twilio_internal.consent_word('x'), twilio_internal.is_typed('{}'), twilio_internal.is_toll_free('+18005550100'), twilio_internal.consent_of(null, null, 'x', '{}');
select twilio.person_key('+12025550123', null), twilio.normalize_number('+12025550123'), twilio_internal.provider_error_text('{}');
select twilio.add_smsgate('another', 'password', base_url => 'URL/gateway', from_address => '+12025550161');
select twilio.add_smsgate_key('a key', 'a-phone'), twilio.retire_smsgate_key('a-phone');
select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate'), twilio.withdraw_smsgate_webhooks('https://elsewhere.example.com/smsgate');
select twilio.add_public_url('https://more.example.com'), twilio.add_shared_key('OTHER', 'k', 'secret'), twilio.retire_signing_key('OTHER', 'k');
select twilio.rotate_auth_token('OTHER', 'another secret');
select twilio.add_sender('+12025550102', account_sid => 'OTHER'), twilio.resume_account('ACCOUNT');
select twilio_internal.pause_account('OTHER'), twilio.resume_account('OTHER'), twilio.resume_account('AC000000000000000000000000000000ff');
select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate();
select twilio.add_fallback_rule('copied', from_channel => 'sms'), twilio.set_fallback_text('copied', 'public.tell_time'), twilio.disable_fallback('copied');
select * from twilio.estimate('three', '+12025550142', '+12025550100');
select twilio.send_message('+12025550142', 'three', from_address => '+12025550100');
select twilio.cancel_message(twilio.send_message('+12025550143', 'four', from_address => '+12025550100', send_at => now() + interval '1 hour'));
select twilio.simulate_callback(OUTBOUND, 'failed', 30003);
select twilio.retry_message(message_id) from twilio.message where message_sid is not null and direction = 'outbound' and status = 'failed' and body is not null limit 1;
select twilio.reconcile(), twilio.sweep_messages('2020-01-01');
select twilio.resolve_unknown(message_id, 'give_up') from twilio.unknown_message limit 1;
select twilio.explain_fallback(OUTBOUND), twilio.block('+12025550190'), twilio.unblock('+12025550190');
select twilio.acknowledged(array[INBOUND]), twilio.acknowledge_inbound(INBOUND), twilio.answer(array[INBOUND]), twilio.require_acknowledgement('+12025550109');
select twilio.fetch_media(INBOUND), twilio.store_media((select message_id from twilio.message_media where fetched_at is not null), 0, '', 'text/plain');
select twilio.add_reply_rule(body => 'x', keyword => 'y'), twilio.twiml_message('x');
select twilio.create_consumer('new'), twilio.create_consumer('dropped'), twilio.feed_tick(true);
select twilio.drop_consumer('dropped');
select twilio.feed_ack('reader', event_id), twilio.feed_nack('reader', event_id, 'no'), twilio.feed_release('reader', array[event_id]) from twilio.feed_read('reader', 1);
call twilio.run_handlers(10);
select * from twilio.receive(array['POST'], array['/'], array[''], array[''::bytea], array[null]);
select * from twilio.sms_callback('/', '', null);
select * from twilio.smsgate_receive(array[''], array[''::bytea], array[null]);
select * from twilio.smsgate_callback('', null, null);
select twilio_api.sms_callback(''::bytea), twilio_api.sms_inbound(''::bytea), twilio_api.events(''::bytea);
select * from twilio.receive_events('', '', null);
select twilio.add_event_sink('AC00000000000000000000000000000e2e'), twilio.remove_event_sink();
select * from twilio.reverify_rejected();
select * from twilio.explain_rejected((select max(rejected_id) from twilio_internal.rejected_callback));
select twilio.set_quarantine(true, max_rows => 100), twilio.lost_requests(), twilio.acknowledge_losses();
select * from twilio.replay();
select * from twilio.find_messages('+12025550123');
select * from twilio.doctor();
select twilio.status_callback_url(), twilio.compute_signature('https://a.example', '', 'x'), twilio.verify_signature('https://a.example', '', 'x', 'x'), twilio.parse_form('a=b');
select twilio_internal.default_error_class(30003), twilio_internal.default_error_code(), twilio_internal.default_error_text(30003), twilio_internal.error_text(30003), twilio_internal.error_class(30003);
select twilio_internal.status_kind('twilio', 'sent'), twilio_internal.status_rank('twilio', 'sent'), twilio_internal.bare_address('rcs:x'), twilio_internal.default_consent_action('stop'), twilio_internal.consent_action(null, 'stop');
select twilio_internal.may_have_been_sent(OUTBOUND), twilio_internal.first_attempt_id(now()), twilio_internal.has_reached(m, 'delivered'), twilio_internal.is_reconcilable(m), twilio_internal.reconcile_after(), twilio_internal.matches(m, null, null, null, null, null, null, null, null, null) from twilio.message m;
select twilio.version(), twilio.now(), twilio_internal.sees_all(), twilio_internal.seen_accounts(), twilio.is_copy(), twilio.is_sending(), twilio_internal.is_worker_running(), twilio_internal.worker_lock_holder();
call twilio.purge('100 years', include_rejected => true);
call twilio.redact('100 years');
call twilio_internal.disable_synchronous_commit();
call twilio_internal.throttle(now(), 1);
select twilio_internal.check_age('1 year', 100, 0.5), twilio_internal.next_batch_rows(100, '1 s', 1000);
select twilio_internal.purge_batch(0, '2000-01-01', false, 10), twilio_internal.purge_rejected_batch('2000-01-01', 10), twilio_internal.purge_event_batch('2000-01-01', 10), twilio_internal.redact_event_batch(0, '2000-01-01', 10), twilio_internal.redact_batch('-infinity', 0, '2000-01-01', null, true, 10), twilio_internal.must_examine_all('+12025550123');
select twilio_internal.redact_rejected_batch(0, '2000-01-01', null, 10), twilio_internal.redact_feed('2000-01-01', null);
select twilio.start_worker();
select twilio.stop_worker();
select twilio.start_worker();
begin;
select twilio.disable_sending();
rollback;
select twilio.add_account('OTHER', 'yet another secret')
";

/// Puts something into every table that a dump holds, through the functions that users call.
fn populate(database: &Database<'_>) {
    let shim = Shim::start(database, &[]);
    database.connect().batch_execute(BEFORE).unwrap();
    assert_eq!(shim.send(&purged_message()).status, 200);
    (database.connect())
        .batch_execute("call twilio.purge('0 s', include_pending => true)")
        .unwrap();
    for (number, status, code) in [
        (1, "sent", None),
        (1, "delivered", None),
        (2, "failed", Some(30003)),
        (3, "beamed", None),
    ] {
        let request = callback::signed_status(&sid(number), status, code);
        assert_eq!(shim.send(&request).status, 204);
    }
    // Its fallback waits for Twilio's answer about the original.
    let (from, to) = ("whatsapp:+12025550100", "whatsapp:+12025550150");
    let pairs = callback::status_between(&sid(4), "failed", Some(63049), from, to);
    let request = Request::form(STATUS_PATH, &pairs).signed();
    assert_eq!(shim.send(&request).status, 204);
    // They are not acknowledged within their one millisecond.
    for (number, body) in [(10, "time"), (11, "STOP")] {
        let request = callback::signed_inbound(&sid(number), body);
        assert_eq!(shim.send(&request).status, 503);
    }
    assert_eq!(
        shim.send(&Request::form(
            INBOUND_PATH,
            &callback::inbound(&sid(12), "x")
        ))
        .status,
        403
    );
    let mut photo = callback::inbound(&sid(13), "a photo");
    callback::set(&mut photo, "To", "+12025550177");
    callback::set(&mut photo, "NumMedia", "1");
    callback::set(&mut photo, "MediaUrl0", "https://api.twilio.com/photo");
    let request = Request::form(INBOUND_PATH, &photo).signed();
    assert_eq!(shim.send(&request).status, 200);
    let alert = format!(
        r#""sid":"NO{:032x}","level":"ERROR","account_sid":"{ACCOUNT_SID}""#,
        1
    );
    for (kind, data) in [
        ("com.twilio.x", format!(r#""accountSid":"{ACCOUNT_SID}""#)),
        ("com.twilio.error-logs.error.logged", alert),
    ] {
        let body =
            format!(r#"{{"specversion":"1.0","type":"{kind}","id":"{kind}","data":{{{data}}}}}"#);
        assert_eq!(shim.send(&signer::events(&[body])[0]).status, 204);
    }
    let mut client = database.connect();
    client.batch_execute(AFTER).unwrap();
    let read = "select event_id from twilio.feed_read('reader', 2)";
    client
        .batch_execute("select twilio.feed_tick(true)")
        .unwrap();
    assert_eq!(client.query(read, &[]).unwrap().len(), 2);
}

/// Purged before the dump.
fn purged_message() -> Request {
    let mut pairs = callback::inbound(&sid(20), "START");
    callback::set(&mut pairs, "To", "+12025550177");
    Request::form(INBOUND_PATH, &pairs).signed()
}

const BEFORE: &str = "
    create function public.tell_time(event jsonb) returns text language sql as $$ select 'late' $$;
    select twilio.add_account('AC000000000000000000000000000000ff', 'another secret');
    select twilio.add_reply_rule(function => 'public.tell_time', keyword => 'time');
    select twilio.require_acknowledgement('+12025550100', wait_ms => 1);
    select twilio.create_consumer('reader', from_start => true);
    select twilio.create_consumer('fussy', from_start => true, max_tries => 1);
    select twilio.add_sender('+12025550100', account_sid => 'AC00000000000000000000000000000e2e', rate_per_second => 7);
    select twilio.add_smsgate('phone', 'a phone''s password', signing_key => 'a phone''s key', from_address => '+12025550160',
        passphrase => 'a phone''s passphrase');
    select twilio.register_smsgate_webhooks();
    select twilio.add_event_sink('AC00000000000000000000000000000e2e');
    select twilio.enable_whatsapp_to_sms();
    select twilio.add_fallback_rule('late', from_channel => 'sms', recipient_prefix => '+12025550140', no_success_within => '2 hours');
    select twilio.grant_read('front', 'AC00000000000000000000000000000e2e');
    insert into twilio.error_code_override (error_code, meaning) values (30003, 'phone off');
    insert into twilio.number_zone values ('+1202', '{America/New_York,America/Chicago}');
    insert into twilio.consent_keyword (account_sid, keyword, action) values (null, 'basta', 'stop');
    insert into twilio.consent_scope values ('AC00000000000000000000000000000e2e', 'everywhere')";

const AFTER: &str = "
    update twilio.quarantine set max_rows = 77, max_bytes = 7777, rows_per_second = 7.5, burst_rows = 7;
    select twilio.block('+12025550199', 'asked by phone');
    select twilio.send_message('+12025550140', 'one', metadata => '{\"a\": \"ü\"}', idempotency_key => 'k-1',
        not_before => '08:00', time_zone => 'America/Denver', purpose => 'otp');
    select count(*) from twilio_internal.claim(1);
    select twilio.send_message('+12025550141', E'two\\n\\\\. \\t', media_urls => array['https://a.example/1', 'https://a.example/b,c?d={}']);
    select twilio.send_message('+12025550143', 'by phone', from_address => '+12025550160');
    select count(twilio_internal.store_encrypted(message_id, version, '$number', '$text')) from twilio_internal.claim_smsgate(1);
    insert into twilio.message_media (message_id, place, url, content_type, content, fetched_at)
    select message_id, 0, media_urls[1], 'image/png', '\\x00ff0a5c', twilio.now()
    from twilio.message
    where media_urls is not null and direction = 'inbound';
    select twilio_internal.pause_account('AC000000000000000000000000000000ff', 'unpaid', 20005);
    insert into twilio_internal.reconciliation (message_id, account_sid, due_at)
    select message_id, account_sid, twilio.now() from twilio.message where message_sid is not null limit 1;
    insert into twilio_internal.reconciliation_account (account_sid, next_at)
    select account_sid, twilio.now() from twilio.account limit 1;
    select twilio.sweep_messages('2020-01-01');
    select twilio.feed_tick(true);
    select twilio.feed_nack('fussy', r.event_id, 'no') from twilio.feed_read('fussy', 1) r";

/// The rows as text of each of the extension's tables that a dump holds, or that it does not.
fn tables(database: &Database<'_>, is_dumped: bool) -> BTreeMap<String, Vec<String>> {
    tables_seen_by(&mut database.connect(), is_dumped)
}

fn tables_seen_by(client: &mut Client, is_dumped: bool) -> BTreeMap<String, Vec<String>> {
    let sql = "select c.oid::regclass::text \
        from pg_extension x \
        join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = x.oid \
            and d.classid = 'pg_class'::regclass and d.deptype = 'e' \
        join pg_class c on c.oid = d.objid and c.relkind = 'r' \
        where x.extname = 'twilio_callback' and (c.oid = any (coalesce(x.extconfig, '{}'))) = $1";
    let names = client.query(sql, &[&is_dumped]).unwrap();
    let mut read = |name: &str| {
        let rows = client
            .query(&format!("select t::text from {name} t order by 1"), &[])
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    names
        .iter()
        .map(|row| (row.get(0), read(row.get(0))))
        .collect()
}

/// The last numbers of the sequences that a dump holds.
fn sequences(database: &Database<'_>) -> BTreeMap<String, String> {
    let mut client = database.connect();
    let sql = "select c.oid::regclass::text from pg_extension x \
        join pg_class c on c.oid = any (x.extconfig) and c.relkind = 'S' \
        where x.extname = 'twilio_callback'";
    let names = client.query(sql, &[]).unwrap();
    let mut read = |name: &str| {
        let sql = format!("select last_value::text || is_called from {name}");
        client.query_one(&sql, &[]).unwrap().get(0)
    };
    names
        .iter()
        .map(|row| (row.get(0), read(row.get(0))))
        .collect()
}

/// One of PostgreSQL's programs, as the superuser of a database's cluster.
fn of_postgres(program: &str, database: &Database<'_>) -> Command {
    let mut command = as_postgres(postgres_program(program));
    command
        .arg("--host")
        .arg(database.cluster().socket_directory())
        .args(["--username", "postgres"])
        .current_dir("/");
    command
}

fn dump(database: &Database<'_>) -> PathBuf {
    let mut command = of_postgres("pg_dump", database);
    command.arg(database.name());
    let path = fresh_directory().join("dump.sql");
    fs::write(&path, run(command)).unwrap();
    path
}

fn restore(path: &std::path::Path, database: &Database<'_>) {
    let mut command = of_postgres("psql", database);
    command.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1"]);
    command.arg("--file").arg(path).arg(database.name());
    run(command);
}

/// The original goes on sending; the copy starts with `enable_sending()`, and not when the first account is added.
fn check_sending(original: &Database<'_>, copy: &Database<'_>) {
    let claim = "select (select count(*) from twilio_internal.claim(10)) + (select count(*) from twilio_internal.claim_smsgate(10)) \
        + (select count(*) from twilio_internal.claim_original_fetch(10))";
    assert_eq!(copy.value::<i64>(claim, &[]), 0);
    let sql = "select twilio.add_account('AC000000000000000000000000000000aa', 'a secret'), \
        twilio.send_message('+12025550142', 'three'), \
        twilio.add_sender('whatsapp:+12025550100', 'AC000000000000000000000000000000aa'), \
        twilio.block('+12025550177')";
    copy.connect().batch_execute(sql).unwrap();
    let on = "select count(*) from twilio_internal.sending where is_on";
    assert_eq!(copy.value::<i64>(on, &[]), 0, "only enable_sending does");
    assert_eq!(copy.value::<i64>(claim, &[]), 0);
    let attempts = "select count(*) from twilio_internal.attempt";
    assert_eq!(
        copy.value::<i64>(attempts, &[]),
        original.value::<i64>(attempts, &[])
    );
    copy.connect()
        .batch_execute("select twilio.enable_sending()")
        .unwrap();
    assert_eq!(copy.value::<i64>(claim, &[]), 3);
    assert_eq!(original.value::<i64>(claim, &[]), 2);
}

/// A message that was purged before the dump changes no consent in the copy.
fn check_purged(copy: &Database<'_>) {
    let shim = Shim::start(copy, &[]);
    assert_eq!(shim.send(&purged_message()).status, 200);
    let ended = "select count(*) from twilio.suppression where ended_at is not null";
    assert_eq!(copy.value::<i64>(ended, &[]), 0);
}

/// A role that reads one account's messages sees no others in the copy.
fn check_reader(copy: &Database<'_>) {
    let mut client = copy.connect();
    let sql = "update twilio.message set account_sid = null \
        where message_id = (select min(message_id) from twilio.message)";
    client.batch_execute(sql).unwrap();
    let mut count = |sql: &str| -> i64 { client.query_one(sql, &[]).unwrap().get(0) };
    let all = count("select count(*) from twilio.message");
    let own = count(
        "select count(*) from twilio.message \
        where account_sid = 'AC00000000000000000000000000000e2e'",
    );
    assert!(own < all);
    client.batch_execute("set role front").unwrap();
    let sql = "select count(*) from twilio.message";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), own);
}

/// New rows of the copy have new numbers, and the front may deliver requests.
fn check_next_rows(original: &Database<'_>, copy: &Database<'_>) {
    let newest = "select array[ \
        (select max(message_id) from twilio.message), \
        (select max(event_id) from (select event_id from twilio.message_event \
            union all select event_id from twilio_internal.feed_event) e), \
        (select max(rejected_id) from twilio_internal.rejected_callback), \
        (select max(suppression_id) from twilio.suppression), \
        (select max(sender_id) from twilio.sender), \
        (select max(rule_id) from twilio.reply_rule)]";
    let before: Vec<i64> = original.value(newest, &[]);
    let shim = Shim::start(copy, &[]);
    assert_eq!(
        shim.send(&callback::signed_status(&sid(1), "read", None))
            .status,
        204
    );
    assert_eq!(
        shim.send(&callback::signed_status(&sid(20), "sent", None))
            .status,
        204
    );
    // The rule that wants it acknowledged is there, too.
    assert_eq!(
        shim.send(&callback::signed_inbound(&sid(21), "BASTA"))
            .status,
        503
    );
    // A repeat of a callback that the original received is a repeat here too.
    let duplicate = callback::signed_status(&sid(1), "delivered", None);
    let events = copy.counts().0;
    assert_eq!(shim.send(&duplicate).status, 204);
    assert_eq!(copy.counts().0, events);
    let sql = "select twilio.block('+12025550198'), twilio.add_sender('+12025550101', \
            account_sid => 'AC00000000000000000000000000000e2e'), \
        twilio.add_reply_rule(body => 'x', keyword => 'y'); \
        update twilio.quarantine set max_rows = 1000, max_bytes = 100000, tokens = 10, burst_rows = 10";
    copy.connect().batch_execute(sql).unwrap();
    let unsigned = Request::form(INBOUND_PATH, &callback::inbound(&sid(22), "x"));
    assert_eq!(shim.send(&unsigned).status, 403);
    let after: Vec<i64> = copy.value(newest, &[]);
    for (before, after) in before.iter().zip(&after) {
        assert!(after > before, "{before} and then {after}");
    }
    let role: bool = copy.value("select has_function_privilege($1, 'twilio.receive(text[], text[], text[], bytea[], text[])', 'execute')", &[&FRONT_ROLE]);
    assert!(role);
    let status: String = copy.value(
        "select status from twilio.message where message_sid = $1",
        &[&sid(1)],
    );
    assert_eq!(status, "read");
}

/// A consumer misses nothing: what was read and not acknowledged, and what is new, comes again.
fn check_feed(copy: &Database<'_>) {
    let mut client = copy.connect();
    let mut seen = Vec::new();
    for _ in 0..100 {
        client
            .batch_execute(
                "select twilio.feed_tick(true); update twilio_internal.feed_delivery set due_at = now()",
            )
            .unwrap();
        let rows = client
            .query("select event_id from twilio.feed_read('reader', 100)", &[])
            .unwrap();
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        client
            .query("select twilio.feed_ack('reader', $1::bigint[])", &[&ids])
            .unwrap();
        let is_end = ids.is_empty() && !seen.is_empty();
        seen.extend(ids);
        if is_end {
            break;
        }
    }
    let missed = "select count(*) from twilio.feed_item where not event_id = any ($1)";
    assert_eq!(
        copy.value::<i64>(missed, &[&seen]),
        0,
        "events that a consumer misses"
    );
}
