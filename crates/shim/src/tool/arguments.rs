//! The tools' flags and variables: either all that the tools need are given, or none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::address::Address;
use crate::error::Error;
use crate::tool::{Config, check_token};

/// Flags of the tools.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tools")]
pub(crate) struct ToolArguments {
    /// Address for /send, /block, /unblock and /acknowledge, ip:port or unix:/path [none by default]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TWILIO_CALLBACK_SHIM_TOOLS_LISTEN"
    )]
    tools_listen: Option<Address>,

    /// Database of the tools, with a role of their own: twilio.grant_send(role)
    #[arg(
        long,
        value_name = "URL",
        env = "TWILIO_CALLBACK_SHIM_TOOLS_DATABASE_URL",
        hide_env_values = true
    )]
    tools_database_url: Option<String>,

    /// File with the bearer token, 32 characters or more, that nobody else may read
    #[arg(
        long,
        value_name = "FILE",
        env = "TWILIO_CALLBACK_SHIM_TOOLS_TOKEN_FILE"
    )]
    tools_token_file: Option<PathBuf>,

    /// Messages, blocks and unblocks a second; more are answered 429
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_TOOLS_RATE", value_parser = clap::value_parser!(u16).range(1..), default_value = "10")]
    tools_rate: u16,

    /// Acknowledgements a second; more are answered 429
    #[arg(long, value_name = "COUNT", env = "TWILIO_CALLBACK_SHIM_TOOLS_ACKNOWLEDGE_RATE", value_parser = clap::value_parser!(u16).range(1..), default_value = "2000")]
    tools_acknowledge_rate: u16,
}

impl ToolArguments {
    /// Checks the flags; `callbacks` are the options of the connection for callbacks, whose role must differ.
    pub(crate) fn check(
        self,
        callbacks: &tokio_postgres::Config,
        authorities: Option<&Path>,
        timeouts: (Duration, Duration),
    ) -> Result<Option<Config>, Error> {
        let given = (
            self.tools_listen,
            self.tools_database_url,
            self.tools_token_file,
        );
        let (listen, url, token_file) = match given {
            (None, None, None) => return Ok(None),
            (Some(listen), Some(url), Some(token_file)) => (listen, url, token_file),
            _ => {
                return Err(Error::configuration(
                    "--tools-listen, --tools-database-url and --tools-token-file belong together, but not all are given",
                    "give all three, or none to run without tools",
                ));
            }
        };
        let program = "twilio-callback-shim tools";
        let database = daemon::database::config(program, Some(&url), authorities, timeouts)?;
        if database.get_user() == callbacks.get_user() {
            return Err(Error::configuration(
                "the tools have the same database role as the callbacks",
                "create a role of their own, run \"select twilio.grant_send(role)\" as the \
                 extension's owner and name it in --tools-database-url",
            ));
        }
        let config = Config {
            listen,
            database,
            token_file,
            rate: self.tools_rate,
            acknowledge_rate: self.tools_acknowledge_rate,
        };
        check_token(&config)?;
        Ok(Some(config))
    }
}
