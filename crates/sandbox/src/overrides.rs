//! Connection overrides: timeouts and retries in the fragment of a callback URL.
//!
//! <https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>

use std::ops::RangeInclusive;
use std::time::Duration;

/// The timeouts and retries of a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// `ct`: time to connect.
    pub(crate) connect: Duration,
    /// `rt`: time to the first byte and between packets.
    pub(crate) read: Duration,
    /// `tt`: time for everything, retries included.
    pub(crate) total: Duration,
    /// `rc`: tries after the first.
    pub(crate) retries: u64,
    /// `rp`: which failures are retried.
    pub(crate) policy: Policy,
}

/// The failures after which a callback is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) client_error: bool,
    pub(crate) server_error: bool,
    pub(crate) connect: bool,
    pub(crate) read: bool,
}

impl Overrides {
    /// Parses a URL's fragment. Overrides that Twilio does not document are ignored and returned by name.
    pub(crate) fn parse(fragment: &str) -> (Self, Vec<String>) {
        let mut overrides = Self::default();
        let mut unknown = Vec::new();
        for pair in fragment.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if overrides.apply(name, value).is_none() {
                unknown.push(pair.to_owned());
            }
        }
        (overrides, unknown)
    }

    fn apply(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "ct" => self.connect = millis(value, 100..=10_000)?,
            "rt" => self.read = millis(value, 100..=15_000)?,
            "tt" => self.total = millis(value, 100..=15_000)?,
            "rc" => self.retries = number(value, 0..=5)?,
            "rp" => self.policy = Policy::parse(value)?,
            // Nothing on loopback has a server name or an edge.
            "sni" if matches!(value, "y" | "n") => {}
            "e" if !value.is_empty() => {}
            _ => return None,
        }
        Some(())
    }
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(5000),
            read: Duration::from_millis(15_000),
            total: Duration::from_millis(15_000),
            retries: 1,
            policy: Policy {
                connect: true,
                ..Policy::NOTHING
            },
        }
    }
}

impl Policy {
    const NOTHING: Self = Self {
        client_error: false,
        server_error: false,
        connect: false,
        read: false,
    };

    fn parse(list: &str) -> Option<Self> {
        let mut policy = Self::NOTHING;
        for item in list.split(',') {
            match item {
                "4xx" => policy.client_error = true,
                "5xx" => policy.server_error = true,
                "ct" => policy.connect = true,
                "rt" => policy.read = true,
                "all" => {
                    policy = Self {
                        client_error: true,
                        server_error: true,
                        connect: true,
                        read: true,
                    }
                }
                _ => return None,
            }
        }
        Some(policy)
    }
}

fn millis(value: &str, range: RangeInclusive<u64>) -> Option<Duration> {
    number(value, range).map(Duration::from_millis)
}

fn number(value: &str, range: RangeInclusive<u64>) -> Option<u64> {
    value.parse().ok().filter(|n| range.contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connecting_is_tried_again_by_default() {
        let (overrides, unknown) = Overrides::parse("");
        assert_eq!(overrides, Overrides::default());
        assert_eq!((overrides.retries, unknown.len()), (1, 0));
        let policy = overrides.policy;
        assert!(policy.connect && !policy.client_error && !policy.server_error && !policy.read);
    }

    #[test]
    fn reads_what_production_systems_write() {
        let (overrides, unknown) =
            Overrides::parse("ct=3000&rc=5&rt=1500&rp=all&sni=y&e=dublin,ashburn");
        assert!(unknown.is_empty());
        assert_eq!(overrides.connect, Duration::from_millis(3000));
        assert_eq!(overrides.read, Duration::from_millis(1500));
        assert_eq!(overrides.retries, 5);
        assert!(overrides.policy.client_error && overrides.policy.read);
    }

    #[test]
    fn lists_of_reasons_are_possible() {
        let (overrides, _) = Overrides::parse("rp=5xx,ct");
        assert_eq!(
            overrides.policy,
            Policy {
                server_error: true,
                connect: true,
                ..Policy::NOTHING
            }
        );
    }

    #[test]
    fn overrides_out_of_range_or_unknown_are_named() {
        let (overrides, unknown) = Overrides::parse("rc=6&rt=99&rp=3xx&foo&tt=15001");
        assert_eq!(overrides, Overrides::default());
        assert_eq!(unknown, ["rc=6", "rt=99", "rp=3xx", "foo", "tt=15001"]);
    }
}
