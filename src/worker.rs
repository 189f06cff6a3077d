//! The worker: claims, sends and finishes, with no transaction open while the network is waited for.

pub(crate) mod callback_gap;
pub(crate) mod clock_correction;
pub(crate) mod exclusive_access;
pub(crate) mod feed;
pub(crate) mod handler;
pub(crate) mod launcher;
pub(crate) mod lock;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod reconciliation;
pub(crate) mod timed_rule;
pub(crate) mod unsaved;
pub(crate) mod wake;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::prelude::*;
use sender::{Config, Outcome, Sender};

use crate::clock::now;
use crate::credential::Credential;
use crate::extension::is_installed;
use crate::provider::job::{self, InFlight};
use crate::provider::media::Media;
use crate::provider::queue::{self, MessageJob, MessageResult, Task};
use crate::provider::sweep::Sweep;
use crate::provider::twilio::media_check;
use crate::provider::twilio::{self, Found};
use crate::setting;
use crate::spi::log_once_a_minute;
use crate::spi::transaction;
use crate::worker::callback_gap::CallbackGaps;
use crate::worker::clock_correction::Clock;
use crate::worker::exclusive_access::ExclusiveAccess;
use crate::worker::feed::Feed;
use crate::worker::poll::{Fairness, NAP, PollBackoff};
use crate::worker::process::{
    exit, own_pid, prepare_session, reload_if_asked, report_activity, report_statistics,
};
use crate::worker::timed_rule::TimedRules;
use crate::worker::unsaved::UnsavedResults;

/// The main function of the worker. The argument is the database's OID, or 0 if the launcher gave a name.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn twilio_callback_worker_main(argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let database = pg_sys::Oid::from(u32::try_from(argument.value()).unwrap_or(0));
    let is_asked_for = database != pg_sys::InvalidOid;
    if is_asked_for {
        BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    } else {
        BackgroundWorker::connect_worker_to_spi(Some(BackgroundWorker::get_extra()), None);
    }
    prepare_session(c"twilio_callback worker");
    if is_asked_for && launcher::is_successor() {
        launcher::succeed();
        exit(0);
    }
    exit(match begin(is_asked_for) {
        Beginning::Work => Worker::start(is_asked_for).map_or(1, Worker::run),
        Beginning::NotWanted => 0,
        Beginning::Terminated => 1,
        Beginning::InTheWay => give_way(is_asked_for),
    })
}

/// Makes sure that a worker that gives way is started again; returns the exit status.
fn give_way(is_asked_for: bool) -> i32 {
    log!(
        "twilio_callback worker disconnects: another session needs exclusive access to the database"
    );
    // The launcher starts a worker again by itself. One that start_worker() started would come back again and again
    // after an end with 1, even if the database is gone by then.
    i32::from(!(is_asked_for && launcher::launch_successor()))
}

/// How the wait for the extension ended.
enum Beginning {
    Work,
    NotWanted,
    Terminated,
    InTheWay,
}

/// Waits until there is an extension of this library's version, then becomes its worker.
fn begin(is_asked_for: bool) -> Beginning {
    let asked_at = Instant::now();
    let mut exclusive_access = ExclusiveAccess::new();
    loop {
        let begun = transaction(|| {
            if !is_installed()? {
                return Ok(None);
            }
            process::begin_work(own_pid(), is_asked_for)
        });
        let is_patient = !is_asked_for || asked_at.elapsed() < PATIENCE;
        match begun.as_ref().map(Option::as_deref) {
            Ok(Some("begun")) => return Beginning::Work,
            Ok(Some("not wanted")) => return Beginning::NotWanted,
            // A caller that starts the worker in the transaction that creates the extension has time to commit, and a worker
            // that ends has time for that. For the launcher the next one can wait.
            Ok(Some(_)) if is_asked_for && is_patient => {}
            Ok(Some(_)) => return Beginning::NotWanted,
            Ok(None) if is_patient => report_activity(c"waiting for the extension", false),
            Ok(None) => return Beginning::NotWanted,
            Err(error) => {
                log_once_a_minute(&format!("twilio_callback worker cannot begin: {error}"))
            }
        }
        let wait = if is_asked_for { SHORT_NAP } else { NAP };
        let Some(check) = exclusive_access.check() else {
            return Beginning::InTheWay;
        };
        if !BackgroundWorker::wait_latch(Some(wait.min(check))) {
            return Beginning::Terminated;
        }
        reload_if_asked();
    }
}

struct Worker {
    sender: Sender,
    in_flight: HashMap<i64, MessageJob>,
    /// Results that are not saved yet.
    results: Vec<MessageResult>,
    found: Vec<(MessageJob, Found)>,
    jobs: InFlight,
    /// Results that a poll could not save.
    unsaved: UnsavedResults,
    next_sweep: Instant,
    fairness: Fairness,
    backoff: PollBackoff,
    timed_rules: TimedRules,
    gaps: CallbackGaps,
    feed: Feed,
    media: Media,
    sweep: Sweep,
    exclusive_access: ExclusiveAccess,
    clock: Clock,
    /// Whether it runs since start_worker() was called, not by the launcher.
    is_asked_for: bool,
}

