//! A signature vouches for one meaning: whoever sees a signed request cannot divide its signed text into a
//! request of another kind, message, sender, recipient or status, and no genuine request is refused.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails it by panicking"
)]

use protocol::ambiguity::{self, Ambiguity};
use protocol::callback::{Callback, Kind, form_of_json};
use protocol::form::Form;
use protocol::request::{Headers, Request};
use protocol::signature::{Algorithm, Key, Payload, is_json, verify};
use protocol::spelling;
use protocol::url::{Base, query};

const BASE: &str = "https://hooks.example.com";
const FORM: &str = "application/x-www-form-urlencoded";
const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

type Pairs = Vec<(String, String)>;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meaning {
    kind: Kind,
    account_sid: String,
    message_sid: String,
    from: Option<String>,
    to: Option<String>,
    /// Of a status callback only: an inbound message's are the fallback URL's.
    status: Option<(String, Option<i32>)>,
    media_urls: Vec<String>,
    attempt: Option<String>,
}

#[derive(Debug, Clone)]
struct Sent {
    method: &'static str,
    content_type: Option<&'static str>,
    target: String,
    body: Vec<u8>,
}

impl Sent {
    fn post(target: &str, pairs: &Pairs) -> Self {
        Self {
            method: "POST",
            content_type: Some(FORM),
            target: target.to_owned(),
            body: serde_urlencoded::to_string(pairs).unwrap().into_bytes(),
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            url: &self.target,
            headers: Headers {
                content_type: self.content_type,
                ..Headers::default()
            },
            body: &self.body,
        }
    }

    fn is_signed(&self, key: &Key, signature: &str) -> bool {
        self.is_signed_for(&self.target, key, signature)
    }

    fn is_signed_for(&self, target: &str, key: &Key, signature: &str) -> bool {
        let base = Base::parse(BASE).unwrap();
        let urls: Vec<_> = base.signed_urls(target).collect();
        verify(
            std::slice::from_ref(key),
            &urls,
            &self.request().payload(),
            signature,
        )
        .is_some()
    }

    /// What it is accepted as if this signature is valid for one of its spellings.
    fn accepted(&self, key: &Key, signature: &str) -> Option<Meaning> {
        let mut targets = vec![self.target.clone()];
        targets.extend(spelling::accepted(&self.target));
        let signed = (targets.iter()).find(|t| self.is_signed_for(t, key, signature))?;
        self.meaning_of(signed).ok()
    }

    /// What it is accepted as, or why it is not.
    fn meaning(&self) -> Result<Meaning, String> {
        self.meaning_of(&self.target)
    }

    /// The same as `meaning` if `target` was signed.
    fn meaning_of(&self, target: &str) -> Result<Meaning, String> {
        let request = self.request();
        let payload = request.payload();
        let form = match &payload {
            Payload::Form(form) => form.clone(),
            Payload::Empty => Form::parse(query(&self.target).as_bytes()),
            Payload::Body(body) if self.content_type.is_some_and(is_json) => {
                form_of_json(body).map_err(|error| error.to_string())?
            }
            Payload::Body(_) => Form::empty(),
        };
        let callback = Callback::parse(&form).map_err(|error| error.to_string())?;
        ambiguity::check(target, &payload, &payload.signed(), &form, &callback)
            .map_err(|error| error.to_string())?;
        let is_status = callback.kind == Kind::Status;
        Ok(Meaning {
            kind: callback.kind,
            account_sid: callback.account_sid.to_owned(),
            message_sid: callback.message_sid.to_owned(),
            from: callback.from.as_deref().map(str::to_owned),
            to: callback.to.as_deref().map(str::to_owned),
            status: is_status.then(|| (callback.status.to_owned(), callback.error_code)),
            media_urls: callback
                .media_urls
                .iter()
                .map(|url| url.to_string())
                .collect(),
            attempt: protocol::callback_url::attempt(target),
        })
    }
}

/// A generator of its own: the same numbers in each run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    fn sid(&mut self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:016x}", self.next(), self.next())
    }

    fn number(&mut self) -> String {
        format!("+1202555{:04}", self.below(10_000))
    }
}

