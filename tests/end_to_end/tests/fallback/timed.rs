//! Timed rules: fallbacks of messages that neither failed nor arrived, with texts that users' functions look up or make.

use end_to_end::client::callback::STATUS_PATH;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::ACCOUNT_SID;
use end_to_end::server::outbox::{send, start_worker, status};
use end_to_end::wait::{PATIENCE, wait_until};

const WHATSAPP: &str = "whatsapp:+12025550100";

/// A user's tables and functions, and a rule that goes by them.
const APPLICATION: &str = "
    create schema app;
    create table app.sms (message_sid text, body text, created_at timestamptz);
    create table app.called (by name, at timestamptz default now());
    create function app.shorten(message jsonb) returns text language plpgsql as $$
    begin
        if message ->> 'body' = 'raise' then
            raise exception 'no text for this';
        end if;
        insert into app.called values (current_user);
        return upper(message ->> 'body');
    end $$;
    create role author;
    grant usage on schema app to author;
    grant insert on app.called to author;
    select twilio.set_fallback_text('slow', 'app.shorten', 'author')";

#[test]
fn messages_that_do_not_arrive_in_time_get_a_fallback() {
    let cluster = Cluster::start(&Options {
        fsync: false,
        lines: &["twilio_callback.message_source = 'app.sms'"],
    });
    let database = cluster.database();
    let (_shim, sandbox) = Sandbox::with_shim(&database, &["--callback-delay", "5"]);
    let url = sandbox.url();
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('{WHATSAPP}'); \
             select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '2 min')"
        ))
        .unwrap();
    client.batch_execute(APPLICATION).unwrap();
    start_worker(&database);

    // Sent and nothing after; delivered at once; sent by other software, which keeps the text; and one whose
    // text cannot be made, which must not delay the others.
    let stuck = send(&database, "whatsapp:+150100001040000", "a table is ready");
    let fine = send(&database, "whatsapp:+150100002000000", "no need");
    let hopeless = send(&database, "whatsapp:+150100003040000", "raise");
    let other = sandbox.create_with(
        WHATSAPP,
        "whatsapp:+150100004040000",
        STATUS_PATH,
        "at Twilio",
    );
    let statement = "insert into app.sms values ($1, 'in our table', now())";
    client
        .execute(statement, &[&other["sid"].as_str()])
        .unwrap();

    // Messages that arrive do so before the rule's time, however busy the machine is.
    wait_until(
        PATIENCE,
        "the first to be sent, delivered and reported",
        || {
            status(&database, fine) == "delivered"
                && [stuck, hopeless]
                    .iter()
                    .all(|id| status(&database, *id) == "sent")
                && database.value::<i64>("select count(*) from twilio.message", &[]) == 4
        },
    );
    for sql in [
        // Makes the setting known.
        "select twilio.now()",
        "alter system set twilio_callback.clock_offset = '150 s'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(sql).unwrap();
    }

    let sql = "select count(*) from twilio.message_chain where reached_by = 'sms' and steps = 2";
    wait_until(PATIENCE, "both to arrive by SMS", || {
        database.value::<i64>(sql, &[]) == 2
    });
    assert_eq!(status(&database, fine), "delivered");
    let sql = "select string_agg(m.body, ', ' order by m.message_id) from twilio.message m where m.step = 1";
    assert_eq!(
        database.value::<String>(sql, &[]),
        "A TABLE IS READY, IN OUR TABLE"
    );
    let sql = "select explanation from twilio.explain_fallback($1)";
    let explanation: String = database.value(sql, &[&hopeless]);
    assert!(
        explanation.ends_with("waiting: no text for this"),
        "{explanation}"
    );
    let sql = "select array_agg(distinct by::text) from app.called";
    assert_eq!(database.value::<Vec<String>>(sql, &[]), ["author"]);
    let counts = sandbox.counts();
    assert_eq!(counts["+150100001040000"], (1, 1));
    assert!(!counts.contains_key("+150100002000000") && !counts.contains_key("+150100003040000"));
    assert_eq!(status(&database, stuck), "sent");
    cluster.assert_no_errors();
}
