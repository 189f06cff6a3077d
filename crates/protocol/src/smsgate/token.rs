//! Tokens: what stands in for the password once the gateway has seen it, for some scopes and a while.
//!
//! <https://docs.sms-gate.app/integration/authentication/>

use std::fmt;

use serde_json::{Value, json};

use crate::date;
use crate::json::text;

/// A token that a gateway gave.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What requests bear.
    pub access: String,
    /// What the next token is asked for with, once; the password is not needed for that.
    pub refresh: Option<String>,
    /// When it ends by the gateway's clock, in milliseconds since 1970.
    pub expires_at: Option<i64>,
}

impl Token {
    /// Reads a gateway's answer; `None` if it holds no token that could go into a header.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let object = value.as_object()?;
        // The server's description has the first names, its authors' libraries the second.
        let either = |names: [&str; 2]| names.into_iter().find_map(|name| text(object, name));
        let is_token = |text: &String| {
            (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        Some(Self {
            access: either(["access_token", "accessToken"]).filter(is_token)?,
            refresh: either(["refresh_token", "refreshToken"]).filter(is_token),
            expires_at: either(["expires_at", "expiresAt"]).and_then(|text| date::parse_iso(&text)),
        })
    }

    /// For how many milliseconds it is good from when it was given: told by the gateway's clock, the header Date of
    /// its answer, so that it does not matter what ours says. A gateway that does not tell both is asked again soon.
    pub fn life(&self, date: Option<&str>) -> i64 {
        let given_at = date.and_then(|header| date::parse_mail(header.trim()));
        let told = self.expires_at.zip(given_at);
        // The header's second may have been almost over.
        told.map_or(UNKNOWN_LIFE_MS, |(end, start)| {
            end.saturating_sub(start + 1000)
        })
        .clamp(0, i64::from(TTL_S) * 1000)
    }
}

// It is as good as the password for as long as it lives.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The body of a request for a token, JSON.
pub fn request() -> String {
    json!({ "ttl": TTL_S, "scopes": SCOPES }).to_string()
}

/// The path, below a gateway's base URL, that gives tokens for a password.
pub const TOKEN_PATH: &str = "/auth/token";

/// The path, below a gateway's base URL, that gives tokens for the token before.
pub const REFRESH_PATH: &str = "/auth/token/refresh";

/// How long a token is to live; servers give less.
pub const TTL_S: u32 = 3600;

/// What is done with it, and no more.
const SCOPES: [&str; 5] = [
    "messages:send",
    "messages:read",
    "messages:cancel",
    "webhooks:write",
    "webhooks:delete",
];

const LONGEST: usize = 8192;
const UNKNOWN_LIFE_MS: i64 = 300_000;
