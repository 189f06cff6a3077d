//! Why the process, or one attempt to reach the database, came to nothing.

use std::io;

use thiserror::Error;

/// An error that ends the process, or that is waited out.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// A flag, a variable or the database's set-up is wrong: trying again cannot help.
    #[error("{message}\nhint: {hint}")]
    Configuration {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}\nhint: {hint}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        cause: String,
        /// What to do about it.
        hint: String,
    },
    /// The database does not answer now.
    #[error("no connection to the database: {0}")]
    DatabaseAway(String),
    /// The database did not answer during the whole start-up.
    #[error(
        "no connection to the database within {seconds} s: {cause}\n\
         hint: start PostgreSQL, correct DATABASE_URL or raise --startup-timeout"
    )]
    StartupTimeout {
        /// How long it was waited for.
        seconds: f64,
        /// Why the last attempt failed.
        cause: String,
    },
    /// Something was still open when the time to stop ran out.
    #[error("stopped after the grace period with {0} still open")]
    GraceExceeded(String),
    /// A task panicked, which the log has the details of.
    #[error("{0} ended by a fault of this program")]
    TaskEnded(&'static str),
    /// The operating system refused something that the process cannot do without.
    #[error("{action}: {cause}")]
    System {
        /// What could not be done.
        action: &'static str,
        /// Why not.
        cause: String,
    },
}

impl Error {
    /// What a human must correct, and how.
    pub fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Configuration {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// What the operating system refused.
    pub fn system(action: &'static str, cause: &io::Error) -> Self {
        Self::System {
            action,
            cause: cause.to_string(),
        }
    }

    /// 2 for what a human must correct first, 1 for the rest.
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
