//! Signatures of phones: a webhook is accepted exactly if SMSGate's own library accepts it. That library cannot sign, so
//! the test signs by SMSGate's documentation, and the library judges each request.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use android_sms_gateway::types::{
    MmsBatchDownloadedPayload, MmsBatchReceivedPayload, MmsDownloadedPayload, MmsReceivedPayload,
    SmsBatchDataReceivedPayload, SmsBatchReceivedPayload, SmsCancelledPayload,
    SmsDataReceivedPayload, SmsDeliveredPayload, SmsFailedPayload, SmsReceivedPayload,
    SmsSentPayload, WEBHOOK_EVENT_TYPES, WebhookEvent,
};
use android_sms_gateway::webhook::verify_signature;
use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use hmac::{Hmac, KeyInit, Mac};
use protocol::smsgate::webhook::verify;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::Sha256;

/// The default of `twilio_callback.smsgate_clock_tolerance`.
const TOLERANCE: u32 = 300;

#[test]
fn our_rules_agree_with_smsgates_library() {
    let mut random = Random::new();
    let keys = keys(&mut random);
    let mut verdicts = BTreeMap::new();
    for _ in 0..sized(5_000, 200_000) {
        let case = Case::new(&keys, &mut random);
        let keys: Vec<_> = case.keys.iter().map(String::as_bytes).collect();
        let (body, timestamp) = (case.body.as_bytes(), case.timestamp.as_str());
        let now = i64::try_from(now()).unwrap();
        let ours = verify(&keys, body, timestamp, &case.signature, now, TOLERANCE).is_ok();
        case.check(ours);
        *verdicts.entry((case.alteration, ours)).or_insert(0) += 1;
    }
    assert_each_was_tried(&verdicts);
}

#[test]
fn the_shim_agrees_with_smsgates_library() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    let mut random = Random::new();
    let keys = keys(&mut random);
    for (phone, key) in &keys {
        let sql = "select twilio.add_smsgate_key($1, nullif($2, ''))";
        database.connect().execute(sql, &[key, phone]).unwrap();
    }
    let mut verdicts = BTreeMap::new();
    let mut rounds = 0;
    while rounds < sized(600, 6000) {
        let case = Case::new(&keys, &mut random);
        // A phone cannot send what a header cannot contain.
        if !(is_header(&case.timestamp) && is_header(&case.signature)) {
            continue;
        }
        rounds += 1;
        let request = Request::post("/smsgate", "application/json", case.body.clone())
            .header("X-Timestamp", &case.timestamp)
            .header("X-Signature", &case.signature);
        let status = shim.send(&request).status;
        assert!(matches!(status, 204 | 403), "{status}: {case:?}");
        case.check(status == 204);
        *verdicts
            .entry((case.alteration, status == 204))
            .or_insert(0) += 1;
    }
    assert_each_was_tried(&verdicts);
    cluster.assert_no_errors();
}

#[test]
fn webhooks_that_smsgates_library_writes_are_accepted() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let shim = Shim::start(&database, &[]);
    let mut client = database.connect();
    let setup = "select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:1', device_id => 'phone-1', signing_key => 'key-1')";
    client.batch_execute(setup).unwrap();
    let sql = "select twilio.send_message('+12025550123', 'Hello', from_address => 'user/phone-1')";
    let message_id: i64 = database.value(sql, &[]);
    let reference: String = database.value(
        "select c.reference from twilio_internal.claim_smsgate(1) c, \
         twilio_internal.finish_smsgate(c.message_id, c.lease_token, 'send', 'accepted', 'pending')",
        &[],
    );
    // All that their library knows, in the order in which a message may live.
    let mut order: Vec<_> = WEBHOOK_EVENT_TYPES.to_vec();
    let place = |event: &str| STATES.iter().position(|(name, _)| *name == event);
    order.sort_by_key(|event| place(event));
    for (number, event) in order.into_iter().enumerate() {
        let payload = payload(event, &reference);
        let body = json!({
            "id": format!("event-{number}"), "webhookId": "w", "deviceId": "phone-1",
            "event": WebhookEvent::new(event), "payload": payload,
        })
        .to_string();
        let timestamp = now().to_string();
        let signature = sign("key-1", &body, &timestamp);
        let is_theirs = verify_signature("key-1", &body, &timestamp, &signature, Some(300));
        assert!(is_theirs, "{event}");
        let request = Request::post("/smsgate", "application/json", body)
            .header("X-Timestamp", &timestamp)
            .header("X-Signature", &signature);
        assert_eq!(shim.send(&request).status, 204, "{event}");
        if let Some(index) = place(event) {
            let sql = "select status from twilio.message where message_id = $1";
            let status: String = database.value(sql, &[&message_id]);
            assert_eq!(status, STATES[index].1, "{event}");
        }
    }
    let texts: Vec<String> = client
        .query(
            "select body from twilio.inbound_message where body is not null order by body",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    // The same text of the same sender and time is one message, whatever the id of its event.
    assert_eq!(texts, ["Grüße 🎉", "Grüße 🎉 again"]);
    cluster.assert_no_errors();
}