/// Names that a stranger knows, and a few that are not Twilio's.
const NAMES: [&str; 44] = [
    "AccountSid",
    "Address",
    "ApiVersion",
    "Body",
    "ButtonPayload",
    "ButtonText",
    "ChannelMetadata",
    "ErrorCode",
    "ErrorMessage",
    "ErrorUrl",
    "EventType",
    "From",
    "FromCity",
    "FromZip",
    "InteractiveData",
    "Label",
    "Latitude",
    "ListTitle",
    "MediaContentType0",
    "MediaUrl0",
    "MessageSid",
    "MessageStatus",
    "MessageType",
    "MessagingServiceSid",
    "NumMedia",
    "NumSegments",
    "OptOutType",
    "OriginalRepliedMessageSid",
    "ProfileName",
    "RawDlrDoneDate",
    "ReferralBody",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "StructuredMessage",
    "To",
    "ToCity",
    "ToZip",
    "WaId",
    "Zz",
    "G",
    "Bod",
    "x",
    "Sms",
];

/// What may stand behind a name, so that it looks like a parameter.
fn value_for(name: &str, random: &mut Random) -> String {
    let prefix = random.pick(&["", "", "whatsapp:", "rcs:"]);
    match name {
        "AccountSid" => ACCOUNT.to_owned(),
        "MessageSid" | "SmsMessageSid" | "SmsSid" | "OriginalRepliedMessageSid" => {
            let kind = random.pick(&["SM", "MM"]);
            random.sid(kind)
        }
        "MessagingServiceSid" => random.sid("MG"),
        "From" | "To" => format!("{prefix}{}", random.number()),
        "MessageStatus" | "SmsStatus" => random
            .pick(&[
                "delivered",
                "undelivered",
                "received",
                "sent",
                "read",
                "beamed",
            ])
            .to_owned(),
        "ErrorCode" => random.pick(&["30005", "63049", "0"]).to_owned(),
        "NumMedia" | "NumSegments" => random.pick(&["0", "1"]).to_owned(),
        "MediaUrl0" => "https://evil.example/x".to_owned(),
        "ApiVersion" => "2010-04-01".to_owned(),
        "OptOutType" => random.pick(&["STOP", "START"]).to_owned(),
        "WaId" => random.number()[1..].to_owned(),
        _ => random.pick(&["", "x", "STOP", "y z"]).to_owned(),
    }
}

/// A text of at most `limit` bytes: parameters as they would be signed, in order or not, and parts of them.
fn hostile_text(random: &mut Random, limit: usize) -> String {
    let mut text = random.pick(&["", "hi ", "STOP", "START"]).to_owned();
    let mut names = NAMES.to_vec();
    if random.one_in(4) {
        names.rotate_left(random.below(NAMES.len()));
    }
    let (joint, equals) = match random.below(6) {
        0 => ("&", "="),
        1 => ("", "="),
        _ => ("", ""),
    };
    // Rare enough that orders that pass for a request are common.
    let rarity = 1 + random.below(6);
    for name in names {
        if random.one_in(rarity)
            || ["From", "MessageSid", "To"].contains(&name) && !random.one_in(3)
        {
            text += joint;
            text += name;
            text += equals;
            text += &value_for(name, random);
        }
    }
    if random.one_in(3) {
        text += random.pick(&[
            "Zz",
            "ProfileName",
            "Label",
            "?bodySHA256=",
            "&bodySHA256=",
            "G",
            "From",
            "To",
            "Sms",
            "ButtonText",
            "?AccountSid=",
            "&Body=",
            "MessageSid",
            "é",
            "&Zz=",
        ]);
    }
    while text.len() > limit {
        text.pop();
    }
    text
}

fn plain(random: &mut Random) -> String {
    random
        .pick(&[
            "",
            "hello",
            "STOP",
            "Your table is ready",
            "From me To you",
            "ErrorCode?",
            "é👍",
        ])
        .to_owned()
}

