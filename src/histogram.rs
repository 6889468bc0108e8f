//! Times in fixed buckets, for metrics. Whoever measures adds with two atomics, and neither locks nor allocates.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Times by length. It is read bucket by bucket, so a reading under load may be off by the times that come just then.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    /// Microseconds: a million jobs a second that waited for an hour each fill it in an hour and a half, and whoever
    /// takes a rate of it sees no more than a restart.
    total: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// Upper bounds of the buckets, in seconds; one more holds the rest.
    pub bounds: &'static [f64],
    /// How many were so long: each bucket alone, not summed up.
    pub buckets: Vec<u64>,
    /// All of them together.
    pub total: Duration,
}

impl Histogram {
    /// Empty, with these upper bounds in seconds, in order.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, total: AtomicU64::new(0) }
    }

    /// One more.
    pub fn add(&self, time: Duration) {
        if let Some(bucket) = self.buckets.get(bucket(self.bounds, time)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.total.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What it holds now.
    #[must_use]
    pub fn read(&self) -> Times {
        Times {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            total: Duration::from_micros(self.total.load(Relaxed)),
        }
    }
}

impl Times {
    /// None at all.
    #[must_use]
    pub fn none(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len() + 1], total: Duration::ZERO }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The bucket of a time; a bound belongs to the bucket below it.
pub(crate) fn bucket(bounds: &[f64], time: Duration) -> usize {
    let secs = time.as_secs_f64();
    bounds.partition_point(|&bound| bound < secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_one_bucket_and_a_bound_belongs_to_the_one_below() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        assert_eq!(histogram.read(), Times::none(&[0.5, 1.0]));
        for millis in [0, 500, 501, 1_000, 1_001, 100_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let times = histogram.read();
        assert_eq!((times.buckets.as_slice(), times.count()), ([2, 2, 2].as_slice(), 6));
        assert_eq!(times.total, Duration::from_millis(103_002));
    }
}
