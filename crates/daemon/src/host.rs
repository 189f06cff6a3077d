//! Splits a connection string into one set of options for each host.

use std::cmp::max;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

/// The options once for each host, in the order in which the hosts are tried.
pub(crate) fn hosts(config: &Config) -> Vec<Config> {
    let mut hosts = split(config);
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        let random = RandomState::new().build_hasher().finish();
        let first = random as usize % hosts.len();
        hosts.rotate_left(first);
    }
    hosts
}

fn split(config: &Config) -> Vec<Config> {
    let (names, numbers) = (config.get_hosts(), config.get_hostaddrs());
    let (ports, count) = (config.get_ports(), max(names.len(), numbers.len()));
    let fits = |length: usize| length <= 1 || length == count;
    let is_paired = names.is_empty() || numbers.is_empty() || names.len() == numbers.len();
    if count < 2 || !is_paired || !fits(ports.len()) {
        // The caller refuses numbers that do not match.
        return vec![config.clone()];
    }
    let host = |i: usize| {
        let port = ports.get(i).or_else(|| ports.first());
        copy(config, names.get(i), numbers.get(i).copied(), port.copied())
    };
    (0..count).map(host).collect()
}

/// Splits a comma-separated `host` of a URL into hosts, as psql does; the parser takes the list for one host.
pub(crate) fn with_lists(config: &Config) -> Config {
    let names = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_string_lossy().into_owned(),
    });
    let names: Vec<_> = names.collect();
    if !names.iter().any(|name| name.contains(',')) {
        return config.clone();
    }
    let mut to = copy(config, None, None, None);
    for name in names.iter().flat_map(|name| name.split(',')) {
        to.host(name);
    }
    for address in config.get_hostaddrs() {
        to.hostaddr(*address);
    }
    for port in config.get_ports() {
        to.port(*port);
    }
    to
}

/// Describes the numbers of hosts, addresses and ports, if they do not match.
pub(crate) fn mismatch(config: &Config) -> Option<String> {
    let (names, numbers) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let (ports, count) = (config.get_ports().len(), max(names, numbers));
    if names > 0 && numbers > 0 && names != numbers {
        return Some(format!("{names} hosts and {numbers} hostaddrs"));
    }
    (ports > 1 && ports != count).then(|| format!("{count} hosts and {ports} ports"))
}

/// The options of one host once for each address that its name resolves to.
pub(crate) async fn addresses(one: &Config, limit: Duration) -> Vec<Config> {
    let ([Host::Tcp(name)], []) = (one.get_hosts(), one.get_hostaddrs()) else {
        return vec![one.clone()];
    };
    let port = one.get_ports().first().copied();
    let found = timeout(limit, lookup_host((name.as_str(), port.unwrap_or(5432)))).await;
    let Ok(Ok(found)) = found else {
        // Connecting reports what is wrong with the name.
        return vec![one.clone()];
    };
    found
        .map(|address| copy(one, one.get_hosts().first(), Some(address.ip()), port))
        .collect()
}

/// A copy without the hosts: tokio-postgres cannot remove them from parsed options.
fn copy(from: &Config, host: Option<&Host>, address: Option<IpAddr>, port: Option<u16>) -> Config {
    let mut to = Config::new();
    match host {
        Some(Host::Tcp(name)) => drop(to.host(name)),
        Some(Host::Unix(path)) => drop(to.host_path(path)),
        None => {}
    }
    if let Some(address) = address {
        to.hostaddr(address);
    }
    if let Some(port) = port {
        to.port(port);
    }
    if let Some(user) = from.get_user() {
        to.user(user);
    }
    if let Some(password) = from.get_password() {
        to.password(password);
    }
    if let Some(name) = from.get_dbname() {
        to.dbname(name);
    }
    if let Some(options) = from.get_options() {
        to.options(options);
    }
    if let Some(name) = from.get_application_name() {
        to.application_name(name);
    }
    copy_transport(from, &mut to);
    to
}

