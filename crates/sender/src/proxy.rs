//! Proxies, from the usual environment variables.

use std::fmt;

use ureq::Proxy;

use crate::Error;

/// Which proxy to use for which URL.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Proxy for `http` URLs: `http://`, `https://`, `socks4://`, `socks4a://`, `socks5://` or
    /// `socks5h://`, with user and password if need be.
    pub http: Option<String>,
    /// Proxy for `https` URLs.
    pub https: Option<String>,
    /// Hosts reached without a proxy: a name covers itself and all names below it, `*` every host.
    pub except: Vec<String>,
}

impl Proxies {
    /// Uses no proxy.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |upper: &str| {
            variable(upper)
                .or_else(|| variable(&upper.to_ascii_lowercase()))
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let all = either("ALL_PROXY");
        Self {
            http: either("HTTP_PROXY").or_else(|| all.clone()),
            https: either("HTTPS_PROXY").or(all),
            except: either("NO_PROXY")
                .unwrap_or_default()
                .split([',', ' '])
                .filter(|entry| !entry.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The proxy for one scheme. With `resolves_target`, the host's name is resolved here and the proxy gets an
    /// address, so that the address that was checked is the one that is connected to.
    pub(crate) fn build(&self, https: bool, resolves_target: bool) -> Result<Option<Proxy>, Error> {
        let (value, name) = if https {
            (&self.https, "the proxy for https")
        } else {
            (&self.http, "the proxy for http")
        };
        let Some(value) = value else {
            return Ok(None);
        };
        // The error does not repeat the value, which may hold a password.
        let parsed = Proxy::new(value).map_err(|_| Error::Proxy(name))?;
        let mut builder = Proxy::builder(parsed.protocol())
            .host(parsed.host())
            .port(parsed.port());
        if let Some(user) = parsed.username() {
            builder = builder.username(user);
        }
        if let Some(password) = parsed.password() {
            builder = builder.password(password);
        }
        if resolves_target {
            builder = builder.resolve_target(true);
        }
        for entry in &self.except {
            let host = entry.trim_start_matches('.');
            builder = builder.no_proxy(host).no_proxy(&format!(".{host}"));
        }
        builder.build().map(Some).map_err(|_| Error::Proxy(name))
    }
}

// A proxy's address may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("except", &self.except)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_is_the_rest() {
        let proxies = from(&[("https_proxy", "http://a:1"), ("ALL_PROXY", "http://b:2")]);
        assert_eq!(proxies.https.as_deref(), Some("http://a:1"));
        assert_eq!(proxies.http.as_deref(), Some("http://b:2"));
        assert_eq!(from(&[("HTTP_PROXY", "http://a:1")]).https, None);
        assert_eq!(from(&[("HTTP_PROXY", " ")]).http, None);
    }

    #[test]
    fn excepted_names_cover_what_is_below_them() {
        let proxies = from(&[
            ("HTTPS_PROXY", "http://user:secret@proxy.example:3128"),
            ("NO_PROXY", "internal.example, .local"),
        ]);
        let proxy = proxies.build(true, false).unwrap().unwrap();
        for (url, is_direct) in [
            ("https://internal.example/", true),
            ("https://a.internal.example/", true),
            ("https://phone.local/", true),
            ("https://api.twilio.com/", false),
            ("https://notinternal.example/", false),
        ] {
            assert_eq!(proxy.is_no_proxy(&url.parse().unwrap()), is_direct, "{url}");
        }
        assert_eq!(proxy.username(), Some("user"));
        assert_eq!(proxy.port(), 3128);
        assert!(proxies.build(false, false).unwrap().is_none());
    }

    #[test]
    fn every_host_can_be_excepted() {
        let proxies = from(&[("ALL_PROXY", "socks5://p:1"), ("NO_PROXY", "*")]);
        let proxy = proxies.build(false, true).unwrap().unwrap();
        assert!(proxy.is_no_proxy(&"http://anything.example/".parse().unwrap()));
        assert!(proxy.resolve_target());
    }

    #[test]
    fn a_bad_address_is_refused_without_being_repeated() {
        let proxies = from(&[("HTTPS_PROXY", "ftp://user:hush@proxy")]);
        let error = proxies.build(true, false).unwrap_err();
        assert!(!format!("{error} {error:?} {proxies:?}").contains("hush"));
    }
}
