//! A private PostgreSQL cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::server::database::{self, Database};
use crate::server::environment::{
    as_postgres, free_port, fresh_directory, is_root, postgres_program,
};
use crate::server::process::{Reaper, children, run, signal};
use crate::server::tls::Certificate;
use crate::turn;
use crate::wait::{holds_within, wait_until};

/// Options of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether commits are flushed; off is faster where durability is not asked for.
    pub fsync: bool,
    /// Further lines of postgresql.conf.
    pub lines: &'static [&'static str],
}

impl Options {
    /// Without the notices of sending.
    pub const QUIET: Self = Self {
        fsync: false,
        lines: &["client_min_messages = warning"],
    };
}

/// A running cluster; dropping it removes everything.
pub struct Cluster {
    directory: PathBuf,
    reaper: Reaper,
    template: OnceLock<()>,
    count: AtomicU32,
}

impl Cluster {
    /// Creates and starts a cluster.
    pub fn start(options: &Options) -> Self {
        turn::take();
        let directory = fresh_directory();
        if is_root() {
            run_chown(&directory);
        }
        let data = directory.join("data");
        let mut initdb = as_postgres(postgres_program("initdb"));
        initdb.args(["--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"]);
        initdb.args(["--auth=trust", "--no-sync", "--no-instructions", "--pgdata"]);
        initdb.arg(&data).current_dir(&directory);
        run(initdb);
        let conf = data.join("postgresql.conf");
        let defaults = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, defaults + &settings(&directory, options)).unwrap();

