//! Starts and stops the program, and speaks raw HTTP to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A running shim whose database is away, on ports of its own.
pub(crate) struct Shim {
    child: Child,
    log: Arc<Mutex<String>>,
    pub(crate) address: String,
    pub(crate) operations: String,
}

impl Shim {
    /// Starts with short limits, so that waiting requests end soon.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", arguments)
    }

    pub(crate) fn start_on(listen: &str, arguments: &[&str]) -> Self {
        let mut child = command()
            .envs(SHORT_LIMITS)
            .args(["--listen", listen, "--ops-listen", "127.0.0.1:0"])
            .args(["--database-url", AWAY])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut shim = Self {
            child,
            log,
            address: String::new(),
            operations: String::new(),
        };
        shim.address = shim.wait_for_log("callbacks on ");
        shim.operations = shim.wait_for_log("operations on ");
        shim
    }

    /// What follows the words in the log, up to the end of its text.
    pub(crate) fn wait_for_log(&self, words: &str) -> String {
        until(&format!("\"{words}\" in the log"), || {
            let log = self.log();
            let rest = &log[log.find(words)? + words.len()..];
            let end = rest.find(['"', '\n'])?;
            Some(rest[..end].to_owned())
        })
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends bytes to the callback port and returns all that comes back.
    pub(crate) fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        exchange(&self.address, request.as_ref())
    }

    /// Asks the operations port for a path.
    pub(crate) fn operate(&self, method: &str, path: &str) -> String {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        exchange(&self.operations, request.as_bytes())
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end of the process", || child.try_wait().unwrap())
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program without settings of the environment. By default it listens on a free port.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-callback-shim"));
    command
        .env_clear()
        .env("TWILIO_CALLBACK_SHIM_LISTEN", "127.0.0.1:0")
        .env("TWILIO_CALLBACK_SHIM_OPS_LISTEN", "none")
        .stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command()
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn exchange(address: &str, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    read_to_end(&mut stream)
}

pub(crate) fn read_to_end(stream: &mut impl Read) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// A request of the usual kind, on a connection that is closed after it.
pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    )
}

pub(crate) fn status(answer: &str) -> u16 {
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    status
        .unwrap_or_else(|| panic!("no status line in {answer:?}"))
        .parse()
        .unwrap()
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A path for a socket, in a directory of its own that goes with it.
pub(crate) struct SocketPath(PathBuf);

impl SocketPath {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shim-process-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        Self(directory.join("shim.sock"))
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// A directory that holds no socket of a server.
pub(crate) const AWAY: &str = "host=/nonexistent user=shim dbname=sms";
pub(crate) const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
/// Given as variables, so that a test's flags come before them.
const SHORT_LIMITS: [(&str, &str); 5] = [
    ("TWILIO_CALLBACK_SHIM_STARTUP_TIMEOUT", "10m"),
    ("TWILIO_CALLBACK_SHIM_STATEMENT_TIMEOUT", "200ms"),
    ("TWILIO_CALLBACK_SHIM_DEADLINE", "400ms"),
    ("TWILIO_CALLBACK_SHIM_BODY_TIMEOUT", "400ms"),
    ("TWILIO_CALLBACK_SHIM_HEADER_TIMEOUT", "600ms"),
];
const PATIENCE: Duration = Duration::from_secs(30);
