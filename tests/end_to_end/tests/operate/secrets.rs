//! No log line, error, view or metric holds a stored secret or a signature, under any settings and whichever role calls
//! which function.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{
    ACCOUNT_SID, AUTH_TOKEN, Database, FRONT_ROLE, SHARED_KEY_SECRET,
};
use end_to_end::wait::wait_until;
use postgres::error::DbError;
use postgres::types::ToSql;
use postgres::{Client, NoTls};

#[test]
fn no_setting_prints_a_stored_secret_or_signature() {
    let cluster = Cluster::start(&PRINTER);
    let database = cluster.database();
    let markers = store(&database);
    turn_on(&cluster);
    let mut seen = cluster.read_log().len();
    // Each function is called once by each role that may, and the call leaves nothing behind.
    let public = functions(&database, false);
    let known: BTreeSet<_> = CALLS.iter().map(|(name, _)| *name).collect();
    let forgotten: Vec<_> = public
        .iter()
        .filter(|f| !known.contains(f.name.as_str()))
        .collect();
    assert!(forgotten.is_empty(), "CALLS lacks {forgotten:?}");
    for role in ROLES {
        let noise = Noise::default();
        let mut client = noise.connect(&database, role);
        client.batch_execute(SESSION).unwrap();
        let mut done = 0;
        let all = functions(&database, *role == "postgres");
        for function in all.iter().filter(|f| f.roles.contains(&(*role).to_owned())) {
            for call in function.calls() {
                // An error is as good: it is printed like all else.
                let result = client.batch_execute(&format!("begin; {call}; rollback"));
                if result.is_err() {
                    client.batch_execute("rollback").unwrap();
                }
                noise.check(&markers, &format!("{role}: {call}"), result.err());
                done += 1;
            }
        }
        assert!(done > 5, "{role} has called {done}");
        check_log(&cluster, &mut seen, &markers, role);
    }
    // Procedures commit, so what they do stays.
    let noise = Noise::default();
    let mut client = noise.connect(&database, "admin");
    client.batch_execute(SESSION).unwrap();
    for call in [
        "call twilio.redact('1 s')",
        "call twilio.purge('1 s', include_rejected => true)",
    ] {
        let result = client.batch_execute(call);
        noise.check(&markers, call, result.err());
    }
    check_log(&cluster, &mut seen, &markers, "procedures");
}

#[test]
fn the_worker_prints_no_secret() {
    let cluster = Cluster::start(&PRINTER);
    let database = cluster.database();
    let markers = store(&database);
    let mut client = database.connect();
    client
        .batch_execute(
            "select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate')",
        )
        .unwrap();
    turn_on(&cluster);
    let mut seen = cluster.read_log().len();
    client
        .batch_execute("select twilio.start_worker()")
        .unwrap();
    let tried = "select (select count(distinct message_id) = 2 from twilio_internal.attempt where finished_at is not null) \
                 and exists (select from twilio.smsgate_webhook where problem is not null)";
    wait_until(Duration::from_secs(60), "all to be tried", || {
        database.value(tried, &[])
    });
    client.batch_execute("select twilio.stop_worker()").unwrap();
    let log = flat(cluster.read_log().get(seen..).unwrap());
    for call in [
        "twilio_internal.claim_smsgate($1",
        "twilio_internal.claim_webhook($1",
        "twilio_internal.store_encrypted($1",
        "twilio_internal.finish_smsgate($1",
    ] {
        assert!(
            log.contains(call),
            "the worker's statements are printed: {call}"
        );
    }
    check_log(&cluster, &mut seen, &markers, "the worker");
}

