//! Counters and histograms, and their text for Prometheus.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use daemon::prometheus::{Histogram, Page};
use hyper::StatusCode;

use crate::refusal::Refusal;

/// The counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Answers by status, from 100.
    answers: [AtomicU64; 500],
    tool_answers: [AtomicU64; 500],
    refusals: [AtomicU64; Refusal::ALL.len()],
    batch_size: Histogram<9>,
    commit_seconds: Histogram<13>,
    answer_seconds: Histogram<13>,
    pub(crate) connections: AtomicUsize,
    pub(crate) reconnects: AtomicU64,
    pub(crate) failed_calls: AtomicU64,
    pub(crate) broken_requests: AtomicU64,
    pub(crate) missed_replies: AtomicU64,
    pub(crate) lost_requests: AtomicU64,
}

/// The values that are read from elsewhere at the time of a scrape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) queue_depth: usize,
    pub(crate) requests_in_flight: usize,
    pub(crate) bytes_in_flight: usize,
    pub(crate) writers_connected: usize,
    pub(crate) unacknowledged: usize,
    pub(crate) log_lines_dropped: u64,
    pub(crate) log_lines_left_out: u64,
    pub(crate) connections_displaced: u64,
    pub(crate) connections_refused: u64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            answers: [const { AtomicU64::new(0) }; 500],
            tool_answers: [const { AtomicU64::new(0) }; 500],
            refusals: [const { AtomicU64::new(0) }; Refusal::ALL.len()],
            batch_size: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            commit_seconds: Histogram::new(SECONDS),
            answer_seconds: Histogram::new(SECONDS),
            connections: AtomicUsize::new(0),
            reconnects: AtomicU64::new(0),
            failed_calls: AtomicU64::new(0),
            broken_requests: AtomicU64::new(0),
            missed_replies: AtomicU64::new(0),
            lost_requests: AtomicU64::new(0),
        }
    }

    pub(crate) fn answered(&self, status: StatusCode, after: Duration) {
        count(&self.answers, status);
        self.answer_seconds.observe(after.as_secs_f64());
    }

    pub(crate) fn tool_answered(&self, status: StatusCode) {
        count(&self.tool_answers, status);
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, items: usize, after: Duration) {
        self.batch_size.observe(items as f64);
        self.commit_seconds.observe(after.as_secs_f64());
    }

    /// The exposition text, version 0.0.4.
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        let mut page = Page::new(PREFIX);
        let help = "Answered requests by status.";
        render_answers(&mut page, "requests_total", help, &self.answers);
        let help = "Answered requests of the tools by status.";
        render_answers(&mut page, "tool_requests_total", help, &self.tool_answers);
        page.head(
            "refused_total",
            "counter",
            "Requests that the shim answered itself, by reason.",
        );
        for refusal in Refusal::ALL {
            let count = self.refusals[refusal as usize].load(Ordering::Relaxed);
            page.labelled("refused_total", "reason", refusal.name(), count);
        }
        self.render_histograms(&mut page);
        self.render_counters(&mut page, gauges);
        page.gauge(
            "queue_depth",
            "Requests that wait for a writer.",
            gauges.queue_depth,
        );
        let help = "Requests in flight, from their head to the end of their batch.";
        page.gauge("requests_in_flight", help, gauges.requests_in_flight);
        let help = "Bytes that the requests in flight have reserved.";
        page.gauge("bytes_in_flight", help, gauges.bytes_in_flight);
        let connections = self.connections.load(Ordering::Relaxed);
        page.gauge("connections", "Open client connections.", connections);
        let help = "Writers with a connection to the database.";
        page.gauge("writers_connected", help, gauges.writers_connected);
        let lost = self.lost_requests.load(Ordering::Relaxed);
        let help = "Refused requests that look genuine, were not kept and are not acknowledged by twilio.acknowledge_losses().";
        page.gauge(
            "lost_requests",
            help,
            usize::try_from(lost).unwrap_or(usize::MAX),
        );
        let help = "Incoming messages that wait to be acknowledged.";
        page.gauge("unacknowledged", help, gauges.unacknowledged);
        page.finish()
    }

    fn render_histograms(&self, page: &mut Page) {
        let help = "Requests per call of the database.";
        page.histogram("batch_size", help, &self.batch_size);
        let help = "Time from sending a batch to its durable commit.";
        page.histogram("commit_seconds", help, &self.commit_seconds);
        let help = "Time from a request's head to its answer.";
        page.histogram("answer_seconds", help, &self.answer_seconds);
    }

    fn render_counters(&self, page: &mut Page, gauges: &Gauges) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let help = "Connections to the database opened after the first of each writer.";
        page.counter("reconnects_total", help, load(&self.reconnects));
        let help = "Calls of the database that raised an error.";
        page.counter("failed_calls_total", help, load(&self.failed_calls));
        let help = "Connections ended by something that is not HTTP, or by a timeout of its head.";
        page.counter("broken_requests_total", help, load(&self.broken_requests));
        let help = "Incoming messages answered without asking a function, or without its answer.";
        page.counter("missed_replies_total", help, load(&self.missed_replies));
        let help = "Log lines dropped because stderr was read too slowly.";
        page.counter("log_lines_dropped_total", help, gauges.log_lines_dropped);
        let help = "Log lines about refused requests left out beyond --log-refused-rate.";
        page.counter("log_lines_left_out_total", help, gauges.log_lines_left_out);
        let help = "Idle connections ended to make room for new ones.";
        let displaced = gauges.connections_displaced;
        page.counter("connections_displaced_total", help, displaced);
        let help = "Connections refused because their client had reached its limit.";
        let refused = gauges.connections_refused;
        page.counter("connections_refused_total", help, refused);
    }
}

