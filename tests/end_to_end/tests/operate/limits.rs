//! Whatever a role passes to the functions that it may call, the server goes on, and a backend takes no more memory
//! than a small multiple of what it was given.

use std::fs;

use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{Database, FRONT_ROLE};
use postgres::Client;
use postgres::error::SqlState;

/// Memory that a backend may take beyond four times its input.
const ALLOWANCE: usize = 64 << 20;
/// The same beside what an idle backend has, most of which are pages of the library's file: an unoptimized one is twice as large.
const ALLOWANCE_BESIDE_IDLE: usize = 38 << 20;

#[test]
fn a_role_cannot_make_the_server_allocate_without_bound() {
    let cluster = cluster();
    let database = cluster.database();
    let mut admin = database.connect();
    admin.batch_execute(ROLES).unwrap();
    let size = sized(48 << 20, 1000 << 20);
    let all = hostile(size);
    for value in &all {
        let (kind, name, expression) = (value.kind, value.name, &value.expression);
        admin
            .batch_execute(&format!(
                "create table hostile.{name} as select ({expression})::{kind} as value"
            ))
            .unwrap();
    }
    admin
        .batch_execute("grant select on all tables in schema hostile to public")
        .unwrap();
    let before = started(&database);
    let mut calls = 0;
    let mut faults = Vec::new();
    // Others are trusted with more: with PostgreSQL's own regular expressions, which take 13 times a text.
    for (role, factor) in [
        (FRONT_ROLE, 4),
        ("sender", 4),
        ("relay", 4),
        ("reader", 16),
        ("administrator", 16),
    ] {
        for function in functions(&mut admin, role) {
            for (place, kind) in function.arguments.iter().enumerate() {
                for value in all.iter().filter(|value| value.kind == kind) {
                    let is_front = role == FRONT_ROLE;
                    // Others are trusted with more; of them the largest and the widest value will do.
                    if !is_front && !value.is_for_all {
                        continue;
                    }
                    calls += 1;
                    let sql = function.call(place, value);
                    let outcome = measure(&database, role, &sql);
                    let most = factor * value.bytes + ALLOWANCE;
                    if outcome.peak > most {
                        faults.push(format!("{role}: {sql}: {} MiB", outcome.peak >> 20));
                    }
                    if outcome.is_bug {
                        faults.push(format!("{role}: {sql}: {}", outcome.text));
                    }
                }
            }
        }
    }
    assert!(calls > 200, "{calls} calls");
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(started(&database), before, "{}", cluster.read_log());
}

#[test]
fn a_compressed_value_is_refused_without_being_expanded() {
    let cluster = cluster();
    let database = cluster.database();
    let mut admin = database.connect();
    // Both fit into one row before they are compressed.
    let size = sized(256 << 20, 500 << 20);
    admin
        .batch_execute(&format!(
            "create table small as select convert_to(repeat('&', {size}), 'UTF8') as body, repeat('&', {size}) as url; \
             grant select on small to {FRONT_ROLE}"
        ))
        .unwrap();
    for call in [
        "twilio.sms_callback('/x', s.body, 'no')",
        "twilio.sms_callback(s.url, '', 'no')",
        "twilio.smsgate_callback(s.body, 'no', '1')",
        "twilio_api.sms_callback(s.body)",
        "twilio_api.sms_inbound(s.body)",
    ] {
        let outcome = measure(
            &database,
            FRONT_ROLE,
            &format!("select count(r) from small s cross join lateral {call} r"),
        );
        assert_eq!(
            outcome.code,
            Some(SqlState::PROGRAM_LIMIT_EXCEEDED),
            "{call}"
        );
        assert!(
            outcome.peak < ALLOWANCE,
            "{call}: {} MiB",
            outcome.peak >> 20
        );
    }
}

#[test]
fn a_gigabyte_of_separators_does_not_end_the_server() {
    let cluster = cluster();
    let database = cluster.database();
    let before = started(&database);
    let sql = "select * from twilio.sms_callback('/x', convert_to(repeat('&', 1000000000), 'UTF8'), 'AAAA')";
    let outcome = measure(&database, FRONT_ROLE, sql);
    assert_eq!(outcome.code, Some(SqlState::PROGRAM_LIMIT_EXCEEDED));
    assert!(outcome.peak <= 4_000_000_000 + ALLOWANCE);
    assert_eq!(started(&database), before);
}

