//! The ports of `make run`: if one is taken, its owner is named before anything is installed or built.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use end_to_end::client::http::Address;
use end_to_end::server::database::ACCOUNT_SID;
use end_to_end::server::environment::{checkout, command, free_port, fresh_directory, program};
use end_to_end::server::process::{Process, run};

const PORTS: [&str; 3] = ["SHIM_PORT", "SHIM_OPS_PORT", "SANDBOX_PORT"];

#[test]
fn a_taken_port_is_named_before_anything_is_built() {
    for taken in PORTS {
        let port = free_port();
        let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mut make = command("make");
        make.env_remove("MAKEFLAGS");
        make.arg("-C").arg(checkout()).arg("run");
        // With this, whatever comes later fails at once.
        make.arg("PG_CONFIG=/nonexistent");
        for name in PORTS {
            let port = if name == taken { port } else { free_port() };
            make.arg(format!("{name}={port}"));
        }
        let output = make.output().unwrap();
        let own = format!("(pid {})", std::process::id());
        assert_fails(&output, &[&format!("port {port} is taken by"), &own]);
        assert_fails(&output, &[&format!("make run {taken}=")]);
    }
}

#[test]
fn programs_of_the_same_clone_do_not_count_as_owners() {
    let clone = Clone::new();
    let port = free_port();
    let bin = fs::canonicalize(clone.directory.join(".run/run"))
        .unwrap()
        .join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(program("twilio-sandbox"), bin.join("twilio-sandbox")).unwrap();
    let mut sandbox = command(bin.join("twilio-sandbox"));
    sandbox.args(["--account-sid", ACCOUNT_SID, "--auth-token", "token"]);
    sandbox.args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut sandbox = Process::start("the sandbox", sandbox, &clone.directory.join("log"));
    sandbox.wait_until_ready(Duration::from_secs(30), || {
        Address::loopback(port).is_open()
    });

    let stranger = format!(
        "port {port} is taken by twilio-sandbox (pid {})",
        sandbox.id()
    );
    assert_fails(&clone.check_ports(port), &[&stranger]);
    let pid_file = clone.directory.join(".run/sandbox.pid");
    fs::write(pid_file, sandbox.id().to_string()).unwrap();
    let output = clone.check_ports(port);
    assert!(output.status.success(), "{output:?}");
}

/// The scripts in a directory of their own, which they take for a clone.
struct Clone {
    directory: PathBuf,
}

impl Clone {
    fn new() -> Self {
        let directory = fresh_directory();
        let mut copy = command("cp");
        copy.arg("-r").arg(checkout().join("scripts"));
        copy.arg(&directory);
        run(copy);
        let clone = Self { directory };
        // This makes its directories.
        assert!(clone.check_ports(free_port()).status.success());
        clone
    }

    fn check_ports(&self, sandbox_port: u16) -> Output {
        let mut check = command(self.directory.join("scripts/check-ports"));
        check
            .env("CARGO_TARGET_DIR", self.directory.join("target"))
            .env("PG_CONFIG", "/nonexistent")
            .env("SHIM_PORT", free_port().to_string())
            .env("SHIM_OPS_PORT", free_port().to_string())
            .env("SANDBOX_PORT", sandbox_port.to_string());
        check.output().unwrap()
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let own = fs::canonicalize(self.directory.join(".run/run")).unwrap();
        fs::remove_dir_all(own.parent().unwrap()).unwrap();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn assert_fails(output: &Output, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for expected in expected {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}
