//! TLS as a client of a proxy with a certificate of our own making.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::environment::command;
use crate::http::Connection;
use crate::process::run;

/// A self-signed certificate for `hooks.example.com`, and its key.
pub struct Certificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes a certificate in `directory`.
    pub fn new(directory: &Path) -> Self {
        let own = Self {
            certificate: directory.join("fullchain.pem"),
            key: directory.join("privkey.pem"),
        };
        let config = directory.join("openssl.cnf");
        std::fs::write(&config, CONFIG).unwrap();
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
            .arg(&own.key)
            .arg("-out")
            .arg(&own.certificate);
        run(openssl);
        own
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
        let name = ServerName::try_from("hooks.example.com").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Connection::new(Box::new(StreamOwned::new(session, stream))))
    }
}

const CONFIG: &str = "\
[req]
distinguished_name = name
x509_extensions = extension
prompt = no
[name]
CN = hooks.example.com
[extension]
subjectAltName = DNS:hooks.example.com
basicConstraints = critical, CA:FALSE
";
