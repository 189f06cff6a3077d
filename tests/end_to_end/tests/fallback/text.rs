//! Texts of fallbacks for messages that other software created with Twilio's own library: the phone sends the same
//! text, or the text that the rule makes of it, or nothing if there is none.

use end_to_end::client::callback::{STATUS_PATH, status_between};
use end_to_end::client::library::create_by_twilio;
use end_to_end::client::request::Request;
use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database, PUBLIC_URL};
use end_to_end::server::outbox::start_worker;
use end_to_end::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

const WHATSAPP: &str = "whatsapp:+12025550100";
const PICTURE: &str = "https://example.com/picture.png";

/// A message of other software.
struct Case {
    /// Its recipient's five free digits; the rules of `set_up` go by the first.
    digits: &'static str,
    arguments: Value,
    /// The text that the phone sends.
    text: Option<String>,
    /// The explanation of the message.
    explanation: &'static str,
}

impl Case {
    fn new(
        digits: &'static str,
        arguments: Value,
        text: Option<String>,
        explanation: &'static str,
    ) -> Self {
        Self {
            digits,
            arguments,
            text,
            explanation,
        }
    }

    /// Undelivered on WhatsApp with 63049 and by SMS with 30003; a phone reaches it.
    fn number(&self) -> String {
        format!("+1501{}405000", self.digits)
    }

    /// The application's text. Without a callback the failure stays unknown, until the test reports it.
    fn request(&self) -> Value {
        let mut arguments = self.arguments.clone();
        arguments["from_"] = WHATSAPP.into();
        arguments["to"] = format!("whatsapp:{}", self.number()).into();
        if arguments["redact"].is_null() {
            arguments["status_callback"] = format!("{PUBLIC_URL}{STATUS_PATH}").into();
        }
        arguments
    }
}

#[test]
fn the_phone_gets_the_text_byte_by_byte_or_nothing() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let (shim, sandbox) = Sandbox::with_shim(&database, &PHONE);
    set_up(&database, &sandbox);

    let cases = cases();
    let requests: Vec<Value> = cases.iter().map(Case::request).collect();
    let sids = create_by_twilio(&sandbox, &requests);
    for (case, sid) in cases.iter().zip(&sids) {
        if !case.arguments["redact"].is_null() {
            // Only now, so that the text is gone before it is asked for.
            let to = format!("whatsapp:{}", case.number());
            let sid = sid.as_str().unwrap();
            let pairs = status_between(sid, "undelivered", Some(63049), WHATSAPP, &to);
            assert_eq!(
                shim.send(&Request::form(STATUS_PATH, &pairs).signed())
                    .status,
                204
            );
        }
    }
    // A next step is planned together with the failure before it, so that what has ended stays so.
    let sql = "select count(*) filter (where step = 0) = $1 \
            and bool_and(status in ('delivered', 'undelivered', 'refused')) \
        from twilio.message";
    let count = i64::try_from(cases.len()).unwrap();
    wait_until(PATIENCE, "all chains to end", || {
        database
            .value::<Option<bool>>(sql, &[&count])
            .unwrap_or(false)
    });

    let mut sent = sandbox.sent();
    sent.sort();
    let mut expected: Vec<_> = (cases.iter())
        .filter_map(|case| Some((case.number(), case.text.clone()?)))
        .collect();
    expected.sort();
    let numbers =
        |all: &[(String, String)]| all.iter().map(|(to, _)| to.clone()).collect::<Vec<_>>();
    assert_eq!(numbers(&sent), numbers(&expected));
    for (sent, expected) in sent.iter().zip(&expected) {
        // Short, since most of the texts are long.
        assert!(sent == expected, "{}: {:.60?}", sent.0, sent.1);
    }
    for (case, sid) in cases.iter().zip(&sids) {
        let sql = "select e.explanation from twilio.message m, twilio.explain_fallback(m.message_id) e \
            where m.message_sid = $1";
        let explanation: String = database.value(sql, &[&sid.as_str()]);
        assert!(
            explanation.ends_with(case.explanation),
            "{}: {explanation}",
            case.digits
        );
    }

    // Twilio refuses more than 1,600 characters, so there is no original to replace.
    let long = Case::new(
        "00099",
        json!({ "body": "x".repeat(1601) }),
        None,
        "no such message",
    );
    assert_eq!(create_by_twilio(&sandbox, &[long.request()]), [21617]);
    cluster.assert_no_errors();
}

fn cases() -> Vec<Case> {
    let same = |digits, text: &str| {
        Case::new(
            digits,
            json!({ "body": text }),
            Some(text.to_owned()),
            ": undelivered",
        )
    };
    // 1,600 characters, 1,608 bytes in UTF-8 and more than 1,600 units of UTF-16.
    let long = format!("{}🎉é€", "x".repeat(1597));
    let media = json!({ "media_url": [PICTURE] });
    let both = json!({ "media_url": [PICTURE], "body": "Look 🎉" });
    let no_media = "the original has media and no text";
    let no_text = "the original has no text any more";
    vec![
        same("00001", "Grüße 🎉👩‍👩‍👧 👍🏽 e\u{301}\u{200b}\u{a0} 中文 עברית"),
        same("00002", "  \"quotes\" & +%20 {body} \\n <b>\r\n\tlines  "),
        same("00003", "\n\nempty lines around\n"),
        same("00004", &long),
        // A phone takes 1,601 characters; Twilio does not, and the next way has no template.
        Case::new(
            "90001",
            json!({ "body": long }),
            Some(format!("{long}!")),
            ": delivered",
        ),
        Case::new(
            "80001",
            json!({ "body": long }),
            Some(long.clone()),
            "its text has 1601 characters, 1600 are allowed",
        ),
        // The picture is at Twilio, behind a password; its text gets through.
        Case::new(
            "00005",
            both.clone(),
            Some("Look 🎉".to_owned()),
            ": undelivered",
        ),
        Case::new(
            "70001",
            both,
            None,
            "the original has media, which the rule does not replace",
        ),
        Case::new("00006", media, None, no_media),
        Case::new(
            "00007",
            json!({ "body": "secret", "redact": true }),
            None,
            no_text,
        ),
        Case::new(
            "00008",
            json!({ "content_sid": "HX0123456789abcdef0123456789abcdef" }),
            None,
            no_text,
        ),
    ]
}

fn set_up(database: &Database<'_>, sandbox: &Sandbox) {
    let url = sandbox.url();
    database
        .connect()
        .batch_execute(&format!(
            "select twilio_internal.set_api_url('{ACCOUNT_SID}', '{url}'); \
             select twilio.add_sender('+12025550100'), twilio.add_sender('{WHATSAPP}'); \
             select twilio.add_smsgate('user', 'password', '{url}/3rdparty/v1', \
                 device_id => 'phone-1', signing_key => 'key-1'); \
             select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(); \
             select twilio.add_fallback_rule('phone', from_channel => 'whatsapp', to_provider => 'smsgate', \
                 recipient_prefix => '+15019', template => '{{body}}!', priority => 1); \
             select twilio.add_fallback_rule('too_long', from_channel => 'whatsapp', \
                 recipient_prefix => '+15018', template => '{{body}}!', priority => 1); \
             select twilio.add_fallback_rule('stop', from_channel => 'whatsapp', to_provider => 'smsgate', \
                 recipient_prefix => '+15017', media => 'stop', priority => 1)"
        ))
        .unwrap();
    sandbox.register_webhooks();
    start_worker(database);
}
