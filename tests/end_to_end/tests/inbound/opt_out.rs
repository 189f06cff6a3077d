//! Checks that people get no messages after opting out: random spellings, channels, words, buttons, late webhooks, repeats, purges, blocks,
//! fallbacks and retries while the worker sends. The sandbox counts messages that reached people who had opted out.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use end_to_end::client::callback::{INBOUND_PATH, Pairs, bare, inbound, set, sid};
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use end_to_end::wait::{PATIENCE, holds_within};
use postgres::Client;
use postgres::error::SqlState;
use protocol::smsgate::webhook::sign;
use serde_json::{Value, json};

const SERVICE: &str = "MG00000000000000000000000000000e2e";
/// Each country has as many people, and a phone of ours.
const COUNTRIES: [&str; 10] = ["US", "MX", "BR", "AR", "GB", "DE", "IT", "FR", "IN", "SG"];
const PEOPLE_OF_COUNTRY: usize = 3;
/// Numbers and agents that messages are sent from, and that people answer to.
const SENDERS: [&str; 5] = [
    "+12025550100",
    "whatsapp:+12025550100",
    "+12025550101",
    "rcs:brand_agent",
    IN_SERVICE,
];
/// The number of the messaging service.
const IN_SERVICE: &str = "+12025550102";

const STOPS: [&str; 32] = [
    "STOP",
    "stop",
    "unsubscribe",
    " End\n",
    "Quit",
    "STOPALL",
    "stop all",
    "revoke",
    "OPTOUT",
    "opt-out",
    "Opt  Out",
    "Cancel",
    "“Stop.”",
    "\u{ff33}\u{ff34}\u{ff2f}\u{ff30}",
    "S\u{200b}TOP\u{fe0f}",
    "« stop »",
    "STOP!!",
    "\u{feff}'stop'",
    "abmelden",
    "KÜNDIGUNG",
    "Baja",
    "darse de baja.",
    "No más mensajes",
    "ARRÊT",
    "arre\u{302}t",
    "désabonner",
    "Basta!",
    "annulla",
    "geen sms meer",
    "Rezygnuję",
    "sair",
    "descadastrar",
];
const STARTS: [&str; 14] = [
    "START",
    "start.",
    "“Start”",
    "yes",
    "Unstop",
    "START!",
    "Alta",
    "anmelden",
    "réabonner",
    "iscrivi",
    "inschrijven",
    "wznów",
    "voltar",
    "S\u{ad}TART",
];
/// Texts that do not change consent.
const OTHERS: [&str; 12] = [
    "",
    "please stop",
    "STOP 12345",
    "Stop. Thank you",
    "stop?",
    "yes please",
    "help",
    "INFO",
    "ayuda",
    "nonstop",
    "don't cancel",
    "start at 9",
];
/// Labels of buttons and list entries.
const CHOICES: [&str; 9] = [
    "Cancel", "Stop", "End", "Yes", "STOP", "START", "Quit", "Basta", "Alta",
];

#[test]
fn people_who_opted_out_get_no_messages() {
    let actions = sized(1_500, 20_000);
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let devices: Vec<_> = COUNTRIES.iter().map(|country| device(country)).collect();
    let mut flags = vec!["--smsgate-user", "user", "--smsgate-password", "password"];
    flags.extend(devices.iter().flat_map(|device| ["--device", device]));
    let (shim, sandbox) = Sandbox::with_shim(&database, &flags);
    let mut random = Random::new();
    let people = people();
    set_up(&database, &sandbox, &people);
    let mut client = database.connect();
    // Refusals are expected here, so they are not logged as errors.
    client
        .batch_execute("set log_min_messages = fatal")
        .unwrap();
    let mut town = Town {
        client,
        shim: &shim,
        people: &people,
        model: Model::default(),
        captured: Vec::new(),
        roots: HashMap::new(),
        tally: Tally::default(),
        number: 0,
    };
    for action in 0..actions {
        town.act(&mut random);
        if action % 50 == 49 {
            town.assert_same();
        }
        thread::sleep(Duration::from_millis(random.number() % 4));
    }
    let answer = sandbox.send(&Request::new("DELETE", "/_faults"));
    assert!(answer.status < 300, "{}", answer.text());
    settle(&database);
    town.assert_same();

    // People who opted out can opt in again.
    let reopened = town.reopen(&mut random);
    town.assert_same();
    let since = micros();
    for person in 0..people.len() {
        town.send(person, &mut random, false);
    }
    settle(&database);
    let creates = town.creates(&sandbox);
    let again: HashSet<_> = (creates.iter())
        .filter(|create| create.began > since)
        .map(|create| create.person)
        .collect();
    let reached = town.reached(&creates);

    let suppressed: i64 = database.value("select count(*) from public.suppressed", &[]);
    let fallbacks = creates.iter().filter(|create| create.step > 0).count();
    let slowest = creates.iter().map(|create| create.arrived - create.began);
    let slowest = Duration::from_micros(slowest.max().unwrap().try_into().unwrap());
    let tally = &town.tally;
    eprintln!(
        "{actions} actions: {} requests, {fallbacks} of them fallbacks; {} opt-outs, {} opt-ins, {} choices and \
         {} repeats; {} sends were refused at once and {suppressed} messages suppressed in the queue; {reached} reached \
         somebody who had opted out; {reopened} people opted in at the end; from the claim to the provider at most {slowest:.1?}",
        creates.len(),
        tally.stops,
        tally.starts,
        tally.choices,
        tally.repeats,
        tally.refused
    );
    assert_eq!(reached, 0, "reached after opting out");
    assert_eq!(again.len(), people.len(), "reached after opting in");
    assert!(reopened > 0 && suppressed > 0 && tally.refused > 0 && tally.choices > actions / 50);
    assert!(creates.len() > actions / 8 && fallbacks > actions / 100);
    // The worker checks consent when it claims a message, so it must not hold claimed messages for long.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    cluster.assert_no_errors();
}

