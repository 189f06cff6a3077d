//! Errors of the process and of connecting to the database.

use std::io;

use thiserror::Error;

/// An error that ends the process, or after which it retries.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// A flag, a variable or the database's set-up is wrong; retrying cannot help.
    #[error("{message}\nhint: {hint}")]
    Configuration {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The process cannot listen on an address.
    #[error("cannot listen on {address}: {cause}\nhint: {hint}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        cause: String,
        /// What to do about it.
        hint: String,
    },
    /// The database cannot be reached now.
    #[error("no connection to the database: {0}")]
    DatabaseAway(String),
    /// The database did not answer during the whole start-up.
    #[error(
        "no connection to the database within {seconds} s: {cause}\n\
         hint: start PostgreSQL, correct DATABASE_URL or raise --startup-timeout"
    )]
    StartupTimeout {
        /// How long the process waited, in seconds.
        seconds: f64,
        /// Why the last attempt failed.
        cause: String,
    },
    /// Requests or connections were still open when the grace period ended.
    #[error("stopped after the grace period with {0} still open")]
    GraceExceeded(String),
    /// A task panicked; the log has the details.
    #[error("{0} ended because of a bug in this program")]
    TaskEnded(&'static str),
    /// The operating system refused something that the process needs.
    #[error("{action}: {cause}")]
    System {
        /// What the process tried to do.
        action: &'static str,
        /// Why not.
        cause: String,
    },
}

impl Error {
    /// An error that an operator must correct, with a hint how.
    pub fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Configuration {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// An error of the operating system.
    pub fn system(action: &'static str, cause: &io::Error) -> Self {
        Self::System {
            action,
            cause: cause.to_string(),
        }
    }

    /// The exit status: 2 if an operator must correct something first, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration { .. } => 2,
            Self::Listen { .. }
            | Self::DatabaseAway(_)
            | Self::StartupTimeout { .. }
            | Self::GraceExceeded(_)
            | Self::TaskEnded(_)
            | Self::System { .. } => 1,
        }
    }
}