/// What to do after a poll.
enum Next {
    /// Nothing to do before this time, unless woken.
    Wait(Duration),
    /// This process is not to work any more.
    Stop,
}

impl Worker {
    fn start(is_asked_for: bool) -> Option<Self> {
        let config = Config {
            in_flight: setting::max_in_flight(),
            body_limit: BODY_LIMIT,
            ..Config::default()
        };
        let sender = Sender::start(config)
            .inspect_err(|error| log!("twilio_callback worker cannot send: {error}"))
            .ok()?;
        log!("twilio_callback worker started");
        Some(Self {
            sender,
            in_flight: HashMap::new(),
            results: Vec::new(),
            found: Vec::new(),
            jobs: InFlight::default(),
            unsaved: UnsavedResults::default(),
            next_sweep: Instant::now(),
            fairness: Fairness::default(),
            backoff: PollBackoff::default(),
            timed_rules: TimedRules::default(),
            gaps: CallbackGaps::new(),
            feed: Feed::new(),
            media: Media::default(),
            sweep: Sweep::default(),
            exclusive_access: ExclusiveAccess::new(),
            clock: Clock::default(),
            is_asked_for,
        })
    }

    /// Works until the process is to end; returns the exit status.
    fn run(mut self) -> i32 {
        let status = loop {
            self.collect();
            let wait = match self.poll() {
                Ok(Next::Wait(wait)) => {
                    let media = self.media.run(&self.sender);
                    let sweep = self.sweep.run(&self.sender);
                    let next = [self.feed.run(), media, sweep, self.unsaved.run()];
                    next.into_iter().flatten().fold(wait, Duration::min)
                }
                Ok(Next::Stop) => break 0,
                Err(error) => {
                    log_once_a_minute(&format!(
                        "twilio_callback worker failed and retries: {error}"
                    ));
                    self.set_aside();
                    self.unsaved.run().map_or(RETRY, |wait| wait.min(RETRY))
                }
            };
            let Some(check) = self.exclusive_access.check() else {
                break give_way(self.is_asked_for);
            };
            if !self.wait(wait.min(check)) {
                // Started again it would find no database, again and again.
                if transaction(exclusive_access::is_database_dropped).unwrap_or(false) {
                    exit(0);
                }
                break 1;
            }
            self.gather();
            reload_if_asked();
        };
        self.end();
        status
    }