/// The status of a message after each event about it.
const STATES: [(&str, &str); 4] = [
    (WebhookEvent::SMS_SENT, "sent"),
    (WebhookEvent::SMS_CANCELLED, "canceled"),
    (WebhookEvent::SMS_DELIVERED, "delivered"),
    (WebhookEvent::SMS_FAILED, "failed"),
];

/// An event's payload as their library writes it.
fn payload(event: &str, reference: &str) -> Value {
    let all = |text: &str| {
        let now = "2026-09-19T10:00:00Z";
        json!({
            "messageId": reference, "phoneNumber": "+12025550123", "sender": "+12025550123",
            "recipient": "+12025550190", "simNumber": 1, "message": text, "data": "R3LDvMOfZQ==",
            "receivedAt": now, "sentAt": now, "deliveredAt": now, "cancelledAt": now, "failedAt": now,
            "reason": "Send result: RESULT_ERROR_GENERIC_FAILURE", "transactionId": "t", "contentClass": "text",
            "size": 1, "attachments": [{ "partId": 1, "contentType": "image/png" }],
        })
    };
    let text = "Grüße 🎉";
    let several = json!({ "messages": [all(text), all(&format!("{text} again"))] });
    match event {
        WebhookEvent::SMS_RECEIVED => written::<SmsReceivedPayload>(all(text)),
        WebhookEvent::SMS_DATA_RECEIVED => written::<SmsDataReceivedPayload>(all(text)),
        WebhookEvent::SMS_SENT => written::<SmsSentPayload>(all(text)),
        WebhookEvent::SMS_DELIVERED => written::<SmsDeliveredPayload>(all(text)),
        WebhookEvent::SMS_FAILED => written::<SmsFailedPayload>(all(text)),
        WebhookEvent::SMS_CANCELLED => written::<SmsCancelledPayload>(all(text)),
        WebhookEvent::MMS_RECEIVED => written::<MmsReceivedPayload>(all(text)),
        WebhookEvent::MMS_DOWNLOADED => written::<MmsDownloadedPayload>(all(text)),
        WebhookEvent::SMS_BATCH_RECEIVED => written::<SmsBatchReceivedPayload>(several),
        WebhookEvent::SMS_BATCH_DATA_RECEIVED => written::<SmsBatchDataReceivedPayload>(several),
        WebhookEvent::MMS_BATCH_RECEIVED => written::<MmsBatchReceivedPayload>(several),
        WebhookEvent::MMS_BATCH_DOWNLOADED => written::<MmsBatchDownloadedPayload>(several),
        // Of itself a phone tells nothing but that.
        _ => json!({}),
    }
}

fn written<T: Serialize + DeserializeOwned>(value: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(value).unwrap()).unwrap()
}

/// A webhook, signed and then perhaps altered.
#[derive(Debug)]
struct Case {
    /// The keys that may have signed it: its phone's, and those without a phone.
    keys: Vec<String>,
    body: String,
    timestamp: String,
    signature: String,
    alteration: &'static str,
}

/// Alterations of a webhook, and whether it can stay valid.
const ALTERATIONS: [(&str, bool); 14] = [
    ("nothing", true),
    ("signature in upper case", true),
    ("signature in both cases", true),
    ("a digit of the signature", false),
    ("a bit of the body", false),
    ("a character added to the body", false),
    ("the timestamp", false),
    ("a digit moved from body to timestamp", false),
    ("the time", false),
    ("another key", false),
    ("a shorter signature", false),
    ("a longer signature", false),
    ("no signature", false),
    ("a timestamp that is no number", false),
];