#[test]
fn a_secret_argument_is_printed_in_nothing_but_the_callers_own_statement() {
    let cluster = Cluster::start(&PRINTER);
    let database = cluster.database();
    store(&database);
    turn_on(&cluster);
    let marker = "GIVEN-SECRET-MARKER";
    let markers = [Marker::new(marker)];
    let mut seen = cluster.read_log().len();
    for (is_generic, role) in [
        (true, "admin"),
        (true, "postgres"),
        (false, "admin"),
        (false, "postgres"),
    ] {
        let noise = Noise::default();
        let mut client = noise.connect(&database, role);
        let mode = if is_generic {
            "force_generic_plan"
        } else {
            "force_custom_plan"
        };
        // A superuser can keep even their own statements out of the log.
        let quiet = if role == "postgres" {
            "set log_parameter_max_length = 0; set log_parameter_max_length_on_error = 0;"
        } else {
            ""
        };
        client
            .batch_execute(&format!("{quiet} {SESSION}; set plan_cache_mode = {mode}"))
            .unwrap();
        for call in GIVING {
            client.batch_execute("begin").unwrap();
            let parameters: Vec<&(dyn ToSql + Sync)> = vec![&marker];
            let result = client.query(&format!("select twilio.{call}"), &parameters);
            client.batch_execute("rollback").unwrap();
            if let Some(error) = result.err() {
                let error = error.as_db_error().unwrap().clone();
                assert_ne!(error.code().code(), "42601", "{call}: {error}");
                assert!(!markers[0].is_in(&shown(&error)), "{call}: {error:?}");
            }
            for notice in noise.take() {
                let text = shown(&notice);
                let is_own = !is_generic && notice.where_().is_none();
                assert!(is_own || !markers[0].is_in(&text), "{role}: {call}: {text}");
            }
        }
        let log = log_since(&cluster, &mut seen);
        if is_generic {
            assert!(
                !markers[0].is_in(&log),
                "{role}: {}",
                around(&log, &markers[0])
            );
        }
    }
}

#[test]
fn requests_that_a_front_delivers_are_not_logged() {
    let cluster = Cluster::start(&PRINTER);
    let database = cluster.database();
    // As the operator does in each database.
    database
        .connect()
        .execute(&format!("select twilio.grant_front('{FRONT_ROLE}')"), &[])
        .unwrap();
    turn_on(&cluster);
    let mut seen = cluster.read_log().len();
    let signature = "SIGNATURE-OF-28-CHARACTERS-=";
    let body = format!(
        "MessageSid=SM{:032}&AccountSid={ACCOUNT_SID}&MessageStatus=sent&Body=TEXT-OF-A-PERSON",
        1
    );
    let headers = format!("x-twilio-signature: {signature}");
    let markers = [Marker::new(signature), Marker::new("TEXT-OF-A-PERSON")];
    for mode in ["force_generic_plan", "force_custom_plan"] {
        let noise = Noise::default();
        let mut client = noise.connect(&database, FRONT_ROLE);
        client
            .batch_execute(&format!("{SESSION}; set plan_cache_mode = {mode}"))
            .unwrap();
        let parameters: Vec<&(dyn ToSql + Sync)> = vec![&headers, &signature];
        let sql = "select r.reason, c.reason from twilio.receive('{POST}', '{/x}', array[$1::text], array[$3::bytea], '{x}') r, \
                   twilio.sms_callback('/x', $3, $2) c";
        let bytes = body.as_bytes();
        let mut parameters = parameters;
        parameters.push(&bytes);
        let row = client.query_one(sql, &parameters).unwrap();
        assert_eq!(row.get::<_, &str>(0), "signature does not match");
        let raise = "select twilio.receive('{}', array[$1::text, $2, convert_from($3, 'UTF8')], '{}', '{}', '{}')";
        client.query(raise, &parameters).unwrap_err();
        for notice in noise.take() {
            let text = shown(&notice);
            // Texts are not secret if the front itself asks for its plans.
            let is_own = mode == "force_custom_plan" && notice.where_().is_none();
            assert!(
                is_own || !markers[0].is_in(&text),
                "{}",
                around(&text, &markers[0])
            );
        }
        // The settings of this session print its own plans; the parameters are not the log's in any case.
        let log = log_since(&cluster, &mut seen);
        let own: Vec<_> = log
            .lines()
            .filter(|line| line.contains("parameters: "))
            .collect();
        assert!(own.iter().all(|line| !line.contains(signature)), "{own:?}");
        if mode == "force_generic_plan" {
            for marker in &markers {
                assert!(!marker.is_in(&log), "{}", around(&log, marker));
            }
        }
    }
    let kept: i64 = database.value(
        "select count(*) from twilio_internal.rejected_callback",
        &[],
    );
    assert_eq!(kept, 4);
}

