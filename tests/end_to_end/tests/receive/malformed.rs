//! Odd parameters get their status, change nothing unless they are signed, and are stored readably.

use std::sync::OnceLock;

use end_to_end::client::callback::{self, Pairs, STATUS_PATH, sid};
use end_to_end::client::request::{FORM, Request, encode};
use end_to_end::peer::shim::Shim;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::{ACCOUNT_SID, Database};
use serde_json::Value;

/// A body, what it is, and what is answered if it is signed.
type Case = (&'static str, Vec<u8>, u16);

#[test]
fn signed_forms_get_their_status_and_unsigned_ones_403() {
    let (database, shim) = start();
    let cases = cases();
    for (name, body, _) in &cases {
        let request = Request::post(STATUS_PATH, FORM, body.clone());
        assert_eq!(shim.send(&request).status, 403, "unsigned: {name}");
        let forged = request.with("X-Twilio-Signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert_eq!(shim.send(&forged).status, 403, "forged: {name}");
    }
    assert_eq!(
        database.counts(),
        (0, 0),
        "unsigned requests have left rows"
    );
    let mut stored = 0;
    for (name, body, status) in &cases {
        let request = Request::post(STATUS_PATH, FORM, body.clone()).signed();
        assert_eq!(shim.send(&request).status, *status, "signed: {name}");
        stored += i64::from(*status == 204);
        assert_eq!(database.counts().0, stored, "{name}");
    }
    cluster().assert_no_errors();
}

#[test]
fn bytes_that_text_and_json_cannot_hold_are_stored_readably() {
    let (database, shim) = start();
    let mut pairs = callback::status(&sid(1), "failed", Some(30003));
    let odd = [
        ("Nul", "a\0b"),
        ("Control", "\u{1}\u{1f}\u{7f}\u{85}"),
        ("Json", "\"\\{}[]\\u0000"),
        ("Noncharacter", "\u{fffe}\u{ffff}\u{10ffff}"),
        ("Na\0me", "x"),
        ("", "without a name"),
    ];
    pairs.extend(callback::own(&odd));
    let mut body = encode(&pairs);
    body.push_str(
        "&Broken=%ff%fe%80&Surrogate=%ed%a0%80&Percent=100%&Hex=%zz&Twice=1&Twice=2&Alone",
    );
    let request = Request::post(STATUS_PATH, FORM, body).signed();
    assert_eq!(shim.send(&request).status, 204);
    let params: String = database.value("select params::text from twilio.message_timeline", &[]);
    let params: Value = serde_json::from_str(&params).unwrap();
    for (name, value) in [
        ("Nul", "a\u{fffd}b"),
        ("Control", "\u{1}\u{1f}\u{7f}\u{85}"),
        ("Json", "\"\\{}[]\\u0000"),
        ("Noncharacter", "\u{fffe}\u{ffff}\u{10ffff}"),
        ("Na\u{fffd}me", "x"),
        ("", "without a name"),
        ("Broken", "\u{fffd}\u{fffd}\u{fffd}"),
        ("Percent", "100%"),
        ("Hex", "%zz"),
        ("Alone", ""),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    assert_eq!(params["Twice"], serde_json::json!(["1", "2"]));

    let inbound = callback::signed_inbound(&sid(2), "nul \0, emoji 😀, noncharacter \u{ffff}");
    let answer = shim.send(&inbound);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/xml; charset=utf-8"))
    );
    let sql = "select body from twilio.message_status where direction = 'inbound'";
    let text: String = database.value(sql, &[]);
    assert_eq!(text, "nul \u{fffd}, emoji 😀, noncharacter \u{ffff}");
    cluster().assert_no_errors();
}

fn cases() -> Vec<Case> {
    let valid = |number: usize| callback::status(&sid(number), "sent", None);
    let with = |number: usize, name: &str, value: &str| {
        let mut pairs = valid(number);
        callback::set(&mut pairs, name, value);
        encode(&pairs).into_bytes()
    };
    let without = |name: &str| {
        let mut pairs = valid(0);
        pairs.retain(|(n, _)| n != name);
        encode(&pairs).into_bytes()
    };
    let joined = |number: usize, more: &[u8]| [encode(&valid(number)).as_bytes(), more].concat();
    let many: Pairs = (0..1000)
        .map(|n| (format!("P{n}"), n.to_string()))
        .collect();
    let letters = "x".repeat(65_536 - encode(&valid(0)).len() - "&Filler=".len());
    vec![
        ("nothing", Vec::new(), 400),
        ("no account", without("AccountSid"), 400),
        (
            "only an account",
            format!("AccountSid={ACCOUNT_SID}").into_bytes(),
            400,
        ),
        (
            // The order of the two is not signed.
            "two messages",
            encode(&[valid(1), valid(2)].concat()).into_bytes(),
            400,
        ),
        ("a NUL in a value", with(3, "ErrorMessage", "a\0"), 204),
        ("a NUL in a name", joined(4, b"&a%00b=1"), 204),
        ("a NUL in a status", with(5, "MessageStatus", "sent\0"), 400),
        ("a NUL in a SID", with(6, "MessageSid", "SM\0"), 400),
        ("raw NUL bytes", joined(7, b"&\0=\0\0"), 204),
        (
            "bytes that are not UTF-8",
            joined(8, b"&a=%ff&b=\xff\xfe&%c3=%28"),
            204,
        ),
        (
            "broken percent signs",
            joined(9, b"&a=%&b=%f&c=%zz&%=%"),
            204,
        ),
        (
            "a thousand parameters",
            joined(10, format!("&{}", encode(&many)).as_bytes()),
            204,
        ),
        (
            "a value of 64 KiB",
            joined(11, format!("&Filler={letters}").as_bytes()),
            204,
        ),
        (
            "a name of 64 KiB",
            joined(12, format!("&Filler{letters}=").as_bytes()),
            204,
        ),
        ("a repeated name", joined(13, b"&a=1&a=1&a=2&a=&a"), 204),
        ("ampersands", joined(14, b"&&&&&=&==&=a&a=="), 204),
        (
            "control characters",
            joined(15, b"&a=%01%02%1f\x07\x1b[31m"),
            204,
        ),
        (
            "a status of control characters",
            with(16, "MessageStatus", "\u{1b}[31m"),
            400,
        ),
        (
            "a long status",
            with(17, "MessageStatus", &"x".repeat(65)),
            400,
        ),
        (
            "an unknown status",
            with(18, "MessageStatus", "beamed \"up\" '; drop table--"),
            204,
        ),
        (
            "a huge error code",
            with(19, "ErrorCode", "99999999999999999999"),
            400,
        ),
        (
            "an error code just too large",
            with(20, "ErrorCode", "2147483648"),
            400,
        ),
        (
            "the largest error code",
            with(21, "ErrorCode", "2147483647"),
            204,
        ),
        ("a negative error code", with(22, "ErrorCode", "-1"), 400),
        (
            "an error code that is no number",
            with(23, "ErrorCode", "NaN"),
            400,
        ),
        ("a short SID", with(24, "MessageSid", "SM1"), 400),
        (
            "a long SID",
            with(25, "MessageSid", &format!("{}0", sid(25))),
            400,
        ),
        (
            "a SID of another kind",
            with(26, "MessageSid", ACCOUNT_SID),
            400,
        ),
        (
            "a very long address",
            with(27, "From", &"1".repeat(60_000)),
            400,
        ),
        (
            "an odd address",
            with(28, "From", "whatsapp:\0\u{202e}\u{ffff}"),
            204,
        ),
        ("a media count", with(29, "NumMedia", "4294967296"), 204),
        (
            "no status",
            {
                let mut pairs = valid(30);
                pairs.retain(|(name, _)| !name.ends_with("Status"));
                encode(&pairs).into_bytes()
            },
            400,
        ),
        (
            "JSON in the form of a form",
            br#"{"AccountSid":"x"}"#.to_vec(),
            400,
        ),
        (
            "semicolons",
            encode(&valid(31)).replace('&', ";").into_bytes(),
            400,
        ),
        (
            "UTF-16",
            encode(&valid(32))
                .bytes()
                .flat_map(|byte| [byte, 0])
                .collect(),
            400,
        ),
    ]
}

fn start() -> (Database<'static>, Shim) {
    let database = cluster().database();
    let shim = Shim::start(&database, &["--log-callbacks", "off"]);
    (database, shim)
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}
