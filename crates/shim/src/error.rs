//! Why the process, or one attempt to reach the database, came to nothing.

use std::io;

use thiserror::Error;

/// An error that ends the process, or that a writer waits out.
#[derive(Clone, Debug, Error)]
pub(crate) enum Error {
    /// A flag, a variable or the database's set-up is wrong: trying again cannot help.
    #[error("{message}\nhint: {hint}")]
    Configuration { message: String, hint: String },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}\nhint: {hint}")]
    Listen {
        address: String,
        cause: String,
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
    StartupTimeout { seconds: f64, cause: String },
    /// Requests were still open when the time to stop ran out.
    #[error("stopped after the grace period with {0} connections still open")]
    GraceExceeded(usize),
    /// A writer panicked, which the log has the details of.
    #[error("a writer ended by a fault of this program")]
    WriterEnded,
    /// The operating system refused something that the process cannot do without.
    #[error("{action}: {cause}")]
    System { action: &'static str, cause: String },
}

impl Error {
    pub(crate) fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Configuration {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn system(action: &'static str, cause: &io::Error) -> Self {
        Self::System {
            action,
            cause: cause.to_string(),
        }
    }

    /// 2 for what a human must correct first, 1 for the rest.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration { .. } => 2,
            Self::Listen { .. }
            | Self::DatabaseAway(_)
            | Self::StartupTimeout { .. }
            | Self::GraceExceeded(_)
            | Self::WriterEnded
            | Self::System { .. } => 1,
        }
    }
}