/// A person, and the spellings of their number.
struct Person {
    country: &'static str,
    /// Spellings to which messages are sent: all that Twilio and people take for the number.
    recipients: Vec<String>,
    /// Spellings that include the country code.
    abroad: Vec<String>,
    /// Spellings that a phone of the country reports besides.
    at_home: Vec<String>,
}

fn people() -> Vec<Person> {
    let all = COUNTRIES.iter().flat_map(|country| {
        (0..PEOPLE_OF_COUNTRY).map(|number| Person::new(country, &format!("{}", 31 + number)))
    });
    all.collect()
}

impl Person {
    /// Spellings by the numbering plans of the countries and by what WhatsApp makes of them; `n` are the last two digits.
    fn new(country: &'static str, n: &str) -> Self {
        let texts = |all: &[&str]| -> Vec<String> {
            all.iter().map(|text| text.replace("##", n)).collect()
        };
        let (recipients, abroad, at_home): (&[&str], &[&str], &[&str]) = match country {
            "US" => (
                &["+120255843##"],
                &[
                    "120255843##",
                    "00120255843##",
                    "+1 (202) 558-43##",
                    "+1\u{a0}202.558.43##",
                ],
                &[
                    "20255843##",
                    "(202) 558-43##",
                    "1-202-558-43##",
                    "011120255843##",
                ],
            ),
            "MX" => (
                &["+5255111122##", "+52155111122##"],
                &[
                    "5255111122##",
                    "52155111122##",
                    "005255111122##",
                    "+52 1 55 1111 22##",
                ],
                &[
                    "55111122##",
                    "04455111122##",
                    "04555111122##",
                    "0155111122##",
                ],
            ),
            "BR" => (
                &["+55319876543##", "+5531876543##"],
                &["55319876543##", "5531876543##", "+55 (31) 98765-43##"],
                &["319876543##", "31876543##", "0319876543##"],
            ),
            "AR" => (
                &["+5411234567##", "+54911234567##", "+541115234567##"],
                &["5411234567##", "54911234567##", "+54 11 15 2345-67##"],
                &["11234567##", "011 15 2345-67##"],
            ),
            "GB" => (
                &["+4474001234##"],
                &["004474001234##", "+44 (0)7400 1234##"],
                &["074001234##", "4474001234##", "07400 1234##"],
            ),
            "DE" => (
                &["+49151234567##"],
                &["0049151234567##", "+49 (0)1512 34567##"],
                &["0151/234567##", "49151234567##"],
            ),
            "IT" => (
                &["+3931234567##"],
                &["003931234567##", "+39 312 345 67##"],
                &["312 345 67##", "3931234567##"],
            ),
            "FR" => (
                &["+336399812##"],
                &["00336399812##", "+33 (0)6 39 98 12 ##"],
                &["06.39.98.12.##", "336399812##"],
            ),
            "IN" => (
                &["+9198765432##"],
                &["9198765432##", "+91 98765 432##"],
                &["098765 432##", "98765432##"],
            ),
            // The national number is as short as a short code, so that a phone sends to it as it stands.
            _ => (
                &["+65812345##"],
                &["0065812345##", "+65 8123 45##"],
                &["812345##", "8123 45##"],
            ),
        };
        let recipients = texts(recipients);
        Self {
            country,
            abroad: [recipients.clone(), texts(abroad)].concat(),
            at_home: texts(at_home),
            recipients,
        }
    }