/// Stores all that is secret while nothing is printed, and returns how it would look.
fn store(database: &Database<'_>) -> Vec<Marker> {
    let mut client = database.connect();
    let secrets = [
        "MARKER-AUTH-TOKEN",
        "MARKER-SHARED-KEY",
        "MARKER-API-KEY-SECRET",
        "MARKER-SECOND-TOKEN",
        "MARKER-PASSWORD",
        "MARKER-PASSPHRASE",
        "MARKER-KEY-OF-A-PHONE",
        "MARKER-KEY-OF-ANY-PHONE",
        "MARKER-RETIRED-TOKEN",
    ];
    let [
        token,
        shared,
        api,
        second,
        password,
        passphrase,
        phone,
        any,
        retired,
    ] = secrets;
    let signature = "MARKER-SIGNATURE-OF-TWILIO-=";
    client
        .batch_execute(&format!(
            "create role reader login; create role sender login; create role relay login; create role admin login; \
             select twilio.grant_front('front'), twilio.grant_read('reader'), twilio.grant_send('sender'), \
                 twilio.grant_relay('relay'), twilio.grant_admin('admin'); \
             select twilio.rotate_auth_token('{ACCOUNT_SID}', '{retired}'); \
             select twilio.rotate_auth_token('{ACCOUNT_SID}', '{token}'); \
             select twilio.retire_signing_key('{ACCOUNT_SID}', 'auth_token_2'); \
             select twilio.add_shared_key('{ACCOUNT_SID}', 'marked', '{shared}'); \
             select twilio.add_account('{ACCOUNT_SID}', '{token}', api_url => 'http://127.0.0.1:1'); \
             select twilio.add_account('{SECOND}', '{second}', api_key_sid => '{API_KEY}', api_key_secret => '{api}', api_url => 'http://127.0.0.1:1'); \
             select twilio.add_smsgate('user', '{password}', 'http://127.0.0.1:1', device_id => 'phone-1', \
                 signing_key => '{phone}', passphrase => '{passphrase}', iterations => 1000); \
             select twilio.add_smsgate_key('{any}'); \
             select twilio.add_sender('+12025550100', account_sid => '{ACCOUNT_SID}', is_default => true); \
             select twilio.send_message('+12025550123', 'text'); \
             select twilio.send_message('+12025550123', 'text', from_address => 'user/phone-1'); \
             select twilio.add_fallback_rule('late', from_channel => 'sms', no_success_within => '2 hours')"
        ))
        .unwrap();
    let mut markers: Vec<_> = secrets
        .into_iter()
        .chain([signature, AUTH_TOKEN, SHARED_KEY_SECRET])
        .map(Marker::new)
        .collect();
    // Signatures of our own: what doctor() may sign, and what was signed for another URL or with a retired key.
    let sign = "select twilio.compute_signature($1, $2, $3, algorithm => $4)";
    let mut sign = |url: &str, body: &str, secret: &str, algorithm: &str| {
        let row = client.query_one(sign, &[&url, &body.as_bytes(), &secret, &algorithm]);
        row.unwrap().get::<_, String>(0)
    };
    let body = |account: &str| {
        format!(
            "MessageSid=SM{:032}&AccountSid={account}&MessageStatus=sent",
            0
        )
    };
    for (account, secret, algorithm) in [
        (ACCOUNT_SID, token, "HMAC_SHA1"),
        (ACCOUNT_SID, AUTH_TOKEN, "HMAC_SHA1"),
        (ACCOUNT_SID, shared, "HMAC_SHA256"),
        (ACCOUNT_SID, SHARED_KEY_SECRET, "HMAC_SHA256"),
        (SECOND, second, "HMAC_SHA1"),
    ] {
        markers.push(Marker::new(&sign(
            "https://hooks.example.com/twilio/status",
            &body(account),
            secret,
            algorithm,
        )));
    }
    let elsewhere = sign(
        "https://other.example.com/x",
        &body(ACCOUNT_SID),
        token,
        "HMAC_SHA1",
    );
    let by_retired = sign(
        "https://hooks.example.com/x",
        &body(ACCOUNT_SID),
        retired,
        "HMAC_SHA1",
    );
    let good = sign(
        "https://hooks.example.com/x",
        &body(ACCOUNT_SID),
        token,
        "HMAC_SHA1",
    );
    let bytes = body(ACCOUNT_SID).into_bytes();
    for signature in [signature, &elsewhere, &by_retired] {
        let sql = "select http_status from twilio.sms_callback('/x', $1, $2)";
        let status: i32 = client.query_one(sql, &[&bytes, &signature]).unwrap().get(0);
        assert_eq!(status, 403);
    }
    markers.extend([&elsewhere, &by_retired, &good].map(|text| Marker::new(text)));
    // One that verifies once it is looked at again.
    client
        .execute(
            "insert into twilio_internal.rejected_callback (received_at, kind, reason, method, url, headers, body) \
             values (now(), 'callback', 'x', 'POST', '/x', 'x-twilio-signature: ' || $1::text, $2)",
            &[&good, &bytes],
        )
        .unwrap();
    let sql =
        "select http_status from twilio.smsgate_callback('{\"deviceId\": \"phone-1\"}', $1, '1')";
    let status: i32 = client
        .query_one(sql, &[&"MARKER-SIGNATURE-OF-A-PHONE"])
        .unwrap()
        .get(0);
    assert_eq!(status, 403);
    markers.push(Marker::new("MARKER-SIGNATURE-OF-A-PHONE"));
    markers
}

