//! Tokens of SMSGate's API: JWTs that are valid for a limited time and for some scopes.

use std::collections::HashMap;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::Refused;
use crate::clock::Moment;
use crate::random::Generator;

/// All tokens that were issued.
pub(crate) struct Tokens {
    key: [u8; 8],
    access_ttl: i64,
    granted: HashMap<String, Grant>,
}

#[derive(Debug, Clone)]
struct Grant {
    id: String,
    scopes: Vec<String>,
    expires: Moment,
    is_refresh: bool,
}

impl Tokens {
    /// Tokens signed by `key`, valid for at most `access_ttl` seconds.
    pub(crate) fn new(key: u64, access_ttl: i64) -> Self {
        Self {
            key: key.to_le_bytes(),
            access_ttl,
            granted: HashMap::new(),
        }
    }

    /// Issues a pair of tokens as `POST /auth/token` asks for it.
    pub(crate) fn issue(
        &mut self,
        body: &Value,
        now: Moment,
        random: &mut Generator,
    ) -> Result<Value, Refused> {
        let scopes = body["scopes"].as_array().filter(|list| !list.is_empty());
        let scopes = scopes.ok_or_else(|| Refused::new(400, "scopes are required"))?;
        let scopes: Option<Vec<String>> = scopes
            .iter()
            .map(|scope| {
                scope
                    .as_str()
                    .filter(|scope| SCOPES.contains(scope))
                    .map(str::to_owned)
            })
            .collect();
        let scopes = scopes.ok_or_else(|| Refused::new(400, "a scope is not known"))?;
        let ttl = match &body["ttl"] {
            Value::Null => self.access_ttl,
            ttl => {
                let ttl = ttl.as_i64().filter(|ttl| *ttl >= 0);
                ttl.ok_or_else(|| Refused::new(400, "ttl is not a number of seconds"))?
            }
        };
        let ttl = if ttl == 0 { self.access_ttl } else { ttl };
        Ok(self.pair(scopes, ttl.min(self.access_ttl), now, random))
    }

    /// Exchanges a refresh token, which can be used once.
    pub(crate) fn refresh(
        &mut self,
        token: &str,
        now: Moment,
        random: &mut Generator,
    ) -> Result<Value, Refused> {
        let is_live = self
            .granted
            .get(token)
            .is_some_and(|g| g.is_refresh && g.expires > now);
        let grant = if is_live {
            self.granted.remove(token)
        } else {
            None
        };
        let grant = grant.ok_or_else(|| Refused::new(401, "invalid token"))?;
        Ok(self.pair(grant.scopes, self.access_ttl, now, random))
    }

    /// Revokes the access token with this id and its refresh token.
    pub(crate) fn revoke(&mut self, id: &str) {
        self.granted.retain(|_, grant| grant.id != id);
    }

    /// Revokes all tokens.
    pub(crate) fn revoke_all(&mut self) {
        self.granted.clear();
    }

    /// Whether `token` grants `scope` now.
    pub(crate) fn check(&self, token: &str, scope: &str, now: Moment) -> Result<(), Refused> {
        let grant = self
            .granted
            .get(token)
            .filter(|g| !g.is_refresh && g.expires > now);
        let grant = grant.ok_or_else(|| Refused::new(401, "Unauthorized"))?;
        match grant.scopes.iter().any(|granted| granted == scope) {
            true => Ok(()),
            false => Err(Refused::new(403, format!("scope required: {scope}"))),
        }
    }

    fn pair(
        &mut self,
        scopes: Vec<String>,
        ttl: i64,
        now: Moment,
        random: &mut Generator,
    ) -> Value {
        let id = random.nanoid(21);
        let expires = Moment(now.0 + ttl * 1_000_000);
        let access = Grant {
            id: id.clone(),
            scopes,
            expires,
            is_refresh: false,
        };
        let month = Moment(now.0 + 720 * 3600 * 1_000_000);
        let refresh = Grant {
            expires: month,
            is_refresh: true,
            ..access.clone()
        };
        let (access_token, refresh_token) = (
            self.jwt(&access, now, random),
            self.jwt(&refresh, now, random),
        );
        self.granted.insert(access_token.clone(), access);
        self.granted.insert(refresh_token.clone(), refresh);
        json!({
            "id": id,
            "token_type": "Bearer",
            "access_token": access_token,
            "refresh_token": refresh_token,
            "expires_at": expires.rfc3339(),
        })
    }

    fn jwt(&self, grant: &Grant, now: Moment, random: &mut Generator) -> String {
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = json!({
            "exp": grant.expires.0 / 1_000_000,
            "iat": now.0 / 1_000_000,
            "jti": if grant.is_refresh { random.nanoid(21) } else { grant.id.clone() },
            "scopes": grant.scopes,
            "typ": if grant.is_refresh { "refresh" } else { "access" },
        });
        let signed = format!(
            "{header}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = sign(&self.key, &[signed.as_bytes()]);
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// HMAC-SHA256 over `parts`, one after the other.
pub(crate) fn sign(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "HMAC is defined for keys of every length"
    )]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

const SCOPES: [&str; 17] = [
    "all:any",
    "devices:list",
    "devices:delete",
    "inbox:list",
    "inbox:refresh",
    "logs:read",
    "messages:cancel",
    "messages:export",
    "messages:list",
    "messages:read",
    "messages:send",
    "settings:read",
    "settings:write",
    "tokens:manage",
    "webhooks:delete",
    "webhooks:list",
    "webhooks:write",
];

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000);

    fn issued(tokens: &mut Tokens, ttl: i64) -> Value {
        let body = json!({ "scopes": ["messages:send"], "ttl": ttl });
        tokens.issue(&body, NOW, &mut Generator::new(1)).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_scopes_until_it_expires() {
        let mut tokens = Tokens::new(1, 900);
        let token = issued(&mut tokens, 60)["access_token"]
            .as_str()
            .unwrap()
            .to_owned();
        let status = |scope, now| {
            tokens
                .check(&token, scope, now)
                .map_err(|refused| refused.status)
        };
        assert_eq!(status("messages:send", NOW), Ok(()));
        assert_eq!(status("messages:read", NOW), Err(403));
        assert_eq!(
            status("messages:send", Moment(NOW.0 + 60_000_000)),
            Err(401)
        );
    }

    #[test]
    fn refresh_tokens_are_used_once_and_for_nothing_else() {
        let mut tokens = Tokens::new(1, 900);
        let mut random = Generator::new(2);
        let token = issued(&mut tokens, 60)["refresh_token"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(tokens.check(&token, "messages:send", NOW).is_err());
        assert!(tokens.refresh(&token, NOW, &mut random).is_ok());
        assert!(tokens.refresh(&token, NOW, &mut random).is_err());
    }

    #[test]
    fn unknown_scopes_are_refused() {
        let mut tokens = Tokens::new(1, 900);
        for body in [
            json!({}),
            json!({ "scopes": [] }),
            json!({ "scopes": ["messages:fly"] }),
        ] {
            assert!(
                tokens.issue(&body, NOW, &mut Generator::new(1)).is_err(),
                "{body}"
            );
        }
    }
}