    fn is_dialled_short(&self) -> bool {
        self.country == "SG"
    }
}

/// The senders that an opt-out holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All senders: the opt-out was sent to a phone, or is a block without a sender.
    Everyone,
    /// The messaging service: any sender may be one of its numbers.
    Service,
    /// One number on all its channels, or an agent.
    Sender(&'static str),
}

#[derive(Debug)]
struct Suppression {
    person: usize,
    scope: Scope,
    is_block: bool,
    /// The time of the last such message.
    said: i64,
    /// Since when the webhook is answered.
    since: i64,
    /// When the request that ends it was made.
    until: Option<i64>,
}

/// Consent by the rules of the documentation, kept apart from the database. All times are in microseconds since 1970.
#[derive(Default)]
struct Model {
    all: Vec<Suppression>,
    /// When the person opted in: between these times.
    opt_ins: Vec<(usize, i64, i64)>,
    /// When a person ended an opt-out that held for everyone.
    lifted: Vec<(usize, i64, i64)>,
}

impl Model {
    /// Whether a message from `sender` is suppressed. None is a phone: a STOP to any sender holds for it.
    fn holds_at(&self, person: usize, sender: Option<&str>, at: i64) -> bool {
        self.all.iter().any(|s| {
            s.person == person
                && s.since <= at
                && s.until.is_none_or(|until| until > at)
                && match (s.scope, sender) {
                    (Scope::Sender(said_to), Some(sender)) if sender != SERVICE => {
                        said_to == bare(sender)
                    }
                    _ => true,
                }
        })
    }

    fn holds(&self, person: usize, sender: Option<&str>) -> bool {
        self.holds_at(person, sender, i64::MAX - 1)
    }

    fn stop(&mut self, person: usize, scope: Scope, is_block: bool, said: i64, since: i64) {
        let open = self.all.iter_mut().find(|s| {
            (s.person, s.scope, s.is_block) == (person, scope, is_block) && s.until.is_none()
        });
        match open {
            Some(open) => open.said = open.said.max(said),
            None => self.all.push(Suppression {
                person,
                scope,
                is_block,
                said,
                since,
                until: None,
            }),
        }
    }

    fn end(&mut self, at: i64, is_ended: impl Fn(&Suppression) -> bool) {
        let over = (self.all.iter_mut()).filter(|s| s.until.is_none() && is_ended(s));
        over.for_each(|s| s.until = Some(at));
    }

    fn has_changed_since(&self, person: usize, said: i64) -> bool {
        let mut changes = self.opt_ins.iter().chain(&self.lifted);
        changes.any(|(who, from, _)| *who == person && *from > said)
    }

    /// Whether a message of that time has a clear order among the person's other messages.
    fn is_clear(&self, person: usize, said: i64) -> bool {
        const MARGIN: i64 = 5_000;
        let mut changes = self.opt_ins.iter().chain(&self.lifted);
        changes.all(|(who, from, to)| *who != person || said < from - MARGIN || said > to + MARGIN)
            && (self.all.iter()).all(|s| s.person != person || (s.said - said).abs() > MARGIN)
    }
}

#[derive(Default)]
struct Tally {
    stops: usize,
    starts: usize,
    choices: usize,
    repeats: usize,
    refused: usize,
}

/// A request that came in once.
enum Captured {
    Twilio(Request),
    Phone(&'static str, Value),
}

/// A create that reached a provider.
struct Create {
    person: usize,
    sender: Option<String>,
    root: i64,
    step: i32,
    /// When the transaction began that took the message from the queue.
    began: i64,
    arrived: i64,
    shown: Value,
}

/// The simulated people and what they have written.
struct Town<'a> {
    client: Client,
    shim: &'a Shim,
    people: &'a [Person],
    model: Model,
    captured: Vec<Captured>,
    /// The sender of each message of ours.
    roots: HashMap<i64, Option<&'static str>>,
    tally: Tally,
    number: usize,
}

