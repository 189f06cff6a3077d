//! Whether callbacks can be stored now, for `/ready` and for refusing requests early.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the writers found last.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    connected: AtomicUsize,
    /// Milliseconds from the start to the last commit or probe, and to the last lost connection.
    last_good: AtomicU64,
    last_lost: AtomicU64,
    smsgate: AtomicU8,
    is_stopping: AtomicBool,
    cause: Mutex<String>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            connected: AtomicUsize::new(0),
            last_good: AtomicU64::new(0),
            last_lost: AtomicU64::new(0),
            smsgate: AtomicU8::new(UNKNOWN),
            is_stopping: AtomicBool::new(false),
            cause: Mutex::new("not connected yet".into()),
        }
    }

    pub(crate) fn connected(&self, has_smsgate: bool) {
        let smsgate = if has_smsgate { PRESENT } else { ABSENT };
        self.smsgate.store(smsgate, Ordering::Relaxed);
        self.good();
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self, cause: &str) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
        self.last_lost.store(self.now(), Ordering::Relaxed);
        self.failed(cause);
    }

    /// Records why there is no connection. Returns whether the reason is new.
    pub(crate) fn failed(&self, cause: &str) -> bool {
        let mut kept = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *kept != cause;
        cause.clone_into(&mut kept);
        is_news
    }

    /// Records that a commit or a probe succeeded.
    pub(crate) fn good(&self) {
        self.last_good.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn writers_connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether the database has been away for longer than a restart takes. Waiting for it would only pile up
    /// requests.
    pub(crate) fn is_away(&self) -> bool {
        self.writers_connected() == 0 && self.since(&self.last_lost) > RESTART
    }

    /// Whether the database is known to lack the function for SMSGate.
    pub(crate) fn lacks_smsgate(&self) -> bool {
        self.smsgate.load(Ordering::Relaxed) == ABSENT
    }

    /// Why callbacks cannot be stored; none if they can.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Some("stopping".into());
        }
        if self.writers_connected() == 0 {
            let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(format!("no connection to the database: {cause}"));
        }
        let silence = self.since(&self.last_good);
        (silence >= STALE).then(|| {
            let seconds = silence.as_secs();
            format!("the database has not answered for {seconds} s")
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, then: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(then.load(Ordering::Relaxed)))
    }
}

/// A commit or a probe that is older does not show that the database works now.
const STALE: Duration = Duration::from_secs(5);
/// How long requests wait for a database that restarts.
const RESTART: Duration = Duration::from_secs(3);

const UNKNOWN: u8 = 0;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_while_one_writer_is_connected() {
        let health = Health::new();
        assert_eq!(
            health.problem().as_deref(),
            Some("no connection to the database: not connected yet")
        );
        health.connected(true);
        health.connected(true);
        health.lost("killed");
        assert_eq!(health.problem(), None);
        health.lost("refused");
        assert_eq!(
            health.problem().as_deref(),
            Some("no connection to the database: refused")
        );
    }

    #[test]
    fn is_not_ready_while_stopping_or_after_a_silence() {
        let mut health = Health::new();
        health.connected(false);
        health.started -= Duration::from_secs(6);
        assert_eq!(
            health.problem().as_deref(),
            Some("the database has not answered for 6 s")
        );
        health.good();
        assert_eq!(health.problem(), None);
        health.stop();
        assert_eq!(health.problem().as_deref(), Some("stopping"));
    }

    #[test]
    fn requests_wait_for_a_restart_but_not_for_longer() {
        let mut health = Health::new();
        assert!(!health.is_away());
        health.started -= Duration::from_secs(4);
        assert!(health.is_away());
        health.connected(true);
        assert!(!health.is_away());
        health.lost("gone");
        assert!(!health.is_away());
        health.started -= Duration::from_secs(4);
        assert!(health.is_away());
    }

    #[test]
    fn smsgate_is_missing_only_when_known_to_be() {
        let health = Health::new();
        assert!(!health.lacks_smsgate());
        health.connected(false);
        assert!(health.lacks_smsgate());
        health.connected(true);
        assert!(!health.lacks_smsgate());
    }
}