/// Parameters of an inbound message whose texts a stranger chose.
fn inbound(random: &mut Random, text_of: fn(&mut Random, usize) -> String) -> Pairs {
    let sid = random.sid("SM");
    let is_whatsapp = random.one_in(2);
    let channel = if is_whatsapp { "whatsapp:" } else { "" };
    let from = random.number();
    let mut pairs: Vec<(&str, String)> = vec![
        ("AccountSid", ACCOUNT.to_owned()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("Body", text_of(random, 1600)),
        ("From", format!("{channel}{from}")),
        ("MessageSid", sid.clone()),
        ("NumMedia", "0".to_owned()),
        ("NumSegments", "1".to_owned()),
        ("SmsMessageSid", sid.clone()),
        ("SmsSid", sid),
        ("SmsStatus", "received".to_owned()),
        ("To", format!("{channel}{}", random.number())),
    ];
    if random.one_in(4) {
        pairs.retain(|(name, _)| *name != "NumMedia");
        pairs.push(("NumMedia", "1".to_owned()));
        pairs.push(("MediaContentType0", "image/jpeg".to_owned()));
        pairs.push((
            "MediaUrl0",
            format!("https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/MM0/Media/ME0"),
        ));
    }
    if is_whatsapp {
        pairs.push(("WaId", from[1..].to_owned()));
        pairs.push(("MessageType", "text".to_owned()));
        pairs.push((
            "ProfileName",
            if random.one_in(2) {
                text_of(random, 200)
            } else {
                plain(random)
            },
        ));
        if random.one_in(3) {
            pairs.push(("ButtonText", text_of(random, 200)));
            pairs.push(("ButtonPayload", text_of(random, 200)));
        }
        if random.one_in(6) {
            pairs.push(("Latitude", "40.7".to_owned()));
            pairs.push(("Longitude", "-74.0".to_owned()));
            pairs.push(("Label", text_of(random, 400)));
            pairs.push(("Address", text_of(random, 400)));
        }
    } else {
        for name in [
            "FromCity",
            "FromCountry",
            "FromState",
            "FromZip",
            "ToCity",
            "ToCountry",
            "ToState",
            "ToZip",
        ] {
            pairs.push((
                name,
                random.pick(&["", "US", "NEW YORK", "10001"]).to_owned(),
            ));
        }
    }
    owned(pairs)
}

fn status_callback(random: &mut Random) -> Pairs {
    let sid = random.sid("SM");
    let channel = random.pick(&["", "whatsapp:", "rcs:"]);
    let status = random.pick(&[
        "queued",
        "sent",
        "delivered",
        "undelivered",
        "failed",
        "read",
        "beamed",
    ]);
    let mut pairs: Vec<(&str, String)> = vec![
        ("AccountSid", ACCOUNT.to_owned()),
        ("ApiVersion", "2010-04-01".to_owned()),
        (
            "From",
            random
                .pick(&["+12025550100", "72345", "MyBrand", ""])
                .to_owned(),
        ),
        ("MessageSid", sid.clone()),
        ("MessageStatus", status.to_owned()),
        ("SmsSid", sid),
        ("SmsStatus", status.to_owned()),
        ("To", format!("{channel}{}", random.number())),
    ];
    if random.one_in(2) {
        pairs.push((
            "ErrorCode",
            random.pick(&["30005", "63049", "30003"]).to_owned(),
        ));
        pairs.push((
            "ErrorMessage",
            random
                .pick(&["", "Unknown error", "Invalid From Number (caller ID)"])
                .to_owned(),
        ));
    }
    if random.one_in(3) {
        pairs.push(("RawDlrDoneDate", "2611211530".to_owned()));
    }
    if random.one_in(3) {
        pairs.push(("MessagingServiceSid", random.sid("MG")));
    }
    if !channel.is_empty() {
        pairs.push(("ChannelPrefix", "whatsapp".to_owned()));
        pairs.push(("ChannelToAddress", "+551190000XXXX".to_owned()));
        pairs.push(("EventType", "READ".to_owned()));
        pairs.push(("StructuredMessage", "false".to_owned()));
    }
    owned(pairs)
}

fn owned(mut pairs: Vec<(&str, String)>) -> Pairs {
    pairs.sort();
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn target(random: &mut Random) -> String {
    random
        .pick(&[
            "/twilio/inbound",
            "/twilio/status",
            "/Sms/In",
            "/x?attempt=0f8fad5b-d9cb-469f-a165-70867728950e",
            "/x?a=1&b=2",
            "/x?who=sip:bob@example.org",
            "?a=it's",
            "",
        ])
        .to_owned()
}

/// The target in a spelling of an attacker's choice.
fn respelled(target: &str, random: &mut Random) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = match path {
        "" if random.one_in(2) => "/",
        path => path,
    };
    if !target.contains('?') {
        return path.to_owned();
    }
    let rarity = 1 + random.below(8);
    let mut text = format!("{path}?");
    for c in query.chars() {
        match c {
            '&' | '=' | '%' | '+' => text.push(c),
            c if c.is_ascii_alphanumeric() && !random.one_in(8 * rarity) => text.push(c),
            c if random.one_in(rarity) => {
                for byte in c.to_string().bytes() {
                    text += &match random.one_in(2) {
                        true => format!("%{byte:02X}"),
                        false => format!("%{byte:02x}"),
                    };
                }
            }
            c => text.push(c),
        }
    }
    if random.one_in(8) {
        text += "&";
    }
    text
}

/// The text that is signed, behind the base URL.
fn signed_text(target: &str, pairs: &Pairs) -> String {
    let mut text = target.to_owned();
    for (name, value) in pairs {
        text += name;
        text += value;
    }
    text
}

/// The same text divided anew: an end of the URL, then names that stand in it and go up.
fn division(text: &str, random: &mut Random) -> Option<Sent> {
    let mut marks: Vec<(usize, &str)> = Vec::new();
    for name in NAMES {
        marks.extend(text.match_indices(name));
    }
    // A name may also begin inside a value.
    if random.one_in(2) {
        for name in ["SM", "MM", "AC", "N"] {
            marks.extend(text.match_indices(name));
        }
    }
    marks.sort_unstable();
    let url_end = match random.below(8) {
        0 => 0,
        1 => text.len(),
        2 => floor(text, random.below(text.len() + 1)),
        3 => marks
            .get(random.below(marks.len()))
            .map_or(0, |(at, _)| *at),
        _ => text.find("AccountSid").unwrap_or(0),
    };
    let target = text[..url_end].to_owned();
    if !target.is_empty() && !target.starts_with(['/', '?']) {
        return None;
    }
    let rest = &text[url_end..];
    match random.below(12) {
        // Everything as a URL, or as the URL of a JSON body.
        0 => {
            return Some(Sent {
                method: random.pick(&["GET", "GET", "PUT", "get"]),
                content_type: None,
                target: text.to_owned(),
                body: Vec::new(),
            });
        }
        1 => {
            let body = format!(
                r#"{{"AccountSid":"{ACCOUNT}","MessageSid":"{}","MessageStatus":"delivered"}}"#,
                random.sid("SM")
            );
            return Some(Sent {
                method: "POST",
                content_type: Some(random.pick(&[
                    "application/json",
                    "application/json; charset=utf-8",
                    "text/plain",
                ])),
                target: text.to_owned(),
                body: body.into_bytes(),
            });
        }
        _ => {}
    }
    // Of ten names one to seven are left out, or none.
    let rarity = [2, 4, 8, usize::MAX][random.below(4)];
    let mut starts = vec![0];
    let mut last = "";
    for (at, name) in marks {
        if at < url_end {
            continue;
        }
        let mut start = at - url_end;
        // A letter before the name goes to it, or one of its own is left out.
        match random.below(20) {
            0 if start > 0 => start = floor(rest, start - 1),
            1 => start += 1,
            _ => {}
        }
        let is_behind = starts.last().is_some_and(|last| start > *last);
        if is_behind && rest.is_char_boundary(start) && name >= last && !random.one_in(rarity) {
            starts.push(start);
            last = name;
        }
    }
    starts.push(rest.len());
    starts.dedup();
    let mut pairs: Pairs = Vec::new();
    for two in starts.windows(2) {
        let piece = &rest[two[0]..two[1]];
        let known = NAMES
            .iter()
            .filter(|name| piece.starts_with(**name))
            .max_by_key(|name| name.len());
        let mut end = known.map_or_else(|| random.below(piece.len() + 1), |name| name.len());
        match random.below(24) {
            0 => end += 1,
            1 => end = end.saturating_sub(1),
            2 => end = piece.len(),
            // A name may have swallowed other names.
            3 | 4 => {
                let ends = NAMES
                    .iter()
                    .filter_map(|name| Some(piece.rfind(name)? + name.len()));
                end = ends.max().unwrap_or(end);
            }
            _ => {}
        }
        let end = floor(piece, end.min(piece.len()));
        pairs.push((piece[..end].to_owned(), piece[end..].to_owned()));
    }
    if !pairs.is_sorted() {
        return None;
    }
    // The order of arrival is not signed.
    if random.one_in(4) {
        pairs.reverse();
    }
    let mut sent = Sent::post(&target, &pairs);
    sent.content_type = *[
        Some(FORM),
        None,
        Some("application/x-www-form-urlencoded; charset=UTF-8"),
    ]
    .get(random.below(3))?;
    Some(sent)
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[test]
fn no_other_division_of_a_signed_text_is_accepted() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let key = Key::new(Algorithm::HmacSha1, b"12345");
    let (mut tried, mut same, mut same_respelled) = (0, 0, 0);
    let wanted = if std::env::var("SCALE").as_deref() == Ok("full") {
        5_000_000
    } else {
        1_000_000
    };
    while tried < wanted {
        let pairs = match random.below(5) {
            0 => status_callback(&mut random),
            _ => inbound(&mut random, hostile_text),
        };
        let target = target(&mut random);
        let original = Sent::post(&target, &pairs);
        let meaning = original
            .meaning()
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&original.body)));
        let text = signed_text(&target, &pairs);
        let signature = key.sign(&format!("{BASE}{target}"), &original.request().payload());
        for _ in 0..50 {
            let Some(sent) = division(&text, &mut random) else {
                continue;
            };
            // JSON needs its hash in the text, which its writer cannot know beforehand; here it may.
            tried += 1;
            if random.one_in(8) {
                let target = respelled(&sent.target, &mut random);
                let sent = Sent {
                    target,
                    ..sent.clone()
                };
                if let Some(accepted) = sent.accepted(&key, &signature) {
                    same_respelled += 1;
                    assert_eq!(accepted, meaning, "{sent:?}\nof {original:?}");
                }
            }
            let Ok(accepted) = sent.meaning() else {
                continue;
            };
            if !sent.is_signed(&key, &signature) {
                continue;
            }
            same += 1;
            let text =
                |sent: &Sent| format!("{} {}", sent.target, String::from_utf8_lossy(&sent.body));
            assert_eq!(accepted, meaning, "{}\nof {}", text(&sent), text(&original));
        }
    }
    // The original is among the divisions, or they would show little.
    assert!(
        same > wanted / 1000,
        "only {same} of {tried} divisions were accepted as the original"
    );
    assert!(
        same_respelled > wanted / 20_000,
        "only {same_respelled} of {tried} divisions were accepted as the original in another spelling"
    );
}

