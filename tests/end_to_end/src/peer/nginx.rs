//! nginx with the configuration that we ship.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::http::{Connection, Response};
use crate::client::request::Request;
use crate::server::environment::{checkout, command, free_port, fresh_directory, is_root};
use crate::server::process::Process;
use crate::server::tls::Certificate;

/// A running nginx.
pub struct Nginx {
    directory: PathBuf,
    port: u16,
    certificate: Certificate,
    process: Process,
}

/// The servers behind nginx.
pub struct Upstreams<'a> {
    /// The shim's socket.
    pub shim: &'a Path,
    /// PostgREST's socket.
    pub postgrest: &'a Path,
}

impl Nginx {
    /// Starts nginx with `deploy/nginx/twilio-callback.conf`, in which only paths and the port differ.
    pub fn start(upstreams: &Upstreams<'_>) -> Self {
        let directory = fresh_directory();
        let certificate = Certificate::new(&directory);
        let port = free_port();
        let shipped = checkout().join("deploy/nginx/twilio-callback.conf");
        let shipped = fs::read_to_string(shipped).unwrap();
        let at = |path: &Path| path.display().to_string();
        let own = replace(
            shipped,
            &[
                ("listen 443 ", &format!("listen 127.0.0.1:{port} ")),
                (
                    "/etc/letsencrypt/live/hooks.example.com/",
                    &format!("{}/", at(&directory)),
                ),
                ("/var/log/nginx/", &format!("{}/", at(&directory))),
                (
                    "unix:/run/twilio-callback/http.sock",
                    &format!("unix:{}", at(upstreams.shim)),
                ),
                (
                    "unix:/run/postgrest/api.sock",
                    &format!("unix:{}", at(upstreams.postgrest)),
                ),
            ],
        );
        fs::write(directory.join("twilio-callback.conf"), own).unwrap();
        fs::write(directory.join("nginx.conf"), frame(&directory)).unwrap();
        let mut nginx = command(program());
        nginx
            .arg("-c")
            .arg(directory.join("nginx.conf"))
            .arg("-p")
            .arg(&directory)
            .args(["-e", "error.log"]);
        let process = Process::start("nginx", nginx, &directory.join("error.log"));
        let mut nginx = Self {
            directory,
            port,
            certificate,
            process,
        };
        // The port is open before there is a process that answers.
        nginx.process.wait_until_ready(Duration::from_secs(10), || {
            nginx.certificate.connect(port).is_ok()
        });
        nginx
    }

    /// A TLS connection.
    pub fn connect(&self) -> io::Result<Connection> {
        self.certificate.connect(self.port)
    }

    /// Sends one request on a connection of its own; fails the test if there is no answer.
    pub fn send(&self, request: &Request) -> Response {
        self.connect()
            .and_then(|mut connection| connection.send(request))
            .unwrap_or_else(|error| panic!("no answer from nginx: {error}\n{}", self.read_log()))
    }

    /// nginx's own log.
    pub fn read_log(&self) -> String {
        self.process.read_log()
    }

    /// The requests that were logged.
    pub fn read_access_log(&self) -> String {
        fs::read_to_string(self.directory.join("twilio-callback.log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // nginx ends its workers itself when it is asked to end.
        self.process.signal("TERM");
        let deadline = Duration::from_secs(5);
        crate::wait::holds_within(deadline, || self.process.has_ended());
        self.process.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn replace(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "the shipped file has no {from}");
        text = text.replace(from, to);
    }
    text
}

/// The parts of Debian's nginx.conf around a file of `conf.d`, with everything in one directory.
fn frame(directory: &Path) -> String {
    let at = directory.display();
    let user = if is_root() { "user root;" } else { "" };
    format!(
        "{user}\ndaemon off;\nworker_processes 2;\npid {at}/pid;\nerror_log {at}/error.log warn;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n client_body_temp_path {at}/body;\n proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi;\n uwsgi_temp_path {at}/uwsgi;\n scgi_temp_path {at}/scgi;\n\
         include {at}/twilio-callback.conf;\n}}\n"
    )
}

/// Debian installs it where the PATH of an ordinary account does not lead.
fn program() -> &'static str {
    let installed = "/usr/sbin/nginx";
    if Path::new(installed).exists() {
        installed
    } else {
        "nginx"
    }
}