/// Has the server print whatever it can.
fn turn_on(cluster: &Cluster) {
    let mut client = cluster.connect("postgres");
    for line in SERVER {
        client
            .batch_execute(&format!("alter system set {line}"))
            .unwrap();
    }
    client.batch_execute("select pg_reload_conf()").unwrap();
    let is_on = "select setting = 'on' from pg_settings where name = 'debug_print_plan'";
    wait_until(Duration::from_secs(10), "the settings to count", || {
        let row = cluster.connect("postgres").query_one(is_on, &[]);
        row.unwrap().get(0)
    });
}

/// A text, and how it looks in a plan.
struct Marker {
    text: String,
    decimal: String,
    hexadecimal: String,
}

impl Marker {
    fn new(text: &str) -> Self {
        let (mut decimal, mut hexadecimal) = (String::new(), String::new());
        for byte in text.bytes() {
            write!(decimal, " {byte}").unwrap();
            write!(hexadecimal, "{byte:02x}").unwrap();
        }
        Self {
            text: text.to_owned(),
            decimal,
            hexadecimal,
        }
    }

    /// `printed` has single spaces only, see [`flat`].
    fn is_in(&self, printed: &str) -> bool {
        self.place(printed).is_some()
    }

    fn place(&self, printed: &str) -> Option<usize> {
        [&self.text, &self.decimal, &self.hexadecimal]
            .iter()
            .find_map(|form| printed.find(form.as_str()))
    }
}

/// Plans are printed over lines, each of which begins with blanks.
fn flat(text: &str) -> String {
    let mut flat = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            flat.push(' ');
        } else {
            flat.push('\n');
        }
        flat.push_str(line.trim());
    }
    flat
}

fn around(text: &str, marker: &Marker) -> String {
    let at = marker.place(text).unwrap_or(0);
    let mut from = at.saturating_sub(2000);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let mut to = (at + 500).min(text.len());
    while !text.is_char_boundary(to) {
        to += 1;
    }
    format!("{} is in: …{}…", marker.text, &text[from..to])
}