/// A request whose URL arrives in another spelling is treated as it was signed.
#[test]
fn another_spelling_hides_no_parameter() {
    let key = Key::new(Algorithm::HmacSha1, b"12345");
    let sid = "SM11111111111111111111111111111111";
    let pairs = [
        ("AccountSid", ACCOUNT),
        ("MessageSid", sid),
        ("MessageStatus", "sent"),
        ("To", "+12025550123"),
    ];
    let accepted = |signed: &str, arrives: &str| {
        let sent = Sent {
            target: arrives.to_owned(),
            ..form(&pairs)
        };
        let signature = key.sign(&format!("{BASE}{signed}"), &sent.request().payload());
        sent.accepted(&key, &signature)
    };
    let attempt = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let meaning = accepted(
        &format!("/x?attempt={attempt}&a=:"),
        &format!("/x?%61ttempt={attempt}&a=%3A"),
    );
    assert_eq!(meaning, None, "no library decodes and leaves a colon");
    let meaning = accepted(
        &format!("/x?attempt={attempt}&a=%3A"),
        &format!("/x?%61ttempt={attempt}&a=:"),
    );
    assert_eq!(meaning.unwrap().attempt.as_deref(), Some(attempt));
    // A parameter of Twilio's in the query is found although it is escaped.
    assert!(accepted("/x?Body=y", "/x?Body=y").is_none());
    assert!(accepted("/x?Body=y", "/x?%42ody=y").is_none());
    // The parameters of a GET do not change.
    let query = serde_urlencoded::to_string(pairs).unwrap();
    let get = |target: String| Sent {
        method: "GET",
        content_type: None,
        target,
        body: Vec::new(),
    };
    let signature = key.sign(&format!("{BASE}/x?{query}&who=:"), &Payload::Empty);
    let arrives = get(format!("/x?{query}&who=%3A"));
    assert_eq!(
        arrives.accepted(&key, &signature),
        get(format!("/x?{query}&who=:")).meaning().ok()
    );
    assert!(arrives.accepted(&key, &signature).is_some());
    let other = query.replace("MessageStatus=sent", "MessageStatus=read");
    assert!(
        get(format!("/x?{other}&who=%3A"))
            .accepted(&key, &signature)
            .is_none()
    );
}

