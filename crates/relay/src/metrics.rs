//! The relay's metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use daemon::prometheus::Page;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) published: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Metrics {
    /// The exposition text.
    pub(crate) fn render(&self, flows_working: usize, log_lines_dropped: u64) -> String {
        let mut page = Page::new("twilio_callback_relay_");
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let help = "Events that RabbitMQ has confirmed, repeats included.";
        page.counter("events_published_total", help, load(&self.published));
        let help = "Messages taken from RabbitMQ and queued, repeats included.";
        page.counter("messages_queued_total", help, load(&self.queued));
        let help = "Incoming messages acknowledged in time.";
        page.counter("acknowledged_total", help, load(&self.acknowledged));
        let help = "Acknowledgements that no request waited for, or no longer.";
        page.counter("acknowledged_late_total", help, load(&self.late));
        let help = "Deliveries that could not be processed and went to the queue of dead letters.";
        page.counter("dead_letters_total", help, load(&self.dead));
        let help = "Connections that ended and attempts to connect that failed.";
        page.counter("disconnects_total", help, load(&self.lost));
        page.gauge(
            "flows_working",
            "Flows that are connected to the database and to RabbitMQ.",
            flows_working,
        );
        let help = "Log lines dropped because stderr was read too slowly.";
        page.counter("log_lines_dropped_total", help, log_lines_dropped);
        page.finish()
    }
}
