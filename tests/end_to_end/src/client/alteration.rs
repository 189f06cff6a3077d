//! Changes to a signed request, none of which its signature may survive.

use sha2::{Digest, Sha256};

use crate::client::callback::{INBOUND_PATH, Pairs, STATUS_PATH};
use crate::client::request::{FORM, Request, encode, pairs_of};
use crate::random::Random;

/// A name for failure messages, and the change; `None` where it does not apply to the request.
pub type Alteration = (&'static str, fn(&Request, &mut Random) -> Option<Request>);

/// Every kind of change.
///
/// Left out is the one that Twilio's scheme cannot see: names and values are signed without separators,
/// so letters can move over the border between a name and a value.
pub const ALTERATIONS: [Alteration; 20] = [
    ("a value is changed", |request, random| {
        with_pairs(request, |pairs| {
            let index = random.below(pairs.len());
            pairs[index].1 = another(&pairs[index].1, random);
        })
    }),
    ("a name is changed", |request, random| {
        with_pairs(request, |pairs| {
            let index = random.below(pairs.len());
            pairs[index].0 = another(&pairs[index].0, random);
        })
    }),
    ("a parameter is added", |request, random| {
        with_pairs(request, |pairs| {
            let value = *random.pick(&["", "1", "delivered"]);
            let index = random.below(pairs.len() + 1);
            pairs.insert(index, ("Added".to_owned(), value.to_owned()));
        })
    }),
    ("a value is added to a name", |request, random| {
        with_pairs(request, |pairs| {
            let index = random.below(pairs.len());
            let (name, value) = pairs[index].clone();
            pairs.push((name, value + "+"));
        })
    }),
    ("a parameter is removed", |request, random| {
        with_pairs(request, |pairs| {
            drop(pairs.remove(random.below(pairs.len())))
        })
    }),
    ("two values are exchanged", |request, random| {
        with_pairs(request, |pairs| {
            let index = random.below(pairs.len());
            let (name, value) = pairs[index].clone();
            // Of another name and length, so that the exchange cannot give the same text again.
            let is_other = |(n, v): &&mut (String, String)| *n != name && v.len() != value.len();
            if let Some(other) = pairs.iter_mut().find(is_other) {
                pairs[index].1 = std::mem::replace(&mut other.1, value);
            }
        })
    }),
    ("bytes of a JSON body are changed", |request, random| {
        let mut altered = json(request)?;
        let end = altered.body.len() - 2;
        altered.body.insert(end, *random.pick(b" x1"));
        Some(altered)
    }),
    ("a JSON body is changed with its hash", |request, _| {
        let mut altered = json(request)?;
        let end = altered.body.len() - 1;
        altered.body.splice(end..end, *b",\"Added\":\"1\"");
        let (path, _) = altered.target.split_once('?')?;
        altered.target = format!("{path}?bodySHA256={}", hex(&Sha256::digest(&altered.body)));
        Some(altered)
    }),
    ("another path that is served", |request, _| {
        let (path, other) = if request.target.starts_with(STATUS_PATH) {
            (STATUS_PATH, INBOUND_PATH)
        } else {
            (INBOUND_PATH, STATUS_PATH)
        };
        Some(with_target(
            request,
            request.target.replacen(path, other, 1),
        ))
    }),
    ("another path", |request, random| {
        let (path, rest) = split(&request.target);
        let path = match random.below(4) {
            0 => format!("{path}/"),
            1 => format!("/{path}"),
            2 => path.replacen("twilio", "Twilio", 1),
            _ => path.replacen("twilio", "%74wilio", 1),
        };
        Some(with_target(request, path + rest))
    }),
    ("a longer query", |request, random| {
        let target = &request.target;
        let joint = if target.contains('?') { '&' } else { '?' };
        let added = *random.pick(&["", "x", "x=1", "bodySHA256=0", "AccountSid="]);
        Some(with_target(request, format!("{target}{joint}{added}")))
    }),
    ("another query", |request, random| {
        let (path, query) = split(&request.target);
        let position = query.rfind(|c: char| c.is_ascii_alphanumeric())?;
        let mut query = query.to_owned();
        let replacement = if &query[position..=position] == "5" {
            "6"
        } else {
            "5"
        };
        match random.below(3) {
            0 => query.replace_range(position..=position, replacement),
            1 => query.truncate(position),
            _ => query.clear(),
        }
        Some(with_target(request, format!("{path}{query}")))
    }),
    (
        "a query in a spelling that no library accepts",
        |request, _| {
            let (path, query) = split(&request.target);
            if !query.contains('+') {
                return None;
            }
            let position = query.rfind(|c: char| c.is_ascii_alphanumeric())?;
            // A letter that belongs to an escape cannot be escaped itself.
            let is_free = !query[..position].ends_with('%')
                && !query[..position]
                    .get(position.saturating_sub(2)..)?
                    .starts_with('%');
            let byte = query.as_bytes()[position];
            let spelled = format!(
                "{}%{byte:02X}{}",
                &query[..position],
                &query[position + 1..]
            );
            is_free.then(|| with_target(request, format!("{path}{spelled}")))
        },
    ),
    ("another signature", |request, random| {
        let mut signature = request.value_of(SIGNATURE)?.to_owned();
        let position = random.below(signature.len() - 2);
        let other = if &signature[position..=position] == "A" {
            "B"
        } else {
            "A"
        };
        signature.replace_range(position..=position, other);
        Some(request.clone().with(SIGNATURE, &signature))
    }),
    ("another text of the same signature", |request, _| {
        // The last letter before the padding has bits that stand for nothing.
        let mut signature = request.value_of(SIGNATURE)?.to_owned().into_bytes();
        let last = signature.iter().rposition(|byte| *byte != b'=')?;
        let digit = BASE64.iter().position(|byte| *byte == signature[last])?;
        signature[last] = BASE64[digit ^ 1];
        Some(
            request
                .clone()
                .with(SIGNATURE, &String::from_utf8(signature).unwrap()),
        )
    }),
    (
        "a signature in another case or length",
        |request, random| {
            let signature = request.value_of(SIGNATURE)?;
            let altered = match random.below(5) {
                0 => signature.to_lowercase(),
                1 => signature[..signature.len() - 1].to_owned(),
                2 => format!("{signature}="),
                3 => format!("{signature}, {signature}"),
                _ => signature.trim_end_matches('=').to_owned(),
            };
            (altered != signature).then(|| request.clone().with(SIGNATURE, &altered))
        },
    ),
    ("no signature", |request, random| {
        let without = request.clone().without(SIGNATURE);
        Some(if random.one_in(2) {
            without
        } else {
            without.header(SIGNATURE, "")
        })
    }),
    ("an unknown algorithm", |request, random| {
        let algorithm = *random.pick(&["HMAC_MD5", "none", "HMAC_SHA1,algorithm=none"]);
        let settings = format!("algorithm={algorithm}");
        Some(
            request
                .clone()
                .with("X-Twilio-Webhooks-Signature-Settings", &settings),
        )
    }),
    ("another media type", |request, random| {
        let content_type = request.value_of("content-type")?;
        let other = match random.below(3) {
            0 if content_type.starts_with(FORM) => "application/json",
            0 => FORM,
            1 => "text/plain",
            _ => "multipart/form-data; boundary=x",
        };
        Some(request.clone().with("Content-Type", other))
    }),
    ("another method", |request, random| {
        let mut altered = request.clone();
        altered.method = match (request.method.as_str(), random.below(2)) {
            ("GET", 0) => "POST",
            ("POST", 0) => "GET",
            _ => "PUT",
        }
        .to_owned();
        if altered.method == "POST" {
            // The parameters of the query as a form, under a signature that covers the query.
            let (_, query) = split(&request.target);
            altered.body = query.trim_start_matches('?').as_bytes().to_vec();
            altered = altered.with("Content-Type", FORM);
        }
        Some(altered)
    }),
];

/// The same parameters in another order, with every byte escaped: this must still be accepted.
pub fn respelled(request: &Request, random: &mut Random) -> Option<Request> {
    if !is_form(request) {
        return None;
    }
    let mut pairs = request.pairs();
    random.shuffle(&mut pairs);
    let escape = |text: &str| {
        text.bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect::<String>()
    };
    let pairs = pairs
        .iter()
        .map(|(n, v)| format!("{}={}", escape(n), escape(v)));
    let mut respelled = request.clone();
    respelled.body = pairs.collect::<Vec<_>>().join("&").into_bytes();
    Some(respelled)
}

/// Changes the parameters of a form, or of a GET's query.
fn with_pairs(request: &Request, change: impl FnOnce(&mut Pairs)) -> Option<Request> {
    let mut altered = request.clone();
    let (path, query) = split(&request.target);
    let mut pairs = match request.method.as_str() {
        "GET" => pairs_of(query.trim_start_matches('?').as_bytes()),
        _ if is_form(request) => request.pairs(),
        _ => return None,
    };
    let before = pairs.clone();
    change(&mut pairs);
    if pairs == before {
        return None;
    }
    if request.method == "GET" {
        altered.target = format!("{path}?{}", encode(&pairs));
    } else {
        altered.body = encode(&pairs).into_bytes();
    }
    Some(altered)
}

/// Another text, which differs by as little as possible.
fn another(text: &str, random: &mut Random) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    match random.below(6) {
        0 if letters.pop().is_some() => letters.into_iter().collect(),
        1 if text.trim() != text => text.trim().to_owned(),
        2 if text.to_lowercase() != text => text.to_lowercase(),
        3 => format!(" {text}"),
        4 => format!("{text}\0"),
        _ => format!("{text}1"),
    }
}

fn is_form(request: &Request) -> bool {
    request
        .value_of("content-type")
        .is_some_and(|value| value.starts_with(FORM))
}

fn json(request: &Request) -> Option<Request> {
    (request.value_of("content-type") == Some("application/json")).then(|| request.clone())
}

fn with_target(request: &Request, target: String) -> Request {
    Request {
        target,
        ..request.clone()
    }
}

/// Path and query, the latter with its question mark.
fn split(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SIGNATURE: &str = "X-Twilio-Signature";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
