//! The stand-in for Twilio as a process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::client::http::{Address, Response};
use crate::client::request::Request;
use crate::peer::shim::Shim;
use crate::server::database::{ACCOUNT_SID, AUTH_TOKEN, Database, PUBLIC_URL};
use crate::server::environment::{command, free_port, fresh_directory, program};
use crate::server::process::Process;

/// Flags of a sandbox with a phone, which soon calls back.
pub const PHONE: [&str; 8] = [
    "--callback-delay",
    "5",
    "--smsgate-user",
    "user",
    "--smsgate-password",
    "password",
    "--device",
    "phone-1:key-1",
];

/// The statuses of messages that are events.
const STATUSES: [&str; 6] = [
    "queued",
    "sent",
    "delivered",
    "undelivered",
    "failed",
    "read",
];

/// A running sandbox.
pub struct Sandbox {
    directory: PathBuf,
    port: u16,
    process: Process,
}

impl Sandbox {
    /// Starts a shim for `database` and a sandbox that calls it.
    pub fn with_shim(database: &Database<'_>, flags: &[&str]) -> (Shim, Self) {
        let port = free_port();
        let shim = Shim::start(database, &["--listen", &format!("127.0.0.1:{port}")]);
        (shim, Self::start(port, flags))
    }

    /// Starts a sandbox that calls `shim_port` for the test account's public URL.
    pub fn start(shim_port: u16, flags: &[&str]) -> Self {
        let directory = fresh_directory();
        let mut sandbox = command(program("twilio-sandbox"));
        sandbox
            .env_clear()
            .env("TWILIO_ACCOUNT_SID", ACCOUNT_SID)
            .env("TWILIO_AUTH_TOKEN", AUTH_TOKEN)
            .args(["--listen", "127.0.0.1:0"])
            .arg("--deliver")
            .arg(format!("{PUBLIC_URL}=http://127.0.0.1:{shim_port}"))
            .args(flags);
        let mut process = Process::start("the sandbox", sandbox, &directory.join("log"));
        let mut port = None;
        let log = directory.join("log");
        process.wait_until_ready(Duration::from_secs(10), || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            port = announced_port(&text);
            port.is_some_and(|port| Address::loopback(port).is_open())
        });
        Self {
            directory,
            port: port.expect("it was awaited"),
            process,
        }
    }

    /// Has its phone report what becomes of its messages.
    pub fn register_webhooks(&self) {
        for event in ["sms:sent", "sms:delivered", "sms:failed"] {
            let body = format!(r#"{{"url": "{PUBLIC_URL}/smsgate", "event": "{event}"}}"#);
            let request = Request::post("/3rdparty/v1/webhooks", "application/json", body)
                // user:password
                .header("Authorization", "Basic dXNlcjpwYXNzd29yZA==");
            assert_eq!(self.send(&request).status, 201);
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The SMS that phones have sent: recipient and text.
    pub fn sent(&self) -> Vec<(String, String)> {
        let answer = self.send(&Request::new("GET", "/_sent"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        let text = |sms: &Value, name: &str| sms[name].as_str().unwrap_or_default().to_owned();
        let all = value["sent"].as_array().unwrap();
        all.iter()
            .map(|sms| (text(sms, "to"), text(sms, "text")))
            .collect()
    }

    /// Creates a message as an application does and gives Twilio's representation of it.
    pub fn create(&self, from: &str, to: &str, callback_path: &str) -> Value {
        self.create_with(from, to, callback_path, "Your table is ready")
    }

    /// The same with a text.
    pub fn create_with(&self, from: &str, to: &str, callback_path: &str, body: &str) -> Value {
        let callback = format!("{PUBLIC_URL}{callback_path}");
        let form = [
            ("From", from),
            ("To", to),
            ("Body", body),
            ("StatusCallback", &callback),
        ];
        let path = format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json");
        let answer = self.send(&self.authorized(Request::form(&path, &form)));
        assert_eq!(answer.status, 201, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Creates a sink at a path of the public URL and subscribes it to every status of messages.
    pub fn add_sink(&self, path: &str, is_batched: bool) {
        let post = |path: &str, form: &[(&str, &str)]| -> Value {
            let answer = self.send(&self.authorized(Request::form(path, form)));
            assert_eq!(answer.status, 201, "{}", answer.text());
            serde_json::from_slice(&answer.body).unwrap()
        };
        let destination = format!("{PUBLIC_URL}{path}");
        let configuration =
            json!({ "destination": destination, "method": "POST", "batch_events": is_batched });
        let configuration = configuration.to_string();
        let form = [
            ("Description", "events"),
            ("SinkType", "webhook"),
            ("SinkConfiguration", &configuration),
        ];
        let sink = post("/v1/Sinks", &form);
        let types = STATUSES.map(|status| {
            let name = format!("com.twilio.messaging.message.{status}");
            json!({ "type": name, "schema_version": 8 }).to_string()
        });
        let sink_sid = sink["sid"].as_str().unwrap();
        let mut form = vec![("Description", "events"), ("SinkSid", sink_sid)];
        form.extend(types.iter().map(|text| ("Types", text.as_str())));
        post("/v1/Subscriptions", &form);
    }

    /// The sinks with counts of their events.
    pub fn sinks(&self) -> Vec<Value> {
        let answer = self.send(&Request::new("GET", "/_sinks"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        value["sinks"].as_array().unwrap().clone()
    }

    /// The request with the account's credentials.
    pub fn authorized(&self, request: Request) -> Request {
        let credentials = BASE64_STANDARD.encode(format!("{ACCOUNT_SID}:{AUTH_TOKEN}"));
        request.header("Authorization", &format!("Basic {credentials}"))
    }

    /// How often each recipient was tried, and how many of these creates were accepted.
    pub fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        let answer = self.send(&Request::new("GET", "/_counts"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        let recipients = value["recipients"].as_object().unwrap();
        let count = |of: &Value, name: &str| of[name].as_u64().unwrap();
        recipients
            .iter()
            .map(|(to, of)| (to.clone(), (count(of, "requests"), count(of, "accepted"))))
            .collect()
    }

    /// The API requests that it has received, those after the given number.
    pub fn requests(&self, after: u64) -> Vec<Value> {
        let answer = self.send(&Request::new("GET", &format!("/_requests?after={after}")));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        value["requests"].as_array().unwrap().clone()
    }

    /// The callbacks that it has made, with their answers.
    pub fn callbacks(&self) -> Vec<Value> {
        let answer = self.send(&Request::new("GET", "/_callbacks"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        value["callbacks"].as_array().unwrap().clone()
    }

    /// Sends one request to it.
    pub fn send(&self, request: &Request) -> Response {
        Address::loopback(self.port).send(request)
    }

    /// Its output.
    pub fn read_log(&self) -> String {
        self.process.read_log()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The first line that is printed is the URL.
fn announced_port(text: &str) -> Option<u16> {
    let (line, _) = text.split_once('\n')?;
    line.trim_end_matches('/').rsplit_once(':')?.1.parse().ok()
}
