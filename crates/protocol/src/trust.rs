//! Destinations that credentials may be sent to: an account's to its API and to Twilio's own hosts, a gateway's to its
//! own origin.
//!
//! A request with credentials needs a [`Trusted`] destination, which only this module creates.

use crate::destination::{Destination, Fault, Host};
use crate::sid;

/// A destination that the credentials of its account or gateway may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted(Destination);

/// The API of an account at Twilio, or a sandbox in place of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api(Destination);

/// The API of SMSGate: the cloud, a private server or a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway(Destination);

impl Trusted {
    /// The destination itself.
    pub fn into_destination(self) -> Destination {
        self.0
    }
}

impl Api {
    /// Parses an account's `api_url`. An IP address is accepted on loopback only, because a certificate for an address
    /// does not identify its owner.
    ///
    /// # Errors
    ///
    /// As [`Destination::parse_base`], and [`Fault::Literal`] for an IP address that is not on loopback.
    pub fn parse(api_url: &str) -> Result<Self, Fault> {
        let base = Destination::parse_base(api_url)?;
        match base.host() {
            Host::Address(_) if !base.host().is_loopback() => Err(Fault::Literal),
            _ => Ok(Self(base)),
        }
    }

    /// The resource of this API at `path`.
    ///
    /// # Errors
    ///
    /// As [`Destination::below`].
    pub fn at(&self, path: &str) -> Result<Trusted, Fault> {
        self.0.below(path).map(Trusted)
    }

    /// The Events API of the same region: `events.twilio.com` beside `api.twilio.com`. A sandbox has both at one address.
    #[must_use]
    pub fn events(&self) -> Self {
        let host = match self.0.host() {
            Host::Name(name) if self.0.is_at(&[TWILIO]) => name.strip_prefix("api."),
            _ => None,
        };
        let url = host.map(|rest| format!("https://events.{rest}"));
        let base = url.and_then(|url| Destination::parse_base(&url).ok());
        Self(base.unwrap_or_else(|| self.0.clone()))
    }

    /// The destination as a trusted one, if it has this API's origin or a host of Twilio.
    pub fn trusted(&self, to: &Destination) -> Option<Trusted> {
        (to.has_origin_of(&self.0) || to.is_at(&[TWILIO])).then(|| Trusted(to.clone()))
    }

    /// The destination of a message's file as a trusted one, if it is a media resource of this account and no other
    /// resource of the API. A sandbox may keep files elsewhere.
    pub fn file(&self, account_sid: &str, to: &Destination) -> Option<Trusted> {
        let is_file = self.is_sandbox() || is_media(account_sid, to);
        self.trusted(to).filter(|_| is_file)
    }

    /// The destination of a redirect from `from`, if it may be followed: trusted destinations and the hosts where Twilio
    /// stores files. A sandbox may redirect to any port of this machine.
    pub fn redirected(&self, from: &Destination, location: &str) -> Option<Destination> {
        let next = from.redirect(location).ok()?;
        let is_followed = self.trusted(&next).is_some()
            || next.is_at(&STORES)
            || self.is_sandbox() && next.host().is_loopback();
        is_followed.then_some(next)
    }

    /// Whether the API is a sandbox and a message's file is on the same host. Such a file may be fetched although its
    /// address is not public.
    pub fn is_beside(&self, file: &Destination) -> bool {
        self.is_sandbox() && file.host() == self.0.host()
    }

    /// Whether the API is on this machine, so a sandbox.
    pub fn is_sandbox(&self) -> bool {
        self.0.host().is_loopback()
    }
}

impl Gateway {
    /// Parses a gateway's base URL. IP addresses are accepted, because phones often have no name.
    ///
    /// # Errors
    ///
    /// As [`Destination::parse_base`].
    pub fn parse(base_url: &str) -> Result<Self, Fault> {
        Destination::parse_base(base_url).map(Self)
    }

    /// The resource of this gateway at `path`.
    ///
    /// # Errors
    ///
    /// As [`Destination::below`].
    pub fn at(&self, path: &str) -> Result<Trusted, Fault> {
        self.0.below(path).map(Trusted)
    }
}

const TWILIO: &str = "twilio.com";
/// <https://www.twilio.com/docs/messaging/api/media-resource>
fn is_media(account_sid: &str, to: &Destination) -> bool {
    let segments: Vec<_> = to.uri().path().split('/').collect();
    let [
        "",
        "2010-04-01",
        "Accounts",
        account,
        "Messages",
        message,
        "Media",
        media,
    ] = segments[..]
    else {
        return false;
    };
    let is_query_free = to.uri().query().is_none();
    is_query_free && account == account_sid && sid::is_message(message) && sid::is_media(media)
}

/// Twilio stores files at Amazon and serves some of them from a domain of its own.
const STORES: [&str; 2] = ["twiliocdn.com", "amazonaws.com"];
