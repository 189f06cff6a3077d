//! Counters and histograms as text for Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// The text of a page of metrics for Prometheus.
#[derive(Debug)]
pub struct Page {
    prefix: &'static str,
    text: String,
}

/// A histogram. Each counter counts its own bucket; they are summed up when rendered.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    counts: [AtomicU64; N],
    over: AtomicU64,
    /// The sum in millionths, so that an integer holds it.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// An empty histogram; `bounds` are the upper bounds of the buckets, in rising order.
    pub const fn new(bounds: [f64; N]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; N],
            over: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.iter().position(|&bound| value <= bound);
        let counter = bucket.map_or(&self.over, |bucket| &self.counts[bucket]);
        counter.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }
}

impl Page {
    /// An empty page; every name on it starts with `prefix`.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            text: String::with_capacity(8 << 10),
        }
    }

    /// The exposition text, version 0.0.4.
    pub fn finish(self) -> String {
        self.text
    }

    /// Adds the HELP and TYPE lines of a metric.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        self.write(format_args!(
            "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n"
        ));
    }

    /// Adds a counter with one sample.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        let prefix = self.prefix;
        self.write(format_args!("{prefix}{name} {value}\n"));
    }

    /// Adds a gauge with one sample.
    pub fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.head(name, "gauge", help);
        let prefix = self.prefix;
        self.write(format_args!("{prefix}{name} {value}\n"));
    }

    /// Adds one sample with a label.
    pub fn labelled(&mut self, name: &str, label: &str, of: impl std::fmt::Display, value: u64) {
        let prefix = self.prefix;
        self.write(format_args!("{prefix}{name}{{{label}=\"{of}\"}} {value}\n"));
    }

    /// Adds a histogram.
    pub fn histogram<const N: usize>(&mut self, name: &str, help: &str, histogram: &Histogram<N>) {
        let prefix = self.prefix;
        self.head(name, "histogram", help);
        let mut total = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            total += count.load(Ordering::Relaxed);
            self.write(format_args!(
                "{prefix}{name}_bucket{{le=\"{bound}\"}} {total}\n"
            ));
        }
        total += histogram.over.load(Ordering::Relaxed);
        let sum = histogram.sum.load(Ordering::Relaxed) as f64 / 1e6;
        self.write(format_args!(
            "{prefix}{name}_bucket{{le=\"+Inf\"}} {total}\n\
             {prefix}{name}_sum {sum}\n{prefix}{name}_count {total}\n"
        ));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}
