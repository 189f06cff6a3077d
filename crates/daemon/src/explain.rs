//! Turns errors of the database connection into messages that say what to do.

use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::error::DbError;

use crate::error::Error;

/// Checks that the extension and this program are of the same minor version, within which the SQL functions
/// keep their arguments and columns.
///
/// # Errors
///
/// [`Error::Configuration`] if the versions differ.
pub fn check_version(program: &str, theirs: &str) -> Result<(), Error> {
    let ours = env!("CARGO_PKG_VERSION");
    if minor(theirs) == minor(ours) {
        return Ok(());
    }
    Err(Error::configuration(
        format!(
            "the database has twilio_callback {theirs:.40}, but this program is version {ours}"
        ),
        format!(
            "run \"alter extension twilio_callback update\" in the database, or start the {program} \
             of the database's version"
        ),
    ))
}

fn minor(version: &str) -> Option<(&str, &str)> {
    let mut parts = version.split('.');
    Some((parts.next()?, parts.next()?))
}

/// Explains why the extension's version could not be read.
pub fn explain_version(
    config: &Config,
    wanted: &Privilege,
    error: &tokio_postgres::Error,
) -> Error {
    match error.code().map(|state| state.code()) {
        // The schema or the function does not exist.
        Some("3F000" | "42883") => Error::configuration(
            format!(
                "database \"{}\" does not have the extension twilio_callback",
                config
                    .get_dbname()
                    .or(config.get_user())
                    .unwrap_or_default()
            ),
            "connect to it as a superuser and run \"create extension twilio_callback\", or name \
             the right database in DATABASE_URL",
        ),
        Some("42501") => lacks_privilege(config, wanted),
        _ => Error::DatabaseAway(describe(error)),
    }
}

/// A privilege that a program's role needs.
#[derive(Clone, Copy, Debug)]
pub struct Privilege {
    /// The SQL function that the program calls.
    pub function: &'static str,
    /// The SQL function that grants the privilege.
    pub grant: &'static str,
}

/// The error for a role that lacks the privilege.
pub fn lacks_privilege(config: &Config, wanted: &Privilege) -> Error {
    let role = config.get_user().unwrap_or("the connecting role");
    Error::configuration(
        format!("role \"{role}\" may not call {}", wanted.function),
        format!(
            "run \"select {}('{role}')\" as the extension's owner",
            wanted.grant
        ),
    )
}

/// Explains why connecting failed.
pub(crate) fn explain_connect(config: &Config, error: &tokio_postgres::Error) -> Error {
    let code = error.code().map_or("", |state| state.code());
    let text = describe(error);
    // Authentication errors on the client's side (a missing password, an unknown method) have no
    // SQLSTATE; only tokio-postgres's text tells them apart.
    let is_refused_here = [
        "invalid configuration",
        "authentication error",
        "error performing TLS",
    ]
    .iter()
    .any(|start| text.starts_with(start));
    match code {
        "28000" | "28P01" => Error::configuration(
            format!("the database refuses the connection: {text}"),
            "check user and password in DATABASE_URL, and pg_hba.conf",
        ),
        "3D000" => Error::configuration(
            text,
            "create the database, or name the right one in DATABASE_URL",
        ),
        "42501" => Error::configuration(text, "grant connect on the database to this role"),
        _ if is_refused_here => Error::configuration(
            format!("cannot log in to the database: {text}"),
            "check user, password and sslmode in DATABASE_URL, --database-ca-file and pg_hba.conf",
        ),
        _ => Error::DatabaseAway(format!("{}: {text}", address(config))),
    }
}

/// The hosts of the connection, without the user.
pub(crate) fn address(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    hosts.collect::<Vec<_>>().join(",")
}

/// An error in one line: only the server's primary message, because its detail may quote a request.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(raised) = error.as_db_error() {
        return describe_raised(raised);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// One line for an error that the server raised: its primary message and SQLSTATE.
pub fn describe_raised(error: &DbError) -> String {
    format!("{} ({})", error.message(), error.code().code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_up_to_their_minor_number() {
        let ours = env!("CARGO_PKG_VERSION");
        let (major, minor) = minor(ours).unwrap();
        assert!(check_version("p", ours).is_ok());
        assert!(check_version("p", &format!("{major}.{minor}.999")).is_ok());
        for other in ["", "x", "999.0.0", &format!("{major}.{minor}9.0"), major] {
            let error = check_version("p", other).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("alter extension"), "{error}");
        }
    }
}
