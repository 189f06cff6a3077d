//! Schema `twilio` and the documentation name the same functions.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use end_to_end::cluster::{Cluster, Options};

#[test]
fn every_public_function_is_documented_and_every_documented_function_exists() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut client = database.connect();
    let mut names = |schema: &str| -> BTreeSet<String> {
        let sql = "select distinct proname::text from pg_proc where pronamespace = $1::text::regnamespace";
        let rows = client.query(sql, &[&schema]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let public = names("twilio");
    let internal = names("twilio_internal");
    assert!(public.len() > 60, "{} functions", public.len());

    let text = documentation();
    let undocumented: Vec<_> = (public.iter())
        .filter(|name| !is_named(&text, name))
        .collect();
    assert!(undocumented.is_empty(), "not documented: {undocumented:?}");

    let missing: Vec<_> = (called(&text, "twilio.").into_iter())
        .filter(|name| !public.contains(name))
        .chain(
            called(&text, "twilio_internal.")
                .into_iter()
                .filter(|name| !internal.contains(name)),
        )
        .collect();
    assert!(missing.is_empty(), "documented and not there: {missing:?}");
}

/// README.md and docs/, one after the other.
fn documentation() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages: Vec<PathBuf> = (fs::read_dir(root.join("docs")).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root.join("README.md"));
    pages
        .iter()
        .map(|page| fs::read_to_string(page).unwrap())
        .collect()
}

/// Whether the name stands as a word in code: after a dot, a backtick or a space, and before a parenthesis or a backtick.
fn is_named(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        matches!(before, Some('.' | '`' | ' ')) && matches!(after, Some('(' | '`'))
    })
}

/// The names that follow `prefix` and are called.
fn called(text: &str, prefix: &str) -> BTreeSet<String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    (text.match_indices(prefix))
        .filter(|(at, _)| !text[..*at].ends_with(is_word))
        .filter_map(|(at, _)| {
            let rest = &text[at + prefix.len()..];
            let end = rest.find(|character| !is_word(character))?;
            rest[end..].starts_with('(').then(|| rest[..end].to_owned())
        })
        .collect()
}
