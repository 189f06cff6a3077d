//! TLS below HTTP: the system's certificate authorities, one configuration for all connections.
//!
//! ureq's own connector would build its configuration, with all certificates, for each connection of a request with
//! its own timeout, and all requests here have one.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use protocol::destination::Host;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::time;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use crate::config::Roots;

/// Wraps connections of `https` URLs in TLS 1.2 or 1.3.
#[derive(Clone)]
pub(crate) struct TlsConnector(Arc<ClientConfig>);

impl TlsConnector {
    pub(crate) fn new(roots: &Roots) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        // Certificates that cannot be read are skipped. Without any, every https request fails as not trusted.
        match roots {
            Roots::System => {
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)
            }
            Roots::Only(list) => store
                .add_parsable_certificates(list.iter().map(|der| CertificateDer::from(&der[..]))),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    fn handshake<In: Transport>(
        &self,
        details: &ConnectionDetails,
        chained: In,
    ) -> Result<TlsTransport<In>, Error> {
        let invalid = || Error::Tls("the host's name cannot be in a certificate");
        let name = match Host::parse(details.uri.host().unwrap_or("")) {
            Ok(Host::Name(name)) => ServerName::try_from(name).map_err(|_| invalid())?,
            Ok(Host::Address(address)) => ServerName::from(address),
            Err(_) => return Err(invalid()),
        };
        let connection =
            ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let mut socket = TransportAdapter::new(chained, details.current_time.clone());
        socket.set_timeout(left(details)?);
        let mut stream = StreamOwned::new(connection, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(TlsTransport { buffers, stream })
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport<In>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        chained
            .map(|transport| {
                if details.needs_tls() && !transport.is_tls() {
                    self.handshake(details, transport).map(Either::B)
                } else {
                    Ok(Either::A(transport))
                }
            })
            .transpose()
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// The time left for connecting, after TCP and a proxy have used some.
fn left(details: &ConnectionDetails) -> Result<NextTimeout, Error> {
    let mut timeout = details.timeout;
    if let (time::Instant::Exact(now), time::Instant::Exact(started)) =
        ((details.current_time)(), details.now)
        && !timeout.after.is_not_happening()
    {
        let left = timeout.after.saturating_sub(now.duration_since(started));
        if left == Duration::ZERO {
            return Err(Error::Timeout(timeout.reason));
        }
        timeout.after = time::Duration::Exact(left);
    }
    Ok(timeout)
}

pub(crate) struct TlsTransport<In: Transport> {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter<In>>,
}

impl<In: Transport> Transport for TlsTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl<In: Transport> fmt::Debug for TlsTransport<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsTransport").finish()
    }
}
