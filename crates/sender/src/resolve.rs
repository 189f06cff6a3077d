//! Resolves host names: at most one look-up of a name at a time, with a cache of 30 seconds, and with the check that
//! keeps untrusted URLs away from internal addresses.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::destination::{Fault, Host};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::config::{AddressCheck, Lookup};

/// Why a host has no usable address; travels inside [`ureq::Error::Other`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("{0}")]
    NotFound(String),
    #[error("the host has no address that may be connected to")]
    Refused,
    #[error("the URL cannot be used: {0}")]
    Host(Fault),
}

impl From<NameError> for ureq::Error {
    fn from(error: NameError) -> Self {
        Self::Other(Box::new(error))
    }
}

thread_local! {
    static IS_TARGET_NEXT: Cell<bool> = const { Cell::new(true) };
}

/// Starts a new request on this thread: the first name it resolves is the target's. Any further name is its proxy's,
/// which the operator configured and which may be internal.
pub(crate) fn begin() {
    IS_TARGET_NEXT.set(true);
}

/// The resolver of one agent.
pub(crate) struct Names {
    pub(crate) cache: Arc<Cache>,
    /// Set for agents that may only connect to addresses that it accepts.
    pub(crate) check: Option<AddressCheck>,
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let is_target = IS_TARGET_NEXT.replace(false);
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            Some("socks4" | "socks4a" | "socks5" | "socks5h") => 1080,
            _ => 80,
        });
        let addresses = match Host::parse(host).map_err(NameError::Host)? {
            Host::Address(address) => vec![SocketAddr::new(address, port)],
            Host::Name(name) => self
                .cache
                .addresses(name, port, *timeout.after)
                .ok_or(ureq::Error::Timeout(timeout.reason))?
                .map_err(NameError::NotFound)?,
        };
        let mut accepted = self.empty();
        for address in addresses {
            let is_accepted = match &self.check {
                Some(check) if is_target => check(address.ip()),
                _ => true,
            };
            if is_accepted && accepted.len() < MAX_ADDRESSES {
                accepted.push(address);
            }
        }
        if accepted.is_empty() {
            return Err(NameError::Refused.into());
        }
        Ok(accepted)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("is_checked", &self.check.is_some())
            .finish_non_exhaustive()
    }
}

type Answer = Result<Vec<SocketAddr>, String>;

enum Entry {
    Asked,
    Answered(Answer, Instant),
}

/// The addresses of names, shared by all agents of a sender.
pub(crate) struct Cache {
    lookup: Lookup,
    entries: Mutex<HashMap<(String, u16), Entry>>,
    answered: Condvar,
}

impl Cache {
    pub(crate) fn new(lookup: Option<Lookup>) -> Arc<Self> {
        Arc::new(Self {
            lookup: lookup.unwrap_or_else(|| Arc::new(system_lookup)),
            entries: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    /// The addresses of a name, or `None` after `timeout`. A look-up that hangs cannot be cancelled, so each name is
    /// looked up on a thread of its own.
    fn addresses(self: &Arc<Self>, host: String, port: u16, timeout: Duration) -> Option<Answer> {
        // Long enough for any request, and does not overflow if there is no timeout.
        let deadline = Instant::now() + timeout.min(Duration::from_secs(3600));
        let key = (host, port);
        let mut entries = self.lock();
        loop {
            match entries.get(&key) {
                Some(Entry::Answered(answer, at)) if at.elapsed() < lifetime(answer) => {
                    return Some(answer.clone());
                }
                Some(Entry::Asked) => {}
                _ => {
                    if entries.len() >= MAX_ENTRIES {
                        entries.retain(|_, entry| match entry {
                            Entry::Asked => true,
                            Entry::Answered(answer, at) => at.elapsed() < lifetime(answer),
                        });
                    }
                    entries.insert(key.clone(), Entry::Asked);
                    if let Err(error) = self.ask(key.clone()) {
                        entries.remove(&key);
                        return Some(Err(format!("no thread for a look-up: {error}")));
                    }
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            entries = self
                .answered
                .wait_timeout(entries, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn ask(self: &Arc<Self>, key: (String, u16)) -> io::Result<()> {
        let cache = Arc::clone(self);
        thread::Builder::new()
            .name("sender name".to_owned())
            .stack_size(LOOKUP_STACK)
            .spawn(move || {
                let (host, port) = &key;
                // A panic must not leave the name as asked forever.
                let answer = panic::catch_unwind(AssertUnwindSafe(|| (cache.lookup)(host, *port)))
                    .unwrap_or_else(|_| Err(io::Error::other("the look-up failed")))
                    .map_err(|error| error.to_string());
                let entry = Entry::Answered(answer, Instant::now());
                cache.lock().insert(key, entry);
                cache.answered.notify_all();
            })
            .map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, u16), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lifetime(answer: &Answer) -> Duration {
    match answer {
        Ok(_) => Duration::from_secs(30),
        // Long enough for all that wait now, short enough to notice soon that the name server works again.
        Err(_) => Duration::from_millis(500),
    }
}

fn system_lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    (host, port).to_socket_addrs().map(Iterator::collect)
}

const MAX_ADDRESSES: usize = 16;
const MAX_ENTRIES: usize = 256;
/// The system's resolver loads modules that use more stack than a request does.
const LOOKUP_STACK: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn concurrent_requests_cause_one_lookup() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let cache = Cache::new(Some(Arc::new(move |_, port| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        })));
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let cache = Arc::clone(&cache);
                thread::spawn(move || {
                    cache.addresses("a.example".to_owned(), 80, Duration::from_secs(10))
                })
            })
            .collect();
        for thread in threads {
            let answer = thread.join().unwrap().unwrap().unwrap();
            assert_eq!(answer, [SocketAddr::from(([127, 0, 0, 1], 80))]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_lookup_that_hangs_or_panics_does_not_block_others() {
        let cache = Cache::new(Some(Arc::new(|host, _| {
            if host == "hangs.example" {
                thread::park_timeout(Duration::from_secs(60));
            }
            panic!("staged");
        })));
        let none = cache.addresses("hangs.example".to_owned(), 80, Duration::from_millis(20));
        assert!(none.is_none());
        let failed = cache.addresses("panics.example".to_owned(), 80, Duration::from_secs(10));
        assert!(failed.unwrap().is_err());
    }

    #[test]
    fn the_cache_stays_small() {
        let cache = Cache::new(Some(Arc::new(|_, _| Err(io::Error::other("staged")))));
        for number in 0..MAX_ENTRIES * 2 {
            let host = format!("h{number}.example");
            assert!(
                cache
                    .addresses(host, 80, Duration::from_secs(10))
                    .unwrap()
                    .is_err()
            );
            // Expired entries are dropped when room is needed.
            for entry in cache.lock().values_mut() {
                if let Entry::Answered(_, at) = entry {
                    *at = at.checked_sub(Duration::from_secs(60)).unwrap_or(*at);
                }
            }
        }
        assert!(cache.lock().len() <= MAX_ENTRIES);
    }
}
