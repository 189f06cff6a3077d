//! State is a function of the set of callbacks: neither order nor repeats nor restarts matter.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use end_to_end::client::callback::{self, Pairs, STATUS_PATH, sid};
use end_to_end::client::load::deliver_all;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::wait::wait_until;

const ORDERS: usize = 20;
const CONNECTIONS: usize = 8;
const MESSAGES: usize = 60;

#[test]
fn the_same_callbacks_give_the_same_state_in_every_order() {
    let cluster = Cluster::start(&Options::default());
    let mut random = Random::new();
    let callbacks = callbacks(&mut random);
    let requests: Vec<_> = callbacks
        .iter()
        .map(|pairs| Request::form(STATUS_PATH, pairs).signed())
        .collect();
    let mut first = None;
    for order in 0..ORDERS {
        let database = cluster.database();
        let shuffled = in_some_order(&requests, &mut random);
        deliver(&database, &shuffled, order % 2 == 0);
        let outcome = Outcome::read(&database);
        let first = first.get_or_insert_with(|| outcome.clone());
        assert_eq!(first.events, outcome.events, "order {order}");
        for (one, other) in first.messages.iter().zip(&outcome.messages) {
            assert_eq!(one, other, "order {order}");
        }
        assert_eq!(outcome.messages.len(), MESSAGES);
    }
    let said: BTreeSet<_> = callbacks.iter().map(facts).collect();
    assert_eq!(first.unwrap().events, said);
    cluster.assert_no_errors();
}

/// Sends all requests while the shim is restarted midway, politely or not.
fn deliver(database: &Database<'_>, requests: &[&Request], is_polite: bool) {
    let mut shim = Shim::start(database, &["--log-callbacks", "off"]);
    let address = shim.address();
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| deliver_all(&address, requests, CONNECTIONS, &done));
        wait_until(Duration::from_secs(60), "half of the callbacks", || {
            done.load(Ordering::Acquire) >= requests.len() / 2
        });
        if is_polite {
            shim.ask_to_stop();
            assert!(shim.wait().success());
        } else {
            shim.kill();
        }
        shim.start_again();
    });
    assert_eq!(done.load(Ordering::Acquire), requests.len());
}

/// All requests, some of them several times, shuffled.
fn in_some_order<'a>(requests: &'a [Request], random: &mut Random) -> Vec<&'a Request> {
    let mut all = Vec::new();
    for request in requests {
        let times = if random.one_in(3) {
            2 + random.below(4)
        } else {
            1
        };
        all.extend(std::iter::repeat_n(request, times));
    }
    random.shuffle(&mut all);
    all
}

/// Callbacks that Twilio may send about some messages, contradictions included.
fn callbacks(random: &mut Random) -> Vec<Pairs> {
    let mut callbacks = Vec::new();
    for number in 0..MESSAGES {
        let channel = *random.pick(&["", "whatsapp:", "rcs:"]);
        // The sender, whose address names the channel, may change on the way. The first recipient counts.
        let prefix = if number % 7 == 5 { "" } else { channel };
        let (from, to) = (
            format!("{channel}+12025550100"),
            format!("{prefix}+1202555{number:04}"),
        );
        let say = |status: &str, code: Option<i32>| {
            callback::status_between(&sid(number), status, code, &from, &to)
        };
        let mut all: Vec<Pairs> = ["queued", "sending", "sent"]
            .into_iter()
            .filter(|_| !random.one_in(4))
            .map(|status| say(status, None))
            .collect();
        match number % 7 {
            0 => all.push(say("delivered", None)),
            1 => all.extend([say("delivered", None), say("read", None)]),
            2 => all.push(say("undelivered", Some(30003))),
            // A failure with several codes, and an unknown status in between.
            3 => all.extend([
                say("undelivered", Some(30008)),
                say("undelivered", Some(30003)),
                say("failed", None),
                say("beamed", Some(30001)),
            ]),
            // Reported as failed, and delivered after all.
            4 => all.extend([say("failed", Some(63016)), say("delivered", None)]),
            // Twilio chose another sender, and another channel, on the way.
            5 => all.push(callback::status_between(
                &sid(number),
                "delivered",
                None,
                "+12025550199",
                &to,
            )),
            _ => {
                let mut failure = say("undelivered", Some(63049));
                callback::set(&mut failure, "ChannelStatusMessage", "not on this channel");
                all.push(failure);
            }
        }
        callbacks.append(&mut all);
    }
    callbacks
}

/// SID, status and error code.
type Facts = (String, String, Option<i32>);

fn facts(pairs: &Pairs) -> Facts {
    let value = |name: &str| {
        pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    (
        value("MessageSid").unwrap(),
        value("MessageStatus").unwrap(),
        value("ErrorCode").map(|code| code.parse().unwrap()),
    )
}

#[derive(Clone)]
struct Outcome {
    messages: Vec<String>,
    events: BTreeSet<Facts>,
}

impl Outcome {
    fn read(database: &Database<'_>) -> Self {
        let mut client = database.connect();
        // Ids and times differ from run to run; whether there is a time must not.
        let sql = "
            select (
                (to_jsonb(s) - array['message_id', 'root_id', 'created_at'])
                || jsonb_build_object(
                    'sent_at', sent_at is not null, 'delivered_at', delivered_at is not null,
                    'read_at', read_at is not null, 'failed_at', failed_at is not null
                )
            )::text
            from twilio.message_status s
            order by message_sid";
        let messages = client.query(sql, &[]).unwrap();
        let sql = "select message_sid, status, error_code from twilio.message_timeline";
        let events = client.query(sql, &[]).unwrap();
        let distinct: BTreeSet<Facts> = events
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect();
        assert_eq!(distinct.len(), events.len(), "something was logged twice");
        Self {
            messages: messages.iter().map(|row| row.get(0)).collect(),
            events: distinct,
        }
    }
}
