//! Requests signed by libraries that are not ours.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::client::callback::{EVENTS_PATH, INBOUND_PATH, STATUS_PATH};
use crate::client::request::Request;
use crate::server::database::{
    ACCOUNT_SID, AUTH_TOKEN, PUBLIC_URL, SHARED_KEY_ID, SHARED_KEY_SECRET,
};
use crate::server::environment::{self, checkout, command};

/// A request that a library has signed.
pub struct Signed {
    /// Its kind: status, inbound, get, json or shared.
    pub kind: String,
    /// The request.
    pub request: Request,
    /// Its parameters as the library was given them; a repeated one has an array.
    pub params: Map<String, Value>,
}

impl Signed {
    /// The message that it is about.
    pub fn message_sid(&self) -> &str {
        self.params["MessageSid"].as_str().unwrap()
    }
}

/// `count` random requests signed by Twilio's library for Python.
pub fn python(count: usize, seed: u64) -> Vec<Signed> {
    sign(environment::python(), "sign.py", count, seed)
}

/// `count` random requests signed by Twilio's library for Node.
pub fn node(count: usize, seed: u64) -> Vec<Signed> {
    sign(command("node"), "sign.js", count, seed)
}

/// Makes `count` random status callbacks below `paths` whose URLs arrive in another spelling than they were signed.
/// Twilio's library for Node accepts all of them.
pub fn spelled(count: usize, seed: u64, paths: &[&str]) -> Vec<Signed> {
    let settings = json!({
        "account_sid": ACCOUNT_SID,
        "auth_token": AUTH_TOKEN,
        "public_url": PUBLIC_URL,
        "paths": paths,
    });
    let arguments = [count.to_string(), (seed & 0xffff_ffff).to_string()];
    let signed = run(command("node"), "spell.js", &arguments, &settings);
    assert_eq!(signed.len(), count);
    signed
}

/// These inbound messages, each with `method` and `params`, signed by the library for Python.
pub fn given_to_python(requests: &[Value]) -> Vec<Signed> {
    given(environment::python(), "given.py", INBOUND_PATH, requests)
}

/// The same by the library for Node.
pub fn given_to_node(requests: &[Value]) -> Vec<Signed> {
    given(command("node"), "given.js", INBOUND_PATH, requests)
}

/// These JSON bodies, as Event Streams delivers them, signed by the library for Python.
pub fn events(bodies: &[String]) -> Vec<Request> {
    let bodies: Vec<_> = bodies.iter().map(|body| json!({"body": body})).collect();
    let signed = given(environment::python(), "given.py", EVENTS_PATH, &bodies);
    signed.into_iter().map(|signed| signed.request).collect()
}

/// Whether Twilio's library for Python accepts each of these requests that arrived at the public URL.
pub fn accepted_by_python(requests: &[Request]) -> Vec<bool> {
    let requests = requests.iter().map(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        json!({
            "url": format!("{PUBLIC_URL}{}", request.target),
            "signature": request.value_of("x-twilio-signature"),
            "body": body,
        })
    });
    let settings = json!({
        "auth_token": AUTH_TOKEN,
        "requests": requests.collect::<Vec<_>>(),
    });
    let output = output(environment::python(), "validate.py", &[], &settings);
    serde_json::from_str(&output).unwrap()
}

fn given(interpreter: Command, script: &str, path: &str, requests: &[Value]) -> Vec<Signed> {
    let settings = json!({
        "auth_token": AUTH_TOKEN,
        "public_url": PUBLIC_URL,
        "path": path,
        "requests": requests,
    });
    let signed = run(interpreter, script, &[], &settings);
    assert_eq!(signed.len(), requests.len());
    signed
}

fn sign(interpreter: Command, script: &str, count: usize, seed: u64) -> Vec<Signed> {
    let settings = json!({
        "account_sid": ACCOUNT_SID,
        "auth_token": AUTH_TOKEN,
        "public_url": PUBLIC_URL,
        "status_path": STATUS_PATH,
        "inbound_path": INBOUND_PATH,
        "shared_key_id": SHARED_KEY_ID,
        "shared_key_secret": SHARED_KEY_SECRET,
    });
    let arguments = [count.to_string(), (seed & 0xffff_ffff).to_string()];
    let signed = run(interpreter, script, &arguments, &settings);
    assert_eq!(signed.len(), count);
    signed
}

fn run(interpreter: Command, script: &str, arguments: &[String], settings: &Value) -> Vec<Signed> {
    let text = output(interpreter, script, arguments, settings);
    text.lines().map(read).collect()
}

fn output(
    mut interpreter: Command,
    script: &str,
    arguments: &[String],
    settings: &Value,
) -> String {
    let mut child = interpreter
        .arg(checkout().join("tests/end_to_end/signers").join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter can be run");
    // Over standard input, since other processes can read a command line.
    let mut input = child.stdin.take().unwrap();
    input.write_all(settings.to_string().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the signer failed");
    String::from_utf8(output.stdout).unwrap()
}

fn read(line: &str) -> Signed {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    let headers = value["headers"].as_object().unwrap().iter();
    Signed {
        kind: text("kind"),
        request: Request {
            method: text("method"),
            target: text("target"),
            headers: headers
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect(),
            body: text("body").into_bytes(),
        },
        params: value["params"].as_object().unwrap().clone(),
    }
}
