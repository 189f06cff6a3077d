//! Our TwiML is equivalent to what Twilio's own libraries write for the same content.

use std::io::Write;
use std::process::{Command, Stdio};

use end_to_end::random::Random;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::environment::{checkout, command, python};
use serde_json::{Value, json};

const CASES: usize = 500;
const PIECES: [&str; 20] = [
    "a",
    " ",
    "&",
    "<",
    ">",
    "\"",
    "'",
    "]]>",
    "<!-- x -->",
    "&amp;",
    "\r",
    "\n",
    "\t",
    "é",
    "中文",
    "👩‍👩‍👧",
    "\u{200b}",
    "</Body>",
    "<?x?>",
    "%41",
];
/// Characters that XML cannot contain: they are left out.
const FORBIDDEN: [&str; 4] = ["\u{1}", "\u{b}", "\u{1f}", "\u{fffe}"];

#[test]
fn our_twiml_reads_as_that_of_the_libraries() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let mut client = database.connect();
    let mut random = Random::new();
    let mut cases = Vec::new();
    for _ in 0..CASES {
        let (raw, body) = text(&mut random);
        let media: Vec<String> = (0..random.below(4))
            .map(|n| format!("https://example.com/{n}.png?a=1&b='{n}'"))
            .collect();
        let [to, from, callback] = [
            "+12025550123",
            "whatsapp:+12025550100",
            "https://example.com/s?a=1&b=2",
        ]
        .map(|value| random.one_in(3).then_some(value));
        let media_urls = (!media.is_empty()).then_some(&media);
        let sql = "select twilio.twiml_message($1, $2, $3, $4, $5)";
        let row = client.query_one(sql, &[&raw, &media_urls, &to, &from, &callback]);
        let ours: String = row.unwrap().get(0);
        // Texts report to one and media to the other, so a callback is written as both.
        let all = [
            ("to", to),
            ("from", from),
            ("action", callback),
            ("statusCallback", callback),
        ];
        let attributes: serde_json::Map<String, Value> = all
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect();
        cases.push(json!({"body": body, "media": media, "attributes": attributes, "ours": ours}));
    }
    let mut node = command("node");
    node.arg(script("twiml.js"));
    let written = run(node, &lines(&cases));
    for (case, line) in cases.iter_mut().zip(written.lines()) {
        case["node"] = serde_json::from_str(line).unwrap();
    }
    let mut python = python();
    python.arg(script("twiml.py"));
    assert_eq!(run(python, &lines(&cases)).trim(), CASES.to_string());
}

/// A text with and without what XML forbids.
fn text(random: &mut Random) -> (String, String) {
    let (mut raw, mut legal) = ("x".to_owned(), "x".to_owned());
    for _ in 0..random.below(12) {
        if random.one_in(6) {
            raw.push_str(FORBIDDEN[random.below(FORBIDDEN.len())]);
        } else {
            let piece = PIECES[random.below(PIECES.len())];
            raw.push_str(piece);
            legal.push_str(piece);
        }
    }
    (raw, legal)
}

fn script(name: &str) -> std::path::PathBuf {
    checkout().join("tests/end_to_end/signers").join(name)
}

fn lines(cases: &[Value]) -> String {
    cases.iter().map(|case| format!("{case}\n")).collect()
}

fn run(mut interpreter: Command, input: &str) -> String {
    let mut child = interpreter
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Both read all of it before they write.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the library's script failed");
    String::from_utf8(output.stdout).unwrap()
}
