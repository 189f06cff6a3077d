//! Opt-outs, opt-ins, blocks, sends and failures in random order: a suppressed recipient is sent nothing.

use std::time::Duration;

use end_to_end::client::callback::{INBOUND_PATH, bare, inbound, set, sid};
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::wait::holds_within;
use postgres::Client;
use postgres::error::SqlState;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const SENDERS: [&str; 3] = ["+12025550100", "+12025550101", "whatsapp:+12025550100"];
const SMSGATE: [&str; 6] = [
    "--smsgate-user",
    "user",
    "--smsgate-password",
    "password",
    "--device",
    "phone-1",
];
const REACHED_BY_SMS: &str = "+150100009400000";
const OPTS_OUT: &str = "+150000009000000";
/// Texts and their meaning: stop, start or nothing.
const WORDS: [(&str, Option<bool>); 19] = [
    ("STOP", Some(true)),
    ("unsubscribe", Some(true)),
    (" End\n", Some(true)),
    ("Quit", Some(true)),
    ("STOPALL", Some(true)),
    ("revoke", Some(true)),
    ("OPTOUT", Some(true)),
    ("Cancel", Some(true)),
    ("START", Some(false)),
    ("yes", Some(false)),
    ("Unstop", Some(false)),
    ("help", None),
    ("please stop", None),
    ("STOP!", Some(true)),
    ("\u{feff}“Stop.”", Some(true)),
    ("opt-out", Some(true)),
    ("STOP 12345", None),
    ("yes please", None),
    ("", None),
];

/// The consent of a recipient by the rules of the documentation, kept apart from the database.
struct Suppression {
    recipient: String,
    /// Without channel; `None` for all.
    sender: Option<String>,
    is_block: bool,
}

/// The state that the database must arrive at.
#[derive(Default)]
struct Model {
    all: Vec<Suppression>,
}

impl Model {
    fn add(&mut self, recipient: &str, sender: Option<&str>, is_block: bool) {
        self.all.push(Suppression {
            recipient: recipient.to_owned(),
            sender: sender.map(|sender| bare(sender).to_owned()),
            is_block,
        });
    }

    fn start(&mut self, recipient: &str, sender: &str) {
        let ends = |s: &Suppression| {
            !s.is_block && s.recipient == recipient && s.sender.as_deref() == Some(bare(sender))
        };
        self.all.retain(|s| !ends(s));
    }

    fn unblock(&mut self, recipient: &str, including_opt_out: bool) {
        self.all
            .retain(|s| s.recipient != recipient || !(s.is_block || including_opt_out));
    }

    /// Another provider, which has no sender of ours, is bound by an opt-out to any of them.
    fn holds(&self, recipient: &str, sender: Option<&str>) -> bool {
        self.all.iter().any(|s| {
            s.recipient == bare(recipient)
                && (s.sender.is_none()
                    || sender.is_none()
                    || s.sender.as_deref() == sender.map(bare))
        })
    }
}

#[test]
fn suppressed_recipients_are_sent_nothing() {
    let rounds = sized(8, 150);
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (shim, sandbox) = Sandbox::with_shim(&database, &SMSGATE);
    set_up(&database, &sandbox);
    let mut client = database.connect();
    let mut random = Random::new();
    let mut model = Model::default();
    // One of each case whatever the seed; these two recipients are not picked below.
    send(&mut client, &model, REACHED_BY_SMS, SENDERS[2]);
    send(&mut client, &model, OPTS_OUT, SENDERS[0]);
    stop(&shim, &mut model, OPTS_OUT, SENDERS[0]);
    let (mut seen, mut said) = (0, 0);
    let mut refused = send(&mut client, &model, OPTS_OUT, SENDERS[0]);
    for round in 0..rounds {
        // Messages that are queued now meet all opt-outs that come before sending goes on.
        for _ in 0..random.below(20) + 5 {
            let recipient = random.pick(&recipients()).clone();
            let sender = *random.pick(&SENDERS);
            match random.below(10) {
                0..=4 => refused += send(&mut client, &model, &recipient, sender),
                5..=7 => {
                    said += 1;
                    say(&shim, &mut model, &recipient, sender, said, &mut random);
                }
                8 => block(&mut client, &mut model, &recipient, sender, &mut random),
                _ => unblock(&mut client, &mut model, &recipient, &mut random),
            }
        }
        assert_same(&mut client, &model, round);
        client
            .batch_execute("select twilio.enable_sending()")
            .unwrap();
        settle(&database);
        client
            .batch_execute("select twilio.disable_sending()")
            .unwrap();
        check(&sandbox, &mut model, &mut seen, round);
    }
    let suppressed: i64 = database.value(
        "select count(*) from twilio.message where status = 'suppressed'",
        &[],
    );
    let fallbacks: i64 = database.value("select count(*) from twilio.message where step > 0", &[]);
    eprintln!(
        "{rounds} rounds: {seen} requests, {fallbacks} fallbacks, {said} messages came in, \
         {refused} sends refused at once, {suppressed} messages suppressed in the queue"
    );
    assert!(seen > 0 && fallbacks > 0 && refused > 0 && suppressed > 0);
}

