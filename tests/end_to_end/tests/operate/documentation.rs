//! The documentation names the functions that there are, and shows the state machines as they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use end_to_end::server::cluster::{Cluster, Options};

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

#[test]
fn the_page_on_state_machines_shows_the_tables_of_the_regress_test() {
    let page = read("docs/state_machine.md");
    let printed = read("tests/regress/expected/state_machine.out");
    for (shown, made) in rows(&page).zip(rows(&printed)) {
        assert_eq!(shown, made, "docs/state_machine.md, then the test");
    }
    assert_eq!(rows(&page).count(), rows(&printed).count());
}

#[test]
fn each_diagram_of_state_machines_has_the_arrows_of_its_table() {
    let page = read("docs/state_machine.md");
    let mut tables = 0;
    for section in page
        .split("\n## ")
        .filter(|section| section.contains("-->"))
    {
        let title = section.lines().next();
        let cells = |row: &'_ str| row.split('|').map(|cell| cell.trim().to_owned()).collect();
        let table: Vec<Vec<String>> = rows(section).map(cells).collect();
        let (columns, table) = (&table[0], &table[2..]);
        if columns[2] == "rank" {
            let rank = |status: &str| {
                let row = table.iter().find(|row| row[1] == status);
                row.map(|row| row[2].parse::<u16>().unwrap())
            };
            for (from, to) in arrows(section) {
                assert!(rank(&from).unwrap() < rank(&to).unwrap(), "{from} --> {to}");
            }
            let drawn: BTreeSet<_> = (arrows(section).into_iter())
                .flat_map(|(from, to)| [from, to])
                .collect();
            let listed: BTreeSet<_> = (table.iter())
                .filter(|row| row[6] != "is not recorded")
                .map(|row| row[1].clone())
                .collect();
            assert_eq!(drawn, listed, "{title:?}");
        } else {
            let made: BTreeSet<_> = (table.iter())
                .map(|row| (row[1].clone(), row[3].clone()))
                .filter(|(from, to)| from != to)
                .collect();
            assert_eq!(arrows(section), made, "{title:?}");
        }
        tables += 1;
    }
    assert_eq!(tables, 5);
}

/// The lines of the tables in a text.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('|'))
}

/// The arrows of the diagrams in a text, but for those from and to the outside.
fn arrows(text: &str) -> BTreeSet<(String, String)> {
    (text.lines())
        .filter_map(|line| line.trim().split_once(" --> "))
        .map(|(from, rest)| (from, rest.split(':').next().unwrap_or(rest).trim()))
        .filter(|(from, to)| *from != "[*]" && *to != "[*]")
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// README.md and docs/, one after the other.
fn documentation() -> String {
    let root = root();
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
