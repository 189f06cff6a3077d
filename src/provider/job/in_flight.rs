//! The errands under way: their requests, those for tokens among them, and what came of all.

use std::collections::HashMap;

use sender::{PushError, Report, Request, Sender};

use super::token::{Step, Tokens};
use super::{Errand, Finding, encryption, hindered, judge, request};
use crate::clock::moment;

/// What the worker has to do with errands.
#[derive(Default)]
pub(crate) struct Round {
    under_way: HashMap<i64, Errand>,
    tokens: Tokens,
    /// What came to an end and is not written down yet.
    pub(crate) findings: Vec<Finding>,
}

impl Round {
    /// How many requests are under way or wait for a token.
    pub(crate) fn len(&self) -> usize {
        self.under_way.len() + self.waiting()
    }

    /// How many wait for a token; each takes a place once there is one.
    pub(crate) fn waiting(&self) -> usize {
        self.tokens.waiting()
    }

    /// Sends an errand's request, or has it wait for a token. Called outside a transaction.
    pub(crate) fn begin(&mut self, sender: &Sender, mut errand: Errand) {
        encryption::seal(&mut errand);
        let step = self.tokens.admit(errand, &moment());
        self.follow(sender, step);
    }

    /// Takes the answer to a request, unless it was about something else.
    pub(crate) fn take(&mut self, sender: &Sender, report: Report) -> Option<Report> {
        let moment = moment();
        let Some(mut errand) = self.under_way.remove(&report.id) else {
            let Some(steps) = self.tokens.take(report.id, &report.outcome, &moment) else {
                return Some(report);
            };
            self.follow(sender, steps);
            return None;
        };
        if self.tokens.is_spent(&mut errand, &report.outcome) {
            self.begin(sender, errand);
        } else {
            self.findings.push(judge(&errand, &report.outcome, &moment));
        }
        None
    }

    /// Takes what has come by the time that nothing more is sent; what waits for a token is to come again.
    pub(crate) fn end(&mut self, reports: Vec<Report>) {
        let moment = moment();
        for report in reports {
            if let Some(errand) = self.under_way.remove(&report.id) {
                let finding = judge(&errand, &report.outcome, &moment);
                self.findings.push(finding);
            }
        }
        self.findings.extend(self.tokens.end(&moment));
    }

    fn follow(&mut self, sender: &Sender, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            match step {
                Step::Go(errand) => self.send(sender, errand),
                Step::Ask(request) => self.ask(sender, request),
                Step::End(finding) => self.findings.push(finding),
            }
        }
    }

    fn send(&mut self, sender: &Sender, errand: Errand) {
        let moment = moment();
        // An answer to the request before it would be taken for one to this.
        if self.under_way.contains_key(&errand.key()) {
            let reason = "its last request has not ended".to_owned();
            return self.findings.push(hindered(&errand, reason, None, &moment));
        }
        let pushed = request(&errand, &moment).and_then(|request| {
            let refused = |error: PushError| hindered(&errand, error.to_string(), None, &moment);
            sender.push(request).map_err(refused)
        });
        match pushed {
            Ok(()) => drop(self.under_way.insert(errand.key(), errand)),
            Err(finding) => self.findings.push(finding),
        }
    }

    fn ask(&mut self, sender: &Sender, request: Request) {
        let id = request.id;
        if let Err(error) = sender.push(request) {
            let findings = self.tokens.fail(id, &error.to_string(), &moment());
            self.findings.extend(findings);
        }
    }
}
