//! The jobs under way: their requests, those for tokens among them, and what came of all.

use std::collections::HashMap;

use sender::{PushError, Report, Request, Sender};

use super::token::{Step, Tokens};
use super::{Job, JobResult, blocked, classify, encryption, request};
use crate::clock::now;

/// What the worker has to do with jobs.
#[derive(Default)]
pub(crate) struct InFlight {
    in_flight: HashMap<i64, Job>,
    tokens: Tokens,
    /// What came to an end and is not written down yet.
    pub(crate) results: Vec<JobResult>,
}

impl InFlight {
    /// How many requests are under way or wait for a token.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len() + self.waiting()
    }

    /// How many wait for a token; each takes a place once there is one.
    pub(crate) fn waiting(&self) -> usize {
        self.tokens.waiting()
    }

    /// Sends an job's request, or has it wait for a token. Called outside a transaction.
    pub(crate) fn begin(&mut self, sender: &Sender, mut job: Job) {
        encryption::seal(&mut job);
        let step = self.tokens.admit(job, &now());
        self.follow(sender, step);
    }

    /// Takes the answer to a request, unless it was about something else.
    pub(crate) fn take(&mut self, sender: &Sender, report: Report) -> Option<Report> {
        let now = now();
        let Some(mut job) = self.in_flight.remove(&report.id) else {
            let Some(steps) = self.tokens.take(report.id, &report.outcome, &now) else {
                return Some(report);
            };
            self.follow(sender, steps);
            return None;
        };
        if self.tokens.is_rejected(&mut job, &report.outcome) {
            self.begin(sender, job);
        } else {
            self.results.push(classify(&job, &report.outcome, &now));
        }
        None
    }

    /// Takes what has come by the time that nothing more is sent; what waits for a token is to come again.
    pub(crate) fn end(&mut self, reports: Vec<Report>) {
        let now = now();
        for report in reports {
            if let Some(job) = self.in_flight.remove(&report.id) {
                let result = classify(&job, &report.outcome, &now);
                self.results.push(result);
            }
        }
        self.results.extend(self.tokens.end(&now));
    }

    fn follow(&mut self, sender: &Sender, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            match step {
                Step::Send(job) => self.send(sender, job),
                Step::RequestToken(request) => self.ask(sender, request),
                Step::Finish(result) => self.results.push(result),
            }
        }
    }

    fn send(&mut self, sender: &Sender, job: Job) {
        let now = now();
        // An answer to the request before it would be taken for one to this.
        if self.in_flight.contains_key(&job.key()) {
            let reason = "its last request has not ended".to_owned();
            return self.results.push(blocked(&job, reason, None, &now));
        }
        let pushed = request(&job, &now).and_then(|request| {
            let refused = |error: PushError| blocked(&job, error.to_string(), None, &now);
            sender.push(request).map_err(refused)
        });
        match pushed {
            Ok(()) => drop(self.in_flight.insert(job.key(), job)),
            Err(result) => self.results.push(result),
        }
    }

    fn ask(&mut self, sender: &Sender, request: Request) {
        let id = request.id;
        if let Err(error) = sender.push(request) {
            let results = self.tokens.fail(id, &error.to_string(), &now());
            self.results.extend(results);
        }
    }
}