        let cluster = Self::of(directory);
        cluster.start_again();
        cluster
    }

    /// Creates and starts a hot standby of this cluster.
    pub fn standby(&self) -> Self {
        let directory = fresh_directory();
        if is_root() {
            run_chown(&directory);
        }
        let data = directory.join("data");
        let mut backup = as_postgres(postgres_program("pg_basebackup"));
        backup
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--username=postgres", "--host"])
            .arg(&self.directory)
            .arg("--pgdata")
            .arg(&data)
            .current_dir(&directory);
        run(backup);
        let conf = data.join("postgresql.conf");
        let copied = fs::read_to_string(&conf).unwrap();
        let own = format!("unix_socket_directories = '{}'\n", directory.display());
        fs::write(&conf, copied + &own).unwrap();
        let standby = Self::of(directory);
        standby.start_again();
        standby
    }

    /// Ends recovery: the standby becomes a server of its own.
    pub fn promote(&self) {
        run(self.pg_ctl("promote"));
    }

    fn of(directory: PathBuf) -> Self {
        let stop = if is_root() {
            r#"runuser -u postgres -- "$1" stop -m immediate -D "$2/data"; rm -rf "$2""#
        } else {
            r#""$1" stop -m immediate -D "$2/data"; rm -rf "$2""#
        };
        let pg_ctl = postgres_program("pg_ctl");
        let arguments = [pg_ctl.to_str().unwrap(), directory.to_str().unwrap()];
        Self {
            reaper: Reaper::new(&format!("cd /; {stop}"), &arguments),
            directory,
            template: OnceLock::new(),
            count: AtomicU32::new(0),
        }
    }

    /// The directory of the server's socket.
    pub fn socket_directory(&self) -> &Path {
        &self.directory
    }

    /// Starts the server after a stop or a kill.
    pub fn start_again(&self) {
        self.start_with(&[]);
    }

    /// Starts the server after a stop, with these variables in its environment.
    pub fn start_with(&self, variables: &[(&str, &str)]) {
        let log = self.directory.join("log");
        let mut start = self.pg_ctl("start");
        start.envs(variables.iter().copied());
        start.arg("--log").arg(log);
        // The server would hold a pipe open for as long as it runs.
        let status = start
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(
            status.unwrap().success(),
            "PostgreSQL does not start:\n{}",
            self.read_log()
        );
    }

    /// Stops the server; `mode` is fast or immediate.
    pub fn stop(&self, mode: &str) {
        let mut stop = self.pg_ctl("stop");
        stop.args(["--mode", mode]);
        run(stop);
    }

    /// Starts the server again with TLS on a loopback address, which it gives as part of a connection string. There
    /// clients must use TLS.
    pub fn serve_tls(&self, certificate: &Certificate) -> String {
        let data = self.directory.join("data");
        let copy = |from: &Path, name: &str| {
            let mut install = as_postgres("install");
            install.args(["-m", "600"]).arg(from).arg(data.join(name));
            run(install);
        };
        fs::set_permissions(&certificate.key, fs::Permissions::from_mode(0o644)).unwrap();
        copy(&certificate.certificate, "server.crt");
        copy(&certificate.key, "server.key");
        // Not the address that pg_hba.conf lets in already.
        let (address, port) = ("127.91.0.1", free_port());
        let add = |name: &str, line: &str| {
            let file = data.join(name);
            let before = fs::read_to_string(&file).unwrap();
            fs::write(file, before + line).unwrap();
        };
        add(
            "postgresql.conf",
            &format!("listen_addresses = '{address}'\nport = {port}\nssl = on\n"),
        );
        add("pg_hba.conf", "hostssl all all 127.91.0.0/16 trust\n");
        self.stop("fast");
        self.start_again();
        // The socket is called after the port; who comes by that goes on as before.
        let socket = |port: u16| self.directory.join(format!(".s.PGSQL.{port}"));
        std::os::unix::fs::symlink(socket(port), socket(5432)).unwrap();
        format!("hostaddr={address} port={port}")
    }

    /// Kills the server and all its processes at once, as losing power would.
    pub fn kill(&self) {
        let pid = self.pid();
        // Stopped first, the server cannot replace the children that are killed one after the other.
        signal(pid, "STOP");
        let all: Vec<u32> = children(pid).into_iter().chain([pid]).collect();
        for process in &all {
            signal(*process, "KILL");
        }
        wait_until(Duration::from_secs(10), "killed processes to end", || {
            all.iter().all(|&process| has_ended(process))
        });
        // Without a process that reaps orphans, the next server would take the zombie for a running one.
        let is_reaped = || !Path::new(&format!("/proc/{pid}")).exists();
        if !holds_within(Duration::from_secs(5), is_reaped) {
            for lock in ["data/postmaster.pid", ".s.PGSQL.5432.lock"] {
                fs::remove_file(self.directory.join(lock)).unwrap();
            }
        }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// A superuser's connection to the database `name`.
    pub fn connect(&self, name: &str) -> Client {
        self.connect_as("postgres", name)
    }

    /// A connection of the role `user` to the database `name`.
    pub fn connect_as(&self, user: &str, name: &str) -> Client {
        let mut config = postgres::Config::new();
        config
            .host_path(&self.directory)
            .user(user)
            .dbname(name)
            .connect_timeout(Duration::from_secs(10));
        config.connect(NoTls).unwrap()
    }

    /// A fresh database with the extension and one account, see [`database`].
    pub fn database(&self) -> Database<'_> {
        const TEMPLATE: &str = "prepared";
        self.template.get_or_init(|| {
            self.connect("postgres")
                .batch_execute(&format!("create database {TEMPLATE}"))
                .unwrap();
            database::prepare(&mut self.connect(TEMPLATE));
            wait_until(Duration::from_secs(10), "the template to be free", || {
                let busy = "select 1 from pg_stat_activity where datname = $1";
                let rows = self.connect("postgres").query(busy, &[&TEMPLATE]);
                rows.unwrap().is_empty()
            });
        });
        let database = self.create(&format!("template {TEMPLATE}"));
        // A database made from a template is a copy, which sends nothing by itself.
        let enable = "select twilio.enable_sending()";
        database.connect().batch_execute(enable).unwrap();
        database
    }

    /// A fresh database without the extension.
    pub fn bare_database(&self) -> Database<'_> {
        self.create("")
    }

    /// All that the server has logged.
    pub fn read_log(&self) -> String {
        let bytes = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fails the test if the server logged an error, or lost a process.
    pub fn assert_no_errors(&self) {
        self.assert_no_errors_but(&[]);
    }

    /// Fails the test if the server logged an error other than these, or lost a process.
    pub fn assert_no_errors_but(&self, expected: &[&str]) {
        const BAD: [&str; 3] = ["ERROR:", "PANIC:", "terminated by signal"];
        let log = self.read_log();
        let is_bad = |line: &&str| {
            BAD.iter().any(|word| line.contains(word))
                && !expected.iter().any(|text| line.ends_with(text))
        };
        let bad: Vec<_> = log.lines().filter(is_bad).collect();
        assert!(bad.is_empty(), "in the server's log: {bad:#?}");
    }

    fn create(&self, options: &str) -> Database<'_> {
        // A cluster may outlive the test that started it.
        turn::take();
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{count}");
        self.connect("postgres")
            .batch_execute(&format!("create database {name} {options}"))
            .unwrap();
        Database::new(self, name)
    }

    fn pg_ctl(&self, action: &str) -> std::process::Command {
        let mut command = as_postgres(postgres_program("pg_ctl"));
        command
            .args([action, "--wait", "--timeout=30", "--pgdata"])
            .arg(self.directory.join("data"))
            .current_dir(&self.directory);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stop = self.pg_ctl("stop").args(["--mode", "immediate"]).output();
        self.reaper.dismiss();
        // A test may have stopped it already, or may be failing for a server that is gone.
        drop(stop);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn settings(directory: &Path, options: &Options) -> String {
    let fsync = if options.fsync { "on" } else { "off" };
    let mut text = format!(
        "listen_addresses = ''\nunix_socket_directories = '{}'\nmax_connections = 60\n\
         fsync = {fsync}\nlog_line_prefix = '%m [%p] %d '\nlog_checkpoints = off\n",
        directory.display()
    );
    for line in options.lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn run_chown(directory: &Path) {
    let mut chown = crate::server::environment::command("chown");
    chown.arg("postgres:").arg(directory);
    run(chown);
}

fn has_ended(pid: u32) -> bool {
    // A zombie waits for its parent only; it holds nothing any more.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, state)| state.starts_with(" Z"))
    })
}