fn shown(error: &DbError) -> String {
    let parts = [
        Some(error.message()),
        error.detail(),
        error.hint(),
        error.where_(),
    ];
    flat(&parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

fn log_since(cluster: &Cluster, seen: &mut usize) -> String {
    let log = cluster.read_log();
    let new = flat(log.get(*seen..).unwrap_or_default());
    *seen = log.len();
    new
}

fn check_log(cluster: &Cluster, seen: &mut usize, markers: &[Marker], what: &str) {
    let log = log_since(cluster, seen);
    assert!(
        log.contains("PLANNEDSTMT") || log.contains("{PLANNEDSTMT"),
        "{what}: the settings count"
    );
    for marker in markers {
        assert!(!marker.is_in(&log), "{what}: {}", around(&log, marker));
    }
}

/// Notices that a client gets beside its answers.
#[derive(Default)]
struct Noise(Arc<Mutex<Vec<DbError>>>);

impl Noise {
    fn connect(&self, database: &Database<'_>, role: &str) -> Client {
        let mut config: postgres::Config = database.url(role).parse().unwrap();
        let heard = Arc::clone(&self.0);
        config.notice_callback(move |notice| heard.lock().unwrap().push(notice));
        config.connect(NoTls).unwrap()
    }

    fn take(&self) -> Vec<DbError> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn check(&self, markers: &[Marker], what: &str, error: Option<postgres::Error>) {
        let error = error.and_then(|error| error.as_db_error().cloned());
        for notice in self.take().into_iter().chain(error) {
            let text = shown(&notice);
            for marker in markers {
                assert!(!marker.is_in(&text), "{what}: {}", around(&text, marker));
            }
        }
    }
}

/// A function, and the roles that may execute it.
#[derive(Debug)]
struct Function {
    name: String,
    is_procedure: bool,
    arguments: Vec<String>,
    roles: Vec<String>,
}

/// The functions that roles other than the owner may call, or all.
fn functions(database: &Database<'_>, has_internal: bool) -> Vec<Function> {
    let sql = "select p.pronamespace::regnamespace || '.' || p.proname, p.prokind = 'p', \
                   array(select format_type(t.oid, null) from unnest(p.proargtypes) with ordinality t (oid, n) order by t.n), \
                   array(select r.name from unnest($1::text[]) r (name) where has_function_privilege(r.name, p.oid, 'execute')) \
               from pg_proc p \
               where p.pronamespace::regnamespace::text in ('twilio', 'twilio_internal', 'twilio_api') and p.prorettype <> 'trigger'::regtype \
               order by p.oid::regprocedure::text";
    let roles: Vec<_> = ROLES.to_vec();
    let rows = database.connect().query(sql, &[&roles]).unwrap();
    let all = rows.iter().map(|row| Function {
        name: row.get(0),
        is_procedure: row.get(1),
        arguments: row.get(2),
        roles: row.get(3),
    });
    let is_public = |f: &Function| f.roles.iter().any(|role| role != "postgres");
    all.filter(|f| has_internal || is_public(f)).collect()
}

impl Function {
    /// Statements that call it: with what is known of it, and with something of each type.
    fn calls(&self) -> Vec<String> {
        if self.is_procedure {
            return Vec::new();
        }
        let known = CALLS.iter().filter(|(name, _)| *name == self.name);
        let mut calls: Vec<_> = known
            .flat_map(|(name, calls)| {
                calls
                    .iter()
                    .map(move |arguments| format!("select * from {name}({arguments})"))
            })
            .collect();
        // Of these there is one process, or the caller would wait.
        if !["twilio_internal.launch_worker", "twilio.start_worker"].contains(&self.name.as_str()) {
            let sample = |kind: &String| {
                let value = match kind.as_str() {
                    "text" => "'x'",
                    "bytea" | "uuid" | "regrole" => "null",
                    "integer" | "bigint" | "smallint" | "real" | "double precision" => "'1'",
                    "boolean" => "'true'",
                    "jsonb" => "'{}'",
                    "interval" => "'1 hour'",
                    "timestamp with time zone" => "'2200-01-01'",
                    "bigint[]" | "integer[]" => "'{1,2,3,4,5}'",
                    "text[]" => "'{x}'",
                    _ => "null",
                };
                format!("{value}::{kind}")
            };
            let arguments: Vec<_> = self.arguments.iter().map(sample).collect();
            calls.push(format!(
                "select * from {}({})",
                self.name,
                arguments.join(", ")
            ));
        }
        calls
    }
}

/// An account that sends with an API key.
const SECOND: &str = "AC00000000000000000000000000000002";
const API_KEY: &str = "SK00000000000000000000000000000002";

const ROLES: &[&str] = &["front", "reader", "sender", "relay", "admin", "postgres"];

const PRINTER: Options = Options {
    fsync: false,
    lines: &[
        "shared_preload_libraries = 'auto_explain'",
        "max_worker_processes = 16",
    ],
};

const SERVER: &[&str] = &[
    "debug_print_parse = on",
    "debug_print_rewritten = on",
    "debug_print_plan = on",
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_nested_statements = on",
    "auto_explain.log_verbose = on",
    "auto_explain.log_analyze = on",
    "auto_explain.log_triggers = on",
    "log_statement = 'all'",
    "log_duration = on",
    "log_min_duration_statement = 0",
    "log_parameter_max_length = -1",
    "log_parameter_max_length_on_error = -1",
    "log_error_verbosity = 'verbose'",
    "log_min_messages = 'debug5'",
    "log_min_error_statement = 'debug5'",
];

/// Settings that every role may change.
const SESSION: &str = "set client_min_messages = debug5; set debug_print_parse = on; set debug_print_rewritten = on; \
    set debug_print_plan = on; set plan_cache_mode = force_custom_plan";

/// Calls that are given a secret, in its place and in others.
const GIVING: &[&str] = &[
    "add_account('AC00000000000000000000000000000003', $1)",
    "add_account('AC00000000000000000000000000000002', 'x', api_key_sid => 'SK00000000000000000000000000000003', api_key_secret => $1)",
    "add_account($1, 'AC00000000000000000000000000000003')",
    "add_account('AC00000000000000000000000000000003', 'x', public_url => $1)",
    "add_account('AC00000000000000000000000000000003', 'x', api_url => $1)",
    "add_account('AC00000000000000000000000000000003', 'x', api_key_sid => $1, api_key_secret => 'x')",
    "rotate_auth_token('AC00000000000000000000000000000002', $1)",
    "rotate_auth_token($1, 'AC00000000000000000000000000000002')",
    "add_shared_key('AC00000000000000000000000000000002', 'k', $1)",
    "add_shared_key('AC00000000000000000000000000000002', $1, 'k')",
    "add_shared_key($1, 'k', 'x')",
    "add_smsgate_key($1)",
    "add_smsgate_key('x', $1)",
    "add_smsgate('other', $1)",
    "add_smsgate($1, 'other')",
    "add_smsgate('other', 'x', $1)",
    "add_smsgate('other', 'x', device_id => 'phone-2', signing_key => $1)",
    "add_smsgate('other', 'x', device_id => $1)",
    "add_smsgate('other', 'x', from_address => $1)",
    "add_smsgate('other', 'x', passphrase => $1)",
    "add_smsgate('user', $1, device_id => 'phone-1', passphrase => $1, signing_key => $1, rate_per_second => -1)",
];

/// Arguments of the functions that roles may execute: what is stored is reached, and changed.
const CALLS: &[(&str, &[&str])] = &[
    ("twilio.accept_rejected", &["1"]),
    ("twilio.acknowledge_inbound", &["1"]),
    ("twilio.acknowledge_losses", &[""]),
    ("twilio.acknowledged", &["'{1}'"]),
    (
        "twilio.add_account",
        &[
            "'AC00000000000000000000000000000003', 'x'",
            "'AC00000000000000000000000000000e2e', 'x'",
            "'AC00000000000000000000000000000002', 'x', 'https://more.example.com', 'SK00000000000000000000000000000003', 'y'",
        ],
    ),
    ("twilio.add_consent_keywords", &["'de'", "'xx'"]),
    (
        "twilio.add_fallback_rule",
        &["'later', from_channel => 'sms', no_success_within => '3 hours'"],
    ),
    ("twilio.add_public_url", &["'https://other.example.com'"]),
    (
        "twilio.add_sender",
        &["'+12025550101', account_sid => 'AC00000000000000000000000000000e2e'"],
    ),
    (
        "twilio.add_shared_key",
        &[
            "'AC00000000000000000000000000000e2e', 'another', 'x'",
            "'AC00000000000000000000000000000e2e', 'marked', 'x'",
        ],
    ),
    (
        "twilio.add_smsgate",
        &[
            "'user', 'x', 'http://127.0.0.1:1', 'phone-1'",
            "'user', 'x', 'http://127.0.0.1:1', 'phone-1', passphrase => 'x'",
        ],
    ),
    ("twilio.add_smsgate_key", &["'x'", "'x', 'phone-1'"]),
    ("twilio.answer", &["'{1}'"]),
    ("twilio_internal.bare_address", &["'+12025550123'"]),
    ("twilio_internal.bare_word", &["'stop'"]),
    ("twilio.block", &["'+12025550123'"]),
    ("twilio.cancel_message", &["1"]),
    ("twilio_internal.check_age", &["'1 day', 1, 1"]),
    (
        "twilio.compute_signature",
        &["'https://hooks.example.com/x', 'x', 'x'"],
    ),
    (
        "twilio_internal.consent_action",
        &["'AC00000000000000000000000000000e2e', 'x', 'stop'"],
    ),
    ("twilio_internal.consent_of", &["'x', 'x', 'stop', '{}'"]),
    ("twilio_internal.consent_word", &["'stop'"]),
    ("twilio_internal.default_consent_action", &["'stop'"]),
    ("twilio_internal.default_error_class", &["63016"]),
    ("twilio_internal.default_error_code", &[""]),
    ("twilio_internal.default_error_text", &["63016"]),
    ("twilio.disable_fallback", &["'late'"]),
    ("twilio.disable_sending", &[""]),
    ("twilio.doctor", &[""]),
    ("twilio.enable_sending", &[""]),
    ("twilio.enable_sms_to_smsgate", &[""]),
    ("twilio.enable_whatsapp_to_sms", &[""]),
    (
        "twilio_internal.upsert_account",
        &["'AC00000000000000000000000000000002', null"],
    ),
    ("twilio_internal.error_class", &["63016"]),
    ("twilio_internal.error_text", &["63016"]),
    (
        "twilio.estimate",
        &["'text'", "'text', 'whatsapp:+12025550123'"],
    ),
    ("twilio.explain_fallback", &["1"]),
    ("twilio.explain_rejected", &["1", "2", "3", "4", "5"]),
    ("twilio.feed_ack", &["'relay', 1"]),
    ("twilio.feed_read", &["'relay', 1"]),
    ("twilio.feed_release", &["'relay', 1"]),
    ("twilio.fetch_media", &["1"]),
    (
        "twilio.find_messages",
        &["", "'+12025550123', max_rows => 0"],
    ),
    ("twilio_internal.first_attempt_id", &["now()"]),
    ("twilio_internal.disable_synchronous_commit", &[]),
    ("twilio_internal.has_reached", &[]),
    ("twilio_internal.is_reconcilable", &[]),
    ("twilio_internal.is_toll_free", &["'+18005550100'"]),
    ("twilio_internal.is_typed", &["'{}'"]),
    ("twilio_internal.provider_error_text", &["'{}'"]),
    ("twilio.is_copy", &[""]),
    ("twilio.is_sending", &[""]),
    ("twilio_internal.is_worker_running", &[""]),
    ("twilio_internal.worker_lock_holder", &[""]),
    ("twilio.language_keywords", &[""]),
    ("twilio.lost_requests", &[""]),
    ("twilio_internal.matches", &[]),
    ("twilio_internal.may_have_been_sent", &["1, null"]),
    ("twilio_internal.next_batch_rows", &["1, '1 s', 1"]),
    ("twilio_internal.must_examine_all", &["'+12025550123'"]),
    ("twilio.normalize_number", &["'(202) 555-0123', 'US'"]),
    ("twilio.now", &[""]),
    ("twilio.parse_form", &["'x=y'"]),
    (
        "twilio_internal.pause_account",
        &["'AC00000000000000000000000000000e2e', 'x'"],
    ),
    ("twilio.person_key", &["'whatsapp:+12025550123'"]),
    ("twilio.purge", &[]),
    ("twilio_internal.purge_batch", &[]),
    ("twilio_internal.purge_event_batch", &["now(), 1000"]),
    ("twilio_internal.redact_event_batch", &["0, now(), 1000"]),
    ("twilio_internal.purge_rejected_batch", &["now(), 1000"]),
    (
        "twilio.receive_events",
        &[
            "'/x', 'x', 'other'",
            "'/x', convert_to('{\"specversion\":\"1.0\",\"type\":\"com.twilio.x\",\"data\":{\"accountSid\":\"AC00000000000000000000000000000e2e\"}}', 'UTF8'), 'other'",
        ],
    ),
    (
        "twilio.receive",
        &[
            "'{POST}', '{/x}', '{x-twilio-signature: other}', array[convert_to('MessageSid=SM00000000000000000000000000000009&AccountSid=AC00000000000000000000000000000e2e&MessageStatus=sent', 'UTF8')], '{x}'",
        ],
    ),
    ("twilio.redact", &[]),
    ("twilio.reconcile", &["", "'1 hour', 'x'"]),
    ("twilio_internal.reconcile_after", &[""]),
    ("twilio_internal.redact_batch", &[]),
    ("twilio_internal.redact_feed", &[]),
    (
        "twilio_internal.redact_rejected_batch",
        &["0, now(), null, 1000"],
    ),
    ("twilio.replay", &["", "dry_run => false"]),
    ("twilio_internal.throttle", &[]),
    ("twilio.resolve_unknown", &["1, 'not_sent'"]),
    (
        "twilio.resume_account",
        &["'AC00000000000000000000000000000e2e'"],
    ),
    (
        "twilio.retire_signing_key",
        &[
            "'AC00000000000000000000000000000e2e', 'marked'",
            "'AC00000000000000000000000000000e2e', 'auth_token_3'",
        ],
    ),
    ("twilio.retire_smsgate_key", &["'phone-1'", "''"]),
    ("twilio.retry_message", &["1"]),
    (
        "twilio.reverify_rejected",
        &["", "at_most => 10, batch_rows => 2"],
    ),
    (
        "twilio.rotate_auth_token",
        &[
            "'AC00000000000000000000000000000e2e', 'x'",
            "'AC00000000000000000000000000000e2e', 'x', now() + interval '1 day'",
            "'AC00000000000000000000000000000009', 'x'",
        ],
    ),
    ("twilio_internal.seen_accounts", &[""]),
    ("twilio_internal.sees_all", &[""]),
    (
        "twilio.sweep_messages",
        &["'2020-01-01'", "'2020-01-01', 'x'"],
    ),
    ("twilio.send_message", &["'+12025550123', 'text'"]),
    ("twilio.set_quarantine", &["true, max_rows => 1"]),
    (
        "twilio.simulate_callback",
        &["1, 'delivered'", "1, 'undelivered', 30003"],
    ),
    (
        "twilio.sms_callback",
        &[
            "'/x', 'x', 'other'",
            "'/x', convert_to('MessageSid=SM00000000000000000000000000000009&AccountSid=AC00000000000000000000000000000e2e&MessageStatus=sent', 'UTF8'), 'other'",
        ],
    ),
    (
        "twilio.smsgate_callback",
        &["'{\"deviceId\": \"phone-1\"}', 'other', '1'"],
    ),
    (
        "twilio.smsgate_receive",
        &[
            "'{x-signature: other}', array[convert_to('{\"deviceId\": \"phone-1\"}', 'UTF8')], '{x}'",
        ],
    ),
    ("twilio.start_worker", &[]),
    ("twilio.status_callback_url", &[""]),
    ("twilio_internal.status_kind", &["'twilio', 'sent'"]),
    ("twilio_internal.status_rank", &["'twilio', 'sent'"]),
    ("twilio.stop_worker", &[""]),
    ("twilio.store_media", &[]),
    ("twilio.unblock", &["'+12025550123'"]),
    (
        "twilio.verify_signature",
        &["'https://hooks.example.com/x', 'x', 'x', 'x'"],
    ),
    ("twilio.version", &[""]),
    ("twilio_api.sms_callback", &["'x'"]),
    (
        "twilio.add_event_sink",
        &["null, null", "null, 'https://x'"],
    ),
    ("twilio.remove_event_sink", &[""]),
    ("twilio_api.events", &["'x'"]),
    ("twilio_api.sms_inbound", &["'x'"]),
    // Of the owner.
    ("twilio_internal.claim", &["10"]),
    ("twilio_internal.claim_media", &["10, '1 minute'"]),
    ("twilio_internal.claim_smsgate", &["10"]),
    ("twilio_internal.claim_original_fetch", &["10"]),
    ("twilio_internal.claim_webhook", &["10"]),
    ("twilio_internal.explain_request", &["1, 200"]),
    ("twilio_internal.request_account", &["1"]),
    (
        "twilio_internal.newest_auth_token",
        &["'AC00000000000000000000000000000e2e'"],
    ),
    ("twilio_internal.record_requests", &["'{1,2,3,4,5}'"]),
    ("twilio.register_smsgate_webhooks", &[""]),
    ("twilio_internal.secret_problem", &[""]),
    (
        "twilio_internal.set_api_url",
        &["'AC00000000000000000000000000000e2e', 'https://api.example.com'"],
    ),
    ("twilio_internal.try_signatures", &["100"]),
    ("twilio_internal.verify_requests", &["'{1,2,3,4,5}'"]),
];
