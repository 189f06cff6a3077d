//! Flags, variables and the errors of a start that cannot succeed.

use std::net::TcpListener;

use crate::shim::{AWAY, run};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_shows_defaults_and_variables_but_no_value_of_a_secret() {
    let secret = "postgres://shim:hush@host/sms";
    let environment = [
        ("DATABASE_URL", secret),
        ("TWILIO_CALLBACK_SHIM_DATABASE_URL", secret),
    ];
    let output = run(&["--help"], &environment);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "--database-url",
        "DATABASE_URL",
        "TWILIO_CALLBACK_SHIM_LISTEN",
        "[default: 127.0.0.1:8080]",
        "[default: 127.0.0.1:9464]",
        "[default: 16MiB]",
        "[default: 8s]",
        "--trusted-proxy",
    ] {
        assert!(help.contains(expected), "{expected} is not in {help}");
    }
    assert!(!help.contains("hush"));
}

#[test]
fn configuration_errors_end_with_2_and_a_hint() {
    let cases: [(&[&str], &[(&str, &str)], &str); 9] = [
        (&[], &[], "no database is given"),
        (&[], &[("DATABASE_URL", "hush hush")], "cannot be read"),
        (&["--database-url", "user=shim"], &[], "names no host"),
        (&["--listen", "8080"], &[], "--listen"),
        (&[], &[("TWILIO_CALLBACK_SHIM_LISTEN", "x")], "--listen"),
        (&["--deadline", "1h"], &[], "must be ms, s or m"),
        (&["--writers", "0"], &[], "--writers"),
        (&["--socket-mode", "999"], &[], "octal"),
        (&["--no-such-flag"], &[], "--no-such-flag"),
    ];
    for (arguments, environment, expected) in cases {
        let output = run(arguments, environment);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected), "{expected} is not in {text}");
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn a_database_that_stays_away_ends_with_1() {
    let free = ["--listen", "127.0.0.1:0", "--ops-listen", "none"];
    let brief = ["--startup-timeout", "300ms", "--database-url", AWAY];
    // The flag counts, not the variables, which could not even be read.
    let environment = [
        ("DATABASE_URL", "rubbish"),
        ("TWILIO_CALLBACK_SHIM_DATABASE_URL", "rubbish"),
    ];
    let output = run(&[free, brief].concat(), &environment);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no connection to the database within 0.3 s: /nonexistent"),
        "{text}"
    );
    assert!(text.contains("hint: start PostgreSQL"), "{text}");
}

#[test]
fn a_port_that_is_taken_ends_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["--listen", &address, "--database-url", AWAY], &[]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&format!("cannot listen on {address}")),
        "{text}"
    );
}

#[test]
fn the_page_about_the_shim_has_every_flag_with_its_default() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/shim.md");
    let page = std::fs::read_to_string(page).unwrap();
    let output = run(&["--help"], &[]);
    let help = String::from_utf8(output.stdout).unwrap();
    let options = help.split("\n      --").skip(1);
    let mut flags = 0;
    for option in options {
        let name = option.split([' ', '\n']).next().unwrap();
        let row = page
            .lines()
            .find(|line| line.starts_with('|') && line.contains(&format!("`--{name}`")))
            .unwrap_or_else(|| panic!("--{name} is not in the page"));
        if let Some((_, rest)) = option.split_once("[default: ") {
            let default = rest.split(']').next().unwrap();
            assert!(
                row.contains(&format!("| `{default}` |")),
                "{default} is not in {row}"
            );
        }
        flags += 1;
    }
    assert!(flags >= 20, "only {flags} flags were found in {help}");
}