    /// Waits for the latch, an answer or time; false if the process is to end.
    fn wait(&self, wait: Duration) -> bool {
        let milliseconds = libc::c_long::try_from(wait.as_millis()).unwrap_or(libc::c_long::MAX);
        let events = pg_sys::WL_LATCH_SET
            | pg_sys::WL_SOCKET_READABLE
            | pg_sys::WL_TIMEOUT
            | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: the main thread waits on its own latch and on a descriptor that lives as long as self.
        unsafe {
            pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                events.cast_signed(),
                self.sender.as_fd().as_raw_fd(),
                milliseconds,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        check_for_interrupts!();
        !BackgroundWorker::sigterm_received()
    }

    /// Under load, lets some more answers come: a transaction costs about the same for one as for many.
    fn gather(&self) {
        if self.in_flight.len() >= BUSY {
            std::thread::sleep(GATHERING);
        }
    }

    /// Takes the responses that have arrived.
    fn collect(&mut self) {
        for report in self.sender.receive() {
            if let Some(job) = self.in_flight.remove(&report.id) {
                self.classify(job, &report.outcome);
            } else if let Some(report) = self.jobs.take(&self.sender, report)
                && let Some(report) = self.sweep.take(report)
            {
                self.media.take(&self.sender, report);
            }
        }
    }

    fn classify(&mut self, mut job: MessageJob, outcome: &Outcome) {
        let now = now();
        match job.task {
            Task::CheckMedia => match media_check::classify(&mut job, outcome, &now) {
                Ok(()) => self.push(job),
                Err(result) => self.results.push(result),
            },
            Task::Create => self.results.push(twilio::created(&job, outcome, &now)),
            Task::Reconcile => match twilio::reconciled(&mut job, outcome, &now) {
                Ok(Some(found)) => self.found.push((job, found)),
                Ok(None) => self.push(job),
                Err(result) => self.results.push(result),
            },
        }
    }

    /// One transaction: saves results and claims jobs that are due. The claimed jobs are sent once that is
    /// committed.
    fn poll(&mut self) -> Result<Next, String> {
        report_activity(c"looking for work", true);
        let is_sweep_due = self.next_sweep <= Instant::now();
        // The next sweep is later even if this one fails, so that it delays nothing else.
        if is_sweep_due {
            self.next_sweep = Instant::now() + SWEEP;
        }
        self.clock.run(is_sweep_due);
        self.gaps.run();
        if is_sweep_due {
            reconciliation::examine();
        }
        let room = self.room();
        let (results, found, job_results) = (&self.results, &self.found, &self.jobs.results);
        self.fairness = self.fairness.next();
        let fairness = self.fairness;
        let polled = transaction(|| {
            if is_installed()? {
                poll::run(results, found, job_results, room, fairness, is_sweep_due).map(Some)
            } else {
                Ok(None)
            }
        })?;
        let Some(polled) = polled else {
            // Without the extension there is nothing to write to; its leases went with it.
            self.results.clear();
            self.found.clear();
            self.jobs.results.clear();
            report_activity(c"waiting for the extension", false);
            return Ok(Next::Wait(NAP));
        };
        if !polled.is_wanted {
            return Ok(Next::Stop);
        }
        self.jobs.results.clear();
        self.results.clear();
        self.found.clear();
        let has_taken = !(polled.message_jobs.is_empty() && polled.jobs.is_empty());
        for job in polled.message_jobs {
            self.send(job, &polled.credentials);
        }
        for job in polled.jobs {
            self.jobs.begin(&self.sender, job);
        }
        let plan = self.timed_rules.run(polled.overdue);
        report_statistics();
        report_activity(
            if self.in_flight.is_empty() && self.jobs.len() == 0 {
                c"idle"
            } else {
                c"sending"
            },
            false,
        );
        Ok(Next::Wait(self.next_poll(polled.due, has_taken).min(plan)))
    }

    /// How many jobs can be claimed.
    fn room(&self) -> usize {
        if self.unsaved.is_full() {
            0
        } else {
            self.sender.room().saturating_sub(self.jobs.waiting())
        }
    }

    fn next_poll(&mut self, due: Option<f64>, has_taken: bool) -> Duration {
        if !self.results.is_empty() || !self.jobs.results.is_empty() {
            return Duration::ZERO;
        }
        // Without room an answer has to come first.
        let due = due.filter(|_| self.room() > 0);
        self.backoff.wait(due, has_taken)
    }

    fn send(&mut self, mut job: MessageJob, credentials: &[Credential]) {
        match poll::authorization(&job, credentials) {
            Ok(authorization) => {
                job.authorization = Some(authorization);
                self.push(job);
            }
            Err(reason) => {
                self.results.push(twilio::blocked(&job, reason, &now()));
            }
        }
    }

    fn push(&mut self, mut job: MessageJob) {
        // The response to the earlier request would be taken for one to this request.
        if self.in_flight.contains_key(&job.message_id) {
            let reason = "its last request has not ended".to_owned();
            return self.results.push(twilio::blocked(&job, reason, &now()));
        }
        let pushed = twilio::request(&mut job).and_then(|request| {
            let blocked = |e: sender::PushError| twilio::blocked(&job, e.to_string(), &now());
            self.sender.push(request).map_err(blocked)
        });
        match pushed {
            Ok(()) => drop(self.in_flight.insert(job.message_id, job)),
            Err(result) => self.results.push(result),
        }
    }

    /// After a failed transaction: results that may be the reason are saved one by one.
    fn set_aside(&mut self) {
        let (results, job_results) = (&mut self.results, &mut self.jobs.results);
        self.unsaved.take(results, &mut self.found, job_results);
    }

    /// Waits a short time for requests in flight and saves the results.
    fn end(mut self) {
        report_activity(c"ending", false);
        let stopped = self.sender.stop(setting::stop_grace());
        self.feed.end();
        let mut in_flight = self.in_flight;
        let now = now();
        // A job whose files were being checked has sent nothing.
        let checks = in_flight.extract_if(|_, job| job.task == Task::CheckMedia);
        let deferred = |(_, job)| twilio::deferred(&job, "the worker ended".to_owned());
        self.results.extend(checks.map(deferred));
        let mut others = Vec::new();
        for report in stopped.reports {
            match in_flight.remove(&report.id) {
                Some(job) if job.task == Task::Create => {
                    self.results
                        .push(twilio::created(&job, &report.outcome, &now))
                }
                Some(_) => {}
                None => others.push(report),
            }
        }
        self.jobs.end(others);
        let (results, job_results) = (&self.results, &self.jobs.results);
        let written = transaction(|| {
            if is_installed()? {
                queue::finish(results)?;
                job::finish(job_results)
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            log!("twilio_callback worker cannot finish: {error}");
            let (results, job_results) = (&mut self.results, &mut self.jobs.results);
            self.unsaved.take(results, &mut self.found, job_results);
        }
        self.unsaved.run();
        log!(
            "twilio_callback worker ended, {} requests left open",
            in_flight.len() + self.jobs.len()
        );
    }
}

/// With so many requests in flight, responses are collected for a moment.
const BUSY: usize = 32;
const GATHERING: Duration = Duration::from_millis(4);
const BODY_LIMIT: usize = 1024 * 1024;
const RETRY: Duration = Duration::from_millis(500);
const SWEEP: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT_NAP: Duration = Duration::from_millis(100);
