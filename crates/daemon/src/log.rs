//! Structured lines on stderr, written by a thread of their own so that a slow reader of the log
//! never holds up a callback.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::logfmt::{Format, Level, Line};

/// The log on standard error.
#[derive(Debug)]
pub struct Log {
    format: Format,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    is_writing: bool,
}

impl Log {
    /// Starts the thread that writes the log.
    ///
    /// # Errors
    ///
    /// The operating system's error if it refuses the thread.
    pub fn start(format: Format) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let written = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".into())
            .stack_size(64 << 10)
            .spawn(move || written.write_out())?;
        Ok(Self { format, shared })
    }

    /// Starts a line in a buffer; pass the buffer to [`Self::write`] when its lines are complete.
    pub fn line<'a>(&self, out: &'a mut Vec<u8>, level: Level, event: &str) -> Line<'a> {
        Line::new(out, self.format, SystemTime::now(), level, event)
    }

    /// Queues complete lines without waiting. If the reader of standard error is too slow, they are dropped and
    /// counted.
    pub fn write(&self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut pending = self.shared.lock();
        if pending.bytes.len() + lines.len() > MAX_PENDING {
            drop(pending);
            let count = lines.iter().filter(|&&byte| byte == b'\n').count();
            self.shared
                .dropped
                .fetch_add(count as u64, Ordering::Relaxed);
            return;
        }
        let is_asleep = pending.bytes.is_empty() && !pending.is_writing;
        pending.bytes.extend_from_slice(lines);
        drop(pending);
        if is_asleep {
            self.shared.changed.notify_all();
        }
    }

    /// Writes one line about the process itself.
    pub fn message(&self, level: Level, event: &str, text: &str) {
        let mut line = Vec::with_capacity(256);
        self.line(&mut line, level, event).text("msg", text).end();
        self.write(&line);
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, for a second at most.
    pub fn flush(&self) {
        let pending = self.shared.lock();
        let is_left = |pending: &mut Pending| !pending.bytes.is_empty() || pending.is_writing;
        let _ = self
            .shared
            .changed
            .wait_timeout_while(pending, Duration::from_secs(1), is_left);
    }
}

impl Shared {
    fn write_out(&self) {
        let mut bytes = Vec::new();
        loop {
            let mut pending = self.lock();
            pending.is_writing = false;
            self.changed.notify_all();
            while pending.bytes.is_empty() {
                pending = self
                    .changed
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut bytes, &mut pending.bytes);
            pending.is_writing = true;
            drop(pending);
            // If stderr is closed, the error cannot be reported either.
            let _ = io::stderr().write_all(&bytes);
            bytes.clear();
            bytes.shrink_to(KEPT_CAPACITY);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // No code that can panic runs under the lock.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that may wait for a slow reader.
const MAX_PENDING: usize = 1 << 20;
/// Bytes that the buffer keeps allocated between writes.
const KEPT_CAPACITY: usize = 64 << 10;