#[test]
fn genuine_requests_are_accepted_whatever_their_texts_say() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..100_000 {
        let pairs = match random.below(4) {
            0 => status_callback(&mut random),
            1 => inbound(&mut random, |random, _| plain(random)),
            _ => inbound(&mut random, hostile_text),
        };
        let target = target(&mut random);
        let sent = if random.one_in(5) {
            let query = serde_urlencoded::to_string(&pairs).unwrap();
            Sent {
                method: "GET",
                content_type: None,
                target: format!("/twilio/inbound?{query}"),
                body: Vec::new(),
            }
        } else {
            Sent::post(&target, &pairs)
        };
        if let Err(error) = sent.meaning() {
            panic!(
                "{error}: {} {}",
                sent.target,
                String::from_utf8_lossy(&sent.body)
            );
        }
    }
}

/// The forgeries that are known, from one text message and its signature.
#[test]
fn known_forgeries_are_refused() {
    let sid = "SM11111111111111111111111111111111";
    let victim = "SM22222222222222222222222222222222";
    let tail = [
        ("From", "+12025550166"),
        ("MessageSid", sid),
        ("NumMedia", "0"),
        ("SmsMessageSid", sid),
        ("SmsSid", sid),
        ("SmsStatus", "received"),
        ("To", "+12025550100"),
    ];
    let rest: String = tail
        .iter()
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    let form = |pairs: &[(&str, &str)]| {
        let mut all = vec![("AccountSid", ACCOUNT), ("ApiVersion", "2010-04-01")];
        all.extend_from_slice(pairs);
        Sent::post(
            "/x",
            &owned(all.into_iter().map(|(n, v)| (n, v.to_owned())).collect()),
        )
    };
    let forged = [
        // A status callback of another message.
        form(&[
            ("Body", "x"),
            ("From", "+12025550100"),
            ("MessageSid", victim),
            ("MessageStatus", "undelivered"),
            ("Zz", &rest),
        ]),
        form(&[
            ("ErrorCode", "30005"),
            ("MessageSid", victim),
            ("MessageStatus", "undelivered"),
            ("ProfileName", &rest),
        ]),
        // A STOP in another person's name.
        form(&[
            ("Body", "STOP"),
            ("From", "+12025550177"),
            ("MessageSid", victim),
            ("SmsStatus", "received"),
            ("To", "+12025550100"),
            ("Zz", &rest),
        ]),
        form(&[("Body", "STOP"), ("From", "+12025550177"), ("G", &rest)]),
        form(&[
            ("Body", "STOP"),
            ("From", "+12025550177"),
            ("GFrom", "+12025550166"),
            ("MessageSid", sid),
            ("SmsMessageSid", sid),
            ("SmsSid", sid),
            ("SmsStatus", "received"),
            ("To", "+12025550100"),
        ]),
        // A file of choice.
        form(&[
            ("Body", "x"),
            ("From", "+12025550166"),
            ("MediaUrl0", "https://evil.example/"),
            ("MessageSid", victim),
            ("NumMedia", "1"),
            ("SmsStatus", "received"),
            ("Zz", &rest),
        ]),
    ];
    for sent in forged {
        assert!(sent.meaning().is_err(), "{sent:?}");
    }
    // The place of a location names another sender, and the empty text takes the sender's place.
    let located = form(&[
        ("Body", "Fromwhatsapp:+12025550166Label"),
        ("From", "whatsapp:+12025550177"),
        ("Latitude", "1"),
        ("Longitude", "1"),
        ("MessageSid", sid),
        ("SmsMessageSid", sid),
        ("SmsSid", sid),
        ("SmsStatus", "received"),
        ("To", "whatsapp:+12025550100"),
        ("WaId", "12025550166"),
    ]);
    assert!(located.meaning().is_err());
}