fn count(answers: &[AtomicU64; 500], status: StatusCode) {
    let index = usize::from(status.as_u16()).wrapping_sub(100);
    if let Some(counter) = answers.get(index) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn render_answers(page: &mut Page, name: &str, help: &str, answers: &[AtomicU64; 500]) {
    page.head(name, "counter", help);
    for (index, counter) in answers.iter().enumerate() {
        let count = counter.load(Ordering::Relaxed);
        if count > 0 {
            page.labelled(name, "status", index + 100, count);
        }
    }
}

const PREFIX: &str = "twilio_callback_shim_";
const SECONDS: [f64; 13] = [
    0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 2.0, 8.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn render(metrics: &Metrics) -> String {
        metrics.render(&Gauges {
            queue_depth: 3,
            requests_in_flight: 4,
            bytes_in_flight: 5,
            writers_connected: 2,
            unacknowledged: 0,
            log_lines_dropped: 6,
            log_lines_left_out: 7,
            connections_displaced: 8,
            connections_refused: 9,
        })
    }

    #[test]
    fn counts_answers_by_status() {
        let metrics = Metrics::new();
        metrics.answered(StatusCode::NO_CONTENT, Duration::from_millis(1));
        metrics.answered(StatusCode::NO_CONTENT, Duration::from_millis(1));
        metrics.answered(StatusCode::FORBIDDEN, Duration::from_secs(9));
        let page = render(&metrics);
        assert!(page.contains("twilio_callback_shim_requests_total{status=\"204\"} 2\n"));
        assert!(page.contains("twilio_callback_shim_requests_total{status=\"403\"} 1\n"));
        assert!(page.contains("twilio_callback_shim_answer_seconds_bucket{le=\"0.001\"} 2\n"));
        assert!(page.contains("twilio_callback_shim_answer_seconds_bucket{le=\"8\"} 2\n"));
        assert!(page.contains("twilio_callback_shim_answer_seconds_bucket{le=\"+Inf\"} 3\n"));
        assert!(page.contains("twilio_callback_shim_answer_seconds_sum 9.002\n"));
    }

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::new();
        for items in [1, 3, 256] {
            metrics.committed(items, Duration::from_millis(3));
        }
        let page = render(&metrics);
        for (bound, count) in [("1", 1), ("2", 1), ("4", 2), ("128", 2), ("256", 3)] {
            let line =
                format!("twilio_callback_shim_batch_size_bucket{{le=\"{bound}\"}} {count}\n");
            assert!(page.contains(&line), "{line} is not in {page}");
        }
        assert!(page.contains("twilio_callback_shim_batch_size_sum 260\n"));
    }

    #[test]
    fn every_sample_has_a_type_and_every_refusal_its_own_name() {
        let metrics = Metrics::new();
        metrics.refused(Refusal::Deadline);
        let page = render(&metrics);
        assert!(page.contains("refused_total{reason=\"deadline\"} 1\n"));
        assert!(page.contains("twilio_callback_shim_queue_depth 3\n"));
        for refusal in Refusal::ALL {
            let label = format!("reason=\"{}\"", refusal.name());
            assert_eq!(page.matches(&label).count(), 1, "{label}");
            assert!(refusal.status().as_u16() >= 400);
        }
        for sample in page.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(
                page.contains(&format!("# TYPE {family} ")),
                "{name} has no type"
            );
        }
    }
}
