//! The tables of `--help` and of docs/sandbox.md are the same.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

use std::process::Command;

fn help() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-sandbox"));
    command
        .env("TWILIO_AUTH_TOKEN", "hunter2")
        .env("SMSGATE__PASSWORD", "hunter2");
    String::from_utf8(command.arg("--help").output().unwrap().stdout).unwrap()
}

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sandbox.md");
    std::fs::read_to_string(path).unwrap()
}

/// Digits, name and meaning of a row of `--help`, which is indented by two.
fn row(line: &str) -> Option<[&str; 3]> {
    let (digits, rest) = line.strip_prefix("  ")?.split_once("  ")?;
    let digits = digits.strip_suffix("AAAAA").unwrap_or(digits);
    let is_row = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let (name, meaning) = rest.split_once(' ')?;
    is_row.then_some([digits, name, meaning.trim()])
}

#[test]
fn the_page_has_every_row_and_no_other() {
    let (help, page) = (help(), page());
    let rows: Vec<_> = help.lines().filter_map(row).collect();
    assert!(rows.len() > 80, "{}", rows.len());
    for [digits, name, meaning] in &rows {
        let row = match meaning.parse::<u32>() {
            Ok(code) => format!("| {digits} | `{name}` {code} |"),
            Err(_) => format!("| {digits} | `{name}` | {meaning} |"),
        };
        assert!(page.contains(&row), "docs/sandbox.md lacks {row}");
    }
    let is_row = |line: &&str| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit();
    assert_eq!(page.lines().filter(is_row).count(), rows.len());
}

#[test]
fn help_shows_no_secret() {
    assert!(!help().contains("hunter2"));
}
