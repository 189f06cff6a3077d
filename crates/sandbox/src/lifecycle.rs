//! The lifecycle of an accepted message: its statuses and the callbacks that report them.
//!
//! <https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks>

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::callback::{self, Report};
use crate::clock::Moment;
use crate::events;
use crate::message::Status;
use crate::outcome::Course;
use crate::sandbox::Sandbox;

/// One step: the message gets a status, callbacks report a status, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) is_late: bool,
    pub(crate) status: Option<Status>,
    pub(crate) report: Option<Report>,
    pub(crate) is_priced: bool,
}

/// The steps of `course`, for a message of `channel` that a messaging service sends or not.
pub(crate) fn steps(course: Course, channel: &str, has_service: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if course == Course::Silent {
        return steps;
    }
    if has_service {
        steps.push(said(Status::Queued, None));
    }
    if let Course::Failed(code) = course {
        steps.push(said(Status::Failed, Some(code)));
        return steps;
    }
    steps.push(quiet(Status::Sending, None));
    match course {
        Course::Disorder => {
            steps.push(quiet(Status::Sent, None));
            steps.push(said(Status::Delivered, None));
            steps.push(Step {
                status: None,
                ..said(Status::Sent, None)
            });
        }
        _ => {
            steps.push(said(Status::Sent, None));
            steps.extend(ending(course, channel));
        }
    }
    if channel == "sms" {
        steps.push(Step {
            is_late: false,
            status: None,
            report: None,
            is_priced: true,
        });
    }
    adjust(course, &mut steps);
    steps
}

/// Runs the steps of a message, after `answered`, the time until its create is answered.
pub(crate) async fn run(sandbox: Arc<Sandbox>, sid: String, steps: Vec<Step>, answered: Duration) {
    tokio::time::sleep(answered).await;
    let mut previous: Option<JoinHandle<()>> = None;
    for step in steps {
        let wait = if step.is_late {
            sandbox.late_delay
        } else {
            sandbox.callback_delay
        };
        tokio::time::sleep(wait).await;
        let Some(message) = sandbox.advance(&sid, &step) else {
            break;
        };
        if step.status.is_some() {
            events::status(&sandbox, &message);
        }
        let Some(report) = step.report else { continue };
        for _ in 0..report.times {
            if let Some(call) = callback::status(&sandbox, &message, &report) {
                previous = callback::report(&sandbox, call, &message.to, previous);
            }
        }
    }
    if let Some(previous) = previous {
        let _ = previous.await;
    }
}

impl Sandbox {
    /// Takes one step; `None` if the message was canceled or deleted.
    fn advance(&self, sid: &str, step: &Step) -> Option<crate::message::Message> {
        let mut store = self.store();
        let message = store
            .find_mut(sid)
            .filter(|m| m.status != Status::Canceled)?;
        if let Some(status) = step.status {
            if message.from.is_none() {
                message.from = Some(self.service_sender(&message.to));
            }
            let code = step.report.and_then(|report| report.error);
            message.advance(status, code, Moment::now());
        }
        if step.is_priced {
            message.price = Some("-0.00790");
            message.updated = Moment::now();
        }
        Some(message.clone())
    }
}

fn ending(course: Course, channel: &str) -> Vec<Step> {
    match course {
        Course::Sent => Vec::new(),
        Course::Read if channel != "sms" => {
            vec![said(Status::Delivered, None), said(Status::Read, None)]
        }
        Course::Late => vec![Step {
            is_late: true,
            ..said(Status::Delivered, None)
        }],
        Course::Undelivered(code) | Course::LostFailure(code) => {
            vec![said(Status::Undelivered, Some(code))]
        }
        Course::Corrected(code) => vec![
            said(Status::Undelivered, Some(code)),
            Step {
                is_late: true,
                ..said(Status::Delivered, None)
            },
        ],
        Course::Both(code) => vec![
            said(Status::Undelivered, Some(code)),
            said(Status::Failed, Some(code)),
        ],
        Course::Novel => vec![
            Step {
                status: None,
                report: Some(NOVEL),
                ..said(Status::Sent, None)
            },
            said(Status::Delivered, None),
        ],
        _ => vec![said(Status::Delivered, None)],
    }
}

fn adjust(course: Course, steps: &mut [Step]) {
    for report in steps.iter_mut().filter_map(|step| step.report.as_mut()) {
        match course {
            Course::Lost | Course::LostFailure(_) => report.times = 0,
            Course::Repeated => report.times = 3,
            Course::Novel => report.is_novel = true,
            _ => {}
        }
    }
}

fn said(status: Status, error: Option<u32>) -> Step {
    let report = Report {
        status: status.as_str(),
        error,
        times: 1,
        is_novel: false,
    };
    Step {
        is_late: false,
        status: Some(status),
        report: Some(report),
        is_priced: false,
    }
}

fn quiet(status: Status, error: Option<u32>) -> Step {
    Step {
        report: None,
        ..said(status, error)
    }
}

const NOVEL: Report = Report {
    status: "handset_confirmed",
    error: None,
    times: 1,
    is_novel: true,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(course: Course, channel: &str, has_service: bool) -> Vec<&'static str> {
        let steps = steps(course, channel, has_service);
        let reports = steps.iter().filter_map(|step| step.report);
        reports
            .flat_map(|r| std::iter::repeat_n(r.status, r.times.into()))
            .collect()
    }

    #[test]
    fn direct_numbers_report_sent_then_the_end() {
        assert_eq!(
            reported(Course::Delivered, "sms", false),
            ["sent", "delivered"]
        );
        assert_eq!(
            reported(Course::Undelivered(30003), "sms", false),
            ["sent", "undelivered"]
        );
        assert_eq!(reported(Course::Failed(30001), "sms", false), ["failed"]);
    }

    #[test]
    fn services_report_queued_first() {
        assert_eq!(
            reported(Course::Delivered, "sms", true),
            ["queued", "sent", "delivered"]
        );
        assert_eq!(
            reported(Course::Failed(30001), "sms", true),
            ["queued", "failed"]
        );
    }

    #[test]
    fn only_channels_know_reading() {
        assert_eq!(
            reported(Course::Read, "whatsapp", false),
            ["sent", "delivered", "read"]
        );
        assert_eq!(reported(Course::Read, "sms", false), ["sent", "delivered"]);
    }

    #[test]
    fn disorder_repeats_and_losses() {
        assert_eq!(
            reported(Course::Disorder, "sms", false),
            ["delivered", "sent"]
        );
        assert_eq!(
            reported(Course::Repeated, "sms", false),
            [
                "sent",
                "sent",
                "sent",
                "delivered",
                "delivered",
                "delivered"
            ]
        );
        assert_eq!(
            reported(Course::Both(30003), "sms", false),
            ["sent", "undelivered", "failed"]
        );
        assert_eq!(
            reported(Course::Corrected(30003), "sms", false),
            ["sent", "undelivered", "delivered"]
        );
        for course in [Course::Lost, Course::LostFailure(30003), Course::Silent] {
            assert!(reported(course, "sms", false).is_empty());
        }
        let last = steps(Course::LostFailure(30003), "sms", false)[2].clone();
        assert_eq!(last.status, Some(Status::Undelivered));
    }

    #[test]
    fn the_message_ends_delivered_although_callbacks_are_out_of_order() {
        let steps = steps(Course::Disorder, "sms", false);
        let last = steps.iter().filter_map(|step| step.status).next_back();
        assert_eq!(last, Some(Status::Delivered));
    }
}