/// The place of a location names a message, a file or a status, and made-up names hide the genuine ones.
#[test]
fn a_location_is_no_other_message() {
    let sid = "SMaa111111111111111111111111111111";
    let victim = "SMbb222222222222222222222222222222";
    let start = [("AccountSid", ACCOUNT), ("ApiVersion", "2010-04-01")];
    let from = ("From", "whatsapp:+12025550166");
    let counted = [
        ("NumMedia", "0"),
        ("ProfileName", "Bob"),
        ("SmsMessageSid", sid),
        ("SmsSid", sid),
    ];
    let end = [
        ("SmsStatus", "received"),
        ("To", "whatsapp:+12025550100"),
        ("WaId", "12025550166"),
    ];
    let genuine = |body: &str, label: &str| {
        let place = [
            ("Body", body),
            from,
            ("Label", label),
            ("Latitude", "1"),
            ("Longitude", "2"),
            ("MessageSid", sid),
        ];
        form(&[&start[..], &place, &counted, &end].concat())
    };
    let swallowed = format!("{sid}NumMedia0ProfileNameBobSmsMessageSid");
    let hidden = [
        ("NxLatitude1Longitude2MessageSid", ""),
        (swallowed.as_str(), ""),
        (&format!("{sid}SmsSid"), ""),
        (&format!("{sid}SmsStatus"), "received"),
        end[1],
        end[2],
    ];
    let file = format!("https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}.json?x=");
    let forged_file = format!("{file}Latitude1Longitude2");
    let cases = [
        (
            genuine(
                "ErrorCode30005",
                &format!("xMessageSid{victim}MessageStatusfailedNx"),
            ),
            [
                &start[..],
                &[
                    ("Body", ""),
                    ("ErrorCode", "30005"),
                    from,
                    ("Label", "x"),
                    ("MessageSid", victim),
                    ("MessageStatus", "failed"),
                ],
                &hidden,
            ]
            .concat(),
        ),
        (
            genuine(
                "y",
                &format!("xMediaUrl0https://evil.example/MessageSid{victim}Nx"),
            ),
            [
                &start[..],
                &[
                    ("Body", "y"),
                    from,
                    ("Label", "x"),
                    ("MediaUrl0", "https://evil.example/"),
                    ("MessageSid", victim),
                ],
                &hidden,
            ]
            .concat(),
        ),
        (
            genuine("y", &format!("xMediaUrl0{file}")),
            [
                &start[..],
                &[
                    ("Body", "y"),
                    from,
                    ("Label", "x"),
                    ("MediaUrl0", &forged_file),
                    ("MessageSid", sid),
                ],
                &counted,
                &end,
            ]
            .concat(),
        ),
    ];
    for (genuine, forged) in &cases {
        assert!(genuine.meaning().is_ok(), "{genuine:?}");
        let forged = form(forged);
        let key = Key::new(Algorithm::HmacSha1, b"12345");
        let signature = key.sign(&format!("{BASE}/x"), &genuine.request().payload());
        assert!(forged.is_signed(&key, &signature), "{forged:?}");
        assert!(forged.meaning().is_err(), "{forged:?}");
    }
}

