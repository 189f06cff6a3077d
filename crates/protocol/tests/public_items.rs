//! Every public item of this crate is used by another file of the repository, tests excluded. This crate is not
//! published, so the compiler takes public items for used, and an item that only tests call stays unnoticed.
//!
//! The check compares words, so an unused item that shares its name with another one is not found.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file without its comments and unit tests.
struct Source {
    path: PathBuf,
    text: String,
}

/// What a line declares.
enum Item<'a> {
    /// A function or a constant, which must be used in another file.
    Callable(&'a str),
    /// A type, which may also be part of a signature or a field of its own file.
    Type(&'a str),
    /// A field, which may also be read in its own file.
    Field(&'a str),
}

fn item(line: &str) -> Option<Item<'_>> {
    let line = line.trim().strip_prefix("pub ")?;
    let line = line
        .strip_prefix("const fn ")
        .map_or(line, |_| &line["const ".len()..]);
    let (keyword, rest) = line.split_once(' ')?;
    let name = |text: &str| text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    match keyword {
        "fn" | "const" | "static" => Some(Item::Callable(&rest[..name(rest)])),
        "struct" | "enum" | "type" | "trait" => Some(Item::Type(&rest[..name(rest)])),
        _ => keyword.strip_suffix(':').map(Item::Field),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// The sources below a directory.
fn sources(directory: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            let lines = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let text = lines.collect::<Vec<_>>().join("\n");
            found.push(Source { path, text });
        }
    }
    found
}

#[test]
fn every_public_item_is_used_outside_its_file() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let root = own.ancestors().nth(3).unwrap();
    let mut users = sources(&root.join("src"));
    users.extend(sources(&root.join("bench")));
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        users.extend(sources(&entry.unwrap().path().join("src")));
    }
    let mut unused = Vec::new();
    let mut count = 0;
    for source in users.iter().filter(|source| source.path.starts_with(&own)) {
        let others = users.iter().filter(|other| other.path != source.path);
        let elsewhere: HashSet<&str> = others.flat_map(|other| words(&other.text)).collect();
        let is_mentioned = |name: &str| {
            let lines = source.text.lines().filter(|line| !line.starts_with("impl"));
            lines.flat_map(words).filter(|word| *word == name).count() > 1
        };
        for item in source.text.lines().filter_map(item) {
            count += 1;
            let (name, is_used_here) = match item {
                Item::Callable(name) => (name, false),
                Item::Type(name) => (name, is_mentioned(name)),
                Item::Field(name) => (name, source.text.contains(&format!(".{name}"))),
            };
            if !is_used_here && !elsewhere.contains(name) {
                unused.push(format!("{}: {name}", source.path.display()));
            }
        }
    }
    assert!(count > 300, "only {count} public items were found");
    assert!(
        unused.is_empty(),
        "public items that nothing but tests uses:\n{}",
        unused.join("\n")
    );
}

#[test]
fn items_are_recognized() {
    let name = |line| match item(line) {
        Some(Item::Callable(name)) => format!("callable {name}"),
        Some(Item::Type(name)) => format!("type {name}"),
        Some(Item::Field(name)) => format!("field {name}"),
        None => "none".to_owned(),
    };
    for (line, expected) in [
        ("pub fn parse<'a>(text: &'a str) {", "callable parse"),
        ("    pub const fn empty() -> Self {", "callable empty"),
        ("pub const ATTEMPT: &str = \"attempt\";", "callable ATTEMPT"),
        ("pub struct Token(Vec<u8>);", "type Token"),
        ("pub enum Kind {", "type Kind"),
        ("    pub status: Option<String>,", "field status"),
        ("pub mod form;", "none"),
        ("pub(crate) fn text() {", "none"),
    ] {
        assert_eq!(name(line), expected, "{line}");
    }
}
