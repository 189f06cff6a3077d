//! A standby sends nothing; promoted, it goes on where the primary ended.

use std::time::Duration;

use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, AUTH_TOKEN, PUBLIC_URL};
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{send, set_up, worker_pid};
use end_to_end::server::process::signal;
use end_to_end::wait::{PATIENCE, holds_within, wait_until};
use postgres::error::SqlState;

const WORKERS: &str =
    "select count(*) from pg_stat_activity where backend_type like 'twilio_callback%'";

#[test]
fn a_standby_sends_once_it_is_promoted() {
    let primary = Cluster::start(&Options {
        fsync: false,
        lines: &[
            "shared_preload_libraries = 'twilio_callback'",
            "twilio_callback.databases = 'test_0'",
            "client_min_messages = warning",
        ],
    });
    let database = primary.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    set_up(&database, &sandbox);
    // The primary does not send messages that are queued from now on.
    let idle =
        "select a.state = 'idle' from pg_stat_activity a join twilio_internal.worker w using (pid)";
    wait_until(PATIENCE, "the worker to wait, holding nothing", || {
        database.value::<Option<bool>>(idle, &[]).unwrap_or(false)
    });
    signal(worker_pid(&database), "STOP");
    let standby = primary.standby();
    let id = send(&database, "+12025550141", "waits");

    let name = database.name();
    let count = |sql: &str| -> i64 { standby.connect(name).query_one(sql, &[]).unwrap().get(0) };
    wait_until(PATIENCE, "the standby to have the message", || {
        count("select count(*) from twilio_internal.outbox where due_at <= twilio.now()") == 1
    });
    // The doctor's remedies fit a standby: the worker runs on the primary, and changes are made there.
    let sql = "select string_agg(concat(\"check\", ' ', verdict, ': ', remedy), '; ' order by \"check\") \
        from twilio.doctor() where \"check\" in ('worker', 'preload', 'sending', 'callbacks')";
    let said: String = standby.connect(name).query_one(sql, &[]).unwrap().get(0);
    assert_eq!(
        said,
        "callbacks warning: On the primary: See whether the shim runs, and whether Twilio has the URL: \
         select twilio.status_callback_url();; preload ok: ; sending ok: ; worker ok: "
    );
    let asked = standby
        .connect(name)
        .batch_execute("select twilio.start_worker()");
    let code = asked.unwrap_err().code().cloned();
    assert_eq!(code, Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
    // Elsewhere a worker starts within a moment.
    let is_working = holds_within(Duration::from_secs(1), || {
        count(WORKERS) > 0 || !sandbox.counts().is_empty()
    });
    assert!(!is_working, "{}", standby.read_log());

    primary.kill();
    standby.promote();
    wait_until(PATIENCE, "the message to be sent", || {
        let sql = "select message_sid is not null from twilio.message where message_id = $1";
        standby.connect(name).query_one(sql, &[&id]).unwrap().get(0)
    });
    assert_eq!(sandbox.counts()["+12025550141"], (1, 1));
}

/// A front looks for the primary if it sees this code, so every request must raise it.
#[test]
fn a_standby_reports_that_it_cannot_receive() {
    let primary = Cluster::start(&Options::QUIET);
    let database = primary.database();
    // Once there is something in the quarantine, its bounds are rows that a standby would lock.
    let refused = "select http_status from twilio.sms_callback('/twilio/status', 'a=b', 'no')";
    assert_eq!(database.value::<i32>(refused, &[]), 403);
    let standby = primary.standby();
    let signed = "select c.http_status
        from convert_to('AccountSid=' || $1::text || '&MessageSid=SM' || repeat('0', 32) || '&MessageStatus=sent', 'UTF8') body
        cross join twilio.sms_callback(
            '/twilio/status', body, twilio.compute_signature($2::text || '/twilio/status', body, $3)
        ) c";
    let mut client = standby.connect(database.name());
    for outcome in [
        client.query(refused, &[]),
        client.query("select twilio.smsgate_callback('{}', 'no', '1')", &[]),
        client.query(signed, &[&ACCOUNT_SID, &PUBLIC_URL, &AUTH_TOKEN]),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
            "{error:?}"
        );
    }
}
