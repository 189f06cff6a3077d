//! The id of a request in the log: from the proxy, from Twilio, or generated here.

use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderMap;

/// A short id of letters, digits, `-`, `_` and `.`, stored inline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId {
    bytes: [u8; MAX_LENGTH],
    length: u8,
}

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        // Only ASCII is stored.
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if text.is_empty() || text.len() > MAX_LENGTH || !text.iter().all(is_plain) {
            return None;
        }
        let mut bytes = [0; MAX_LENGTH];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self {
            bytes,
            length: u8::try_from(text.len()).ok()?,
        })
    }
}

/// Generates ids for requests without a printable one.
#[derive(Debug)]
pub(crate) struct RequestIds {
    /// Tells the ids of two processes apart.
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self {
            process: (RandomState::new().build_hasher().finish() >> 32) as u32,
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn of(&self, headers: &HeaderMap) -> RequestId {
        HEADERS
            .iter()
            .filter_map(|name| headers.get(*name))
            .find_map(|value| RequestId::parse(value.as_bytes()))
            .unwrap_or_else(|| self.make())
    }

    fn make(&self) -> RequestId {
        let mut id = RequestId {
            bytes: [0; MAX_LENGTH],
            length: 0,
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut rest = Remaining(&mut id);
        // At most 8 + 1 + 16 characters, so it always fits.
        let _ = write!(rest, "{:08x}-{number:x}", self.process);
        id
    }
}

struct Remaining<'a>(&'a mut RequestId);

impl Write for Remaining<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let start = usize::from(self.0.length);
        let end = start + text.len();
        let space = self.0.bytes.get_mut(start..end).ok_or(std::fmt::Error)?;
        space.copy_from_slice(text.as_bytes());
        self.0.length = u8::try_from(end).map_err(|_| std::fmt::Error)?;
        Ok(())
    }
}

const HEADERS: [&str; 2] = ["x-request-id", "i-twilio-idempotency-token"];
const MAX_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        RequestIds::new().of(&map).as_str().to_owned()
    }

    #[test]
    fn the_proxys_id_comes_before_twilios() {
        let token = ("i-twilio-idempotency-token", "6a3c-token");
        assert_eq!(id(&[("x-request-id", "abc.1"), token]), "abc.1");
        assert_eq!(id(&[token]), "6a3c-token");
    }

    #[test]
    fn ids_that_could_spoil_the_log_are_replaced() {
        for bad in ["", "a b", "a\"b", "a=b", "a\tb", &"x".repeat(65)] {
            let id = id(&[("x-request-id", bad)]);
            assert_ne!(id, bad);
            assert!(id.len() >= 10, "{id}");
        }
        assert_eq!(id(&[("x-request-id", &"x".repeat(64))]), "x".repeat(64));
    }

    #[test]
    fn made_ids_differ() {
        let ids = RequestIds::new();
        let empty = HeaderMap::new();
        assert_ne!(ids.of(&empty).as_str(), ids.of(&empty).as_str());
    }
}
