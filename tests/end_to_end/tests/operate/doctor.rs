//! Faults that need a running worker: the doctor names each, and nothing else.

use std::time::Duration;

use end_to_end::client::callback::{sid, signed_status};
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::free_port;
use end_to_end::server::outbox::{is_worker_running, send, set_up, start_worker};
use end_to_end::wait::wait_until;

#[test]
fn the_doctor_names_what_is_wrong_with_worker_and_switch_and_nothing_else() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &[]);
    let shim = Shim::start(&database, &[]);
    assert_eq!(shim.send(&signed_status(&sid(1), "sent", None)).status, 204);
    drop(shim);

    set_up(&database, &sandbox);
    assert_eq!(faults(&database), ["preload warning"]);
    cluster.stop("fast");
    cluster.start_again();
    assert_eq!(faults(&database), ["worker error"]);

    // Preloaded, the library starts no worker for a database that is not listed.
    let line = "alter system set shared_preload_libraries = 'twilio_callback'";
    database.connect().batch_execute(line).unwrap();
    cluster.stop("fast");
    cluster.start_again();
    assert_eq!(faults(&database), ["worker error"]);
    start_worker(&database);
    assert_eq!(faults(&database), ["preload warning"]);
    let remedy = "select remedy from twilio.doctor() where \"check\" = 'preload'";
    let remedy: String = database.value(remedy, &[]);
    for statement in remedy.split_inclusive(';') {
        database.connect().batch_execute(statement).unwrap();
    }
    wait_until(Duration::from_secs(20), "the database to be listed", || {
        faults(&database).is_empty()
    });
    cluster.stop("fast");
    cluster.start_again();
    wait_until(Duration::from_secs(20), "the worker to run", || {
        is_worker_running(&database)
    });
    assert_eq!(faults(&database), [""; 0]);

    database
        .connect()
        .batch_execute("select twilio.disable_sending()")
        .unwrap();
    send(&database, "+12025550123", "Your table is ready");
    assert_eq!(faults(&database), ["sending warning"]);
    let resume = "select twilio.enable_sending()";
    database.connect().batch_execute(resume).unwrap();
    wait_until(Duration::from_secs(20), "all to be well", || {
        faults(&database).is_empty()
    });
}

/// The checks that are not well, with their verdicts.
fn faults(database: &Database<'_>) -> Vec<String> {
    database.value(
        r#"select array(select "check" || ' ' || verdict from twilio.doctor() where verdict <> 'ok')"#,
        &[],
    )
}
