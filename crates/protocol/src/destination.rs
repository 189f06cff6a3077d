//! The destination of a request: a URL as the HTTP client understands it, parsed by the client's own parser.
//!
//! Each decision about a host is made with this type, and the client gets this type. So the host that was checked is
//! the host that is connected to. Signatures cover the text of a URL instead, see
//! [`crate::url`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::Scheme;
use thiserror::Error;

use crate::ambiguity;

/// An absolute http or https URL without user information, whose host has one spelling only.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    uri: Uri,
    host: Host,
    port: u16,
}

/// A host: a name, or an address. Two that are equal are the same host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, in lower case, without trailing dot.
    Name(String),
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
}

/// Why a URL is not a destination. The texts continue a sentence that begins with the URL's name and hold
/// nothing of the URL, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// It is relative, of another scheme, or malformed.
    #[error("it is not an absolute http or https URL")]
    Form,
    /// It has user information.
    #[error("it has user information before its host")]
    User,
    /// It has brackets around or beside something that is not an IPv6 address.
    #[error("its host has brackets but is not an IPv6 address")]
    Brackets,
    /// The host is an IPv4 address in another spelling than four decimal numbers.
    #[error("its host is an IPv4 address in a form other than four decimal numbers")]
    Number,
    /// The host is not a name.
    #[error("its host is not a valid name, or ends with a dot")]
    Name,
    /// The port is not a number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// A base URL has a query, a fragment or a trailing slash.
    #[error("it has a query, a fragment or a trailing slash")]
    Base,
    /// The path to be added to a base URL does not begin with a slash.
    #[error("the path to be added does not begin with a slash")]
    Path,
    /// An address is not on loopback, where an API must have a name.
    #[error("its host is an address that is not on loopback")]
    Literal,
    /// The query has a parameter with a name of Twilio's, so that what is signed for the URL is ambiguous.
    #[error("its query has a parameter of Twilio's")]
    Parameter,
    /// The host has an underscore.
    #[error("its host has an underscore")]
    Underscore,
}

impl Destination {
    /// Parses a URL. A fragment is dropped, because it is never sent.
    ///
    /// ```
    /// use protocol::destination::{Destination, Fault};
    ///
    /// let destination = Destination::parse("https://api.example.com:8443/v1").unwrap();
    /// assert_eq!((destination.host().to_string().as_str(), destination.port()), ("api.example.com", 8443));
    /// // A resolver would read this host as 127.0.0.1.
    /// assert_eq!(Destination::parse("http://0x7f.1/"), Err(Fault::Number));
    /// ```
    ///
    /// # Errors
    ///
    /// The first rule that the URL breaks; its text does not quote the URL.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match read(text)? {
            (destination, false) => Ok(destination),
            (_, true) => Err(Fault::User),
        }
    }

    /// Parses a base URL, to which paths are added.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`], and [`Fault::Base`] if the URL has a query, a fragment or a trailing slash.
    pub fn parse_base(text: &str) -> Result<Self, Fault> {
        let base = Self::parse(text)?;
        check_base(text)?;
        Ok(base)
    }

    /// The destination of `path`, which begins with a slash and may have a query, below this base URL. It always has
    /// the same origin.
    ///
    /// # Errors
    ///
    /// If `path` does not begin with a slash or makes the URL malformed.
    pub fn below(&self, path: &str) -> Result<Self, Fault> {
        if !path.starts_with('/') {
            return Err(Fault::Path);
        }
        let prefix = self.uri.path().trim_end_matches('/');
        self.with(&format!("{prefix}{path}"))
    }

    /// The destination of a `Location` header in a response from this destination.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`]. Of relative URLs, only paths from the root are accepted.
    pub fn redirect(&self, location: &str) -> Result<Self, Fault> {
        if location.starts_with('/') && !location.starts_with("//") {
            self.with(location)
        } else {
            Self::parse(location)
        }
    }

    fn with(&self, path: &str) -> Result<Self, Fault> {
        let authority = self.uri.authority().map_or("", |a| a.as_str());
        let next = Self::parse(&format!("{}://{authority}{path}", self.scheme()))?;
        if next.has_origin_of(self) {
            Ok(next)
        } else {
            Err(Fault::Form)
        }
    }

    /// The URL as the HTTP client's type.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; that of the scheme if the URL has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the scheme is https.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether scheme, host and port are those of `other`.
    pub fn has_origin_of(&self, other: &Self) -> bool {
        (self.is_https(), &self.host, self.port) == (other.is_https(), &other.host, other.port)
    }

    /// Whether the host is one of these domains or below one, with https at port 443.
    pub fn is_at(&self, domains: &[&str]) -> bool {
        let Host::Name(name) = &self.host else {
            return false;
        };
        let is_below = |domain: &&str| {
            name.strip_suffix(*domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.is_https() && self.port == 443 && domains.iter().any(is_below)
    }

    fn scheme(&self) -> &'static str {
        if self.is_https() { "https" } else { "http" }
    }
}

