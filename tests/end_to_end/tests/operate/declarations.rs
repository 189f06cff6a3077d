//! The functions in Rust are as `sql/` declares them. PostgreSQL calls a function by its declaration alone: one that
//! differs would read its arguments as something that they are not.
//!
//! The installed library holds a description of each function, by which pgrx could write the declaration.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::PathBuf;

use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::{command, fresh_directory, postgres_program};
use end_to_end::server::process::run;
use pgrx_sql_entity_graph::metadata::{Returns, SqlArrayMapping, SqlMapping};
use pgrx_sql_entity_graph::section::{ELF_SECTION_NAME, decode_entities};
use pgrx_sql_entity_graph::{PgExternEntity, PgExternReturnEntity, SqlGraphEntity, UsedTypeEntity};
use postgres::Client;

#[test]
fn each_function_in_rust_is_declared_as_it_is() {
    let cluster = Cluster::start(&Options::default());
    assert_eq!(differences(&cluster.database()), [""; 0]);
}

#[test]
fn a_wrong_declaration_is_noticed() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let declare = |declaration: &str| {
        let mut client = database.connect();
        client.batch_execute("begin").unwrap();
        let sql = format!(
            "alter extension twilio_callback drop function twilio.parse_form(bytea); \
             drop function twilio.parse_form(bytea); create function {declaration}"
        );
        client.batch_execute(&sql).unwrap();
        let found = differences_in(&mut client);
        client.batch_execute("rollback").unwrap();
        found
    };
    let right =
        "twilio.parse_form(body bytea) returns table (name text, value text) language c strict";
    let library = "as '$libdir/twilio_callback', 'parse_form_wrapper'";
    assert_eq!(declare(&format!("{right} {library}")), [""; 0]);
    for (from, to) in [
        ("body bytea", "body text"),
        ("body bytea", "form bytea"),
        ("body bytea", "body bytea, length int"),
        ("body bytea", ""),
        ("name text, value text", "name text, value bytea"),
        ("name text, value text", "value text, name text"),
        ("name text, value text", "name text"),
        ("table (name text, value text)", "setof text"),
        ("table (name text, value text)", "text"),
        ("strict", ""),
    ] {
        let wrong = right.replacen(from, to, 1);
        let found = declare(&format!("{wrong} {library}"));
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
        assert!(found[0].starts_with("parse_form_wrapper is "), "{found:?}");
    }
    let other = "as '$libdir/twilio_callback', 'bare_word_wrapper'";
    assert_eq!(
        declare(&format!("{right} {other}")),
        [
            "bare_word_wrapper is declared twice",
            "parse_form_wrapper is not declared"
        ]
    );
}

fn differences(database: &Database<'_>) -> Vec<String> {
    differences_in(&mut database.connect())
}

/// One line for each function whose declaration is missing, superfluous or different.
fn differences_in(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    let mut declared = BTreeMap::new();
    for (symbol, signature) in declarations(client) {
        match declared.entry(symbol) {
            Entry::Vacant(entry) => _ = entry.insert(signature),
            // The first one counts.
            Entry::Occupied(entry) => found.push(format!("{} is declared twice", entry.key())),
        }
    }
    let section = section();
    let functions = decode_entities(&section).unwrap().into_iter();
    let functions = functions.filter_map(|entity| match entity {
        SqlGraphEntity::Function(function) => Some(function),
        _ => None,
    });
    for function in functions {
        let symbol = format!("{}_wrapper", function.unaliased_name);
        let implemented = implementation(&function, client);
        match declared.remove(&symbol) {
            None => found.push(format!("{symbol} is not declared")),
            Some(declared) if declared != implemented => found.push(format!(
                "{symbol} is {implemented} and declared as {declared}"
            )),
            Some(_) => {}
        }
    }
    found.extend(
        declared
            .keys()
            .map(|symbol| format!("{symbol} is declared, and there is no such function")),
    );
    found.sort();
    found
}

