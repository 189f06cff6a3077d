//! Requests that Twilio's own libraries sign are accepted; whatever is changed in them is refused.

use std::collections::BTreeMap;

use end_to_end::client::alteration::{ALTERATIONS, respelled};
use end_to_end::client::callback::{self, STATUS_PATH};
use end_to_end::client::load::send_all;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::peer::signer::{self, Signed};
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use serde_json::Value;

const CONNECTIONS: usize = 8;

#[test]
fn what_the_libraries_sign_is_accepted_and_what_is_altered_is_refused() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    let mut random = Random::new();
    let count = sized(2000, 50_000);
    let mut signed = signer::python(count, random.number());
    signed.extend(signer::node(count, random.number()));

    refuses_altered(&shim, &signed, &mut random);
    assert_eq!(database.counts(), (0, 0), "refused requests have left rows");

    let requests: Vec<_> = signed.iter().map(|s| s.request.clone()).collect();
    accepts(&shim, &requests);
    let rows = i64::try_from(signed.len()).unwrap();
    assert_eq!(database.counts(), (rows, rows));
    assert_stored(&database, &signed);

    // Now that the rows are there, altered requests must not change them either.
    let before = dump(&database);
    refuses_altered(&shim, &signed, &mut random);
    let spelled_otherwise: Vec<_> = requests
        .iter()
        .filter_map(|request| respelled(request, &mut random))
        .collect();
    assert!(spelled_otherwise.len() > count);
    accepts(&shim, &spelled_otherwise);
    assert!(before == dump(&database), "rows have changed");
    cluster.assert_no_errors();
}

/// The URL of a request that arrives in another spelling than it was signed: escaped, or with a slash for an empty path.
#[test]
fn spellings_that_the_libraries_accept_are_accepted() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &["--log-callbacks", "off", "--status-path", "/"]);
    let mut random = Random::new();
    let signed = signer::spelled(sized(1000, 20_000), random.number(), &[STATUS_PATH, "/"]);
    let requests: Vec<_> = signed.iter().map(|s| s.request.clone()).collect();

    let altered: Vec<_> = (requests.iter())
        .map(|request| Request {
            body: [&request.body[..], b"1"].concat(),
            ..request.clone()
        })
        .collect();
    for (request, answer) in altered
        .iter()
        .zip(send_all(&shim.address(), &altered, CONNECTIONS))
    {
        assert_eq!(answer.unwrap().status, 403, "{request:?}");
    }
    accepts(&shim, &requests);
    assert_stored(&database, &signed);

    // The library for Python takes a URL as it was configured, without the slash that HTTP adds.
    let pairs = callback::status("SM00000000000000000000000000000001", "sent", None);
    for (arrives, signed) in [
        ("/?x=1", "?x=1"),
        ("/", ""),
        ("/?x=1", ":443?x=1"),
        // Only older versions of the library for Node accept this.
        ("/?who=sip%3Abob%40example.org", "/?who=sip:bob@example.org"),
    ] {
        let signed = Request::form(signed, &pairs).signed();
        let request = Request {
            target: arrives.to_owned(),
            ..signed
        };
        assert_eq!(shim.send(&request).status, 204, "{arrives}");
    }
    cluster.assert_no_errors();
}

fn accepts(shim: &Shim, requests: &[Request]) {
    let answers = send_all(&shim.address(), requests, CONNECTIONS);
    for (request, answer) in requests.iter().zip(answers) {
        let answer = answer.unwrap();
        assert!(answer.is_success(), "{}: {request:?}", answer.status);
    }
}

fn refuses_altered(shim: &Shim, signed: &[Signed], random: &mut Random) {
    let mut altered = Vec::new();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for signed in signed {
        for _ in 0..2 {
            let (name, alter) = random.pick(&ALTERATIONS);
            if let Some(request) = alter(&signed.request, random) {
                altered.push((*name, request));
                *uses.entry(name).or_default() += 1;
            }
        }
    }
    assert_eq!(
        uses.len(),
        ALTERATIONS.len(),
        "not every change was tried: {uses:?}"
    );
    let requests: Vec<_> = altered.iter().map(|(_, request)| request.clone()).collect();
    let answers = send_all(&shim.address(), &requests, CONNECTIONS);
    for ((name, request), answer) in altered.iter().zip(answers) {
        let status = answer.unwrap().status;
        assert!(
            (400..500).contains(&status),
            "{name}, {status}: {request:?}"
        );
    }
}

/// Each message has one event with the parameters that the library was given.
fn assert_stored(database: &Database<'_>, signed: &[Signed]) {
    let sql = "select message_sid, params::text from twilio.message_timeline";
    let rows = database.connect().query(sql, &[]).unwrap();
    let stored: BTreeMap<String, Value> = rows
        .iter()
        .map(|row| (row.get(0), serde_json::from_str(row.get(1)).unwrap()))
        .collect();
    for signed in signed {
        let mut stored = stored[signed.message_sid()].as_object().unwrap().clone();
        // A query's own parameters are signed with the URL; a JSON body's hash is one of them.
        if let Some(Value::Array(values)) = stored.get_mut("Repeated") {
            values.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
        let mut params = signed.params.clone();
        if let Some(Value::Array(values)) = params.get_mut("Repeated") {
            values.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
        assert_eq!(stored, params, "{}", signed.kind);
    }
}

fn dump(database: &Database<'_>) -> String {
    let sql =
        "select md5(string_agg(t::text, ',' order by event_id)) from twilio.message_timeline t";
    let events: String = database.value(sql, &[]);
    let sql = "select md5(string_agg(t::text, ',' order by message_id)) from twilio.message t";
    let messages: String = database.value(sql, &[]);
    events + &messages
}