#[test]
fn an_error_code_cannot_become_the_end_of_a_name() {
    let sid = "SM11111111111111111111111111111111";
    let rest = [
        ("From", "+12025550100"),
        ("MessageSid", sid),
        ("MessageStatus", "undelivered"),
        ("SmsSid", sid),
        ("To", "+12025550199"),
    ];
    let hidden = [
        &[
            ("AccountSid", ACCOUNT),
            ("ApiVersion2010-04-01ErrorCode", "30005"),
        ][..],
        &rest,
    ]
    .concat();
    assert!(form(&hidden).meaning().is_err());
}

/// Words, URLs and names that only look like parameters refuse nothing.
#[test]
fn text_that_looks_like_a_parameter_by_chance_is_accepted() {
    let sid = "SM11111111111111111111111111111111";
    let status = |more: &[(&str, &str)]| {
        let all = [
            ("AccountSid", ACCOUNT),
            ("ErrorCode", "30005"),
            ("From", "+12025550100"),
            ("MessageSid", sid),
            ("MessageStatus", "undelivered"),
            ("SmsSid", sid),
            ("To", "+12025550199"),
        ];
        form(&[&all[..], more].concat())
    };
    for more in [
        [].as_slice(),
        &[("ErrorMessage", "Failed for From1 To2, ErrorCode30005")],
        &[("ChannelStatusMessage", "To+12025550199")],
        &[("MessageParentAccountSid", ACCOUNT)],
        &[("ErrorCodeText", "x"), ("New.Name", "1"), ("a%", "1")],
    ] {
        let sent = status(more);
        assert!(sent.meaning().is_ok(), "{:?}: {more:?}", sent.meaning());
    }
    let agent = form(&[
        ("AccountSid", ACCOUNT),
        ("Body", "hi"),
        ("From", "rcs:+12025550100"),
        ("MessageSid", sid),
        ("NumMedia", "0"),
        ("SmsSid", sid),
        ("SmsStatus", "received"),
        ("To", "rcs:ToyotaAgent"),
    ]);
    assert!(agent.meaning().is_ok(), "{:?}", agent.meaning());
    for target in ["/hooks/aTo5b", "/hooks/From2024/x", "/x?to=1&from=2"] {
        let sent = Sent {
            target: target.to_owned(),
            ..status(&[])
        };
        assert!(sent.meaning().is_ok(), "{target}");
    }
}