/// Every function that is declared to be in the library: its symbol there, and its signature.
fn declarations(client: &mut Client) -> Vec<(String, String)> {
    let rows = client.query(
        "select p.prosrc, format('(%s) returns %s', pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid)) \
             || case when p.pronargs = 0 then '' when p.proisstrict then ' strict' else ' called on null input' end \
         from pg_proc p where p.probin = '$libdir/twilio_callback' order by p.oid",
        &[],
    );
    let rows = rows.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The signature of a function in Rust, as PostgreSQL would write it. It is called for nulls if it takes an `Option` of any
/// argument; for a null among the others it then raises an error.
fn implementation(function: &PgExternEntity<'_>, client: &mut Client) -> String {
    let mut arguments = Vec::new();
    let mut takes_null = false;
    for argument in &function.fn_args {
        let used = &argument.used_ty;
        assert!(!used.variadic, "{}: not known here", function.full_path);
        let default = used.default;
        assert_eq!(default, None, "{}: belongs to sql/", function.full_path);
        let name = match (
            used.composite_type,
            used.metadata.argument_sql.as_ref().unwrap(),
        ) {
            (Some(composite), SqlMapping::Array(_)) => format!("{composite}[]"),
            (_, mapping) => type_name(mapping),
        };
        arguments.push(named(client, argument.pattern, &name));
        takes_null |= used.optional;
    }
    let result = match &function.fn_return {
        PgExternReturnEntity::None => "void".to_owned(),
        PgExternReturnEntity::Type { ty } => plain(client, &returned(ty)),
        PgExternReturnEntity::SetOf { ty } => format!("SETOF {}", plain(client, &returned(ty))),
        PgExternReturnEntity::Iterated { tys } => {
            let columns = tys.iter().map(|column| {
                // Unlike an argument's name, this one comes in quotes.
                let name = column.name.unwrap().trim_matches('"');
                named(client, name, &returned(&column.ty))
            });
            format!("TABLE({})", columns.collect::<Vec<_>>().join(", "))
        }
        PgExternReturnEntity::Trigger => "trigger".to_owned(),
    };
    let nulls = match (arguments.is_empty(), takes_null) {
        (true, _) => "",
        (false, true) => " called on null input",
        (false, false) => " strict",
    };
    format!("({}) returns {result}{nulls}", arguments.join(", "))
}

fn returned(used: &UsedTypeEntity<'_>) -> String {
    match used.metadata.return_sql.as_ref().unwrap() {
        Returns::One(mapping) | Returns::SetOf(mapping) => type_name(mapping),
        Returns::Table(_) => panic!("a table in a table: {}", used.full_path),
    }
}

fn type_name(mapping: &SqlMapping) -> String {
    match mapping {
        SqlMapping::As(name) => name.clone(),
        SqlMapping::Array(SqlArrayMapping::As(name)) => format!("{name}[]"),
        _ => panic!("not known here: {mapping:?}"),
    }
}

/// A type as PostgreSQL itself writes it.
fn plain(client: &mut Client, name: &str) -> String {
    let row = client.query_one("select $1::text::regtype::text", &[&name]);
    row.unwrap().get(0)
}

fn named(client: &mut Client, name: &str, type_name: &str) -> String {
    let sql = "select quote_ident($1) || ' ' || $2::text::regtype::text";
    client.query_one(sql, &[&name, &type_name]).unwrap().get(0)
}

/// The descriptions, out of the installed library.
fn section() -> Vec<u8> {
    let mut ask = command(postgres_program("pg_config"));
    let output = ask.arg("--pkglibdir").output().unwrap();
    let directory = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let file = fresh_directory().join("section");
    let mut objcopy = command("objcopy");
    objcopy
        .args(["--output-target=binary", "--only-section", ELF_SECTION_NAME])
        .arg(directory.join("twilio_callback.so"))
        .arg(&file);
    run(objcopy);
    let section = fs::read(&file).unwrap();
    assert!(
        !section.is_empty(),
        "the library describes no functions: see build.rs"
    );
    section
}
