//! Tracks, between HTTP and the connection, how far the current request came.
//!
//! A thread runs one request at a time, so the state is a variable of the thread. Connecting, TLS and a proxy's
//! CONNECT happen below this layer and do not count as written.

use std::cell::Cell;

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing of the request has been written.
    Untouched,
    /// Writing a piece failed, so the server cannot have the request in full.
    Refused,
    /// All pieces so far were written.
    Taken,
}

thread_local! {
    static PROGRESS: Cell<Progress> = const { Cell::new(Progress::Untouched) };
}

/// Starts to track a new request on this thread.
pub(crate) fn begin() {
    PROGRESS.set(Progress::Untouched);
}

/// Whether a server may have the current request in full. In doubt, it returns true: time may run out between the
/// last piece and the wait for the response.
pub(crate) fn may_be_written() -> bool {
    PROGRESS.get() == Progress::Taken
}

/// The last connector of the chain, which wraps the finished connection.
#[derive(Debug)]
pub(crate) struct TrackProgress {
    /// Whether requests go through a proxy. The chain then also runs for the connection *to* the proxy, with a
    /// configuration without a proxy, and that connection must not be tracked.
    pub(crate) is_proxied: bool,
}

impl<In: Transport> Connector<In> for TrackProgress {
    type Out = Either<In, Tracked<In>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let is_way_to_proxy = self.is_proxied && details.config.proxy().is_none();
        Ok(chained.map(|transport| {
            if is_way_to_proxy {
                Either::A(transport)
            } else {
                Either::B(Tracked(transport))
            }
        }))
    }
}

#[derive(Debug)]
pub(crate) struct Tracked<T>(T);

impl<T: Transport> Transport for Tracked<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let result = self.0.transmit_output(amount, timeout);
        PROGRESS.set(match result {
            Ok(()) => Progress::Taken,
            Err(_) => Progress::Refused,
        });
        result
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
