//! Destinations that may be shown credentials: those of an account, its API and Twilio's own hosts; those of a
//! gateway, its own origin.
//!
//! A request with credentials is made from a [`Trusted`] destination, which this module alone makes.

use crate::destination::{Destination, Fault, Host};
use crate::sid;

/// A destination that may be shown the credentials of the account or of the gateway that it was made for.
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
    /// Reads an account's `api_url`. An address is accepted on loopback only: a certificate for an address
    /// says nothing about its owner.
    pub fn parse(api_url: &str) -> Result<Self, Fault> {
        let base = Destination::parse_base(api_url)?;
        match base.host() {
            Host::Address(_) if !base.host().is_loopback() => Err(Fault::Literal),
            _ => Ok(Self(base)),
        }
    }

    /// The resource of this API at `path`.
    pub fn at(&self, path: &str) -> Result<Trusted, Fault> {
        self.0.below(path).map(Trusted)
    }

    /// The destination as one that may be shown the account's credentials: this API's own origin, and hosts
    /// of Twilio's.
    pub fn trusted(&self, to: &Destination) -> Option<Trusted> {
        (to.has_origin_of(&self.0) || to.is_at(&[TWILIO])).then(|| Trusted(to.clone()))
    }

    /// The destination of a message's file as one that may be shown the account's credentials: a media resource of
    /// this account, and nothing else that the API would answer with. A sandbox may keep files elsewhere.
    pub fn file(&self, account_sid: &str, to: &Destination) -> Option<Trusted> {
        let is_file = self.is_sandbox() || is_media(account_sid, to);
        self.trusted(to).filter(|_| is_file)
    }

    /// Where a redirect from `from` leads, if it may be followed: to what is trusted, and to where Twilio
    /// stores files. A sandbox may lead to all of this machine.
    pub fn redirected(&self, from: &Destination, location: &str) -> Option<Destination> {
        let next = from.redirect(location).ok()?;
        let is_followed = self.trusted(&next).is_some()
            || next.is_at(&STORES)
            || self.is_sandbox() && next.host().is_loopback();
        is_followed.then_some(next)
    }

    /// Whether a file that a message names lies beside this API and the API is a sandbox: there the operator
    /// tries things out, and the file may lie at an address that is not public.
    pub fn is_beside(&self, file: &Destination) -> bool {
        self.is_sandbox() && file.host() == self.0.host()
    }

    /// Whether the API is on this machine, in place of Twilio.
    pub fn is_sandbox(&self) -> bool {
        self.0.host().is_loopback()
    }
}

impl Gateway {
    /// Reads a gateway's base URL. Phones are often known by their address.
    pub fn parse(base_url: &str) -> Result<Self, Fault> {
        Destination::parse_base(base_url).map(Self)
    }

    /// The resource of this gateway at `path`.
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

/// Twilio keeps files at Amazon and serves some of them by a domain of their own.
const STORES: [&str; 2] = ["twiliocdn.com", "amazonaws.com"];
