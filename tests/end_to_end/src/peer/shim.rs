//! The shim as a process.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::client::http::{Address, Response};
use crate::client::request::Request;
use crate::server::database::{Database, FRONT_ROLE};
use crate::server::environment::{command, fresh_directory, program};
use crate::server::process::Process;

/// A running shim that listens on sockets of its own.
pub struct Shim {
    directory: PathBuf,
    database_url: String,
    flags: Vec<String>,
    process: Process,
}

impl Shim {
    /// Starts a shim for `database`, with further flags, and waits until it takes callbacks.
    pub fn start(database: &Database<'_>, flags: &[&str]) -> Self {
        Self::start_at(database.url(FRONT_ROLE), flags)
    }

    /// The same for the database at a URL.
    pub fn start_at(database_url: String, flags: &[&str]) -> Self {
        let directory = fresh_directory();
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let process = launch(&directory, &database_url, &flags);
        let mut shim = Self {
            directory,
            database_url,
            flags,
            process,
        };
        shim.wait_until_ready();
        shim
    }

    /// A command that runs the shim with nothing but `flags`; for configurations that cannot work. Without flags about
    /// it, the shim listens on a socket of its own.
    pub fn command(flags: &[&str]) -> Command {
        let mut shim = command(program("twilio-callback-shim"));
        shim.env_clear()
            .env("TWILIO_CALLBACK_SHIM_LISTEN", "127.0.0.1:0")
            .env("TWILIO_CALLBACK_SHIM_OPS_LISTEN", "none")
            .args(flags);
        shim
    }

    /// Where callbacks go.
    pub fn address(&self) -> Address {
        Address::Unix(self.directory.join("http"))
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("http")
    }

    /// Sends one request on a connection of its own.
    pub fn send(&self, request: &Request) -> Response {
        self.address().send(request)
    }

    /// Asks the operations listener.
    pub fn ask(&self, path: &str) -> Response {
        Address::Unix(self.directory.join("ops")).send(&Request::new("GET", path))
    }

    /// Whether the shim reports that it can store callbacks.
    pub fn is_ready(&self) -> bool {
        let operations = Address::Unix(self.directory.join("ops"));
        operations
            .connect()
            .and_then(|mut connection| connection.send(&Request::new("GET", "/ready")))
            .is_ok_and(|response| response.status == 200)
    }

    /// Waits until callbacks can be stored.
    pub fn wait_until_ready(&mut self) {
        let operations = self.directory.join("ops");
        self.process.wait_until_ready(Duration::from_secs(30), || {
            Address::Unix(operations.clone())
                .connect()
                .and_then(|mut connection| connection.send(&Request::new("GET", "/ready")))
                .is_ok_and(|response| response.status == 200)
        });
    }

    /// Asks the shim to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.process.signal("TERM");
    }

    /// Waits for the end after [`Self::ask_to_stop`].
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait(Duration::from_secs(30))
    }

    /// Kills the shim.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the shim again after it ended.
    pub fn start_again(&mut self) {
        self.process = launch(&self.directory, &self.database_url, &self.flags);
        self.wait_until_ready();
    }

    /// The shim's log.
    pub fn read_log(&self) -> String {
        self.process.read_log()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn launch(directory: &std::path::Path, database_url: &str, flags: &[String]) -> Process {
    let at = |name: &str| format!("unix:{}", directory.join(name).display());
    let mut shim = Shim::command(&[]);
    shim.args(["--database-url", database_url])
        .args(["--listen", &at("http"), "--ops-listen", &at("ops")])
        // nginx's workers connect as an account of their own.
        .args(["--socket-mode", "666"])
        .args(flags);
    Process::start("the shim", shim, &directory.join("log"))
}
