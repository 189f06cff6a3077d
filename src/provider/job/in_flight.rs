//! Jobs in flight: their requests, the requests for tokens, and the results.

use std::collections::HashMap;

use sender::{PushError, Report, Request, Sender};

use super::token::{Step, Tokens};
use super::{Job, JobResult, blocked, classify, encryption, request};
use crate::clock::now;

/// The jobs that the worker has claimed.
#[derive(Default)]
pub(crate) struct InFlight {
    in_flight: HashMap<i64, Job>,
    tokens: Tokens,
    /// Results that are not saved yet.
    pub(crate) results: Vec<JobResult>,
}

impl InFlight {
    /// The number of requests that are in flight or wait for a token.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len() + self.waiting()
    }

    /// The number of jobs that wait for a token.
    pub(crate) fn waiting(&self) -> usize {
        self.tokens.waiting()
    }

    /// Sends the request of a job, or lets the job wait for a token. Called outside a transaction.
    pub(crate) fn begin(&mut self, sender: &Sender, mut job: Job) {
        encryption::seal(&mut job);
        let step = self.tokens.admit(job, &now());
        self.follow(sender, step);
    }

    /// Takes the response to a request. Returns the report if its request is none of these.
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

    /// Takes the last responses before the worker ends. Jobs that wait for a token are retried.
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
        // The response to the earlier request would be taken for one to this request.
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