fn copy_transport(from: &Config, to: &mut Config) {
    to.ssl_mode(from.get_ssl_mode())
        .ssl_negotiation(from.get_ssl_negotiation())
        .channel_binding(from.get_channel_binding())
        .target_session_attrs(from.get_target_session_attrs())
        .load_balance_hosts(from.get_load_balance_hosts())
        .keepalives(from.get_keepalives())
        .keepalives_idle(from.get_keepalives_idle());
    if let Some(timeout) = from.get_connect_timeout() {
        to.connect_timeout(*timeout);
    }
    if let Some(timeout) = from.get_tcp_user_timeout() {
        to.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = from.get_keepalives_interval() {
        to.keepalives_interval(interval);
    }
    if let Some(retries) = from.get_keepalives_retries() {
        to.keepalives_retries(retries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_split_with_their_ports_and_all_else_is_kept() {
        const REST: &str = "user=u password=hush dbname=d options='-c a=b' application_name=n \
            sslmode=require sslnegotiation=direct connect_timeout=7 tcp_user_timeout=8 keepalives=0 \
            keepalives_idle=9 keepalives_interval=10 keepalives_retries=11 \
            target_session_attrs=read-write channel_binding=disable load_balance_hosts=random";
        for (list, expected) in [
            ("host=a", &["host=a"][..]),
            ("host=a,/run/b", &["host=a", "host=/run/b"]),
            ("host=a,b port=1,2", &["host=a port=1", "host=b port=2"]),
            ("host=a,b port=3", &["host=a port=3", "host=b port=3"]),
            (
                "host=a,b hostaddr=::1,192.0.2.1",
                &["host=a hostaddr=::1", "host=b hostaddr=192.0.2.1"],
            ),
            (
                "hostaddr=192.0.2.1,192.0.2.2",
                &["hostaddr=192.0.2.1", "hostaddr=192.0.2.2"],
            ),
            ("host=a,b port=1,2,3", &["host=a,b port=1,2,3"]),
            ("host=a,b hostaddr=::1", &["host=a,b hostaddr=::1"]),
        ] {
            let expected = expected.iter().map(|one| config(&format!("{one} {REST}")));
            let whole = config(&format!("{list} {REST}"));
            assert!(split(&whole).into_iter().eq(expected), "{list}");
        }
    }

    #[test]
    fn a_list_in_a_url_is_read_as_psql_reads_it() {
        for (url, expected) in [
            (
                "postgresql:///app?host=/a,/b&port=1,2",
                "host=/a,/b port=1,2 dbname=app",
            ),
            (
                "postgresql://u:p@/app?host=a,/b",
                "host=a,/b user=u password=p dbname=app",
            ),
            ("postgresql://a:1,b:2/app", "host=a,b port=1,2 dbname=app"),
            ("postgresql:///app?host=/a", "host=/a dbname=app"),
        ] {
            assert_eq!(with_lists(&config(url)), config(expected), "{url}");
        }
    }

    #[test]
    fn numbers_of_hosts_and_ports_must_match() {
        let of = |text: &str| mismatch(&with_lists(&config(text)));
        for fits in [
            "host=a",
            "host=a,b port=1",
            "host=a,b port=1,2",
            "host=a,b hostaddr=::1,::2",
        ] {
            assert_eq!(of(fits), None, "{fits}");
        }
        let ports = Some("2 hosts and 3 ports".to_owned());
        assert_eq!(of("postgresql:///app?host=/a,/b&port=1,2,3"), ports);
        let addresses = Some("2 hosts and 1 hostaddrs".to_owned());
        assert_eq!(of("host=a,b hostaddr=::1"), addresses);
    }

    #[tokio::test]
    async fn a_name_is_tried_at_each_of_its_addresses() {
        let limit = Duration::from_secs(5);
        for (host, expected) in [
            ("host=127.0.0.1", "host=127.0.0.1 hostaddr=127.0.0.1"),
            ("host=/run", "host=/run"),
            ("host=no.invalid", "host=no.invalid"),
        ] {
            let of = |text: &str| config(&format!("{text} port=5"));
            assert_eq!(addresses(&of(host), limit).await, [of(expected)]);
        }
    }
}