/// As many requests as a call may have, each as expensive as it can be.
#[test]
fn a_full_batch_takes_bounded_memory() {
    let cluster = cluster();
    let database = cluster.database();
    let header = "x-twilio-signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let account = format!("AccountSid={}&", end_to_end::server::database::ACCOUNT_SID);
    let idle = "select count(*) from twilio.receive('{}', '{}', '{}', '{}', '{}')";
    let idle = measure(&database, FRONT_ROLE, idle).peak;
    for (content_type, body, count, bytes) in [
        ("", "repeat('&', 1048576)".to_owned(), 60, 1 << 20),
        ("", "repeat('a&', 500000)".to_owned(), 60, 1_000_000),
        ("", "repeat('a&', 1024)".to_owned(), 256, 2048),
        ("", "repeat('%41=%42&', 1024)".to_owned(), 256, 8192),
        ("", "repeat('%41=%42&', 64)".to_owned(), 4096, 512),
        // Kept, as far as there is room.
        (
            "",
            format!("'{account}' || repeat('b', 1000000)"),
            60,
            1 << 20,
        ),
        (
            "application/json",
            "repeat('[', 1048576)".to_owned(),
            60,
            1 << 20,
        ),
        (
            "application/json",
            "'[' || repeat('0,', 500000) || '0]'".to_owned(),
            60,
            1_000_000,
        ),
        (
            "application/json",
            "(select json_object_agg(i, 1)::text from generate_series(1, 80000) i)".to_owned(),
            60,
            1 << 20,
        ),
    ] {
        let lines = match content_type {
            "" => header.to_owned(),
            other => format!("{header}\ncontent-type: {other}"),
        };
        let sum = count * (bytes + lines.len() + 20);
        let array = |value: &str| format!("array_fill({value}, array[{count}])");
        let bodies = array(&format!("convert_to({body}, 'UTF8')"));
        let (headers, sources) = (
            array(&format!("'{lines}'::text")),
            array("'192.0.2.1'::text"),
        );
        let twilio = format!(
            "select count(*) from twilio.receive({}, {}, {headers}, {bodies}, {sources})",
            array("'POST'::text"),
            array("'/x'::text"),
        );
        let phones =
            format!("select count(*) from twilio.smsgate_receive({headers}, {bodies}, {sources})");
        for sql in [twilio, phones] {
            let outcome = measure(&database, FRONT_ROLE, &sql);
            assert_eq!(outcome.code, None, "{sql}: {}", outcome.text);
            let most = 4 * sum + idle + ALLOWANCE_BESIDE_IDLE;
            assert!(
                outcome.peak <= most,
                "{sql}: {} of {} MiB",
                outcome.peak >> 20,
                most >> 20
            );
        }
    }
}

fn cluster() -> Cluster {
    Cluster::start(&Options {
        fsync: false,
        // So that what is measured is the backend's own.
        lines: &["shared_buffers = '16MB'", "jit = off", "autovacuum = off"],
    })
}

fn started(database: &Database<'_>) -> (String, u32) {
    let sql = "select pg_postmaster_start_time()::text";
    // A server that lost a process starts anew under the same number; its other processes do not.
    let logger = "select min(pid) from pg_stat_activity where backend_type = 'checkpointer'";
    let checkpointer: i32 = database.value(logger, &[]);
    (database.value(sql, &[]), checkpointer.unsigned_abs())
}

/// The outcome of a call.
struct Outcome {
    /// Most memory that its backend had, in bytes.
    peak: usize,
    code: Option<SqlState>,
    is_bug: bool,
    text: String,
}

/// Calls as a role, on a connection of its own, and takes the effect back.
fn measure(database: &Database<'_>, role: &str, sql: &str) -> Outcome {
    let mut client = database.cluster().connect_as(role, database.name());
    let pid: i32 = client
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    client
        .batch_execute("set statement_timeout = '60 s'; begin")
        .unwrap();
    let error = client.batch_execute(sql).err();
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.unwrap_or_else(|_| panic!("the backend ended: {sql}"));
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: usize = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let code = error.as_ref().and_then(|error| error.code().cloned());
    Outcome {
        peak: peak << 10,
        is_bug: error.is_some()
            && [
                None,
                Some(&SqlState::INTERNAL_ERROR),
                Some(&SqlState::OUT_OF_MEMORY),
            ]
            .contains(&code.as_ref()),
        code,
        text: error.map_or_else(String::new, |error| format!("{error:?}")),
    }
}

/// A value that is meant to do harm.
struct Hostile {
    name: &'static str,
    kind: &'static str,
    expression: String,
    /// Its size once it is read.
    bytes: usize,
    /// Of an array.
    elements: usize,
    /// Whether it is passed to functions of trusted roles as well.
    is_for_all: bool,
}

