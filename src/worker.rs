//! The worker: claims, sends and finishes, with no transaction open while the network is waited for.

pub(crate) mod clock_correction;
pub(crate) mod exclusive_access;
pub(crate) mod feed;
pub(crate) mod handler;
pub(crate) mod launcher;
pub(crate) mod lock;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod timed_rule;
pub(crate) mod unsaved;
pub(crate) mod wake;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::prelude::*;
use sender::{Config, Outcome, Sender};

use crate::clock::moment;
use crate::credential::Credential;
use crate::extension::is_installed;
use crate::provider::job::{self, Round};
use crate::provider::media::Media;
use crate::provider::queue::{self, End, Task, Work};
use crate::provider::twilio::media_check;
use crate::provider::twilio::{self, Found};
use crate::setting;
use crate::spi::complain;
use crate::spi::transaction;
use crate::worker::clock_correction::Clock;
use crate::worker::exclusive_access::Occupancy;
use crate::worker::feed::Feed;
use crate::worker::poll::{NAP, Pace, Turn};
use crate::worker::process::{
    exit, own_pid, prepare_session, reload_if_asked, report_activity, report_statistics,
};
use crate::worker::timed_rule::Overdue;
use crate::worker::unsaved::Unwritten;

/// The worker's life. The argument is the database's OID, or 0 where the launcher gave a name.
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

/// Sees to it that a worker that gives way comes back; returns the exit status.
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
    let mut occupancy = Occupancy::new();
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
            // Who asks in the transaction that creates the extension has time to commit, and a worker
            // that ends has time for that. For the launcher the next one can wait.
            Ok(Some(_)) if is_asked_for && is_patient => {}
            Ok(Some(_)) => return Beginning::NotWanted,
            Ok(None) if is_patient => report_activity(c"waiting for the extension", false),
            Ok(None) => return Beginning::NotWanted,
            Err(error) => complain(&format!("twilio_callback worker cannot begin: {error}")),
        }
        let wait = if is_asked_for { SHORT_NAP } else { NAP };
        let Some(check) = occupancy.check() else {
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
    under_way: HashMap<i64, Work>,
    /// What came to an end and is not written down yet.
    ends: Vec<End>,
    found: Vec<(Work, Found)>,
    errands: Round,
    /// What a look could not write down.
    unwritten: Unwritten,
    next_sweep: Instant,
    turn: Turn,
    pace: Pace,
    overdue: Overdue,
    feed: Feed,
    media: Media,
    occupancy: Occupancy,
    clock: Clock,
    /// Whether it runs since start_worker() was called, not by the launcher.
    is_asked_for: bool,
}

