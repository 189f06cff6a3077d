//! TLS as a client. The server's certificate is always verified: its authority and its host name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

/// The files with trusted authorities and with the client's own certificate.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// PEM file of authorities to trust instead of the system's.
    pub authorities: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// Reads the files. This is done for each connection, so that renewed files take effect without a restart.
    ///
    /// # Errors
    ///
    /// A message that names the file that cannot be read or used.
    pub fn read(&self) -> Result<Arc<ClientConfig>, String> {
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
            // Certificates that cannot be read are skipped; without any, every server is refused.
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

/// Performs the TLS handshake with `host` over a connection to it.
///
/// # Errors
///
/// If a file cannot be read, or if the handshake fails, for example because the certificate is not trusted.
pub async fn connect<S>(files: &Files, host: &str, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::other(format!("{host:?} cannot be in a certificate")))?;
    let config = files.read().map_err(io::Error::other)?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| explain(host, &error))
}

/// Explains the most frequent errors of a handshake.
fn explain(host: &str, error: &io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    let text = match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by no authority that is trusted here".to_owned()
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "this port does not speak TLS".to_owned()
        }
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("no TLS with {host}: {text}"))
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