fn hostile(size: usize) -> Vec<Hostile> {
    let value = |kind, name, expression: &str, bytes, elements, is_for_all| Hostile {
        name,
        kind,
        expression: expression.to_owned(),
        bytes,
        elements,
        is_for_all,
    };
    let bytea = |text: &str| format!("convert_to({text}, 'UTF8')");
    let huge = format!("repeat('&', {size})");
    let half = size / 2;
    let nested = "repeat('[', 1048576)";
    let names = "repeat('a&', 524288)";
    let broken = "repeat('%=%zz&', 174762)";
    let texts = format!("array_fill(repeat('&', {half}), array[1])");
    let ids = half / 8;
    vec![
        value("text", "text_huge", &huge, size, 0, true),
        value("text", "text_nested", nested, 1 << 20, 0, false),
        value("text", "text_names", names, 1 << 20, 0, false),
        value("text", "text_null", "null", 0, 0, false),
        value("bytea", "bytea_huge", &bytea(&huge), size, 0, true),
        value("bytea", "bytea_nested", &bytea(nested), 1 << 20, 0, true),
        value("bytea", "bytea_names", &bytea(names), 1 << 20, 0, true),
        value("bytea", "bytea_broken", &bytea(broken), 1 << 20, 0, false),
        value("bytea", "bytea_null", "null", 0, 0, false),
        value("text[]", "texts_huge", &texts, half, 1, true),
        value(
            "text[]",
            "texts_many",
            "array_fill(''::text, array[100000])",
            400_000,
            100_000,
            true,
        ),
        value(
            "text[]",
            "texts_plane",
            "array_fill('a&'::text, array[10, 10])",
            600,
            100,
            false,
        ),
        value(
            "text[]",
            "texts_nulls",
            "array_fill(null::text, array[500], array[-7])",
            200,
            1000,
            true,
        ),
        value("text[]", "texts_null", "null", 0, 0, false),
        value(
            "bytea[]",
            "bodies_huge",
            &format!(
                "array_fill({}, array[1])",
                bytea(&format!("repeat('&', {half})"))
            ),
            half,
            1,
            true,
        ),
        value(
            "bytea[]",
            "bodies_many",
            "array_fill(''::bytea, array[100000])",
            400_000,
            100_000,
            true,
        ),
        value(
            "bytea[]",
            "bodies_nulls",
            "array_fill(null::bytea, array[10, 100])",
            200,
            1000,
            true,
        ),
        value(
            "bytea[]",
            "bodies_nested",
            &format!("array_fill({}, array[60])", bytea(nested)),
            60 << 20,
            60,
            true,
        ),
        value(
            "bigint[]",
            "ids_many",
            "array_fill(1::bigint, array[100000])",
            800_000,
            100_000,
            true,
        ),
        value(
            "bigint[]",
            "ids_huge",
            &format!("array_fill(1::bigint, array[{ids}])"),
            half,
            ids,
            true,
        ),
        value(
            "bigint[]",
            "ids_nulls",
            "array_fill(null::bigint, array[10, 100])",
            200,
            1000,
            true,
        ),
        value("bigint[]", "ids_null", "null", 0, 0, false),
        value(
            "jsonb",
            "json_long",
            "jsonb_build_object('A', repeat('a', 100000000))",
            100_000_000,
            0,
            true,
        ),
        value(
            "jsonb",
            "json_nested",
            "(repeat('{\"A\":', 1000) || '1e1000' || repeat('}', 1000))::jsonb",
            20_000,
            0,
            true,
        ),
    ]
}

/// A function that a role may call.
struct Function {
    name: String,
    arguments: Vec<String>,
    is_procedure: bool,
}

impl Function {
    /// A call with a hostile value in one place and harmless ones in the others.
    fn call(&self, place: usize, value: &Hostile) -> String {
        let arguments = self.arguments.iter().enumerate().map(|(other, kind)| {
            if other == place {
                return format!("(select value from hostile.{})", value.name);
            }
            match kind.as_str() {
                // Arrays of one call go together.
                "text[]" | "bytea[]" | "bigint[]" if value.kind.ends_with("[]") => format!(
                    "array_fill({}::{}, array[{}])",
                    if kind == "bigint[]" { "1" } else { "''" },
                    kind.trim_end_matches("[]"),
                    value.elements
                ),
                "text[]" | "bytea[]" | "bigint[]" => format!("'{{}}'::{kind}"),
                "text" => "'+12025550123'".to_owned(),
                "bytea" => "'a=b'::bytea".to_owned(),
                "jsonb" => "'{}'::jsonb".to_owned(),
                "boolean" => "true".to_owned(),
                "integer" | "bigint" | "double precision" | "smallint" => "1".to_owned(),
                "interval" => "interval '1 day'".to_owned(),
                kind => format!("null::{kind}"),
            }
        });
        let arguments: Vec<_> = arguments.collect();
        let verb = if self.is_procedure { "call" } else { "select" };
        format!("{verb} {}({})", self.name, arguments.join(", "))
    }
}

fn functions(admin: &mut Client, role: &str) -> Vec<Function> {
    let sql = "select p.pronamespace::regnamespace || '.' || quote_ident(p.proname), p.prokind = 'p', \
               array(select format_type(t, null) from unnest(p.proargtypes) with ordinality a (t, n) order by n) \
               from pg_proc p \
               where p.pronamespace::regnamespace::text in ('twilio', 'twilio_internal', 'twilio_api') \
                   and has_function_privilege($1, p.oid, 'execute') \
               order by p.oid";
    let rows = admin.query(sql, &[&role]).unwrap();
    let functions = rows.iter().map(|row| Function {
        name: row.get(0),
        is_procedure: row.get(1),
        arguments: row.get(2),
    });
    functions.collect()
}

const ROLES: &str = "
    create role sender login; select twilio.grant_send('sender');
    create role relay login; select twilio.grant_relay('relay');
    create role reader login; select twilio.grant_read('reader');
    create role administrator login; select twilio.grant_admin('administrator');
    create schema hostile; grant usage on schema hostile to public;
    select twilio.add_sender('+12025550100');";