impl Town<'_> {
    fn act(&mut self, random: &mut Random) {
        let person = random.below(self.people.len());
        match random.below(100) {
            0..=29 => {
                self.send(person, random, false);
            }
            30..=39 => {
                let sender = self.send(person, random, true);
                // Often while it waits, or while what goes in its place does.
                if let Some(sender) = sender.filter(|_| random.one_in(2)) {
                    thread::sleep(Duration::from_millis(random.number() % 100));
                    self.say(person, sender, random);
                }
            }
            40..=56 => self.say(person, random.pick::<&str>(&SENDERS), random),
            57..=70 => self.say_to_phone(person, random),
            71..=78 => self.choose(person, random),
            79..=86 => self.repeat(random),
            87..=88 => self.block(person, random),
            89..=91 => self.unblock(person, random),
            92..=94 => self.retry(random),
            95..=96 => self.toggle_rules(random),
            97 => self.run("call twilio.purge('0 s', include_pending => true, effort => 1)"),
            98 => self.run("call twilio.redact('0 s', effort => 1)"),
            _ => self.run("select count(*) from twilio.replay(dry_run => false)"),
        }
    }

    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap();
    }

    /// Queues a message, which is refused at once if the model says so, and only then; gives the sender that people
    /// answer to.
    fn send(&mut self, person: usize, random: &mut Random, is_later: bool) -> Option<&'static str> {
        let somebody = &self.people[person];
        let phone = phone(random.pick::<&str>(&COUNTRIES));
        // Most on the channel that falls back.
        let senders = [&SENDERS[..], &[SERVICE, "", SENDERS[1], SENDERS[1]]].concat();
        let from = Some(*random.pick(&senders)).filter(|from| !from.is_empty());
        let mut to = channel(from.unwrap_or_default()).to_owned()
            + random.pick::<String>(&somebody.recipients).as_str();
        let mut sender = from.unwrap_or(&phone).to_owned();
        if from.is_none() && somebody.is_dialled_short() && random.one_in(2) {
            to.clone_from(&somebody.at_home[0]);
            sender = self::phone(somebody.country);
        }
        let is_suppressed = self.model.holds(person, from);
        let is_recorded = random.one_in(4);
        let later = is_later.then(|| 0.2 + random.below(2_000) as f64 / 1_000.0);
        let sql = "select twilio.send_message($1, 'Hello', from_address => $2, \
            send_at => clock_timestamp() + $3 * interval '1 s', if_suppressed => $4)";
        let policy = if is_recorded { "record" } else { "error" };
        match self.client.query_one(sql, &[&to, &sender, &later, &policy]) {
            Ok(row) => {
                self.roots.insert(row.get(0), from);
                assert!(
                    is_recorded || !is_suppressed,
                    "to {to} from {sender} was taken"
                );
            }
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{error}");
                assert!(is_suppressed, "to {to} from {sender} was refused");
                self.tally.refused += 1;
            }
        }
        from.filter(|from| *from != SERVICE)
    }

    fn retry(&mut self, random: &mut Random) {
        let sql = "select m.message_id, m.to_address from twilio.message m \
            where m.direction = 'outbound' and m.to_address is not null and m.from_address is not null \
                and m.body is not null and m.status in ('failed', 'undelivered', 'suppressed', 'canceled') \
                and not exists (select from twilio.message x where x.root_id = m.root_id and x.step = m.step and x.try > m.try) \
            order by m.message_id desc limit 20";
        let rows = self.client.query(sql, &[]).unwrap();
        if rows.is_empty() {
            return;
        }
        let row = random.pick(&rows);
        let (id, to): (i64, String) = (row.get(0), row.get(1));
        // A message that is sent is judged when it reaches the provider. This may meet a callback that ends the message otherwise.
        if let Err(error) = self
            .client
            .query_one("select twilio.retry_message($1)", &[&id])
        {
            let is_known = error.code() == Some(&SqlState::CHECK_VIOLATION)
                || error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
            assert!(is_known, "{to}: {error:?}");
        }
    }

    fn toggle_rules(&mut self, random: &mut Random) {
        let sender = *random.pick(&[SENDERS[0], SENDERS[2]]);
        let delay = *random.pick(&["0", "1 s"]);
        let sql = match random.below(6) {
            0 => "select twilio.disable_fallback('whatsapp_to_sms')".to_owned(),
            1 => "select twilio.disable_fallback('sms_to_smsgate')".to_owned(),
            2..=4 => {
                format!("select twilio.enable_whatsapp_to_sms('{sender}', delay => '{delay}')")
            }
            _ => format!("select twilio.enable_sms_to_smsgate(delay => '{delay}')"),
        };
        self.run(&sql);
    }

    /// Says STOP, START or something else to a sender at Twilio.
    fn say(&mut self, person: usize, sender: &'static str, random: &mut Random) {
        let (mut word, mut is_stop) = word(self.model.holds(person, Some(sender)), random);
        let option = random
            .one_in(6)
            .then(|| *random.pick(&["STOP", "start", "HELP"]));
        if let Some(option) = option {
            // Advanced Opt-Out counts more than the text.
            is_stop = match option {
                "STOP" => Some(true),
                "start" => Some(false),
                _ => None,
            };
            word = *random.pick(&["Nein danke", "STOP", "START", "tak"]);
        }
        let mut pairs = self.inbound(person, sender, word, random);
        if let Some(option) = option {
            set(&mut pairs, "OptOutType", option);
        }
        self.hear(person, sender, pairs, is_stop);
    }

    fn inbound(&mut self, person: usize, sender: &str, word: &str, random: &mut Random) -> Pairs {
        self.number += 1;
        let mut pairs = inbound(&sid(self.number), word);
        let from = random.pick(&self.people[person].recipients);
        set(&mut pairs, "From", &format!("{}{from}", channel(sender)));
        set(&mut pairs, "To", sender);
        if sender == IN_SERVICE {
            set(&mut pairs, "MessagingServiceSid", SERVICE);
        }
        pairs
    }

    /// Delivers an incoming message, which opts out, opts in or does neither.
    fn hear(&mut self, person: usize, sender: &'static str, pairs: Pairs, is_stop: Option<bool>) {
        let request = Request::form(INBOUND_PATH, &pairs).signed();
        let from = micros();
        let answer = self.shim.send(&request);
        let to = micros();
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.captured.push(Captured::Twilio(request));
        let mut scopes = vec![Scope::Sender(bare(sender))];
        if sender == IN_SERVICE {
            scopes.push(Scope::Service);
        }
        match is_stop {
            Some(true) => {
                self.tally.stops += 1;
                for scope in scopes {
                    self.model.stop(person, scope, false, to, to);
                }
            }
            Some(false) => {
                self.tally.starts += 1;
                scopes.push(Scope::Everyone);
                self.model.end(from, |s| {
                    s.person == person && !s.is_block && scopes.contains(&s.scope)
                });
                self.model.opt_ins.push((person, from, to));
            }
            None => {}
        }
    }

    /// A button, an entry of a list or a form of WhatsApp's, whatever it is called.
    fn choose(&mut self, person: usize, random: &mut Random) {
        let choice = *random.pick(&CHOICES);
        let sender = *random.pick(&SENDERS);
        let mut pairs = self.inbound(person, sender, choice, random);
        let kinds: [&[(&str, &str)]; 5] = [
            &[("ButtonText", choice), ("ButtonPayload", "order_7")],
            &[("ListId", "entry_3"), ("ListTitle", choice)],
            &[
                ("MessageType", "interactive"),
                ("InteractiveData", "{\"id\":1}"),
            ],
            &[("MessageType", "button")],
            &[("FlowData", "{\"answer\":\"stop\"}")],
        ];
        for (name, value) in *random.pick(&kinds) {
            set(&mut pairs, name, value);
        }
        self.tally.choices += 1;
        self.hear(person, sender, pairs, None);
    }

    /// Says something to a phone of ours, as its network spells the number; the phone may report it later.
    fn say_to_phone(&mut self, person: usize, random: &mut Random) {
        let somebody = &self.people[person];
        let is_home = random.one_in(2);
        let country = if is_home {
            somebody.country
        } else {
            *random.pick(&COUNTRIES)
        };
        // Without a sign of the country, digits are for the country's own phone.
        let spelling = if country == somebody.country && random.one_in(2) {
            random.pick(&somebody.at_home)
        } else {
            let plain: Vec<_> = (somebody.abroad.iter())
                .filter(|text| {
                    text.starts_with('+') || text.starts_with("00") || country == somebody.country
                })
                .collect();
            *random.pick(&plain)
        };
        let (word, is_stop) = word(self.model.holds(person, None), random);
        let age = [0, 0, 50, 3_000, 20_000, 3_600_000];
        let mut said = 0;
        let is_clear = holds_within(PATIENCE, || {
            let age = *random.pick(&age);
            let age = if age == 0 { 0 } else { random.below(age) + 1 };
            said = (micros() / 1_000 - i64::try_from(age).unwrap()) * 1_000;
            self.model.is_clear(person, said)
        });
        assert!(is_clear);
        self.number += 1;
        let sql = "select to_json(to_timestamp($1::bigint / 1000000.0) at time zone 'UTC') #>> '{}' || 'Z'";
        let received: String = self.client.query_one(sql, &[&said]).unwrap().get(0);
        let event = *random.pick(&["sms:received", "sms:received", "mms:downloaded"]);
        let text = if event == "sms:received" {
            "message"
        } else {
            "body"
        };
        let body = json!({
            "id": format!("event-{}", self.number), "webhookId": "w", "deviceId": device_id(country), "event": event,
            "payload": {
                "messageId": format!("m{}", self.number), "sender": spelling, "recipient": null, "simNumber": 1,
                text: word, "receivedAt": received,
            },
        });
        let from = micros();
        self.deliver(country, &body);
        let to = micros();
        self.captured.push(Captured::Phone(country, body));
        match is_stop {
            Some(true) => {
                self.tally.stops += 1;
                if !self.model.has_changed_since(person, said) {
                    self.model.stop(person, Scope::Everyone, false, said, to);
                }
            }
            Some(false) => {
                self.tally.starts += 1;
                self.model.end(from, |s| {
                    s.person == person && !s.is_block && s.scope == Scope::Everyone && s.said < said
                });
                self.model.opt_ins.push((person, said, said));
            }
            None => {}
        }
    }

    fn deliver(&self, country: &str, body: &Value) {
        let stamp = (micros() / 1_000_000).to_string();
        let text = body.to_string();
        let signature = sign(key(country).as_bytes(), text.as_bytes(), &stamp);
        let request = Request::post("/smsgate", "application/json", text)
            .header("X-Timestamp", &stamp)
            .header("X-Signature", &signature);
        let answer = self.shim.send(&request);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Delivers an earlier message once more, perhaps after a purge.
    fn repeat(&mut self, random: &mut Random) {
        if self.captured.is_empty() {
            return;
        }
        self.tally.repeats += 1;
        match random.pick(&self.captured) {
            Captured::Twilio(request) => {
                let answer = self.shim.send(request);
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            Captured::Phone(country, body) => {
                let mut body = body.clone();
                // An export of the phone's inbox has other ids.
                if random.one_in(2) {
                    body["id"] = json!(format!("export-{}", random.number()));
                    body["payload"]["messageId"] = json!(format!("x{}", random.number()));
                }
                self.deliver(country, &body);
            }
        }
    }

    fn block(&mut self, person: usize, random: &mut Random) {
        let address = random.pick(&self.people[person].recipients);
        let sender = random
            .one_in(2)
            .then(|| bare(random.pick::<&str>(&SENDERS)));
        let prefix = *random.pick(&["", "whatsapp:"]);
        let sql = "select twilio.block($1, from_address => $2)";
        let address = format!("{prefix}{address}");
        self.client.execute(sql, &[&address, &sender]).unwrap();
        let scope = sender.map_or(Scope::Everyone, Scope::Sender);
        self.model.stop(person, scope, true, micros(), micros());
    }

    fn unblock(&mut self, person: usize, random: &mut Random) {
        let is_all = random.one_in(3);
        let address = random.pick(&self.people[person].recipients).clone();
        self.lift(person, &address, is_all);
    }

    fn lift(&mut self, person: usize, address: &str, is_all: bool) {
        let from = micros();
        let sql = "select twilio.unblock($1, including_opt_out => $2)";
        self.client.execute(sql, &[&address, &is_all]).unwrap();
        let was_for_everyone = self.model.all.iter().any(|s| {
            s.person == person && s.until.is_none() && !s.is_block && s.scope == Scope::Everyone
        });
        if is_all && was_for_everyone {
            self.model.lifted.push((person, from, micros()));
        }
        self.model
            .end(from, |s| s.person == person && (s.is_block || is_all));
    }

    /// Has everybody opt in wherever they opted out and ends all blocks; returns how many people had any of these.
    fn reopen(&mut self, random: &mut Random) -> usize {
        let mut reopened = 0;
        for person in 0..self.people.len() {
            let address = random.pick(&self.people[person].recipients).clone();
            self.lift(person, &address, false);
            reopened += usize::from(self.model.holds(person, None));
            for sender in SENDERS {
                let pairs = self.inbound(person, sender, "START", random);
                self.hear(person, sender, pairs, Some(false));
            }
            assert!(!self.model.holds(person, None));
        }
        reopened
    }

    /// The database suppresses what the model does, and nothing else.
    fn assert_same(&mut self) {
        let (mut recipients, mut senders, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (number, person) in self.people.iter().enumerate() {
            for recipient in &person.recipients {
                for sender in [&SENDERS[..], &[SERVICE, ""]].concat() {
                    let from = Some(sender).filter(|sender| !sender.is_empty());
                    recipients.push(format!("{}{recipient}", channel(sender)));
                    senders.push(from.map_or_else(|| phone(person.country), str::to_owned));
                    expected.push(self.model.holds(number, from));
                }
            }
        }
        let sql = "select twilio_internal.suppression_of(case when i.s !~ '/' then $1 end, i.s, i.r) \
            from unnest($2::text[], $3::text[]) with ordinality i (r, s, n) order by i.n";
        let arguments = (ACCOUNT_SID, &recipients, &senders);
        let rows = self
            .client
            .query(sql, &[&arguments.0, arguments.1, arguments.2]);
        for (index, row) in rows.unwrap().iter().enumerate() {
            let reason: Option<String> = row.get(0);
            let (to, from) = (&recipients[index], &senders[index]);
            assert_eq!(
                reason.is_some(),
                expected[index],
                "to {to} from {from}: {reason:?}"
            );
        }
    }

    /// Counts creates for people whose opt-out had been acknowledged before the worker claimed the message.
    fn reached(&self, creates: &[Create]) -> usize {
        let mut count = 0;
        for create in creates {
            let (person, at) = (create.person, create.began);
            // A STOP to the original's sender holds for its fallback too.
            let original = self.roots.get(&create.root).copied().flatten();
            let original = original.filter(|sender| *sender != SERVICE);
            let is_wrong = self.model.holds_at(person, create.sender.as_deref(), at)
                || original.is_some_and(|sender| self.model.holds_at(person, Some(sender), at));
            if is_wrong {
                eprintln!("from {:?}: {}", create.sender, create.shown);
                count += 1;
            }
        }
        count
    }

    /// The sandbox's ledger: every create, of whatever outcome.
    fn creates(&mut self, sandbox: &Sandbox) -> Vec<Create> {
        let mut known = HashMap::new();
        for (number, person) in self.people.iter().enumerate() {
            known.extend(person.recipients.iter().map(|to| (to.clone(), number)));
            if person.is_dialled_short() {
                known.insert(person.at_home[0].clone(), number);
            }
        }
        let requests = sandbox.requests(0);
        let all = (requests.into_iter()).filter(|r| r["method"] == "POST" && r["to"].is_string());
        let sql = "select t.root_id, t.step, (extract(epoch from t.began) * 1000000)::bigint from public.taken t \
            where t.attempt_id = $1::text::uuid \
                or t.message_id = (select p.message_id from public.phoned p where p.reference = $1) \
                    and t.began < to_timestamp($2::bigint / 1000000.0) \
            order by t.began desc limit 1";
        let query = self.client.prepare(sql).unwrap();
        all.map(|shown| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let (to, parameters) = (text(&shown["to"]).unwrap(), &shown["parameters"]);
            let callback = text(&parameters["StatusCallback"]).unwrap_or_default();
            let attempt =
                protocol::callback_url::attempt(&callback).or_else(|| text(&parameters["id"]));
            let arrived = shown["received_us"].as_i64().unwrap();
            let row = self
                .client
                .query_opt(&query, &[&attempt, &arrived])
                .unwrap();
            let row = row.unwrap_or_else(|| panic!("of no attempt: {shown}"));
            Create {
                person: known[bare(&to)],
                sender: text(&parameters["From"])
                    .or_else(|| text(&parameters["MessagingServiceSid"])),
                root: row.get(0),
                step: row.get(1),
                began: row.get(2),
                arrived,
                shown,
            }
        })
        .collect()
    }
}

/// STOP, START or something else; people who opted out mostly get START.
fn word(is_out: bool, random: &mut Random) -> (&'static str, Option<bool>) {
    let is_stop = match (is_out, random.below(10)) {
        (_, 0..=1) => None,
        (true, 2) | (false, 2..=5) => Some(true),
        _ => Some(false),
    };
    let words: &[&str] = match is_stop {
        None => &OTHERS,
        Some(true) => &STOPS,
        Some(false) => &STARTS,
    };
    (*random.pick(words), is_stop)
}

/// Senders, phones, keywords and rules; what is bound to fail; and a log of what was taken from the queue and when.
fn set_up(database: &Database<'_>, sandbox: &Sandbox, people: &[Person]) {
    let url = sandbox.url();
    let mut client = database.connect();
    for sender in [&SENDERS[..], &[SERVICE]].concat() {
        client
            .execute("select twilio.add_sender($1)", &[&sender])
            .unwrap();
    }
    for country in COUNTRIES {
        let sql = "select twilio.add_smsgate('user', 'password', $1, device_id => $2, signing_key => $3, country => $4)";
        let gateway = format!("{url}/3rdparty/v1");
        let arguments = (device_id(country), key(country));
        client
            .execute(sql, &[&gateway, &arguments.0, &arguments.1, &country])
            .unwrap();
    }
    client
        .batch_execute(&format!(
            "{LOG}; \
             select twilio.add_consent_keywords(language) from unnest('{{de,es,fr,it,nl,pl,pt}}'::text[]) language; \
             select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(); \
             select twilio.start_worker()"
        ))
        .unwrap();
    // A third of the people can be reached on every channel; the others fail on WhatsApp, and half of these by SMS too.
    for (number, person) in people.iter().enumerate() {
        let on = |channel: &str, fields: &[(&str, &str)]| {
            for recipient in &person.recipients {
                let to = format!("{channel}{recipient}");
                let fields = [&[("to", to.as_str()), ("count", "unlimited")], fields].concat();
                let answer = sandbox.send(&Request::form("/_faults", &fields));
                assert!(answer.status < 300, "{}", answer.text());
            }
        };
        if number % 3 > 0 {
            on(
                "whatsapp:",
                &[("outcome", "undelivered"), ("argument", "63016")],
            );
        }
        if number % 3 > 1 {
            on("", &[("outcome", "undelivered"), ("argument", "30003")]);
        }
        // Tried again later.
        on("", &[("outcome", "busy"), ("percent", "3")]);
        on(
            "",
            &[("outcome", "failed"), ("on", "smsgate"), ("percent", "10")],
        );
    }
}

/// Kept beside the tables, for a purge takes messages and attempts along.
const LOG: &str = "create table public.taken (attempt_id uuid, message_id bigint, root_id bigint, step int, began timestamptz); \
    create table public.phoned (reference text, message_id bigint); \
    create table public.suppressed (message_id bigint); \
    create function public.take() returns trigger language plpgsql as $$ begin \
        insert into public.taken select new.attempt_id, m.message_id, m.root_id, m.step, transaction_timestamp() \
        from twilio.message m where m.message_id = new.message_id; \
        return new; \
    end $$; \
    create trigger take after insert on twilio_internal.attempt for each row execute function public.take(); \
    create function public.phone() returns trigger language plpgsql as $$ begin \
        insert into public.phoned values (new.reference::text, new.message_id); \
        return new; \
    end $$; \
    create trigger phone after insert on twilio_internal.smsgate_message for each row execute function public.phone(); \
    create function public.suppress() returns trigger language plpgsql as $$ begin \
        insert into public.suppressed select new.message_id from twilio.message m \
        where m.message_id = new.message_id and m.created_at < new.received_at; \
        return new; \
    end $$; \
    create trigger suppress after insert on twilio.message_event for each row when (new.status = 'suppressed') \
        execute function public.suppress(); \
    create index on public.taken (attempt_id); \
    create index on public.taken (message_id); \
    create index on public.phoned (reference)";

/// Waits until all queued messages and their fallbacks were sent or ended.
fn settle(database: &Database<'_>) {
    const QUIET_LOOKS: u32 = 50;
    let mut client = database.connect();
    let sql = "select not exists (select from twilio_internal.outbox where state <> 'dead'), \
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
    let open = "select coalesce(string_agg(concat_ws(' ', m.message_id, m.to_address, m.provider, m.status, o.state, \
            o.tries, o.due_at - twilio.now(), o.lease_until - twilio.now()), '; '), '') \
        from twilio.message m join twilio_internal.outbox o using (message_id)";
    let open: String = database.value(open, &[]);
    assert!(is_settled, "messages without a final status: {open}");
}

fn micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

/// The prefix of a sender's channel.
fn channel(sender: &str) -> &str {
    sender
        .split_once(':')
        .map_or("", |(channel, _)| &sender[..=channel.len()])
}

fn device_id(country: &str) -> String {
    format!("phone-{country}")
}

/// As the sandbox takes it.
fn device(country: &str) -> String {
    format!("{}:{}", device_id(country), key(country))
}

fn key(country: &str) -> String {
    format!("key-{country}")
}

/// The phone's address as a sender.
fn phone(country: &str) -> String {
    format!("user/{}", device_id(country))
}
