//! Certificates of our own making, and TLS as a client of who shows one.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use crate::client::http::Connection;
use crate::server::environment::command;
use crate::server::process::run;

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes a self-signed one for `hooks.example.com` in `directory`, under the names that the shipped
    /// configuration of nginx looks for.
    pub fn new(directory: &Path) -> Self {
        let own = Self {
            certificate: directory.join("fullchain.pem"),
            key: directory.join("privkey.pem"),
        };
        own.make(HOST, "FALSE", None)
    }

    /// Makes that of an authority, which signs others.
    pub fn authority(directory: &Path, name: &str) -> Self {
        Self::named(directory, name).make(name, "TRUE", None)
    }

    /// Makes one for the host or the address `name` in `directory`, signed by this authority.
    pub fn sign(&self, directory: &Path, name: &str) -> Self {
        Self::named(directory, name).make(name, "FALSE", Some(self))
    }

    fn named(directory: &Path, name: &str) -> Self {
        Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        }
    }

    fn make(self, name: &str, is_authority: &str, signer: Option<&Self>) -> Self {
        let config = self.certificate.with_extension("cnf");
        let text = CONFIG.replace("NAME", name);
        let kind = name.parse::<IpAddr>().map_or("DNS", |_| "IP");
        let text = text.replace("KIND", kind);
        std::fs::write(&config, text.replace("IS_AUTHORITY", is_authority)).unwrap();
        let mut openssl = command("openssl");
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-config"])
            .arg(config)
            .arg("-keyout")
            .arg(&self.key)
            .arg("-out")
            .arg(&self.certificate);
        if let Some(signer) = signer {
            openssl.arg("-CA").arg(&signer.certificate);
            openssl.arg("-CAkey").arg(&signer.key);
        }
        run(openssl);
        self
    }

    /// A server's configuration that shows it.
    pub fn server_config(&self) -> ServerConfig {
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap()
    }

    /// A connection to `port` that trusts this certificate alone.
    pub fn connect(&self, port: u16) -> io::Result<Connection> {
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(HOST).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Connection::new(Box::new(StreamOwned::new(session, stream))))
    }
}

const HOST: &str = "hooks.example.com";
const CONFIG: &str = "\
[req]
distinguished_name = name
x509_extensions = extension
prompt = no
[name]
CN = NAME
[extension]
subjectAltName = KIND:NAME
basicConstraints = critical, CA:IS_AUTHORITY
";
