//! The descriptor that becomes readable when there are reports.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A pair of connected sockets, used as a flag that `poll` can wait for.
#[derive(Debug)]
pub(crate) struct Wake {
    reader: UnixStream,
    writer: UnixStream,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer })
    }

    /// Makes the descriptor readable. If the buffer is full, it already is.
    pub(crate) fn raise(&self) {
        while let Err(error) = (&self.writer).write(&[1])
            && error.kind() == ErrorKind::Interrupted
        {}
    }

    /// Makes the descriptor unreadable until [`Self::raise`] is called again.
    pub(crate) fn clear(&self) {
        let mut buffer = [0; 256];
        loop {
            match (&self.reader).read(&mut buffer) {
                Ok(length) if length == buffer.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
