//! The client that a request came from. A proxy's header counts only if the proxy is trusted.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName};
use protocol::source::network;

/// A peer whose proxy header counts: an address range, or any peer on the Unix socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Trusted {
    Network { base: IpAddr, prefix: u8 },
    UnixSocket,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The address as text, shared by all requests of a connection; none over a Unix socket.
    pub(crate) text: Option<Arc<str>>,
    /// Whether a proxy header from this peer counts.
    pub(crate) is_trusted: bool,
    /// The client that the connection counts against; none if many clients may be behind it.
    pub(crate) client: Option<IpAddr>,
}

/// The header and the proxies that may set it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxy {
    pub(crate) header: Option<HeaderName>,
    pub(crate) trusted: Vec<Trusted>,
}

impl Proxy {
    pub(crate) fn peer(&self, address: Option<IpAddr>) -> Peer {
        let address = address.map(|address| address.to_canonical());
        let is_trusted = self.header.is_some() && self.is_trusted(address);
        Peer {
            text: address.map(|address| address.to_string().into()),
            is_trusted,
            client: address.filter(|_| !is_trusted).map(network),
        }
    }

    /// The client's address, for logs and for `sources`.
    pub(crate) fn source(&self, peer: &Peer, headers: &HeaderMap) -> Option<Arc<str>> {
        if peer.is_trusted
            && let Some(client) = self.client(headers)
        {
            return Some(client.to_string().into());
        }
        peer.text.clone()
    }

    /// Each proxy appends the address it was called from, so the list is read from its end. Addresses before the
    /// first one that is not a trusted proxy can be forged.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut nearest = None;
        let values: Vec<_> = headers.get_all(self.header.as_ref()?).iter().collect();
        for value in values.into_iter().rev() {
            for entry in value.to_str().ok()?.rsplit(',') {
                let Some(address) = parse_entry(entry) else {
                    return nearest;
                };
                nearest = Some(address);
                if !self.is_trusted(nearest) {
                    return nearest;
                }
            }
        }
        nearest
    }

    fn is_trusted(&self, address: Option<IpAddr>) -> bool {
        self.trusted.iter().any(|trusted| match (trusted, address) {
            (Trusted::UnixSocket, address) => address.is_none(),
            (Trusted::Network { base, prefix }, Some(address)) => contains(*base, *prefix, address),
            (Trusted::Network { .. }, None) => false,
        })
    }
}

impl FromStr for Trusted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::UnixSocket);
        }
        let explain = || "expected an address, a range such as 10.0.0.0/8, or \"unix\"".to_owned();
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| explain())?;
        let widest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| explain())?,
            None => widest,
        };
        if prefix > widest {
            return Err(format!("prefix length {prefix} is more than {widest}"));
        }
        Ok(Self::Network { base, prefix })
    }
}

fn parse_entry(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let address = entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()?;
    Some(address.to_canonical())
}

fn contains(base: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(prefix);
            u32::from(base).checked_shr(shift) == u32::from(address).checked_shr(shift)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(prefix);
            u128::from(base).checked_shr(shift) == u128::from(address).checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(trusted: &[&str]) -> Proxy {
        Proxy {
            header: Some(HeaderName::from_static("x-forwarded-for")),
            trusted: trusted.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn source(proxy: &Proxy, peer: Option<&str>, values: &[&str]) -> Option<String> {
        let peer = proxy.peer(peer.map(|text| text.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        proxy.source(&peer, &headers).map(|text| text.to_string())
    }

    #[test]
    fn ranges_hold_their_addresses_and_no_others() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            let proxy = proxy(&[range]);
            assert!(proxy.is_trusted(inside.parse().ok()), "{inside} in {range}");
            assert!(
                !proxy.is_trusted(outside.parse().ok()),
                "{outside} in {range}"
            );
        }
    }

    #[test]
    fn refuses_text_that_is_not_a_range() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "host",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Trusted>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_untrusted_peer_cannot_name_another_source() {
        let proxy = proxy(&["10.0.0.0/8"]);
        assert_eq!(
            source(&proxy, Some("192.0.2.1"), &["203.0.113.5"]).as_deref(),
            Some("192.0.2.1")
        );
    }

    #[test]
    fn the_nearest_untrusted_entry_is_the_client() {
        let proxy = proxy(&["10.0.0.0/8"]);
        let chain = ["198.51.100.1, 203.0.113.5", "10.0.0.3"];
        assert_eq!(
            source(&proxy, Some("10.0.0.2"), &chain).as_deref(),
            Some("203.0.113.5")
        );
    }

    #[test]
    fn ports_are_dropped_and_rubbish_falls_back_to_the_peer() {
        let proxy = proxy(&["10.0.0.0/8", "::1"]);
        let peer = Some("10.0.0.2");
        assert_eq!(
            source(&proxy, peer, &["203.0.113.5:80"]).as_deref(),
            Some("203.0.113.5")
        );
        assert_eq!(
            source(&proxy, peer, &["[2001:db8::1]:80"]).as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(source(&proxy, peer, &["unknown"]).as_deref(), peer);
        assert_eq!(source(&proxy, peer, &[]).as_deref(), peer);
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let proxy = proxy(&["10.0.0.0/8"]);
        assert_eq!(
            source(&proxy, Some("::ffff:10.0.0.2"), &["203.0.113.5"]).as_deref(),
            Some("203.0.113.5")
        );
    }

    #[test]
    fn a_unix_socket_is_trusted_only_when_named() {
        assert_eq!(
            source(&proxy(&["unix"]), None, &["203.0.113.5"]).as_deref(),
            Some("203.0.113.5")
        );
        assert_eq!(source(&proxy(&["0.0.0.0/0"]), None, &["203.0.113.5"]), None);
    }
}