impl Case {
    fn new(known: &[(&str, String)], random: &mut Random) -> Self {
        let (alteration, _) = *random.pick(&ALTERATIONS);
        let phone = *random.pick(&["", "phone-1", "phone-2", "another"]);
        let (keys, others): (Vec<_>, Vec<_>) = known
            .iter()
            .cloned()
            .partition(|(owner, _)| owner.is_empty() || *owner == phone);
        let [keys, others] =
            [keys, others].map(|keys| keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
        let age = random.below(270);
        let age = match alteration {
            // Not so near the border that it matters how long this takes.
            "the time" => age + 330,
            _ => age,
        };
        let (now, age) = (now(), u64::try_from(age).unwrap());
        let mut timestamp = if random.one_in(2) {
            now - age
        } else {
            now + age
        }
        .to_string();
        let mut body = body(phone, random);
        let key = match alteration {
            "another key" if random.one_in(2) => text(random, 9),
            "another key" => random.pick(&others).clone(),
            _ => random.pick(&keys).clone(),
        };
        match alteration {
            "a digit moved from body to timestamp" => body.push('1'),
            "a timestamp that is no number" => {
                let spellings = ["", "now", "-1", "1e9", "1700000000.0", "0x65", "٣"];
                timestamp = (*random.pick(&spellings)).to_owned();
            }
            _ => {}
        }
        let signature = sign(&key, &body, &timestamp);
        let mut case = Self {
            keys,
            body,
            timestamp,
            signature,
            alteration,
        };
        case.alter(random);
        case
    }

    fn alter(&mut self, random: &mut Random) {
        let place = random.below(64);
        match self.alteration {
            "signature in upper case" => self.signature.make_ascii_uppercase(),
            "signature in both cases" => {
                let upper = self.signature[..place].to_ascii_uppercase();
                self.signature.replace_range(..place, &upper);
            }
            "a digit of the signature" => {
                let digit = self.signature.as_bytes()[place];
                let others: Vec<_> = "0123456789abcdefg "
                    .chars()
                    .filter(|c| *c != char::from(digit))
                    .collect();
                let other = random.pick(&others).to_string();
                self.signature.replace_range(place..=place, &other);
            }
            "a bit of the body" => {
                let mut bytes = std::mem::take(&mut self.body).into_bytes();
                match bytes.iter().position(u8::is_ascii) {
                    Some(index) => bytes[index] ^= 1,
                    None => bytes.push(b'1'),
                }
                self.body = String::from_utf8(bytes).unwrap();
            }
            "a character added to the body" => {
                let mut places = self.body.char_indices().map(|(index, _)| index);
                let index = places.nth(place).unwrap_or(self.body.len());
                self.body
                    .insert(index, *random.pick(&[' ', '\n', '0', 'é']));
            }
            "the timestamp" => {
                let time: u64 = self.timestamp.parse().unwrap();
                self.timestamp = (time + 1 + random.number() % 20).to_string();
            }
            "a digit moved from body to timestamp" => {
                self.timestamp.insert(0, self.body.pop().unwrap());
            }
            "a shorter signature" => self.signature.truncate(place),
            "a longer signature" => self
                .signature
                .push_str(["0", "00", "\u{e9}"][random.below(3)]),
            "no signature" => self.signature.clear(),
            _ => {}
        }
    }

    /// Holds a verdict against theirs.
    fn check(&self, ours: bool) {
        let theirs = self.keys.iter().any(|key| {
            let age = Some(TOLERANCE.into());
            verify_signature(key, &self.body, &self.timestamp, &self.signature, age)
        });
        assert_eq!(ours, theirs, "{self:?}");
    }
}

/// Every alteration came about, and had the outcome that it must have.
fn assert_each_was_tried(verdicts: &BTreeMap<(&'static str, bool), u32>) {
    for (alteration, is_good) in ALTERATIONS {
        let count = |verdict| verdicts.get(&(alteration, verdict)).copied().unwrap_or(0);
        assert!(count(is_good) > 10, "{alteration}: {verdicts:?}");
        assert_eq!(count(!is_good), 0, "{alteration}: {verdicts:?}");
    }
}

/// Keys with the phones that they belong to.
fn keys(random: &mut Random) -> Vec<(&'static str, String)> {
    let owners = ["phone-1", "phone-1", "phone-2", "phone-3", "", "", ""];
    let with_key = |owner| (owner, text(random, 40));
    owners.into_iter().map(with_key).collect()
}

fn body(phone: &str, random: &mut Random) -> String {
    match random.below(3) {
        0 if phone.is_empty() => text(random, 200),
        0 => json!({ "deviceId": phone }).to_string(),
        1 => {
            json!({ "id": text(random, 20), "event": "system:ping", "deviceId": phone }).to_string()
        }
        _ => json!({ "payload": { "message": text(random, 50) }, "deviceId": phone }).to_string(),
    }
}

/// A text of 1 to `longest` characters; what no text in PostgreSQL holds is left out.
fn text(random: &mut Random, longest: usize) -> String {
    let alphabet: Vec<_> = ('\u{1}'..='\u{17f}').chain("€漢🎉".chars()).collect();
    let length = 1 + random.below(longest);
    (0..length).map(|_| *random.pick(&alphabet)).collect()
}

fn is_header(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// <https://docs.sms-gate.app/features/webhooks/>: HMAC-SHA256 over body and timestamp, in hexadecimal.
fn sign(key: &str, body: &str, timestamp: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.update(timestamp.as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
