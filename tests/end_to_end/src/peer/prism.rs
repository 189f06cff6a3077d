//! Stoplight's Prism, which holds requests and answers against Twilio's own description of its API.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::http::{Address, Response};
use crate::client::request::Request;
use crate::peer::sandbox::Sandbox;
use crate::server::environment::{checkout, command, free_port, fresh_directory, signers};
use crate::server::process::Process;

/// A running Prism.
pub struct Prism {
    directory: PathBuf,
    port: u16,
    process: Process,
}

impl Prism {
    /// Answers by itself, with Twilio's examples; what is not as described is refused.
    pub fn mock() -> Self {
        Self::start("mock", &["--errors"])
    }

    /// Stands before a sandbox, whose answers it judges too, and passes on everything.
    pub fn proxy(sandbox: &Sandbox) -> Self {
        Self::start("proxy", &[&sandbox.url()])
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sends one request to it.
    pub fn send(&self, request: &Request) -> Response {
        Address::loopback(self.port).send(request)
    }

    /// The faults that it found.
    pub fn violations(&self) -> Vec<String> {
        let log = self.process.read_log();
        let lines = log.lines().filter(|line| line.contains("iolation"));
        lines.map(str::to_owned).collect()
    }

    /// The description: Twilio's api_v2010 as published, of which those paths are kept that are about
    /// messages, and the schemas that these refer to.
    fn start(mode: &str, further: &[&str]) -> Self {
        let directory = fresh_directory();
        let description = checkout().join("tests/end_to_end/descriptions/twilio_messages.json");
        let port = free_port();
        let mut prism = command("node");
        prism
            .arg(signers().join("node/node_modules/@stoplight/prism-cli/dist/index.js"))
            .args([mode, "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .arg(description)
            .args(further);
        let log = directory.join("log");
        let mut process = Process::start("Prism", prism, &log);
        process.wait_until_ready(Duration::from_secs(60), || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("Prism is listening"))
        });
        Self {
            directory,
            port,
            process,
        }
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
