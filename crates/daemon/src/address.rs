//! Where to listen: a TCP address or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A listener's address, `127.0.0.1:8080` or `unix:/run/shim/shim.sock`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("expected a path after \"unix:\"".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| "expected ip:port, such as 127.0.0.1:8080, or unix:/path".into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_kinds_and_prints_them_as_written() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/shim.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_neither() {
        for text in [
            "",
            "8080",
            "localhost:8080",
            "unix:",
            "127.0.0.1",
            "127.0.0.1:99999",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?} was accepted");
        }
    }
}
