//! Parses and checks the database URL.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::connect_options::{CONNECT_TIMEOUT, ConnectOptions};
use crate::error::Error;
use crate::host;
use crate::tls::Files;

/// The options for connections to the database. Whatever the URL says, they have `synchronous_commit` on, the
/// given timeouts, and only a server that accepts writes.
///
/// `authorities` is a PEM file of the certificate authorities to trust instead of the system's.
///
/// # Errors
///
/// [`Error::Configuration`] if the URL is missing, cannot be parsed or contradicts itself, or if the file
/// cannot be read.
pub fn config(
    program: &str,
    url: Option<&str>,
    authorities: Option<&Path>,
    (statement_timeout, lock_timeout): (Duration, Duration),
) -> Result<ConnectOptions, Error> {
    let url = url.ok_or_else(|| {
        Error::configuration(
            "no database is given",
            "set DATABASE_URL or --database-url, such as postgres://user@localhost/sms or \
             \"host=/run/postgresql user=… dbname=sms\"",
        )
    })?;
    let mut config = parse(url)?;
    if config.get_hosts().is_empty() {
        return Err(Error::configuration(
            "the database URL names no host",
            "name a host, or the directory of PostgreSQL's Unix socket: host=/run/postgresql",
        ));
    }
    if let Some(counts) = host::mismatch(&config) {
        return Err(Error::configuration(
            format!("the database URL has {counts}"),
            "give one port for all hosts or one for each, and as many hostaddrs as hosts or none",
        ));
    }
    let files = secure(&mut config, authorities)?;
    let options = format!(
        "{} -c synchronous_commit=on -c statement_timeout={} -c lock_timeout={} \
         -c idle_in_transaction_session_timeout=10000",
        config.get_options().unwrap_or_default(),
        statement_timeout.as_millis(),
        lock_timeout.as_millis(),
    );
    config.options(options.trim_start());
    if config.get_application_name().is_none() {
        config.application_name(program);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(CONNECT_TIMEOUT);
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    Ok(ConnectOptions::new(config, files))
}

fn parse(url: &str) -> Result<tokio_postgres::Config, Error> {
    // The parser does not know these two modes. This program always verifies what they ask to verify.
    let url = url
        .replace("sslmode=verify-ca", "sslmode=require")
        .replace("sslmode=verify-full", "sslmode=require");
    // The parser's message may quote a part of a password.
    let config = url.parse().map_err(|_| explain(&url))?;
    Ok(host::with_lists(&config))
}

/// Names a keyword that psql reads and this program does not. It never quotes a value or an unknown word, which
/// may be a part of a password.
fn explain(url: &str) -> Error {
    const MODES: [&str; 3] = ["disable", "prefer", "require"];
    if let Some(keyword) = UNREAD.iter().find(|keyword| value(url, keyword).is_some()) {
        let hint = match *keyword {
            "sslrootcert" => "name the file with --database-ca-file instead",
            "sslcert" | "sslkey" | "sslpassword" => {
                "leave it out: no client certificate is sent to PostgreSQL"
            }
            "service" | "passfile" => "write out what the file says",
            "keepalives_count" => "write keepalives_retries instead",
            _ => "leave it out",
        };
        let text =
            format!("the database URL has {keyword}, which this program does not read from a URL");
        return Error::configuration(text, hint);
    }
    if value(url, "sslmode").is_some_and(|mode| !MODES.contains(&mode)) {
        return Error::configuration(
            "the database URL has an sslmode that cannot be read",
            "write sslmode=require, without blanks, to verify certificate and host, or leave it out to connect without TLS",
        );
    }
    Error::configuration(
        "the database URL cannot be read",
        "write postgres://user@host:5432/database, or key=value pairs as for psql; \
         percent-encode special characters of a password",
    )
}

fn value<'u>(url: &'u str, keyword: &str) -> Option<&'u str> {
    let mut places = url.match_indices(keyword);
    places.find_map(|(place, _)| {
        let is_begin = place == 0 || url[..place].ends_with([' ', '?', '&']);
        let rest = url[place + keyword.len()..].trim_start();
        let rest = rest.strip_prefix('=').filter(|_| is_begin)?.trim_start();
        rest.split([' ', '&', '\'']).find(|word| !word.is_empty())
    })
}

/// The certificate authorities to trust, if the URL asks for TLS; otherwise TLS is switched off.
fn secure(config: &mut tokio_postgres::Config, authorities: Option<&Path>) -> Result<Files, Error> {
    let files = Files {
        authorities: authorities.map(Path::to_owned),
        identity: None,
    };
    match config.get_ssl_mode() {
        SslMode::Require if is_by_socket(config) => {
            return Err(Error::configuration(
                "the database URL asks for TLS on a Unix socket, which PostgreSQL does not have",
                "leave sslmode out, or name the server by its host",
            ));
        }
        SslMode::Require => {
            let hint = "name a PEM file that this program may read";
            let read = files.read();
            read.map_err(|text| Error::configuration(text, hint))?;
        }
        // "prefer", the default, would accept a server that was not verified.
        _ => drop(config.ssl_mode(SslMode::Disable)),
    }
    Ok(files)
}

/// Refuses a file of authorities that would have no effect. With the file, each URL that uses TCP must use TLS, and at
/// least one URL must use TLS. So a user of the file does not get a connection that is not encrypted.
///
/// # Errors
///
/// [`Error::Configuration`] that names the flag of the URL at fault.
pub fn check_use(
    authorities: Option<&Path>,
    targets: &[(&str, &ConnectOptions)],
) -> Result<(), Error> {
    let is_off = |(_, target): &&(&str, &ConnectOptions)| target.get_ssl_mode() != SslMode::Require;
    let by_tcp = |(_, target): &&(&str, &ConnectOptions)| may_be_by_tcp(target);
    let all_off = targets.iter().all(|target| is_off(&target));
    let in_clear = targets.iter().filter(is_off).find(by_tcp);
    let wrong = in_clear.or(targets.first().filter(|_| all_off));
    match (authorities, wrong) {
        (Some(_), Some((flag, _))) => Err(Error::configuration(
            format!("--database-ca-file is given, but {flag} does not ask for TLS"),
            "add sslmode=require to the URL, or leave the file out",
        )),
        _ => Ok(()),
    }
}

fn is_by_socket(config: &tokio_postgres::Config) -> bool {
    let mut hosts = config.get_hosts().iter();
    config.get_hostaddrs().is_empty() && hosts.any(|host| matches!(host, Host::Unix(_)))
}

/// A URL may list hosts of both kinds.
fn may_be_by_tcp(config: &tokio_postgres::Config) -> bool {
    let mut hosts = config.get_hosts().iter();
    !config.get_hostaddrs().is_empty() || hosts.any(|host| matches!(host, Host::Tcp(_)))
}

/// Keywords of libpq 15 that tokio-postgres's parser does not know.
const UNREAD: [&str; 20] = [
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "keepalives_count",
    "requirepeer",
    "service",
    "passfile",
    "client_encoding",
    "fallback_application_name",
    "replication",
];
