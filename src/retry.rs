//! Back-off: how long to wait before the next attempt, of a job or of a connection.
//!
//! The `backoff` crate is used here and nowhere else, as a pure calculator of jittered delays (it is unmaintained, see
//! `ops/lint/deny.toml`); the loops around it are ours and can be cancelled.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most attempts that may be asked for.
pub const MAX_ATTEMPTS: u32 = 1_000;

/// The shape of the delays between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `base`, twice that, four times that, …
    Exponential,
    /// `base`, twice that, three times that, …
    Linear,
    /// Always `base`.
    Fixed,
}

/// When a failed job is tried again, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Failed attempts after which the job is dead (1 to 1,000).
    pub max_attempts: u32,
    /// The shape of the delays.
    pub backoff: Shape,
    /// The first delay, in seconds.
    #[serde(with = "crate::clock::secs")]
    pub base: Duration,
    /// No delay is longer, jitter included; in seconds.
    #[serde(with = "crate::clock::secs")]
    pub max_delay: Duration,
    /// Explicit delays, in seconds, that take the place of `backoff`; the last one repeats.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<u32>,
}

impl Default for RetryPolicy {
    /// 25 attempts, 2 s doubling up to 6 h: about three days.
    fn default() -> Self {
        Self {
            max_attempts: 25,
            backoff: Shape::Exponential,
            base: Duration::from_secs(2),
            max_delay: Duration::from_secs(6 * 3600),
            schedule: Vec::new(),
        }
    }
}

impl RetryPolicy {
    /// So many attempts, otherwise as by default.
    #[must_use]
    pub fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// The delay after the `failures`-th failure (1 = the first), before jitter.
    #[must_use]
    pub fn plain_delay(&self, failures: u32) -> Duration {
        let n = failures.max(1);
        if let Some(last) = self.schedule.last() {
            let index = usize::try_from(n - 1).unwrap_or(usize::MAX);
            return Duration::from_secs(u64::from(*self.schedule.get(index).unwrap_or(last)));
        }
        let factor = match self.backoff {
            Shape::Exponential => 1_u32.checked_shl(n - 1).unwrap_or(u32::MAX),
            Shape::Linear => n,
            Shape::Fixed => 1,
        };
        self.base.saturating_mul(factor).min(self.max_delay)
    }
}

#[cfg(feature = "worker")]
mod jitter {
    use super::{Duration, RetryPolicy};
    use backoff::ExponentialBackoff;
    use backoff::backoff::Backoff as _;

    fn calculator(interval: Duration, factor: f64, max: Duration) -> ExponentialBackoff {
        ExponentialBackoff {
            current_interval: interval,
            initial_interval: interval,
            randomization_factor: factor,
            multiplier: 2.0,
            max_interval: max,
            max_elapsed_time: None, // its default of 15 minutes would silently end a reconnect loop
            ..ExponentialBackoff::default()
        }
    }

    impl RetryPolicy {
        /// The delay after the `failures`-th failure, with ±20 % of jitter so that a herd spreads out, capped after
        /// the jitter (a randomised delay may otherwise exceed the maximum).
        #[must_use]
        pub fn delay(&self, failures: u32) -> Duration {
            let plain = self.plain_delay(failures);
            let cap = if self.schedule.is_empty() { self.max_delay } else { Duration::MAX };
            calculator(plain, 0.2, plain).next_backoff().unwrap_or(plain).min(cap)
        }
    }

    /// Delays between attempts to reach something that is away: full jitter, for ever, never longer than the cap.
    #[derive(Debug)]
    pub struct Reconnect {
        inner: ExponentialBackoff,
        cap: Duration,
    }

    impl Reconnect {
        /// Anything up to twice `first`, then to four times that, … and in the end anything up to `cap`.
        #[must_use]
        pub fn new(first: Duration, cap: Duration) -> Self {
            // The calculator draws from zero to twice its interval.
            Self { inner: calculator(first, 1.0, cap / 2), cap }
        }

        /// The next delay.
        pub fn next_delay(&mut self) -> Duration {
            self.inner.next_backoff().unwrap_or(self.cap).min(self.cap)
        }

        /// Starts again from the first delay, after a success.
        pub fn reset(&mut self) {
            self.inner.reset();
        }
    }
}

#[cfg(feature = "worker")]
pub use jitter::Reconnect;

#[cfg(all(test, feature = "worker"))]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_under_the_cap_with_jitter() {
        let policy = RetryPolicy { max_delay: Duration::from_secs(60), ..RetryPolicy::default() };
        for failures in 1..=1_000 {
            let delay = policy.delay(failures);
            assert!(delay <= Duration::from_secs(60), "attempt {failures}: {delay:?}");
            assert!(delay >= policy.plain_delay(failures).mul_f64(0.79), "attempt {failures}: {delay:?}");
        }
        assert_eq!(policy.plain_delay(3), Duration::from_secs(8));
    }

    #[test]
    fn a_schedule_repeats_its_last_delay() {
        let policy = RetryPolicy { schedule: vec![0, 5, 300], ..RetryPolicy::default() };
        let plain: Vec<u64> = (1..=5).map(|n| policy.plain_delay(n).as_secs()).collect();
        assert_eq!(plain, [0, 5, 300, 300, 300]);
    }

    #[test]
    fn reconnecting_never_ends_and_never_waits_longer_than_the_cap() {
        let mut reconnect = Reconnect::new(Duration::from_millis(100), Duration::from_secs(5));
        let delays: Vec<Duration> = (0..500).map(|_| reconnect.next_delay()).collect();
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(5)));
        // Full jitter: a herd spreads over all of it, and no crowd waits exactly for the cap.
        let later = delays.iter().skip(10);
        let (short, capped) = later.fold((0, 0), |(short, capped), delay| {
            (
                short + u32::from(*delay < Duration::from_secs(1)),
                capped + u32::from(*delay == Duration::from_secs(5)),
            )
        });
        assert!(short > 40 && capped < 40, "{short} of 490 below 1 s, {capped} at the cap");
        reconnect.reset();
        assert!(reconnect.next_delay() <= Duration::from_millis(200));
    }
}
