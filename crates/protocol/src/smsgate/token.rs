//! Access tokens, which replace the password after the first request, for some scopes and a limited time.
//!
//! <https://docs.sms-gate.app/integration/authentication/>

use std::fmt;

use serde_json::{Value, json};

use crate::date;
use crate::json::text;

/// A token that a gateway issued.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token that requests carry.
    pub access: String,
    /// The token to request the next one with, once, instead of the password.
    pub refresh: Option<String>,
    /// When it expires by the gateway's clock, in milliseconds since 1970.
    pub expires_at: Option<i64>,
}

impl Token {
    /// Parses a gateway's response; `None` if it has no token that can be sent in a header.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let object = value.as_object()?;
        // The server's documentation has the first names, its authors' libraries the second.
        let either = |names: [&str; 2]| names.into_iter().find_map(|name| text(object, name));
        let is_token = |text: &String| {
            (1..=MAX_TOKEN_BYTES).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_graphic())
        };
        Some(Self {
            access: either(["access_token", "accessToken"]).filter(is_token)?,
            refresh: either(["refresh_token", "refreshToken"]).filter(is_token),
            expires_at: either(["expires_at", "expiresAt"]).and_then(|text| date::parse_iso(&text)),
        })
    }

    /// How long the token is valid from its issue, in milliseconds, at most an hour. Both times are the gateway's: the
    /// expiry, and `date`, the header Date of its response. So the local clock does not matter. If one is missing, the
    /// token counts as valid for 5 minutes.
    pub fn life(&self, date: Option<&str>) -> i64 {
        let given_at = date.and_then(|header| date::parse_mail(header.trim()));
        let times = self.expires_at.zip(given_at);
        // The header's second may have been almost over.
        times
            .map_or(UNKNOWN_LIFE_MS, |(end, start)| {
                end.saturating_sub(start + 1000)
            })
            .clamp(0, i64::from(TTL_S) * 1000)
    }
}

// A valid token is as good as the password, so it is not printed.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The JSON body of a request for a token.
pub fn request() -> String {
    json!({ "ttl": TTL_S, "scopes": SCOPES }).to_string()
}

/// The path, below a gateway's base URL, that issues tokens for a password.
pub const TOKEN_PATH: &str = "/auth/token";

/// The path, below a gateway's base URL, that issues tokens for a refresh token.
pub const REFRESH_PATH: &str = "/auth/token/refresh";

/// The requested lifetime of a token, in seconds; servers may grant less.
const TTL_S: u32 = 3600;

/// The scopes that the requests need.
const SCOPES: [&str; 5] = [
    "messages:send",
    "messages:read",
    "messages:cancel",
    "webhooks:write",
    "webhooks:delete",
];

const MAX_TOKEN_BYTES: usize = 8192;
const UNKNOWN_LIFE_MS: i64 = 300_000;
