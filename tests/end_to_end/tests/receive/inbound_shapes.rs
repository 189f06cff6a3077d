//! Inbound messages in every shape that Twilio sends, signed by Twilio's own libraries: all of it is
//! there, by name and as it came.

use std::collections::BTreeMap;

use end_to_end::client::shape::{self, Shape};
use end_to_end::peer::shim::Shim;
use end_to_end::peer::signer::{self, Signed};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use serde_json::{Map, Value, json};

const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

#[test]
fn every_shape_is_read_however_it_is_sent() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    let shapes = shape::all();
    let [by_python, by_node] = [0, 1].map(|library| requests(&shapes, library));
    let mut signed = signer::given_to_python(&by_python);
    signed.extend(signer::given_to_node(&by_node));
    assert_eq!(signed.len(), 4 * shapes.len());

    for signed in &signed {
        accepted(&shim, signed);
    }
    let before = stored(&database);
    assert_eq!(before.len(), signed.len());
    for (n, signed) in signed.iter().enumerate() {
        // Each library's requests are each shape by POST and then by GET.
        let shape = &shapes[n / 2 % shapes.len()];
        let (columns, params, message) = &before[signed.message_sid()];
        assert_eq!(
            columns,
            &shape.columns_of(signed.message_sid()),
            "{}",
            shape.name
        );
        assert_eq!(params, &held(&signed.params), "{}", shape.name);
        // The message was received, even if another handler failed.
        assert_eq!(
            message, "inbound twilio received callback",
            "{}",
            shape.name
        );
    }

    // Twilio repeats what it got no answer to.
    for signed in &signed {
        accepted(&shim, signed);
    }
    assert!(
        before == stored(&database),
        "a repeat has changed something"
    );
    let count = signed.len() as i64;
    assert_eq!(database.counts(), (count, count));
}

#[test]
fn a_call_of_the_fallback_url_is_about_the_message_that_is_there() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    let first = &shape::all()[0];
    let sid = sid(1);
    let mut retold = first.params_of(&sid);
    retold.insert("ErrorCode".to_owned(), "11205".into());
    retold.insert(
        "ErrorUrl".to_owned(),
        "https://hooks.example.com/twilio/inbound".into(),
    );
    let given = |params: Map<String, Value>, method| json!({"method": method, "params": params});
    let told = [given(first.params_of(&sid), "POST"), given(retold, "GET")];
    for signed in signer::given_to_python(&told)
        .iter()
        .chain(&signer::given_to_node(&told))
    {
        accepted(&shim, signed);
    }
    let mut expected = first.columns_of(&sid);
    expected.insert("handler_error_code".to_owned(), 11205.into());
    let url = "https://hooks.example.com/twilio/inbound";
    expected.insert("handler_error_url".to_owned(), url.into());
    let stored = stored(&database);
    assert_eq!(stored[&sid].0, expected);
    let state: String = database.value(
        "select concat_ws(' ', status, error_code::text, failed_at::text) from twilio.message",
        &[],
    );
    assert_eq!(state, "received");
    assert_eq!(database.counts(), (2, 1));
}

/// Each shape by POST and by GET, as messages of their own.
fn requests(shapes: &[Shape], library: usize) -> Vec<Value> {
    let all = shapes.iter().enumerate().flat_map(|(n, shape)| {
        ["POST", "GET"]
            .into_iter()
            .enumerate()
            .map(move |(m, method)| {
                let sid = sid(4 * n + 2 * library + m);
                json!({"method": method, "params": shape.params_of(&sid)})
            })
    });
    all.collect()
}

/// SIDs of messages with media begin otherwise.
fn sid(number: usize) -> String {
    let prefix = if number.is_multiple_of(3) { "MM" } else { "SM" };
    format!("{prefix}{number:032x}")
}

fn accepted(shim: &Shim, signed: &Signed) {
    let answer = shim.send(&signed.request);
    assert_eq!(answer.status, 200, "{:?}", signed.request);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/xml")
    );
    assert_eq!(answer.text(), EMPTY);
}

/// The stored data of each message: its columns that are not null, the parameters of its event, and
/// whose it is.
fn stored(database: &Database<'_>) -> BTreeMap<String, (Map<String, Value>, Value, String)> {
    let sql = "select i.message_sid, \
            jsonb_strip_nulls(to_jsonb(i) - 'message_id' - 'received_at' - 'params')::text, \
            i.params::text, concat_ws(' ', m.direction, m.provider, m.status, e.source) \
        from twilio.inbound_message i \
        join twilio.message m on m.message_id = i.message_id \
        join lateral ( \
            select e.source from twilio.message_event e where e.message_id = m.message_id \
            order by e.event_id limit 1 \
        ) e on true";
    let rows = database.connect().query(sql, &[]).unwrap();
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    rows.iter()
        .map(|row| {
            let columns = read(row.get(1)).as_object().unwrap().clone();
            (row.get(0), (columns, read(row.get(2)), row.get(3)))
        })
        .collect()
}

/// The parameters as a database can hold them: it has no character 0.
fn held(params: &Map<String, Value>) -> Value {
    let text = Value::Object(params.clone()).to_string();
    // Twice escaped, it is text about a character and not one.
    let text = text
        .replace("\\\\u0000", "\u{1}")
        .replace("\\u0000", "\\ufffd");
    serde_json::from_str(&text.replace('\u{1}', "\\\\u0000")).unwrap()
}
