//! Event Streams: callbacks and events of one status are one event, in whatever order they come.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use end_to_end::client::callback::{self, EVENTS_PATH, STATUS_PATH, sid};
use end_to_end::client::load::deliver_all;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::peer::signer;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use serde_json::{Value, json};

const WHATSAPP: &str = "whatsapp:+12025550100";
const CONNECTIONS: usize = 8;
const MAX_BODY: usize = 1 << 20;

/// What becomes of a message: the statuses that are reported, the last with its error code.
const FATES: [(&[&str], Option<i32>); 4] = [
    (&["sent", "delivered"], None),
    (&["queued", "sent", "delivered", "read"], None),
    (&["sent", "undelivered"], Some(63049)),
    (&["failed"], Some(63016)),
];

#[test]
fn a_status_by_both_ways_is_one_event_with_one_fallback() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    database
        .connect()
        .batch_execute(&format!(
            "select twilio.add_sender('{WHATSAPP}'), twilio.add_sender('+12025550100'); \
             select twilio.add_fallback_rule('sms', from_channel => 'whatsapp', error_codes => '{{63049,63016}}', \
                 to_channel => 'sms')"
        ))
        .unwrap();
    let mut random = Random::new();
    let count = sized(400, 10_000);
    let (mut callbacks, mut events) = (Vec::new(), Vec::new());
    let mut expected = BTreeMap::new();
    for number in 0..count {
        let (statuses, code) = FATES[number % FATES.len()];
        expected.insert(
            sid(number),
            (statuses.len() as i64, i64::from(code.is_some())),
        );
        for status in statuses {
            let code = code.filter(|_| Some(status) == statuses.last());
            let to = format!("whatsapp:+1202{number:07}");
            let pairs = callback::status_between(&sid(number), status, code, WHATSAPP, &to);
            callbacks.push(Request::form(STATUS_PATH, &pairs).signed());
            events.push(event(number, status, code, &to));
        }
    }
    // At least once: a fifth of the events come twice. In batches of any size, and singly.
    let again: Vec<_> = (events.iter().filter(|_| random.one_in(5)))
        .cloned()
        .collect();
    events.extend(again);
    random.shuffle(&mut events);
    let mut bodies = Vec::new();
    while !events.is_empty() {
        let taken = events.split_off(events.len() - (1 + random.below(30)).min(events.len()));
        bodies.push(match &taken[..] {
            [single] => single.to_string(),
            many => json!(many).to_string(),
        });
    }
    let mut requests: Vec<_> = callbacks
        .into_iter()
        .chain(signer::events(&bodies))
        .collect();
    random.shuffle(&mut requests);
    let requests: Vec<_> = requests.iter().collect();
    deliver_all(
        &shim.address(),
        &requests,
        CONNECTIONS,
        &AtomicUsize::new(0),
    );

    let mut found = BTreeMap::new();
    let rows = database.connect().query(
        "select m.message_sid, (select count(*) from twilio.message_event e where e.message_id = m.message_id), \
             (select count(*) from twilio.message f where f.root_id = m.message_id and f.step > 0) \
         from twilio.message m where m.step = 0",
        &[],
    ).unwrap();
    for row in rows {
        found.insert(
            row.get::<_, String>(0),
            (row.get::<_, i64>(1), row.get::<_, i64>(2)),
        );
    }
    assert_eq!(found, expected);
    let regressed: i64 = database.value(
        "select count(*) from twilio.message m where m.step = 0 and m.status is distinct from ( \
             select e.status from twilio.message_event e where e.message_id = m.message_id \
             order by twilio_internal.status_rank('twilio', e.status) desc limit 1)",
        &[],
    );
    assert_eq!(regressed, 0);
    // Twilio's own time is kept, whichever came first.
    let sql =
        "select count(*) from twilio.message_event where source <> 'outbox' and event_time is null";
    assert_eq!(database.value::<i64>(sql, &[]), 0);
    assert_eq!(stored(&database), 0);
    cluster.assert_no_errors();
}

/// A request may have a megabyte on this path alone; nothing that a key signed is answered with 400.
#[test]
fn large_and_malformed_requests_are_stored() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let mut events: Vec<Value> = Vec::new();
    let mut size = 2;
    loop {
        let next = event(events.len(), "delivered", None, "+12025550123");
        size += next.to_string().len() + 1;
        if size > MAX_BODY {
            break;
        }
        events.push(next);
    }
    let count = events.len() as i64;
    let whole = json!(events).to_string();
    let padded = |length: usize| format!("{whole}{}", " ".repeat(length - whole.len()));
    let send = |body: String, path: &str| {
        let mut request = signer::events(&[body]).remove(0);
        request.target = request.target.replace(EVENTS_PATH, path);
        shim.send(&request).status
    };
    assert_eq!(send(padded(MAX_BODY + 1), EVENTS_PATH), 413);
    assert_eq!(send(padded(MAX_BODY), STATUS_PATH), 413);
    assert_eq!(database.counts(), (0, 0));
    assert_eq!(send(padded(MAX_BODY), EVENTS_PATH), 204);
    assert_eq!(database.counts(), (count, count));

    for (place, body) in [
        r#"{"specversion":"1.0","type":"com.twilio.messaging.message.sent","id":"EZ1"}"#,
        r#"[{"specversion":"1.0","type":"com.twilio.x","id":"EZ2","data":{"a":"\u0000"}}, null, "x"]"#,
        r#"{"specversion":"1.0","type":"com.twilio.messaging.message.sent","id":"EZ3","data":{"messageSid":7,"errorCode":[]}}"#,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(send(body.to_owned(), EVENTS_PATH), 204, "{place}");
    }
    assert_eq!(stored(&database), 5);
    let problems: i64 = database.value(
        "select count(*) from twilio.provider_event where problem is not null",
        &[],
    );
    assert_eq!(problems, 4);
    cluster.assert_no_errors();
}

fn stored(database: &Database<'_>) -> i64 {
    database.value("select count(*) from twilio.provider_event", &[])
}

/// The event of one status. <https://www.twilio.com/docs/events/event-types/messaging/outbound-message>
fn event(number: usize, status: &str, code: Option<i32>, to: &str) -> Value {
    json!({
        "specversion": "1.0",
        "type": format!("com.twilio.messaging.message.{status}"),
        "source": format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{}.json", sid(number)),
        "id": format!("EZ{number:024x}{:08x}", status.len()),
        "dataschema": "https://events-schemas.twilio.com/Messaging.MessageStatus/8",
        "datacontenttype": "application/json",
        "time": "2026-11-30T12:00:01.000Z",
        "data": {
            "accountSid": ACCOUNT_SID,
            "apiVersion": "2010-04-01",
            "dateUpdated": "2026-11-30T12:00:00.000Z",
            "errorCode": code,
            "eventName": format!("com.twilio.messaging.message.{status}"),
            "from": WHATSAPP,
            "messageSid": sid(number),
            "messageStatus": status.to_uppercase(),
            "numberOfSegments": 1,
            "tags": {},
            "timestamp": "2026-11-30T12:00:00.000Z",
            "to": to,
        },
    })
}