/// Delivered; failing on WhatsApp and by SMS; on WhatsApp only; refusing for want of consent, two ways.
fn recipients() -> Vec<String> {
    let number = |area: &str, n: usize, end: &str| format!("{area}{n:05}{end}");
    let mut all: Vec<_> = (0..3).map(|n| number("+1500", n, "000000")).collect();
    all.extend((0..3).map(|n| number("+1501", n, "405000")));
    all.extend((3..5).map(|n| number("+1501", n, "400000")));
    all.extend((3..5).map(|n| number("+1500", n, "000073")));
    all.extend((5..7).map(|n| number("+1500", n, "000057")));
    all
}

fn teaches(recipient: &str) -> bool {
    recipient.ends_with("000073") || recipient.ends_with("000057")
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    let url = sandbox.url();
    let mut client = database.connect();
    for sender in SENDERS {
        client
            .execute("select twilio.add_sender($1)", &[&sender])
            .unwrap();
    }
    client
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', device_id => 'phone-1'); \
             select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(); \
             select twilio.add_fallback_rule('all', priority => 1, \
                 error_codes => array(select error_code from twilio.error_code)); \
             select twilio.start_worker(), twilio.disable_sending()"
        ))
        .unwrap();
}

/// Queues a message, which is refused at once if the model says so, and only then; 1 if it was.
fn send(client: &mut Client, model: &Model, recipient: &str, sender: &str) -> usize {
    let to = match sender.split_once(':') {
        Some((channel, _)) => format!("{channel}:{recipient}"),
        None => recipient.to_owned(),
    };
    let sql = "select twilio.send_message($1, 'Hello', from_address => $2)";
    let is_suppressed = model.holds(recipient, Some(sender));
    match client.query_one(sql, &[&to, &sender]) {
        Ok(_) => assert!(
            !is_suppressed,
            "a message to {to} from {sender} was accepted"
        ),
        Err(error) => {
            assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{error}");
            assert!(is_suppressed, "a message to {to} from {sender} was refused");
        }
    }
    is_suppressed.into()
}

/// The recipient says something to a sender, sometimes by Advanced Opt-Out in another language, sometimes by a button.
fn say(
    shim: &Shim,
    model: &mut Model,
    recipient: &str,
    sender: &str,
    number: usize,
    random: &mut Random,
) {
    let (mut word, mut means) = *random.pick(&WORDS);
    let mut pairs = inbound(&sid(number), word);
    if random.one_in(5) {
        let is_stop = random.one_in(2);
        (word, means) = ("arrêt", Some(is_stop));
        set(
            &mut pairs,
            "OptOutType",
            if is_stop { "STOP" } else { "START" },
        );
    }
    // A button with such a name has no effect.
    if random.one_in(6) && word != "arrêt" {
        means = None;
        set(&mut pairs, "ButtonText", word);
        set(&mut pairs, "ButtonPayload", "choice_1");
    }
    let prefix = sender.split_once(':').map_or("", |_| "whatsapp:");
    set(&mut pairs, "Body", word);
    set(&mut pairs, "From", &format!("{prefix}{recipient}"));
    set(&mut pairs, "To", sender);
    let answer = shim.send(&Request::form(INBOUND_PATH, &pairs).signed());
    assert_eq!(answer.status, 200, "{}", answer.text());
    match means {
        Some(true) => model.add(recipient, Some(sender), false),
        Some(false) => model.start(recipient, sender),
        None => {}
    }
}

