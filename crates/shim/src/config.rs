//! The configuration, from checked flags and environment variables.

use std::time::Duration;

use clap::Parser;

use crate::address::Address;
use crate::arguments::{Arguments, LogCallbacks};
use crate::error::Error;
use crate::logfmt::Format;
use crate::proxy::Proxy;
use crate::route::{Endpoint, Routes};
use crate::tool;

/// The checked configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) database: daemon::connect_options::ConnectOptions,
    pub(crate) listen: Vec<Address>,
    pub(crate) socket_mode: u32,
    pub(crate) operations: Option<Address>,
    pub(crate) routes: Routes,
    pub(crate) proxy: Proxy,
    pub(crate) writers: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_client: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) reply_timeout: Duration,
    pub(crate) startup_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) log_format: Format,
    pub(crate) log_callbacks: LogCallbacks,
    pub(crate) log_refused_rate: u16,
    pub(crate) tools: Option<tool::Config>,
}

impl Config {
    /// Reads the command line and the environment; `--help` and bad usage end the process here.
    pub(crate) fn load() -> Result<Self, Error> {
        let arguments = Arguments::parse();
        let database_url = arguments
            .database_url
            .clone()
            .or_else(|| std::env::var("DATABASE_URL").ok());
        Self::check(arguments, database_url.as_deref())
    }

