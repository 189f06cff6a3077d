//! The credentials of the API, and the keys that sign the accounts' callbacks.

use base64::prelude::{BASE64_STANDARD, Engine};
use protocol::sid;
use protocol::signature::{Algorithm, Key};

use crate::arguments::Arguments;
use crate::error::Refusal;

/// An account and the key that signs its callbacks.
pub(crate) struct Account {
    pub(crate) sid: String,
    token: String,
    pub(crate) key: Key,
}

/// All accounts and API keys of this run.
pub(crate) struct Accounts {
    accounts: Vec<Account>,
    api_keys: Vec<(String, String)>,
    /// Id of the SharedKey that signs instead of the auth tokens, and the key.
    pub(crate) shared_key: Option<(String, Key)>,
}

impl Accounts {
    /// Reads the arguments. Errors name an option but not its value, which holds a secret.
    pub(crate) fn new(options: &Arguments) -> Result<Self, String> {
        let mut accounts = vec![account(&options.account_sid, &options.auth_token).ok_or(
            "--account-sid is not AC and 32 hexadecimal digits, or --auth-token is empty",
        )?];
        for pair in &options.accounts {
            let (sid, token) = pair.split_once(':').unwrap_or_default();
            accounts.push(account(sid, token).ok_or("--account is not AC…:TOKEN")?);
        }
        let pair = |text: &String| -> Option<(String, String)> {
            let (id, secret) = text.split_once(':')?;
            (!id.is_empty() && !secret.is_empty()).then(|| (id.to_owned(), secret.to_owned()))
        };
        let api_keys = options
            .api_key
            .iter()
            .map(|text| pair(text).filter(|(id, _)| sid::is_api_key(id)));
        let api_keys: Option<Vec<_>> = api_keys.collect();
        let shared_key = match &options.shared_key {
            None => None,
            Some(text) => {
                let (id, secret) = pair(text).ok_or("--shared-key is not ID:SECRET")?;
                Some((id, Key::new(Algorithm::HmacSha256, secret.as_bytes())))
            }
        };
        Ok(Self {
            accounts,
            api_keys: api_keys.ok_or("--api-key is not SK…:SECRET")?,
            shared_key,
        })
    }

    /// The account whose resources a request with this Authorization header may use, if it is `wanted`.
    pub(crate) fn authorize(
        &self,
        header: Option<&str>,
        wanted: &str,
    ) -> Result<&Account, Refusal> {
        let own = self.authenticate(header)?;
        if own.sid != wanted {
            // The resources of another account are refused like wrong credentials.
            let code = if sid::is_account(wanted) {
                20003
            } else {
                20404
            };
            return Err(Refusal::new(code));
        }
        Ok(own)
    }

    /// The account that a request with this Authorization header comes from.
    pub(crate) fn authenticate(&self, header: Option<&str>) -> Result<&Account, Refusal> {
        let (user, password) = header.and_then(credentials).ok_or(Refusal::new(20003))?;
        let is_key = self.api_keys.contains(&(user.clone(), password.clone()));
        let own = match is_key {
            true => self.accounts.first(),
            false => self
                .accounts
                .iter()
                .find(|a| a.sid == user && a.token == password),
        };
        own.ok_or(Refusal::new(20003))
    }

    /// The account with the SID `sid`.
    pub(crate) fn find(&self, sid: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.sid == sid)
    }

    /// The account given first.
    pub(crate) fn first_sid(&self) -> &str {
        self.accounts.first().map_or("", |account| &account.sid)
    }
}

/// User and password of a Basic header; the user ends at the first colon.
pub(crate) fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn account(sid: &str, token: &str) -> Option<Account> {
    let is_complete = sid::is_account(sid) && !token.is_empty();
    is_complete.then(|| Account {
        sid: sid.to_owned(),
        token: token.to_owned(),
        key: Key::new(Algorithm::HmacSha1, token.as_bytes()),
    })
}
