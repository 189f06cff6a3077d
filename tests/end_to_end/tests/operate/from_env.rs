//! deploy/from_env.sql sets up an account from the environment variables of the services that are replaced.

use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::server::environment::{checkout, command, postgres_program};
use end_to_end::server::process::run;

const SECRETS: [&str; 3] = ["first-token", "second-token", "phone-password"];

#[test]
fn the_environment_of_other_services_sets_up_an_account_and_changes_it() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.bare_database();
    let page = set_up(
        &database,
        &[
            ("TWILIO_ACCOUNT_SID", ACCOUNT_SID),
            ("TWILIO_AUTH_TOKEN", "first-token"),
            ("PUBLIC_URL", "https://hooks.example.com/"),
            ("TWILIO_DEFAULT_FROM_NUMBER", "+12025550100"),
            ("TWILIO_PHONE_NUMBER_REMINDERS", "+12025550101"),
            ("SMSGATE__BASE_URL", "https://gate.example.com/v1"),
            ("SMSGATE__USERNAME", "phone"),
            ("SMSGATE__PASSWORD", "phone-password"),
        ],
    );
    let url = "https://hooks.example.com/twilio/status#ct=";
    assert!(page.contains(url), "{page}");
    let senders = "+12025550100 true, +12025550101 false";
    assert_eq!(senders_of(&database), senders);
    let gateways = "select count(*) from twilio.smsgate where username = 'phone' \
        and base_url = 'https://gate.example.com/v1'";
    assert_eq!(database.value::<i64>(gateways, &[]), 1);
    assert_eq!(live_keys(&database), 1);

    // The other names; nothing that was there is lost, and the old token still verifies.
    let page = set_up(
        &database,
        &[
            ("TWILIO__ACCOUNT_SID", ACCOUNT_SID),
            ("TWILIO__AUTH_TOKEN", "second-token"),
            (
                "TWILIO__CALLBACK_URL",
                "https://other.example.com/api/twilio?x=1",
            ),
            ("TWILIO_DEFAULT_FROM_NUMBER", "+12025550100"),
        ],
    );
    assert!(page.contains(url), "{page}");
    assert_eq!(senders_of(&database), senders);
    assert_eq!(live_keys(&database), 2);
    let urls = "select string_agg(url, ' ' order by url) from twilio.public_url";
    let urls: String = database.value(urls, &[]);
    assert_eq!(urls, "https://hooks.example.com https://other.example.com");

    // Missing variables are reported, and nothing is left half done.
    let bare = cluster.bare_database();
    let output = psql(&bare, &[("TWILIO_AUTH_TOKEN", "first-token")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("ERROR:  ") && text.contains("AC"), "{text}");
    let extensions = "select count(*) from pg_extension where extname = 'twilio_callback'";
    assert_eq!(bare.value::<i64>(extensions, &[]), 0);
}

fn set_up(database: &Database<'_>, environment: &[(&str, &str)]) -> String {
    let page = run(psql(database, environment));
    for secret in SECRETS {
        assert!(!page.contains(secret), "{page}");
    }
    page
}

fn psql(database: &Database<'_>, environment: &[(&str, &str)]) -> std::process::Command {
    let mut psql = command(postgres_program("psql"));
    psql.env_clear()
        .envs(environment.iter().copied())
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-d"])
        .arg(database.url("postgres"))
        .arg("-f")
        .arg(checkout().join("deploy/from_env.sql"));
    psql
}

fn senders_of(database: &Database<'_>) -> String {
    let sql = "select string_agg(address || ' ' || is_default, ', ' order by sender_id) \
        from twilio.sender where account_sid is not null";
    database.value(sql, &[])
}

fn live_keys(database: &Database<'_>) -> i64 {
    let sql = "select count(*) from twilio.signing_key where twilio.now() between not_before and not_after";
    database.value(sql, &[])
}
