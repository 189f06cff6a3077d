//! Clients that are not ours: the providers' own libraries, as applications use them.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::peer::sandbox::Sandbox;
use crate::server::database::{ACCOUNT_SID, AUTH_TOKEN};
use crate::server::environment::{checkout, python};

/// Creates `messages` at a sandbox by Twilio's library for Python: SIDs, or codes of errors.
///
/// Each has the arguments of `messages.create` and, if it is to lose its text, `redact`.
pub fn create_by_twilio(sandbox: &Sandbox, messages: &[Value]) -> Vec<Value> {
    let settings = json!({
        "url": sandbox.url(),
        "account_sid": ACCOUNT_SID,
        "auth_token": AUTH_TOKEN,
        "messages": messages,
    });
    let created = run_python("twilio_client.py", &settings);
    created.as_array().unwrap().clone()
}

/// Runs one of the scripts in `clients` with `input` on standard input and gives what it prints.
pub fn run_python(script: &str, input: &Value) -> Value {
    let mut child = python()
        .arg(checkout().join("tests/end_to_end/clients").join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be run");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}
