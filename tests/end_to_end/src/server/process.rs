//! Processes that die with the test program, even if that is killed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::server::environment::command;
use crate::turn;
use crate::wait::{holds_within, wait_for};

/// A running program whose output goes to a file.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    reaper: Reaper,
    is_over: bool,
}

impl Process {
    /// Starts `command`; standard output and error are added to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        turn::take();
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        // Asked first: nginx then ends its workers too.
        let end = r#"kill -TERM "$1"; sleep 2; kill -KILL "$1""#;
        let reaper = Reaper::new(end, &[&child.id().to_string()]);
        Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
            reaper,
            is_over: false,
        }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, named without SIG.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The exit status; fails the test if the program still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        let status = wait_for(deadline, &what, || self.child.try_wait().unwrap());
        self.is_over = true;
        status
    }

    /// Whether the program has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.is_over = self.is_over || self.child.try_wait().unwrap().is_some();
        self.is_over
    }

    /// Ends the program at once.
    pub fn kill(&mut self) {
        self.reaper.dismiss();
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.is_over = true;
    }

    /// Polls `is_ready` until it holds; fails with the program's output if it ends or takes too long.
    pub fn wait_until_ready(&mut self, deadline: Duration, mut is_ready: impl FnMut() -> bool) {
        let mut ended = false;
        let in_time = holds_within(deadline, || {
            ended = self.has_ended();
            ended || is_ready()
        });
        let why = if ended { "has ended" } else { "is not ready" };
        assert!(
            in_time && !ended,
            "{} {why}:\n{}",
            self.name,
            self.read_log()
        );
    }

    /// All that the program has written.
    pub fn read_log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A shell that runs a script once the test program is gone, whatever ended that.
///
/// It waits for the end of its input, which the kernel closes with the program that holds the other end.
pub struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Prepares `script`, whose parameters are `arguments`.
    pub fn new(script: &str, arguments: &[&str]) -> Self {
        let script = format!("trap '' HUP INT TERM; read -r _; {script}");
        let shell = command("sh")
            .args(["-c", &script, "sh"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal goes to the whole group; it must not end the reaper.
            .process_group(0)
            .spawn()
            .expect("sh can be run");
        Self { shell }
    }

    /// Gives the script up.
    pub fn dismiss(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Sends the signal `name`, without SIG, to one process; one that is gone already is left alone.
pub fn signal(pid: u32, name: &str) {
    command("sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("sh can be run");
}

/// Whether there is a process of this id.
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a signal, by its number, waits for a process that is stopped.
pub fn is_pending(pid: u32, number: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut sets = status
        .lines()
        .filter_map(|line| line.strip_prefix("ShdPnd:"));
    let set = sets.next().map(|set| u64::from_str_radix(set.trim(), 16));
    matches!(set, Some(Ok(set)) if set >> (number - 1) & 1 == 1)
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|&process| parent(process) == Some(pid))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

/// Runs `command` to its end and gives its standard output; fails the test if it does not succeed.
pub fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{:?} failed:\n{}{}",
        command.get_program(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
