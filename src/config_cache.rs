//! Keys, public URLs and whether there are rules by time, as this connection knows them: read once, and again
//! after they changed.
//!
//! Reading them took as long as recording a callback. A change is announced as PostgreSQL announces those of its
//! catalog: by a message that every connection takes in before it looks, sent when the change commits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Once;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::credential::{self, SigningKey};
use crate::function;
use crate::heap::relation;
use crate::statement;

#[derive(Default)]
struct Known {
    /// The table whose change is announced; it has another number after the extension was made anew.
    table: Option<pg_sys::Oid>,
    urls: Option<Vec<String>>,
    has_timed_rules: Option<bool>,
    keys: HashMap<String, Vec<SigningKey>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
    /// Counts the announcements: what was read while one came is not kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// The keys of these accounts that live now, and of any account if one request names none; the base URLs.
pub(crate) fn keys_and_urls(
    accounts: Vec<&str>,
    is_anonymous: bool,
) -> Result<(Vec<SigningKey>, Vec<String>), ErrorReport> {
    listen();
    let mut keys = keys_of(accounts)?;
    let now = function::now_in_microseconds();
    keys.retain(|key| key.lives_at(now));
    if is_anonymous {
        keys.extend(credential::keys(MAX_ANONYMOUS_KEYS, |key| {
            key.lives_at(now)
        })?);
    }
    Ok((keys, urls()?))
}

fn keys_of(accounts: Vec<&str>) -> Result<Vec<SigningKey>, ErrorReport> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    KNOWN.with_borrow(|known| {
        for account in accounts {
            match known.keys.get(account) {
                Some(keys) => found.extend(keys.iter().cloned()),
                None => missing.push(account),
            }
        }
    });
    if missing.is_empty() {
        return Ok(found);
    }
    let before = CHANGES.get();
    let mut read = Vec::new();
    for account in missing {
        read.extend(credential::keys_of(account)?);
    }
    if may_be_kept() && before == CHANGES.get() {
        KNOWN.with_borrow_mut(|known| {
            if known.keys.len() > MAX_ACCOUNTS {
                known.keys.clear();
            }
            // Accounts without a key are not kept, since a request may name any number of accounts.
            for key in &read {
                let keys = known.keys.entry(key.account_sid.clone()).or_default();
                keys.push(key.clone());
            }
        });
    }
    found.extend(read);
    Ok(found)
}

fn urls() -> Result<Vec<String>, ErrorReport> {
    if let Some(urls) = KNOWN.with_borrow(|known| known.urls.clone()) {
        return Ok(urls);
    }
    let before = CHANGES.get();
    let urls = as_of_now(statement::public_urls)?;
    if may_be_kept() && before == CHANGES.get() {
        KNOWN.with_borrow_mut(|known| known.urls = Some(urls.clone()));
    }
    Ok(urls)
}

/// Whether messages that are made are to be watched. Asking for each took half as long as recording one.
pub(crate) fn has_timed_rules() -> Result<bool, ErrorReport> {
    listen();
    if let Some(has_rules) = KNOWN.with_borrow(|known| known.has_timed_rules) {
        return Ok(has_rules);
    }
    let before = CHANGES.get();
    let has_rules = as_of_now(statement::has_timed_rules)?;
    if may_be_kept() && before == CHANGES.get() {
        KNOWN.with_borrow_mut(|known| known.has_timed_rules = Some(has_rules));
    }
    Ok(has_rules)
}

/// Reads what is committed now. The statement that called us may have begun before the change whose
/// announcement was taken in since.
fn as_of_now<T>(read: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; an error that passes by here takes the snapshot back with it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let result = read();
    // SAFETY: the snapshot on top of the stack is the one that this function pushed: calls in between pop what they push.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// A transaction that has one snapshot for all its statements may read what does not count any more.
fn may_be_kept() -> bool {
    // SAFETY: PostgreSQL's code and ours read and write it on this thread only.
    unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ.cast_signed() }
}

/// Takes in what was announced up to now.
fn listen() {
    static REGISTERED: Once = Once::new();
    // SAFETY: a callback of the right type, registered once in the life of the process.
    REGISTERED.call_once(|| unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
    });
    // SAFETY: inside a transaction, as every SQL function is.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    if KNOWN.with_borrow(|known| known.table.is_none()) {
        let table = relation(c"signing_key");
        KNOWN.with_borrow_mut(|known| known.table = Some(table));
    }
}

/// Called by PostgreSQL for each relation that changed, 0 for all; must not fail.
unsafe extern "C-unwind" fn forget(_: pg_sys::Datum, relation: pg_sys::Oid) {
    KNOWN.with_borrow_mut(|known| {
        if relation == pg_sys::InvalidOid || known.table.is_none_or(|table| table == relation) {
            *known = Known::default();
            CHANGES.set(CHANGES.get() + 1);
        }
    });
}

/// Announces that keys, public URLs or rules changed: at once to this transaction, to others when it commits.
#[pg_extern]
fn invalidate_config_cache() {
    // SAFETY: the table is there, or the call raises.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation(c"signing_key")) };
}

/// Requests that name no account are tried with at most so many keys, so that they cost little.
const MAX_ANONYMOUS_KEYS: usize = 8;

/// Beyond so many accounts a connection begins anew.
const MAX_ACCOUNTS: usize = 10_000;