    fn check(arguments: Arguments, database_url: Option<&str>) -> Result<Self, Error> {
        if arguments.statement_timeout >= arguments.deadline {
            return Err(Error::configuration(
                "--statement-timeout is not shorter than --deadline",
                "lower --statement-timeout, so that the database gives up before the client is told",
            ));
        }
        let more = [
            (arguments.status_path, Endpoint::Status),
            (arguments.inbound_path, Endpoint::Inbound),
            (arguments.events_path, Endpoint::Events),
            (arguments.smsgate_path, Endpoint::Smsgate),
        ];
        let more = more
            .into_iter()
            .flat_map(|(paths, endpoint)| paths.into_iter().map(move |path| (path, endpoint)));
        let routes = Routes::new(more)
            .map_err(|error| Error::configuration(error, "give each path once, such as /sms"))?;
        if arguments.proxy_header.is_some() && arguments.trusted_proxy.is_empty() {
            return Err(Error::configuration(
                "--proxy-header is given without --trusted-proxy",
                "name the addresses of your proxies, such as --trusted-proxy 127.0.0.1",
            ));
        }
        let timeouts = (arguments.statement_timeout, arguments.lock_timeout);
        let authorities = arguments.database_ca_file.as_deref();
        let program = "twilio-callback-shim";
        let database = daemon::database::config(program, database_url, authorities, timeouts)?;
        let tools = (arguments.tools).check(&database, authorities, timeouts)?;
        let mut targets = vec![("--database-url", &database)];
        targets.extend((tools.iter()).map(|tools| ("--tools-database-url", &tools.database)));
        daemon::database::check_use(authorities, &targets)?;
        Ok(Self {
            tools,
            database,
            listen: arguments.listen,
            socket_mode: arguments.socket_mode,
            operations: arguments.ops_listen.0,
            routes,
            proxy: Proxy {
                header: arguments.proxy_header,
                trusted: arguments.trusted_proxy,
            },
            writers: usize::from(arguments.writers),
            max_in_flight: usize::from(arguments.max_in_flight),
            max_in_flight_bytes: arguments.max_in_flight_bytes,
            max_connections: usize::from(arguments.max_connections),
            max_connections_per_client: usize::from(arguments.max_connections_per_client),
            header_timeout: arguments.header_timeout,
            body_timeout: arguments.body_timeout,
            write_timeout: arguments.write_timeout,
            deadline: arguments.deadline,
            statement_timeout: arguments.statement_timeout,
            reply_timeout: arguments.reply_timeout,
            startup_timeout: arguments.startup_timeout,
            grace: arguments.grace,
            log_format: arguments.log_format,
            log_callbacks: arguments.log_callbacks,
            log_refused_rate: arguments.log_refused_rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const URL: &str = "host=/run/postgresql user=shim password=hush dbname=sms";
    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUeoWo/ItjYX5v/z0uxumP//xyp28wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJYXV0aG9yaXR5MCAXDTI2MTEyMTIwMjY0MVoYDzIxMjYxMDI4
MjAyNjQxWjAUMRIwEAYDVQQDDAlhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQLGO7NyKq9uGCPGO7fetMaUEW8wUx32SjA1BGVJ9FqVEqME6UGQFhZ
74tbkeKXxGFtF+JbKmr+6EP3UKULh2Kio1MwUTAdBgNVHQ4EFgQUj9QRCbLQkGOa
DPXyaw28hiSOdoswHwYDVR0jBBgwFoAUj9QRCbLQkGOaDPXyaw28hiSOdoswDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAyl3Ipw8Q/MWxJWql0Bve
PDj7KkS0jKzZKRW0nAm7yVMCID44ALBP+YaF3XIm48MQU80YoSkDQz6LVePg/Mdb
s1zw
-----END CERTIFICATE-----";

    fn check(arguments: &[&str], url: Option<&str>) -> Result<Config, Error> {
        let program = ["twilio-callback-shim"].iter().chain(arguments);
        Config::check(Arguments::try_parse_from(program).unwrap(), url)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durability_and_timeouts_are_pinned_after_the_users_options() {
        let url = format!("{URL} options='-c synchronous_commit=off -c work_mem=1MB'");
        let config = check(&["--lock-timeout", "500ms"], Some(&url)).unwrap();
        assert_eq!(
            config.database.get_options(),
            Some(
                "-c synchronous_commit=off -c work_mem=1MB -c synchronous_commit=on \
                 -c statement_timeout=7000 -c lock_timeout=500 \
                 -c idle_in_transaction_session_timeout=10000"
            )
        );
    }

    #[test]
    fn a_bad_url_is_never_repeated() {
        for url in [
            "password=hush x",
            "host=a sslpassword=hush",
            "host=a sslmode=hush",
            "postgres://u:hush@host:port/",
            "hush=1 host=a",
        ] {
            let error = check(&[], Some(url)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn invalid_configurations_are_refused_with_a_hint() {
        let cases: [(&[&str], Option<&str>, &str); 16] = [
            (&[], None, "no database is given"),
            (&[], Some("user=shim"), "names no host"),
            (
                &["--database-ca-file", "/nowhere"],
                Some("host=a sslmode=require"),
                "cannot read certificates in /nowhere",
            ),
            (
                &["--database-ca-file", "/nowhere"],
                Some("postgres://u@a/d?sslmode=verify-full"),
                "cannot read certificates in /nowhere",
            ),
            (
                &["--database-ca-file", "/nowhere"],
                Some(URL),
                "does not ask for TLS",
            ),
            (
                &[],
                Some("host=/run sslmode=verify-full"),
                "asks for TLS on a Unix socket",
            ),
            (
                &[],
                Some("host=a sslmode=require sslrootcert=/a"),
                "has sslrootcert",
            ),
            (
                &[],
                Some("postgres://u@a/b?gssencmode=disable"),
                "has gssencmode",
            ),
            (
                &[],
                Some("host=a keepalives_count=3"),
                "write keepalives_retries",
            ),
            (&[], Some("postgres://u:sslkey=p@a:port/"), "cannot be read"),
            (
                &[],
                Some("host=a sslmode=require sslkey = /a"),
                "has sslkey",
            ),
            (
                &[],
                Some("host=a sslmode = verify-full"),
                "an sslmode that cannot be read",
            ),
            (
                &[],
                Some("postgres://u@a/d?sslmode=allow"),
                "an sslmode that cannot be read",
            ),
            (
                &["--deadline", "7s"],
                Some(URL),
                "--statement-timeout is not shorter",
            ),
            (&["--status-path", "sms"], Some(URL), "must start with"),
            (
                &["--proxy-header", "X-Real-IP"],
                Some(URL),
                "without --trusted-proxy",
            ),
        ];
        for (arguments, url, expected) in cases {
            let error = check(arguments, url).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("hint: "), "{text}");
        }
    }

    #[test]
    fn the_tools_are_off_or_whole() {
        let file = std::env::temp_dir().join(format!("shim-config-token-{}", std::process::id()));
        std::fs::write(&file, "0123456789abcdef".repeat(4)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
        let listen = ["--tools-listen", "127.0.0.1:0"];
        let token = ["--tools-token-file", file.to_str().unwrap()];
        let database = |url| ["--tools-database-url", url];
        let all = [listen, token, database("host=a user=tools")].concat();
        let whole = check(&all, Some(URL));
        let role = check(&[listen, token, database(URL)].concat(), Some(URL));
        let part = check(&[listen, token].concat(), Some(URL));
        std::fs::remove_file(&file).unwrap();
        let no_file = check(&all, Some(URL));
        assert!(whole.unwrap().tools.is_some());
        assert!(check(&[], Some(URL)).unwrap().tools.is_none());
        for (error, expected) in [
            (part.unwrap_err(), "not all are given"),
            (role.unwrap_err(), "the same database role"),
            (no_file.unwrap_err(), "token cannot be read"),
        ] {
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn the_file_of_authorities_is_for_both_urls() {
        let directory = std::env::temp_dir();
        let number = std::process::id();
        let token = directory.join(format!("shim-config-tls-token-{number}"));
        std::fs::write(&token, "0123456789abcdef".repeat(4)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&token, mode).unwrap();
        let authority = directory.join(format!("shim-config-tls-authority-{number}"));
        std::fs::write(&authority, AUTHORITY).unwrap();
        let try_urls = |main: &str, tools: &str| {
            let flags = [
                ["--tools-listen", "127.0.0.1:0"],
                ["--tools-token-file", token.to_str().unwrap()],
                ["--tools-database-url", &format!("{tools} user=tools")],
                ["--database-ca-file", authority.to_str().unwrap()],
            ];
            check(&flags.concat(), Some(&format!("{main} user=main")))
        };
        let (socket, clear, secure) = ("host=/run", "host=a", "host=a sslmode=require");
        let results = [
            (secure, secure, None),
            (socket, secure, None),
            (secure, socket, None),
            (secure, clear, Some("--tools-database-url does not ask")),
            (clear, secure, Some("--database-url does not ask")),
            (socket, clear, Some("--tools-database-url does not ask")),
            (socket, socket, Some("--database-url does not ask")),
            ("host=/run,a", secure, Some("--database-url does not ask")),
            (secure, "host=a,/run", Some("--tools-database-url does not")),
        ]
        .map(|(main, tools, expected)| (try_urls(main, tools), expected));
        std::fs::remove_file(&token).unwrap();
        std::fs::remove_file(&authority).unwrap();
        for (result, expected) in results {
            let text = result.err().map(|error| error.to_string());
            let is_right = match (&text, expected) {
                (None, None) => true,
                (Some(text), Some(expected)) => text.contains(expected),
                _ => false,
            };
            assert!(is_right, "{text:?} is not {expected:?}");
        }
    }

    #[test]
    fn lists_and_special_words_are_read() {
        let config = check(
            &[
                "--listen",
                "127.0.0.1:0,unix:/run/shim.sock",
                "--ops-listen",
                "none",
                "--inbound-path",
                "/sms",
                "--inbound-path",
                "/api/twilio",
                "--socket-mode",
                "600",
            ],
            Some(URL),
        )
        .unwrap();
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.operations, None);
        assert_eq!(config.socket_mode, 0o600);
        assert_eq!(config.routes.find("/sms"), Some(Endpoint::Inbound));
        assert_eq!(config.routes.find("/api/twilio"), Some(Endpoint::Inbound));
    }
}
