//! Where the database is, checked.

use std::time::Duration;

use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use crate::error::Error;

/// The connection settings, with what the programs' promises rest on pinned.
pub fn config(
    program: &str,
    url: Option<&str>,
    (statement_timeout, lock_timeout): (Duration, Duration),
) -> Result<tokio_postgres::Config, Error> {
    let url = url.ok_or_else(|| {
        Error::configuration(
            "no database is given",
            "set DATABASE_URL or --database-url, such as postgres://user@localhost/sms or \
             \"host=/run/postgresql user=… dbname=sms\"",
        )
    })?;
    // The parser knows neither verify-ca nor verify-full.
    if url.contains("sslmode=verify") {
        return Err(demands_tls());
    }
    // The parser's own words may quote a piece of a password.
    let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
        Error::configuration(
            "the database URL cannot be read",
            "write postgres://user@host:5432/database, or key=value pairs as for psql; \
             percent-encode special characters of a password",
        )
    })?;
    if config.get_hosts().is_empty() {
        return Err(Error::configuration(
            "the database URL names no host",
            "name a host, or the directory of PostgreSQL's Unix socket: host=/run/postgresql",
        ));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(demands_tls());
    }
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
    Ok(config)
}

fn demands_tls() -> Error {
    Error::configuration(
        "the database URL demands TLS, which this program does not speak",
        "use the Unix socket, or a tunnel, and drop sslmode",
    )
}

/// For a server that is gone without a word, before a connection and on one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
