//! How to connect to the database, with or without TLS.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Connection, Socket};

use crate::error::Error;
use crate::explain::{address, explain_connect};
use crate::host;
use crate::tls::{self, Files, TlsStream};

/// The options of connections to the database.
#[derive(Clone)]
pub struct ConnectOptions {
    config: Config,
    files: Files,
}

impl ConnectOptions {
    /// Connects with TLS only if `config` requires it; `files` name the trusted authorities.
    pub(crate) fn new(config: Config, files: Files) -> Self {
        Self { config, files }
    }

    /// Sets the password to log in with.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// Connects to the first host that accepts the connection.
    ///
    /// # Errors
    ///
    /// The error of the last host that was tried.
    pub async fn connect(&self) -> Result<(Client, Connection<Socket, Secured>), Error> {
        let mut last = Error::DatabaseAway("no address is known".into());
        for host in host::hosts(&self.config) {
            for address in host::addresses(&host, self.limit()).await {
                match self.connect_to(&address).await {
                    Ok(connected) => return Ok(connected),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        one: &Config,
    ) -> Result<(Client, Connection<Socket, Secured>), Error> {
        let limit = self.limit();
        match timeout(limit, one.connect(Connector(self.files.clone()))).await {
            Ok(connected) => connected.map_err(|error| explain_connect(one, &error)),
            Err(_) => Err(Error::DatabaseAway(format!(
                "{}: not logged in within {} s",
                address(one),
                limit.as_secs_f64()
            ))),
        }
    }

    /// The time limit for one address. `connect_timeout` limits the TCP connection only; TLS and login get as
    /// much time again, so that a server which accepts and stays silent cannot block forever.
    fn limit(&self) -> Duration {
        let connect_timeout = self.config.get_connect_timeout().copied();
        connect_timeout.unwrap_or(CONNECT_TIMEOUT).saturating_mul(2)
    }
}

impl Deref for ConnectOptions {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

// The options hold a password, which must not get into a log.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Connector(Files);

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Secured;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake {
            files: self.0.clone(),
            host: host.to_owned(),
        })
    }
}

struct Handshake {
    files: Files,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let stream = tls::connect(&self.files, &self.host, stream).await?;
            Ok(Secured(stream))
        })
    }
}

/// A connection over TLS.
pub struct Secured(TlsStream<Socket>);

impl tokio_postgres::tls::TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// For a server that disappears without closing its connections: limits connecting and unacknowledged data.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
