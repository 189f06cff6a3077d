//! TLS to RabbitMQ, asked for by `amqps://`: its certificate is always verified, and one of ours is
//! shown to it if there is one.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_compat::{Compat, CompatExt};
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files that decide who is trusted and who we are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Authorities to trust instead of the system's.
    pub(crate) authorities: Option<PathBuf>,
    /// Our certificate, with those between it and its authority, and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// Reads them; done for each connection, so that renewed ones count without a restart.
    pub(crate) fn read(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be used: {error}"))?
            .with_root_certificates(self.roots()?);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("cannot read a key in {}: {error}", key.display()))?;
                let config = config.with_client_auth_cert(chain, secret);
                config.map_err(|error| format!("cannot use {}: {error}", certificate.display()))?
            }
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let Some(file) = &self.authorities else {
            // What cannot be read is left out: without any, every certificate is refused.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        for certificate in certificates(file)? {
            let added = roots.add(certificate);
            added.map_err(|error| format!("cannot use {}: {error}", file.display()))?;
        }
        Ok(roots)
    }
}

/// What runs a connection to RabbitMQ at `host`, TLS included.
pub(crate) fn runtime(
    files: &Files,
    host: &str,
) -> Result<Runtime<RuntimeParts<Tokio, TlsReactor>>, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} cannot be in a certificate"))?;
    let tokio = Tokio::current();
    let reactor = TlsReactor {
        tokio: tokio.clone(),
        connector: TlsConnector::from(files.read()?),
        name,
    };
    Ok(Runtime::new(RuntimeParts::new(tokio, reactor)))
}

/// Connections whose bytes go through TLS. lapin knows of none of it: its own TLS cannot be built
/// without a reader of PKCS #12 and dozens of crates for that.
#[derive(Clone)]
pub(crate) struct TlsReactor {
    tokio: Tokio,
    connector: TlsConnector,
    name: ServerName<'static>,
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
        let (connector, name) = (self.connector.clone(), self.name.clone());
        async move {
            let stream = connecting.await?.into_inner();
            let shaken = connector.connect(name.clone(), stream).await;
            let stream = shaken.map_err(|error| explain(&name, &error))?;
            Ok(stream.compat())
        }
    }
}

/// Says in plain words what most often is wrong.
fn explain(name: &ServerName<'_>, error: &io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    let text = match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by no authority that is trusted here".to_owned()
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "this port does not speak it".to_owned()
        }
        _ => error.to_string(),
    };
    let text = format!("no TLS with {}: {text}", name.to_str());
    io::Error::new(error.kind(), text)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let list: Vec<_> =
        read.map_err(|error| format!("cannot read certificates in {}: {error}", file.display()))?;
    match list.is_empty() {
        true => Err(format!("there is no certificate in {}", file.display())),
        false => Ok(list),
    }
}
