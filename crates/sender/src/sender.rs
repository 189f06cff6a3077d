//! The pool of threads, and the queue between it and its owner.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::agent::Agents;
use crate::config::Config;
use crate::exchange;
use crate::memory;
use crate::outcome::{Failure, FailureKind, Outcome, Report};
use crate::request::Request;
use crate::signal::Blocked;
use crate::wake::Wake;

/// Sends requests on threads of its own.
///
/// Threads start when there is work for them, with all signals blocked, and end when idle. The owner pushes requests
/// and takes the reports when the descriptor is readable. A request occupies one of the [`Config::in_flight`] places
/// until its report is taken, which limits the memory that a sender needs.
pub struct Sender(Arc<Shared>);

impl Sender {
    /// Prepares a sender. Threads and connections are made later, for requests.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if a setting is out of its range, [`Error::Proxy`] if a proxy's address is malformed,
    /// [`Error::Wake`] if the operating system refuses a descriptor.
    pub fn start(config: Config) -> Result<Self, Error> {
        if !(1..=10_000).contains(&config.in_flight) {
            return Err(Error::Setting("requests in flight must be 1 to 10000"));
        }
        if config.stack_size < 128 * 1024 {
            return Err(Error::Setting("a thread needs a stack of at least 128 KiB"));
        }
        Ok(Self(Arc::new(Shared {
            agents: Agents::new(&config)?,
            wake: Wake::new().map_err(Error::Wake)?,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            config,
        })))
    }

    /// The number of requests that can be pushed now.
    pub fn room(&self) -> usize {
        let state = self.0.lock();
        if state.is_closed {
            return 0;
        }
        self.0.config.in_flight.saturating_sub(state.held())
    }

    /// The number of pushed requests whose report has not been taken.
    pub fn in_flight(&self) -> usize {
        self.0.lock().held()
    }

    /// Pushes a request without waiting.
    ///
    /// # Errors
    ///
    /// [`PushError`], which returns the request: the sender is full or closed, or the operating system refuses the
    /// first thread.
    pub fn push(&self, request: Request) -> Result<(), PushError> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(PushError::Closed(request));
        }
        if state.held() >= self.0.config.in_flight {
            return Err(PushError::Full(request));
        }
        state.queue.push_back((request, Instant::now()));
        // Threads that were woken but do not run yet still count as idle.
        if state.idle >= state.queue.len() {
            self.0.work.notify_one();
            return Ok(());
        }
        if state.threads >= self.0.config.in_flight {
            return Ok(());
        }
        match spawn(&self.0) {
            Ok(()) => state.threads += 1,
            // Any running thread will serve the request, only later.
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                if let Some((request, _)) = state.queue.pop_back() {
                    return Err(PushError::NoThread(request, error));
                }
            }
        }
        Ok(())
    }

    /// Takes all available reports without waiting, and makes the descriptor unreadable.
    pub fn receive(&self) -> Vec<Report> {
        // The order matters: a report that arrives in between makes the descriptor readable again.
        self.0.wake.clear();
        self.0.lock().reports.drain(..).collect()
    }

    /// Refuses further requests. Requests that have not begun are reported as not processed.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        while let Some((request, _)) = state.queue.pop_front() {
            state.reports.push_back(Report {
                id: request.id,
                outcome: Outcome::NotProcessed(Failure::new(
                    FailureKind::Stopped,
                    "the sender is stopped",
                )),
                elapsed: Duration::ZERO,
            });
        }
        let has_reports = !state.reports.is_empty();
        drop(state);
        if has_reports {
            self.0.wake.raise();
        }
        self.0.work.notify_all();
    }

    /// Closes the sender, waits at most `grace` (at most a day) for the running requests, then breaks their
    /// connections.
    pub fn stop(self, grace: Duration) -> Stopped {
        self.close();
        let deadline = Instant::now() + grace.min(Duration::from_secs(24 * 3600));
        let mut state = self.0.lock();
        while state.threads > 0
            && let Some(left) = deadline.checked_duration_since(Instant::now())
        {
            state = self
                .0
                .ended
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Stopped {
            reports: state.reports.drain(..).collect(),
            unfinished: state.running.values().copied().collect(),
        }
        // Dropping the sender breaks the remaining connections.
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.close();
        self.0.agents.shut_down();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("config", &self.0.config)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// The descriptor to wait on, readable when [`Sender::receive`] has reports.
impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

/// Why a request could not be pushed, with the request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// As many requests as allowed are in flight.
    #[error("as many requests as allowed are in flight")]
    Full(Request),
    /// The sender is closed.
    #[error("the sender is closed")]
    Closed(Request),
    /// The operating system refused a thread.
    #[error("no thread to send with: {1}")]
    NoThread(Request, io::Error),
}

/// The remaining reports and requests of a stopped sender.
#[derive(Debug)]
pub struct Stopped {
    /// The reports that had not been taken.
    pub reports: Vec<Report>,
    /// Ids of the requests that were running when `grace` ended. As for [`Outcome::Unknown`], a server may have acted
    /// on them.
    pub unfinished: Vec<i64>,
}

struct Shared {
    config: Config,
    agents: Agents,
    wake: Wake,
    state: Mutex<State>,
    /// There is work, or no more will come.
    work: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Request, Instant)>,
    /// Ids of the running requests, by a number that is unique even if ids are not.
    running: HashMap<u64, i64>,
    next_run: u64,
    reports: VecDeque<Report>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl State {
    fn held(&self) -> usize {
        self.queue.len() + self.running.len() + self.reports.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs on each thread until it ends.
    fn serve(&self) {
        while let Some((run, request, pushed_at)) = self.next() {
            let report = exchange::run(&self.agents, request, pushed_at, self.config.body_limit);
            let mut state = self.lock();
            state.running.remove(&run);
            let was_empty = state.reports.is_empty();
            state.reports.push_back(report);
            drop(state);
            if was_empty {
                self.wake.raise();
            }
        }
    }

    /// Waits for a request; `None` if the thread has to end.
    fn next(&self) -> Option<(u64, Request, Instant)> {
        let mut state = self.lock();
        loop {
            if let Some((request, pushed_at)) = state.queue.pop_front() {
                let run = state.next_run;
                state.next_run += 1;
                state.running.insert(run, request.id);
                return Some((run, request, pushed_at));
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let (guard, wait) = self
                .work
                .wait_timeout(state, self.config.thread_idle)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if wait.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        let is_last = state.threads == 0 && !state.is_closed;
        drop(state);
        self.ended.notify_all();
        if is_last {
            self.agents.forget_connections();
            memory::trim();
        }
        None
    }
}

fn spawn(shared: &Arc<Shared>) -> io::Result<()> {
    let shared_by_thread = Arc::clone(shared);
    let _blocked = Blocked::all();
    thread::Builder::new()
        .name("sender".to_owned())
        .stack_size(shared.config.stack_size)
        .spawn(move || shared_by_thread.serve())
        .map(drop)
}
