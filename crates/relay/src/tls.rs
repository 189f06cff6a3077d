//! TLS to RabbitMQ, used for `amqps://`.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use async_compat::{Compat, CompatExt};
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use daemon::tls::{Files, TlsStream};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The runtime for a connection with TLS to RabbitMQ at `host`.
pub(crate) fn runtime(files: Files, host: String) -> Runtime<RuntimeParts<Tokio, TlsReactor>> {
    let tokio = Tokio::current();
    let reactor = TlsReactor {
        tokio: tokio.clone(),
        files,
        host,
    };
    Runtime::new(RuntimeParts::new(tokio, reactor))
}

/// Connects with TLS below lapin, which does not notice: lapin's own TLS would need a reader of PKCS #12 and
/// dozens of crates for it.
#[derive(Clone)]
pub(crate) struct TlsReactor {
    tokio: Tokio,
    files: Files,
    host: String,
}

impl fmt::Debug for TlsReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsReactor").finish_non_exhaustive()
    }
}

impl Reactor for TlsReactor {
    type TcpStream = Compat<TlsStream<TcpStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.tokio.tcp_connect_addr(address);
        let (files, host) = (self.files.clone(), self.host.clone());
        async move {
            let stream = connecting.await?.into_inner();
            let stream = daemon::tls::connect(&files, &host, stream).await?;
            Ok(stream.compat())
        }
    }
}
