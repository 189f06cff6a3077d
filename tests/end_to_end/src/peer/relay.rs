//! The relay as a process.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::client::http::Address;
use crate::client::request::Request;
use crate::peer::broker::Broker;
use crate::server::database::Database;
use crate::server::environment::{command, fresh_directory, program};
use crate::server::process::Process;
use crate::wait::wait_until;

/// A running relay.
pub struct Relay {
    process: Process,
    operations: Address,
}

impl Relay {
    /// Starts a relay and waits until it is connected to both sides.
    pub fn start(database: &Database<'_>, broker: &Broker, flags: &[&str]) -> Self {
        let mut command = Self::command(database, broker);
        command.args(flags);
        let mut relay = Self::launch(command);
        relay.wait_until_ready();
        relay
    }

    /// Starts what [`Relay::command`] made.
    pub fn launch(mut command: Command) -> Self {
        let directory = fresh_directory();
        let socket = directory.join("ops");
        command.args(["--ops-listen", &format!("unix:{}", socket.display())]);
        let process = Process::start("the relay", command, &directory.join("log"));
        Self {
            process,
            operations: Address::Unix(socket),
        }
    }

    /// A command that runs a relay with nothing else.
    pub fn command(database: &Database<'_>, broker: &Broker) -> Command {
        let mut relay = command(program("twilio-callback-relay"));
        relay
            .env_clear()
            .env("DATABASE_URL", database.url(ROLE))
            .env("TWILIO_CALLBACK_RELAY_AMQP_URL", broker.url());
        relay
    }

    /// Waits until it is connected to both sides.
    pub fn wait_until_ready(&mut self) {
        let operations = self.operations.clone();
        self.process.wait_until_ready(PATIENCE, || {
            let answer = operations
                .connect()
                .and_then(|mut connection| connection.send(&Request::new("GET", "/ready")));
            answer.is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Waits until it reports why it is not connected to both sides.
    pub fn wait_for_problem(&self, problem: &str) {
        wait_until(PATIENCE, problem, || {
            let answer = self
                .operations
                .connect()
                .and_then(|mut connection| connection.send(&Request::new("GET", "/ready")));
            answer.is_ok_and(|answer| {
                answer.status == 503 && String::from_utf8_lossy(&answer.body).contains(problem)
            })
        });
    }

    /// Its page of metrics.
    pub fn metrics(&self) -> String {
        let answer = self.operations.send(&Request::new("GET", "/metrics"));
        String::from_utf8_lossy(&answer.body).into_owned()
    }

    /// One of its metrics, named without prefix.
    pub fn metric(&self, name: &str) -> usize {
        let page = self.metrics();
        let start = format!("twilio_callback_relay_{name} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{name} is not in {page}"))
            .parse()
            .unwrap()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it, and ends what it had begun in the database.
    pub fn kill_with_sessions(mut self, database: &Database<'_>) {
        self.kill();
        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where usename = $1 and datname = current_database()";
        wait_until(PATIENCE, "the relay's sessions to end", || {
            database.value::<i64>(sql, &[&ROLE]) == 0
        });
    }

    /// Asks it to stop and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait(PATIENCE)
    }

    /// Waits for the end that it comes to by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE)
    }

    /// Its log.
    pub fn read_log(&self) -> String {
        self.process.read_log()
    }
}

/// Makes the relay's role and its consumer.
pub fn set_up(database: &Database<'_>) {
    let sql = format!(
        "do $$ begin create role {ROLE} login; exception when duplicate_object then end $$; \
         select twilio.grant_relay('{ROLE}'); select twilio.create_consumer('relay')"
    );
    database.connect().batch_execute(&sql).unwrap();
}

/// The role that it connects as.
pub const ROLE: &str = "relay";
/// A machine that is busy with other things may stand still for many seconds.
const PATIENCE: Duration = Duration::from_secs(60);