/// Without path and query, which may hold secrets.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}

impl Host {
    /// Parses the host of a URL, as [`Uri::host`] returns it.
    ///
    /// # Errors
    ///
    /// If the host is not a name or an IP address in its usual form.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.contains(['[', ']']) {
            let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            let address: Option<Ipv6Addr> = inner.and_then(|inner| inner.parse().ok());
            let address = address.ok_or(Fault::Brackets)?;
            return Ok(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if text.len() > MAX_NAME || !text.split('.').all(is_label) {
            return Err(Fault::Name);
        }
        let name = text.to_ascii_lowercase();
        // A resolver reads such names as addresses in decimal, octal or hexadecimal numbers.
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(Fault::Number);
        }
        Ok(Self::Name(name))
    }

    /// Whether the host is this machine itself.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Address(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Checks a base URL that Twilio calls. It may have user information.
///
/// # Errors
///
/// The first rule that the URL breaks.
pub fn check_public_base(url: &str) -> Result<(), Fault> {
    read_origin(url)?;
    check_base(url)
}

/// Checks a URL of status callbacks for Twilio. It may have user information.
///
/// # Errors
///
/// The first rule that the URL breaks.
pub fn check_callback(url: &str) -> Result<(), Fault> {
    if ambiguity::has_known_parameter(url) {
        return Err(Fault::Parameter);
    }
    match read_origin(url)?.0.host {
        // Twilio refuses underscores in the callback's host, and no certificate would cover it.
        Host::Name(name) if name.contains('_') => Err(Fault::Underscore),
        _ => Ok(()),
    }
}

/// Checks the URL of a file for Twilio, which fetches it without a password.
///
/// # Errors
///
/// The first rule that the URL breaks.
pub fn check_media(url: &str) -> Result<(), Fault> {
    match read_origin(url)? {
        (_, false) => Ok(()),
        (_, true) => Err(Fault::User),
    }
}

/// As [`read`], without path and query: Twilio accepts more forms of these than this client does.
fn read_origin(text: &str) -> Result<(Destination, bool), Fault> {
    let start = text.find("://").ok_or(Fault::Form)? + "://".len();
    let length = text[start..].find(['/', '?', '#']);
    let (origin, rest) = text.split_at(length.map_or(text.len(), |length| start + length));
    if is_printable(rest) {
        read(origin)
    } else {
        Err(Fault::Form)
    }
}

fn check_base(text: &str) -> Result<(), Fault> {
    if text.contains(['?', '#']) || text.ends_with('/') {
        return Err(Fault::Base);
    }
    Ok(())
}

/// A URL, and whether it has user information.
fn read(text: &str) -> Result<(Destination, bool), Fault> {
    let uri: Uri = text.parse().map_err(|_| Fault::Form)?;
    let default_port = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        Some(scheme) if *scheme == Scheme::HTTP => 80,
        _ => return Err(Fault::Form),
    };
    let authority = uri
        .authority()
        .filter(|_| is_printable(text))
        .ok_or(Fault::Form)?;
    let (has_user, address) = match authority.as_str().rsplit_once('@') {
        Some((_, address)) => (true, address),
        None => (false, authority.as_str()),
    };
    let host = Host::parse(authority.host())?;
    let rest = address.strip_prefix(authority.host()).ok_or(Fault::Form)?;
    let port = match rest.strip_prefix(':') {
        Some(port) => parse_port(port).ok_or(Fault::Port)?,
        None if rest.is_empty() => default_port,
        None => return Err(Fault::Brackets),
    };
    Ok((Destination { uri, host, port }, has_user))
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|c| c > ' ' && !c.is_control())
}

/// A port of digits only, which all parsers of URLs read in the same way.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

/// Whether a resolver reads the last part of a name, in lower case, as a number.
fn is_number(label: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    label.bytes().all(|b| b.is_ascii_digit()) || label.strip_prefix("0x").is_some_and(is_hex)
}

const MAX_NAME: usize = 253;
