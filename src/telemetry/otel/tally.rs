//! What was exported and what was not, and whether the collector is worth another request. Atomics: the job's thread looks too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock;

/// After a request that failed, the next one is made this much later.
pub(super) const BREAK: Duration = Duration::from_secs(30);

/// Counts since the start, for `/metrics` and status. Health has no use for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Spans that the collector took.
    pub spans_exported: u64,
    /// Spans that were not made (too many at once, or the collector is away) or that it did not take.
    pub spans_dropped: u64,
    /// Requests that the collector took.
    pub requests_ok: u64,
    /// Requests that failed.
    pub requests_failed: u64,
    /// Requests that were not made, because one failed in the last 30 s or too many are on their way.
    pub requests_skipped: u64,
    /// Metrics that are not read any more, because reading them panicked.
    pub readings_broken: u64,
    /// Whether the last request failed.
    pub failing: bool,
}

#[derive(Debug)]
pub(super) struct Tally {
    begun: Instant,
    spans_exported: AtomicU64,
    spans_dropped: AtomicU64,
    requests_ok: AtomicU64,
    requests_failed: AtomicU64,
    requests_skipped: AtomicU64,
    readings_broken: AtomicU64,
    failing: AtomicBool,
    /// Milliseconds since `begun`.
    open_until: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            begun: clock::instant(),
            spans_exported: AtomicU64::new(0),
            spans_dropped: AtomicU64::new(0),
            requests_ok: AtomicU64::new(0),
            requests_failed: AtomicU64::new(0),
            requests_skipped: AtomicU64::new(0),
            readings_broken: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            open_until: AtomicU64::new(0),
        }
    }
}

impl Tally {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long nothing is to be sent, if a request failed lately.
    pub(super) fn pause(&self) -> Option<Duration> {
        let left = self.open_until.load(Relaxed).saturating_sub(self.now_ms());
        (left > 0).then(|| Duration::from_millis(left))
    }

    pub(super) fn succeeded(&self) {
        self.requests_ok.fetch_add(1, Relaxed);
        self.open_until.store(0, Relaxed);
        if self.failing.swap(false, Relaxed) {
            tracing::info!("telemetry: the collector takes it again");
        }
    }

    pub(super) fn failed(&self, why: &str) {
        self.requests_failed.fetch_add(1, Relaxed);
        let until = self.now_ms().saturating_add(u64::try_from(BREAK.as_millis()).unwrap_or(u64::MAX));
        self.open_until.store(until, Relaxed);
        if !self.failing.swap(true, Relaxed) {
            tracing::warn!(
                why,
                "telemetry: the collector does not take it; asked again every 30 s, jobs run as ever"
            );
        }
    }

    pub(super) fn skipped(&self) {
        self.requests_skipped.fetch_add(1, Relaxed);
    }

    pub(super) fn exported(&self, spans: usize) {
        self.spans_exported.fetch_add(spans as u64, Relaxed);
    }

    pub(super) fn dropped(&self, spans: usize) {
        self.spans_dropped.fetch_add(spans as u64, Relaxed);
    }

    pub(super) fn spans_dropped(&self) -> u64 {
        self.spans_dropped.load(Relaxed)
    }

    pub(super) fn reading_broke(&self) {
        self.readings_broken.fetch_add(1, Relaxed);
        tracing::error!("telemetry: reading a metric panicked, and is given up; jobs run as ever");
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            spans_exported: self.spans_exported.load(Relaxed),
            spans_dropped: self.spans_dropped.load(Relaxed),
            requests_ok: self.requests_ok.load(Relaxed),
            requests_failed: self.requests_failed.load(Relaxed),
            requests_skipped: self.requests_skipped.load(Relaxed),
            readings_broken: self.readings_broken.load(Relaxed),
            failing: self.failing.load(Relaxed),
        }
    }
}
