//! What the tests share: a running sandbox, a client, a webhook, and waiting for conditions.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::expect_used,
    reason = "a test's helpers fail by panicking, too"
)]

pub(crate) mod smsgate;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

pub(crate) const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "a-token-for-tests";
pub(crate) const PUBLIC: &str = "https://hooks.example.com";
pub(crate) const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";

/// A sandbox that is killed when it goes out of scope.
pub(crate) struct Sandbox {
    child: Child,
    address: String,
}

/// What came back; `None` instead of it means that the connection was closed.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A webhook that notes requests and answers each with the next status of a list.
pub(crate) struct Hook {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

/// A request that a webhook got.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Sandbox {
    /// Starts a sandbox that answers for the account of the tests.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_twilio-sandbox"))
            .args(["--account-sid", ACCOUNT, "--auth-token", TOKEN])
            .args(["--callback-delay", "10", "--late-delay", "100"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the sandbox starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let url = lines.next().expect("a first line").expect("it is text");
        let address = url.strip_prefix("http://").expect("it is a URL").to_owned();
        Self { child, address }
    }

    /// Starts a sandbox whose callbacks for the public URL go to `hook`.
    pub(crate) fn with_hook(hook: &Hook, arguments: &[&str]) -> Self {
        let deliver = format!("{PUBLIC}=http://127.0.0.1:{}", hook.port);
        let arguments: Vec<&str> = ["--deliver", &deliver]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        Self::start(&arguments)
    }

    /// Creates a message by Twilio's API; `fields` are decoded pairs.
    pub(crate) fn create(&self, fields: &[(&str, &str)]) -> Option<Response> {
        self.post(&messages_path(), &twilio_user(), fields)
    }

    /// Creates a message to `to` and expects it to be accepted.
    pub(crate) fn accepted(&self, to: &str, callback: &str) -> Value {
        let from = if to.starts_with("whatsapp:") {
            "whatsapp:+12025550100"
        } else {
            "+12025550100"
        };
        let fields = [
            ("To", to),
            ("From", from),
            ("Body", "hello"),
            ("StatusCallback", callback),
        ];
        let response = self.create(&fields).expect("an answer");
        assert_eq!(response.status, 201, "{response:?}");
        response.json()
    }

    pub(crate) fn post(&self, path: &str, user: &str, fields: &[(&str, &str)]) -> Option<Response> {
        let body = serde_urlencoded::to_string(fields).expect("pairs encode");
        self.request(
            "POST",
            path,
            user,
            "application/x-www-form-urlencoded",
            &body,
        )
    }

    pub(crate) fn get(&self, path: &str, user: &str) -> Response {
        self.request("GET", path, user, "", "").expect("an answer")
    }

    pub(crate) fn json(
        &self,
        method: &str,
        path: &str,
        user: &str,
        body: &Value,
    ) -> Option<Response> {
        self.request(method, path, user, "application/json", &body.to_string())
    }

    /// A list of the sandbox's own, such as `/_requests`.
    pub(crate) fn control(&self, path: &str) -> Value {
        self.get(path, "").json()
    }

    /// Fetches a message.
    pub(crate) fn fetch(&self, sid: &str) -> Value {
        self.get(&message_path(sid), &twilio_user()).json()
    }

    /// Sends one request on a connection of its own; `None` if it is closed without an answer.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        user: &str,
        media: &str,
        body: &str,
    ) -> Option<Response> {
        let mut stream = self.write(method, path, user, media, body);
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .ok()
            .filter(|_| !text.is_empty())?;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Some(Response {
            status: status.expect("a status"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        })
    }

    /// Sends a request without reading the answer.
    pub(crate) fn write(
        &self,
        method: &str,
        path: &str,
        user: &str,
        media: &str,
        body: &str,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if !user.is_empty() {
            head.push_str(&format!("Authorization: {user}\r\n"));
        }
        if !media.is_empty() {
            head.push_str(&format!(
                "Content-Type: {media}\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        stream
            .write_all(format!("{head}\r\n{body}").as_bytes())
            .expect("it is written");
        stream
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Twilio's error code.
    pub(crate) fn code(&self) -> u64 {
        self.json()["code"].as_u64().unwrap_or(0)
    }
}

impl Hook {
    /// A webhook that answers 204.
    pub(crate) fn start() -> Self {
        Self::answering(&[])
    }

    /// A webhook that answers with these statuses first, then with 204.
    pub(crate) fn answering(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let hook = Self {
            port,
            requests: Arc::default(),
            answers: Arc::new(Mutex::new(statuses.iter().rev().copied().collect())),
        };
        let (requests, answers) = (hook.requests.clone(), hook.answers.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answers) = (requests.clone(), answers.clone());
                thread::spawn(move || serve(stream, &requests, &answers));
            }
        });
        hook
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test panics in it").clone()
    }

    /// The requests about one message, when there are `count` of them.
    pub(crate) fn about(&self, id: &str, count: usize) -> Vec<Request> {
        let of = || -> Vec<_> {
            let is_about = |request: &Request| String::from_utf8_lossy(&request.body).contains(id);
            self.requests().into_iter().filter(is_about).collect()
        };
        until(&format!("{count} callbacks about {id}"), || {
            of().len() >= count
        });
        of()
    }
}

impl Request {
    /// A parameter of a form.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let form = protocol::form::Form::parse(&self.body);
        form.first(name).map(str::to_owned)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

fn serve(stream: TcpStream, requests: &Mutex<Vec<Request>>, answers: &Mutex<Vec<u16>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            head: head.clone(),
            body,
        };
        requests.lock().expect("no test panics in it").push(request);
        let status = answers
            .lock()
            .expect("no test panics in it")
            .pop()
            .unwrap_or(204);
        let more = match status {
            204 => "",
            401 => "WWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n",
            _ => "Content-Length: 0\r\n",
        };
        let answer = format!("HTTP/1.1 {status} X\r\n{more}\r\n");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Waits until `condition` holds, at most for a while.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

pub(crate) fn twilio_user() -> String {
    basic(ACCOUNT, TOKEN)
}

pub(crate) fn messages_path() -> String {
    format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
}

pub(crate) fn message_path(sid: &str) -> String {
    format!("/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json")
}

const PATIENCE: Duration = Duration::from_secs(20);
