//! A private RabbitMQ, and a client for it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::http::Address;
use crate::server::environment::{checkout, command, free_port, fresh_directory, python};
use crate::server::process::{Process, Reaper, run};
use crate::server::tls::Certificate;
use crate::turn;

/// A RabbitMQ under a node name, a port mapper and directories of its own. Over TLS it takes who shows no
/// certificate, or one by its own authority.
pub struct Broker {
    directory: PathBuf,
    authority: Certificate,
    port: u16,
    tls_port: u16,
    mapper_port: u16,
    distribution_port: u16,
    process: Option<Process>,
    _reaper: Reaper,
}

/// The one RabbitMQ of the tests that run at the same time; it starts with the first and ends with the last. A start takes
/// longer than most tests.
pub struct Shared(Arc<Mutex<Broker>>);

impl Shared {
    /// The one that runs, or a new one.
    pub fn get() -> Self {
        static CURRENT: Mutex<Weak<Mutex<Broker>>> = Mutex::new(Weak::new());
        // Not while the lock is held, which other modules wait for.
        turn::take();
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = current.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Mutex::new(Broker::start()));
            *current = Arc::downgrade(&new);
            new
        });
        Self(shared)
    }

    /// Waits until no other test has it; its queues are gone then.
    pub fn lock(&self) -> MutexGuard<'_, Broker> {
        match self.0.lock() {
            Ok(broker) => {
                broker.clear();
                broker
            }
            // A test has failed and left it in whatever state.
            Err(poisoned) => {
                let mut broker = poisoned.into_inner();
                *broker = Broker::start();
                self.0.clear_poison();
                broker
            }
        }
    }
}

impl Broker {
    /// Starts an empty one.
    pub fn start() -> Self {
        let directory = fresh_directory();
        let authority = Certificate::authority(&directory, "authority");
        let own = authority.sign(&directory, "localhost");
        let tls_port = free_port();
        let config = format!(
            "listeners.ssl.default = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n",
            authority.certificate.display(),
            own.certificate.display(),
            own.key.display(),
        );
        fs::write(directory.join("rabbitmq.conf"), config).unwrap();
        let mapper_port = free_port();
        let end = r#"sleep 3; ERL_EPMD_PORT="$1" epmd -kill"#;
        let mut broker = Self {
            directory,
            authority,
            port: free_port(),
            tls_port,
            mapper_port,
            distribution_port: free_port(),
            process: None,
            _reaper: Reaper::new(end, &[&mapper_port.to_string()]),
        };
        broker.start_again();
        broker
    }

    /// Starts it after a stop or a kill, with what it kept.
    pub fn start_again(&mut self) {
        let at = |name: &str| self.directory.join(name);
        let mut server = command(SERVER);
        server
            .env("HOME", &self.directory)
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("t{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_LOG_BASE", at("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", at("none.config"))
            .env("RABBITMQ_CONF_ENV_FILE", at("none.sh"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            // Its script then gives way to the server, instead of standing between that and our signals.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            // It shares its processor with what it is tested with.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none")
            .current_dir(&self.directory);
        let mut process = Process::start("RabbitMQ", server, &at("log"));
        let port = self.port;
        process.wait_until_ready(Duration::from_secs(120), || {
            if !Address::loopback(port).is_open() {
                return false;
            }
            let mut client = client(port, &["count", "none"]);
            let output = client.output().expect("python3 can be run");
            // It answers, even if only that there is no such queue.
            String::from_utf8_lossy(&output.stderr).contains("NOT_FOUND")
        });
        self.process = Some(process);
    }

    /// Stops it in an orderly way.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM");
        process.wait(Duration::from_secs(60));
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Its address for TLS, by one of the names of this machine; `localhost` is what its certificate has.
    pub fn tls_url(&self, host: &str) -> String {
        format!("amqps://guest:guest@{host}:{}/%2f", self.tls_port)
    }

    /// The authority that signed its certificate.
    pub fn authority(&self) -> &Certificate {
        &self.authority
    }

    /// Removes the queues of the relay and those of tests.
    fn clear(&self) {
        run(client(self.port, &["clear"]));
    }

    /// Makes a durable queue for what is published under `key`.
    pub fn bind(&self, queue: &str, key: &str) {
        run(client(self.port, &["bind", queue, key]));
    }

    /// Publishes messages of a routing key, an id and a content.
    pub fn publish(&self, messages: &[(&str, Option<&str>, String)]) {
        let lines = messages
            .iter()
            .map(|(key, id, content)| json!([key, id, content, {}]));
        self.publish_lines(lines.map(|line| format!("{line}\n")).collect());
    }

    /// Publishes a message with a header of this length.
    pub fn publish_padded(&self, key: &str, id: &str, content: &str, length: usize) {
        let line = json!([key, id, content, {"padding": "h".repeat(length)}]);
        self.publish_lines(format!("{line}\n"));
    }

    fn publish_lines(&self, lines: String) {
        let mut child = client(self.port, &["publish"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3 can be run");
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success(), "not published");
    }

    /// Takes all messages out of a queue.
    pub fn drain(&self, queue: &str) -> Vec<Value> {
        let lines = run(client(self.port, &["drain", queue]));
        let values = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        values.collect()
    }

    /// How many messages wait in a queue.
    pub fn count(&self, queue: &str) -> usize {
        run(client(self.port, &["count", queue]))
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.process = None;
        // Its port mapper is a process that RabbitMQ leaves behind.
        let mut kill = command("epmd");
        kill.arg("-kill")
            .env("ERL_EPMD_PORT", self.mapper_port.to_string());
        let _ = kill.output();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn client(port: u16, arguments: &[&str]) -> Command {
    let mut python = python();
    python
        .arg(checkout().join("tests/end_to_end/clients/amqp.py"))
        .arg(port.to_string())
        .args(arguments);
    python
}

/// Debian's wrapper around it would change to the account and the directories of the service.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