/// What a look at the database led to.
enum Look {
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
            under_way: HashMap::new(),
            ends: Vec::new(),
            found: Vec::new(),
            errands: Round::default(),
            unwritten: Unwritten::default(),
            next_sweep: Instant::now(),
            turn: Turn::default(),
            pace: Pace::default(),
            overdue: Overdue::default(),
            feed: Feed::new(),
            media: Media::default(),
            occupancy: Occupancy::new(),
            clock: Clock::default(),
            is_asked_for,
        })
    }

    /// Works until told to end; returns the exit status.
    fn run(mut self) -> i32 {
        let status = loop {
            self.collect();
            let wait = match self.look() {
                Ok(Look::Wait(wait)) => {
                    let media = self.media.run(&self.sender);
                    let next = [self.feed.run(), media, self.unwritten.run()];
                    next.into_iter().flatten().fold(wait, Duration::min)
                }
                Ok(Look::Stop) => break 0,
                Err(error) => {
                    complain(&format!(
                        "twilio_callback worker failed and retries: {error}"
                    ));
                    self.set_aside();
                    self.unwritten.run().map_or(RETRY, |wait| wait.min(RETRY))
                }
            };
            let Some(check) = self.occupancy.check() else {
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
        if self.under_way.len() >= BUSY {
            std::thread::sleep(GATHERING);
        }
    }

    /// Takes the answers that have come and judges them.
    fn collect(&mut self) {
        for report in self.sender.receive() {
            if let Some(work) = self.under_way.remove(&report.id) {
                self.judge(work, &report.outcome);
            } else if let Some(report) = self.errands.take(&self.sender, report) {
                self.media.take(&self.sender, report);
            }
        }
    }

    fn judge(&mut self, mut work: Work, outcome: &Outcome) {
        let moment = moment();
        match work.task {
            Task::Check => match media_check::judge(&mut work, outcome, &moment) {
                Ok(()) => self.push(work),
                Err(end) => self.ends.push(end),
            },
            Task::Create => self.ends.push(twilio::created(&work, outcome, &moment)),
            Task::LookUp => match twilio::looked_up(&mut work, outcome, &moment) {
                Ok(Some(found)) => self.found.push((work, found)),
                Ok(None) => self.push(work),
                Err(end) => self.ends.push(end),
            },
        }
    }

    /// One transaction: writes down what ended, takes what is due. What it takes is sent once that is
    /// committed.
    fn look(&mut self) -> Result<Look, String> {
        report_activity(c"looking for work", true);
        let is_sweep_due = self.next_sweep <= Instant::now();
        // Even if it fails: what is in its way keeps nothing else waiting.
        if is_sweep_due {
            self.next_sweep = Instant::now() + SWEEP;
        }
        self.clock.run(is_sweep_due);
        let room = self.room();
        let (ends, found, findings) = (&self.ends, &self.found, &self.errands.findings);
        self.turn = self.turn.next();
        let turn = self.turn;
        let seen = transaction(|| {
            if is_installed()? {
                poll::run(ends, found, findings, room, turn, is_sweep_due).map(Some)
            } else {
                Ok(None)
            }
        })?;
        let Some(seen) = seen else {
            // Without the extension there is nothing to write to; its leases went with it.
            self.ends.clear();
            self.found.clear();
            self.errands.findings.clear();
            report_activity(c"waiting for the extension", false);
            return Ok(Look::Wait(NAP));
        };
        if !seen.is_wanted {
            return Ok(Look::Stop);
        }
        self.errands.findings.clear();
        self.ends.clear();
        self.found.clear();
        let has_taken = !(seen.works.is_empty() && seen.errands.is_empty());
        for work in seen.works {
            self.send(work, &seen.credentials);
        }
        for errand in seen.errands {
            self.errands.begin(&self.sender, errand);
        }
        let plan = self.overdue.run(seen.overdue);
        report_statistics();
        report_activity(
            if self.under_way.is_empty() && self.errands.len() == 0 {
                c"idle"
            } else {
                c"sending"
            },
            false,
        );
        Ok(Look::Wait(self.next_look(seen.due, has_taken).min(plan)))
    }

    /// How much can be begun.
    fn room(&self) -> usize {
        if self.unwritten.is_full() {
            0
        } else {
            self.sender.room().saturating_sub(self.errands.waiting())
        }
    }

    fn next_look(&mut self, due: Option<f64>, has_taken: bool) -> Duration {
        if !self.ends.is_empty() || !self.errands.findings.is_empty() {
            return Duration::ZERO;
        }
        // Without room an answer has to come first.
        let due = due.filter(|_| self.room() > 0);
        self.pace.wait(due, has_taken)
    }

    fn send(&mut self, mut work: Work, credentials: &[Credential]) {
        match poll::authorization(&work, credentials) {
            Ok(authorization) => {
                work.authorization = Some(authorization);
                self.push(work);
            }
            Err(reason) => {
                self.ends.push(twilio::hindered(&work, reason, &moment()));
            }
        }
    }

    fn push(&mut self, mut work: Work) {
        // An answer to the request before it would be taken for one to this.
        if self.under_way.contains_key(&work.message_id) {
            let reason = "its last request has not ended".to_owned();
            return self.ends.push(twilio::hindered(&work, reason, &moment()));
        }
        let pushed = twilio::request(&mut work).and_then(|request| {
            let hindered = |e: sender::PushError| twilio::hindered(&work, e.to_string(), &moment());
            self.sender.push(request).map_err(hindered)
        });
        match pushed {
            Ok(()) => drop(self.under_way.insert(work.message_id, work)),
            Err(end) => self.ends.push(end),
        }
    }

    /// After a failed transaction: what may have been the reason is not part of the next one.
    fn set_aside(&mut self) {
        let (ends, findings) = (&mut self.ends, &mut self.errands.findings);
        self.unwritten.take(ends, &mut self.found, findings);
    }

    /// Waits a little for what is under way, and writes down what came of it.
    fn end(mut self) {
        report_activity(c"ending", false);
        let stopped = self.sender.stop(setting::stop_grace());
        self.feed.end();
        let mut under_way = self.under_way;
        let moment = moment();
        // Where only a file was looked at, nothing is open.
        let checks = under_way.extract_if(|_, work| work.task == Task::Check);
        let put_off = |(_, work)| twilio::put_off(&work, "the worker ended".to_owned());
        self.ends.extend(checks.map(put_off));
        let mut others = Vec::new();
        for report in stopped.reports {
            match under_way.remove(&report.id) {
                Some(work) if work.task == Task::Create => {
                    self.ends
                        .push(twilio::created(&work, &report.outcome, &moment))
                }
                Some(_) => {}
                None => others.push(report),
            }
        }
        self.errands.end(others);
        let (ends, findings) = (&self.ends, &self.errands.findings);
        let written = transaction(|| {
            if is_installed()? {
                queue::finish(ends)?;
                job::finish(findings)
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            log!("twilio_callback worker cannot finish: {error}");
            let (ends, findings) = (&mut self.ends, &mut self.errands.findings);
            self.unwritten.take(ends, &mut self.found, findings);
        }
        self.unwritten.run();
        log!(
            "twilio_callback worker ended, {} requests left open",
            under_way.len() + self.errands.len()
        );
    }
}

/// With so many requests under way nobody waits for a single one.
const BUSY: usize = 32;
const GATHERING: Duration = Duration::from_millis(4);
const BODY_LIMIT: usize = 1024 * 1024;
const RETRY: Duration = Duration::from_millis(500);
const SWEEP: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT_NAP: Duration = Duration::from_millis(100);
