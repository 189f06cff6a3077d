//! The tools: sending, blocking and acknowledging over HTTP. They have a listener and a database role of their
//! own, so that the role for callbacks can do nothing but deliver them.

mod arguments;
mod call;
mod database;
mod fields;
mod page;
mod problem;
mod request;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use daemon::room::Room;

use crate::address::Address;
use crate::error::Error;
use crate::limit::Bucket;
use crate::tool::database::Database;

pub(crate) use arguments::ToolArguments;
pub(crate) use request::answer;

/// The checked configuration of the tools.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Address,
    pub(crate) database: daemon::connect_options::ConnectOptions,
    pub(crate) token_file: PathBuf,
    /// Messages, blocks and unblocks a second.
    pub(crate) rate: u16,
    /// Acknowledgements a second.
    pub(crate) acknowledge_rate: u16,
}

/// The tools' state; one per process that has them.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) config: Config,
    database: Database,
    /// The same for acknowledgements.
    acknowledging: Database,
    requests: Bucket,
    acknowledgements: Bucket,
    /// Limits requests without the right token, so that they do not use up the rate of the others.
    strangers: Bucket,
    pub(crate) room: Arc<Room>,
}

impl Tools {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            database: Database::default(),
            acknowledging: Database::default(),
            requests: Bucket::new(config.rate),
            acknowledgements: Bucket::new(config.acknowledge_rate),
            strangers: Bucket::new(STRANGERS_RATE),
            room: Room::new(MAX_CONNECTIONS, MAX_CONNECTIONS),
            config,
        }
    }

    /// Connects, to find out whether an operator must correct something.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.database.open(&self.config.database).await
    }
}

/// Checks that a token can be read, before the listeners are opened.
fn check_token(config: &Config) -> Result<(), Error> {
    let path = config.token_file.display();
    token::read(&config.token_file).map(drop).map_err(|why| {
        Error::configuration(
            format!("the tools' token cannot be read from {path}: {why}"),
            "make one that only this program's user can read: \
             (umask 077; openssl rand -hex 32 > FILE)",
        )
    })
}

/// How many connections of the tools may be open at once.
const MAX_CONNECTIONS: usize = 64;
const STRANGERS_RATE: u16 = 10;