#[test]
fn words_behind_a_keyword_are_not_cut_off() {
    let sid = "SM11111111111111111111111111111111";
    let sent = form(&[
        ("AccountSid", ACCOUNT),
        ("Body", "START "),
        ("Calling me later", ""),
        ("From", "+12025550100"),
        ("MessageSid", sid),
        ("NumMedia", "0"),
        ("SmsSid", sid),
        ("SmsStatus", "received"),
        ("To", "+12025550199"),
    ]);
    assert!(sent.meaning().is_err());
}

fn form(pairs: &[(&str, &str)]) -> Sent {
    Sent::post(
        "/x",
        &owned(
            pairs
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        ),
    )
}

#[test]
fn a_url_says_how_it_was_requested() {
    let sid = "SM11111111111111111111111111111111";
    let callback =
        format!("AccountSid={ACCOUNT}&MessageSid={sid}&MessageStatus=sent&To=%2B12025550123");
    let post = |target: &str, body: &str| Sent {
        method: "POST",
        content_type: Some(FORM),
        target: target.to_owned(),
        body: body.as_bytes().to_vec(),
    };
    let get = |target: String| Sent {
        method: "GET",
        content_type: None,
        target,
        body: Vec::new(),
    };
    assert!(post("/x?attempt=1&q=2", &callback).meaning().is_ok());
    let error = post("/x?Body=y", &callback).meaning().unwrap_err();
    assert_eq!(error, Ambiguity::Query("Body").to_string());
    assert!(get(format!("/x?{callback}")).meaning().is_ok());
    assert!(
        get(format!("/x?{callback}&Body=AccountSid{ACCOUNT}"))
            .meaning()
            .is_ok()
    );
    for before in [
        format!("/xAccountSid{ACCOUNT}?"),
        format!("/x?attempt=1AccountSid{ACCOUNT}Body&"),
    ] {
        let error = get(before + &callback).meaning().unwrap_err();
        assert_eq!(error, Ambiguity::Divisible("AccountSid").to_string());
    }
    // A fragment is not signed, so that it says nothing.
    let sent = get(format!("/x?{callback}#&ErrorCode=30005"));
    assert_eq!(
        sent.meaning().unwrap().status,
        Some(("sent".to_owned(), None))
    );
}

#[test]
fn an_empty_sid_in_a_text_does_not_confirm_the_sender() {
    let sid = "SM11111111111111111111111111111111";
    let start = [("AccountSid", ACCOUNT), ("ApiVersion", "2010-04-01")];
    let end = [
        ("SmsMessageSid", sid),
        ("SmsSid", sid),
        ("SmsStatus", "received"),
        ("To", "+12025550100"),
    ];
    let genuine = [
        ("Body", "STOPFrom+12025550199MessageSidSms"),
        ("From", "+12025558831"),
        ("MessageSid", sid),
        ("NumMedia", "0"),
        ("NumSegments", "1"),
    ];
    let swallowed = format!("From+12025558831MessageSid{sid}NumMedia0NumSegments1");
    let forged = [
        ("Body", "STOP"),
        ("From", "+12025550199"),
        ("MessageSid", ""),
        ("Sms", swallowed.as_str()),
    ];
    let genuine = [&start[..], &genuine, &end].concat();
    let forged = [&start[..], &forged, &end].concat();
    let signed = |pairs: &[(&str, &str)]| -> String {
        pairs
            .iter()
            .map(|(name, value)| format!("{name}{value}"))
            .collect()
    };
    assert_eq!(signed(&genuine), signed(&forged));
    assert!(form(&genuine).meaning().is_ok());
    assert!(form(&forged).meaning().is_err());
}

#[test]
fn the_name_of_a_sender_is_not_taken_for_a_parameter() {
    let status = |pairs: &[(&str, &str)]| {
        let sid = ("MessageSid", "SM11111111111111111111111111111111");
        let end = [sid, ("MessageStatus", "sent"), ("To", "+12025550123")];
        form(&[&[("AccountSid", ACCOUNT)][..], pairs, &end].concat()).meaning()
    };
    assert!(status(&[("From", "Label")]).is_ok());
    assert!(status(&[("From", "")]).is_ok());
    assert!(status(&[("From", ""), ("Label", "")]).is_err());
}
