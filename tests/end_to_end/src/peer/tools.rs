//! The shim with its tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::client::http::{Address, Response};
use crate::client::request::Request;
use crate::peer::shim::Shim;
use crate::server::database::Database;
use crate::server::environment::fresh_directory;

/// The token that tools are started with.
pub const TOKEN: &str = "e2e-0123456789abcdef0123456789abcdef";

/// A running shim with tools.
pub struct Tools {
    /// The shim.
    pub shim: Shim,
    directory: PathBuf,
}

impl Tools {
    /// Starts a shim that has tools for `database`, with further flags, and without a limit that a quick
    /// machine could reach unless the flags name one.
    pub fn start(database: &Database<'_>, flags: &[&str]) -> Self {
        let role = format!("{}_tools", database.name());
        let sql = format!(
            "create role {role} login; select twilio.grant_send('{role}'), \
            twilio.add_sender('+12025550100')"
        );
        database.connect().batch_execute(&sql).unwrap();
        let directory = fresh_directory();
        let tools = |name: &str| directory.join(name).display().to_string();
        write_token(&directory.join("token"), TOKEN, 0o600);
        let own = [
            "--tools-listen".to_owned(),
            format!("unix:{}", tools("http")),
            "--tools-database-url".to_owned(),
            database.url(&role),
            "--tools-token-file".to_owned(),
            tools("token"),
        ];
        let all: Vec<_> = own
            .iter()
            .map(String::as_str)
            .chain(flags.iter().copied())
            .chain((!flags.contains(&"--tools-rate")).then_some("--tools-rate=60000"))
            .collect();
        Self {
            shim: Shim::start(database, &all),
            directory,
        }
    }

    /// Sends one request to the tools on a connection of its own.
    pub fn send(&self, request: &Request) -> Response {
        Address::Unix(self.directory.join("http")).send(request)
    }

    /// Posts JSON with the token.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send(&with_token(Request::post(
            path,
            "application/json",
            body.to_string(),
        )))
    }

    /// Writes another token.
    pub fn write_token(&self, text: &str, mode: u32) {
        write_token(&self.directory.join("token"), text, mode);
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn write_token(path: &Path, text: &str, mode: u32) {
    fs::write(path, format!("{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The request with the token.
pub fn with_token(request: Request) -> Request {
    request.header("Authorization", &format!("Bearer {TOKEN}"))
}
