//! Listening sockets, TCP or Unix, and the connections they accept.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::address::Address;
use crate::error::Error;

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// On an ip address.
    Tcp(TcpListener),
    /// On a Unix socket, with its file.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed when the socket is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// One accepted connection.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP, from this address.
    Tcp(TcpStream, IpAddr),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// The address of the client; none over a Unix socket.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl Listener {
    /// Binds, replacing a Unix socket that no process listens on any more. `mode` are the permissions of a Unix socket.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] with the reason and a hint.
    pub async fn bind(address: &Address, mode: u32) -> Result<Self, Error> {
        let result = match address {
            Address::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Address::Unix(path) => bind_unix(path, mode),
        };
        result.map_err(|error| Error::Listen {
            address: address.to_string(),
            hint: hint(&error).into(),
            cause: error.to_string(),
        })
    }

    /// The bound address; if port 0 was asked for, with the port that the system chose.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Unix(_, SocketFile(path)) => format!("unix:{}", path.display()),
        }
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// The operating system's error, most likely because there are no free file descriptors.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A response is one write; it must not wait for the TCP acknowledgement of the previous one.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, peer.ip()))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have removed the file already.
        let _ = fs::remove_file(&self.0);
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(Listener::Unix(listener, file))
}

/// Removes a socket that refuses connections. Any other file stays and is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        let text = "a file that is not a socket is in the way";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match BlockingUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it or choose another",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address",
        io::ErrorKind::PermissionDenied => "use a port from 1024 on, or a directory you may write",
        io::ErrorKind::NotFound => "create the socket's directory first",
        io::ErrorKind::AlreadyExists => "choose another path or remove the file",
        _ => "choose another address",
    }
}

/// How many new connections may wait to be accepted, as far as the kernel allows (net.core.somaxconn). Beyond
/// that, a client retries after a second.
const BACKLOG: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shim-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn address(&self) -> (Address, PathBuf) {
            let path = self.0.join("shim.sock");
            (Address::Unix(path.clone()), path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_removed_at_the_end() {
        let directory = Directory::new("stale");
        let (address, path) = directory.address();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&address, 0o600).await.unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_live_socket_is_left_alone() {
        let directory = Directory::new("live");
        let (address, path) = directory.address();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Listener::bind(&address, 0o600).await.unwrap_err();
        assert!(
            error.to_string().contains("another process listens"),
            "{error}"
        );
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let directory = Directory::new("file");
        let (address, path) = directory.address();
        fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&address, 0o600).await.unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_taken_port_says_so() {
        let address: Address = "127.0.0.1:0".parse().unwrap();
        let first = Listener::bind(&address, 0).await.unwrap();
        let taken: Address = first.address().parse().unwrap();
        let error = Listener::bind(&taken, 0).await.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains(&first.address()), "{error}");
    }
}