/// Sends a STOP, which [`say`] does only by chance.
fn stop(shim: &Shim, model: &mut Model, recipient: &str, sender: &str) {
    let mut pairs = inbound(&sid(0), "STOP");
    set(&mut pairs, "From", recipient);
    set(&mut pairs, "To", sender);
    let answer = shim.send(&Request::form(INBOUND_PATH, &pairs).signed());
    assert_eq!(answer.status, 200, "{}", answer.text());
    model.add(recipient, Some(sender), false);
}

fn block(
    client: &mut Client,
    model: &mut Model,
    recipient: &str,
    sender: &str,
    random: &mut Random,
) {
    let sender = random.one_in(2).then(|| bare(sender));
    client
        .execute(
            "select twilio.block($1, from_address => $2)",
            &[&recipient, &sender],
        )
        .unwrap();
    model.add(recipient, sender, true);
}

fn unblock(client: &mut Client, model: &mut Model, recipient: &str, random: &mut Random) {
    let including_opt_out = random.one_in(3);
    client
        .execute(
            "select twilio.unblock($1, including_opt_out => $2)",
            &[&recipient, &including_opt_out],
        )
        .unwrap();
    model.unblock(recipient, including_opt_out);
}

/// Waits until everything that was queued, and all that followed from it, has come to its end, or waits for a
/// phone to report.
fn settle(database: &Database<'_>) {
    const QUIET_LOOKS: u32 = 30;
    let mut client = database.connect();
    let sql = "select not exists (select from twilio_internal.outbox) and not exists ( \
            select from twilio.message where direction = 'outbound' and status in \
                ('waiting', 'unknown', 'accepted', 'queued', 'sending')), \
        (select max(event_id) from twilio.message_event)";
    let (mut quiet, mut last) = (0, None);
    let is_settled = holds_within(PATIENCE, || {
        let row = client.query_one(sql, &[]).unwrap();
        let latest: Option<i64> = row.get(1);
        let is_quiet = row.get(0) && latest == last;
        quiet = if is_quiet { quiet + 1 } else { 0 };
        last = latest;
        quiet >= QUIET_LOOKS
    });
    let open = "select coalesce(string_agg(concat_ws(' ', m.message_id, m.to_address, m.provider, m.status, o.state, o.tries, \
            o.due_at - twilio.now(), o.lease_until - twilio.now()), '; '), '') \
        from twilio.message m left join twilio_internal.outbox o using (message_id) \
        where o.message_id is not null or m.status in ('waiting', 'unknown', 'accepted', 'queued', 'sending')";
    assert!(
        is_settled,
        "not at their end: {}",
        database.value::<String>(open, &[])
    );
}

/// Looks at what has arrived since: the model stood still all the while.
fn check(sandbox: &Sandbox, model: &mut Model, seen: &mut usize, round: usize) {
    let answer = sandbox.send(&Request::new("GET", "/_requests"));
    let value: Value = serde_json::from_slice(&answer.body).unwrap();
    let all = value["requests"].as_array().unwrap();
    let sent: Vec<_> = all
        .iter()
        .filter(|request| request["method"] == "POST" && request["to"].is_string())
        .collect();
    let mut learnt = Vec::new();
    for request in &sent[*seen..] {
        let to = request["to"].as_str().unwrap();
        let from = request["parameters"]["From"].as_str();
        assert!(!model.holds(to, from), "round {round}: {request}");
        if let Some(from) = from.filter(|_| teaches(to)) {
            learnt.push((bare(to).to_owned(), from.to_owned()));
        }
    }
    for (recipient, sender) in learnt {
        model.add(&recipient, Some(&sender), false);
    }
    *seen = sent.len();
}

/// The database suppresses what the model does, and nothing else.
fn assert_same(client: &mut Client, model: &Model, round: usize) {
    for recipient in recipients() {
        for sender in SENDERS {
            let sql = "select twilio_internal.suppression_of($1, $2, $3)";
            let row = client.query_one(sql, &[&ACCOUNT_SID, &sender, &recipient]);
            let reason: Option<String> = row.unwrap().get(0);
            assert_eq!(
                reason.is_some(),
                model.holds(&recipient, Some(sender)),
                "round {round}: {recipient} from {sender}: {reason:?}"
            );
        }
    }
}
