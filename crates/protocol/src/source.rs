//! The network that a client is counted by, for limits that clients share.

use std::net::{IpAddr, Ipv6Addr};

/// The network of an address: an IPv4 address by itself; of an IPv6 address its /64, which is the least that
/// a client is given, so that a client cannot be many. An IPv4 address in IPv6 form is the IPv4 address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let first = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(first))
        }
    }
}

/// The network of an address that is given as text, as text; empty if it is not an address.
pub fn network_of(source: Option<&str>) -> String {
    source
        .and_then(|text| text.parse().ok())
        .map_or_else(String::new, |address| network(address).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        for (source, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::9", "2001:db8:1:2::"),
            ("2001:db8:1:3::9", "2001:db8:1:3::"),
            ("::1", "::"),
            ("192.0.2.7:80", ""),
            ("unknown", ""),
            ("", ""),
        ] {
            assert_eq!(network_of(Some(source)), expected, "{source}");
        }
        assert_eq!(network_of(None), "");
    }
}
