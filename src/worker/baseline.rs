//! Outcomes count: whether first attempts of a kind fail far above what is usual for it. All jobs failing is not
//! progress, however fast they do it. Pure.
//!
//! A one-sided CUSUM (Page, 1954) of the log likelihood ratio of "fails much more often" against "as usual": every
//! failure raises the score, every success lowers it, and it never falls below zero. Retries do not count, or a poison
//! job would be judged 25 times.

use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::names::Kind;
use crate::store::{Failing, Trend};

/// What is taken for usual before anything is known.
const UNKNOWN: f64 = 0.05;
/// Usual is never taken to be better than this…
const BEST: f64 = 0.02;
/// …or worse: hours of failures must not become the rule.
const WORST: f64 = 0.5;
/// "Fails much more often": this part of what usually succeeds fails as well.
const MUCH: f64 = 0.35;
/// So many attempts make what is usual; while the kind is failing it is learnt ten times as slowly.
const MEMORY: f64 = 1_000.0;
/// By chance a kind is called failing about once in so many hours, whatever its rate.
const HOURS_BETWEEN_FALSE_ALARMS: f64 = 100.0;
/// The score that it takes at least: three failures in a row of a kind that is hardly known.
const LEAST_LIMIT: f64 = 6.0;
/// So many successes in a row end it…
const SUCCESSES: u32 = 10;
/// …and so long without any first attempt: nothing is known any more.
const SILENCE: Duration = Duration::from_secs(600);
const HOUR: f64 = 3_600.0;
/// Scores are told in these.
const HUNDREDTHS: f64 = 100.0;

/// What is known of one kind.
#[derive(Debug)]
pub(super) struct Baseline {
    usual: f64,
    /// First attempts, the older ones fading with the hour.
    recent: f64,
    score: f64,
    at: Option<Instant>,
    since: Timestamp,
    attempts: u64,
    failed: u64,
    in_a_row: u32,
    error: String,
    failing: bool,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            usual: UNKNOWN,
            recent: 0.0,
            score: 0.0,
            at: None,
            since: Timestamp::default(),
            attempts: 0,
            failed: 0,
            in_a_row: 0,
            error: String::new(),
            failing: false,
        }
    }
}

impl Baseline {
    /// Notes that so many first attempts in a row succeeded; `true` when it ceased to be failing by that.
    pub(super) fn succeeded(&mut self, times: u32, now: Instant, wall: Timestamp) -> bool {
        let (before, ..) = self.begin(times, now, wall);
        self.in_a_row = self.in_a_row.saturating_add(times);
        self.score = (self.score + f64::from(times) * success()).max(0.0);
        if self.failing && (self.in_a_row >= SUCCESSES || self.score <= 0.0) {
            (self.failing, self.score) = (false, 0.0);
        }
        self.usual *= (1.0 - self.weight()).powi(i32::try_from(times).unwrap_or(i32::MAX));
        self.failing != before
    }

    /// Notes that a first attempt failed; `true` when it began to be failing by that.
    pub(super) fn failed(&mut self, error: &str, now: Instant, wall: Timestamp) -> bool {
        let (before, usual, much) = self.begin(1, now, wall);
        (self.failed, self.in_a_row) = (self.failed + 1, 0);
        error.clone_into(&mut self.error);
        let limit = limit(self.recent);
        self.score = (self.score + (much / usual).ln()).min(limit);
        self.failing |= self.score >= limit;
        self.usual += self.weight() * (1.0 - self.usual);
        self.failing != before
    }

    /// Whether it was failing, what is usual for it, and what is much more.
    fn begin(&mut self, times: u32, now: Instant, wall: Timestamp) -> (bool, f64, f64) {
        let before = self.is_failing(now);
        let idle = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if idle >= SILENCE {
            (self.failing, self.score) = (false, 0.0);
        }
        self.recent = self.recent * (-idle.as_secs_f64() / HOUR).exp() + f64::from(times);
        self.at = Some(now);
        if self.score <= 0.0 && !self.failing {
            (self.since, self.attempts, self.failed) = (wall, 0, 0);
        }
        self.attempts += u64::from(times);
        let usual = self.usual.clamp(BEST, WORST);
        (before, usual, usual + MUCH * (1.0 - usual))
    }

    fn weight(&self) -> f64 {
        if self.failing { 0.1 / MEMORY } else { 1.0 / MEMORY }
    }

    fn is_failing(&self, now: Instant) -> bool {
        self.failing && self.at.is_some_and(|at| now.saturating_duration_since(at) < SILENCE)
    }

    /// Where the test stands, for [`fail_together`].
    pub(super) fn trend(&self, now: Instant) -> Trend {
        let idle = self.at.map_or(SILENCE, |at| now.saturating_duration_since(at));
        if idle >= SILENCE {
            return Trend::default();
        }
        let whole = |number: f64| number.max(0.0) as u64;
        Trend {
            score: whole(self.score * HUNDREDTHS),
            in_a_row: u64::from(self.in_a_row.min(SUCCESSES)),
            recent: whole((self.recent * (-idle.as_secs_f64() / HOUR).exp()).ceil()),
            attempts: self.attempts,
            failed: self.failed,
        }
    }

    /// What to tell, while it fails.
    pub(super) fn failing(&self, kind: &Kind, now: Instant) -> Option<Failing> {
        self.is_failing(now).then(|| Failing {
            kind: kind.clone(),
            since: self.since,
            attempts: self.attempts,
            failed: self.failed,
            baseline: self.usual,
            error: self.error.clone(),
        })
    }
}

/// The score that it takes, after so many first attempts within the hour.
fn limit(recent: f64) -> f64 {
    (HOURS_BETWEEN_FALSE_ALARMS * recent).ln().max(LEAST_LIMIT)
}

/// What a success adds to a score: whatever is usual, `(1 - much) / (1 - usual)` is the same.
fn success() -> f64 {
    (1.0 - MUCH).ln()
}

/// The same test over several workers. The scores of those that count failures add up, as the ratios of independent
/// attempts do; of those that do not, the last successes speak against it, or every worker with a single failure would be
/// picked out of many that have none.
pub(crate) fn fail_together(trends: &[Trend]) -> bool {
    let score = |trend: &Trend| match trend.score {
        0 => success() * trend.in_a_row as f64,
        score => score as f64 / HUNDREDTHS,
    };
    let recent: u64 = trends.iter().map(|trend| trend.recent).sum();
    trends.iter().map(score).sum::<f64>() >= limit(recent as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    struct Run {
        baseline: Baseline,
        now: Instant,
        every: Duration,
        alarms: u32,
    }

    impl Run {
        fn new(every: Duration) -> Self {
            Self { baseline: Baseline::default(), now: crate::clock::instant(), every, alarms: 0 }
        }

        fn attempt(&mut self, failed: bool) -> bool {
            self.now += self.every;
            let before = self.fails();
            let wall = Timestamp::from_ms(7);
            if failed {
                self.baseline.failed("no such host", self.now, wall);
            } else {
                self.baseline.succeeded(1, self.now, wall);
            }
            self.alarms += u32::from(!before && self.fails());
            self.fails()
        }

        fn fails(&self) -> bool {
            self.baseline.is_failing(self.now)
        }

        /// How many attempts at this share of failures until it is so.
        fn until(&mut self, share: f64, so: bool) -> u32 {
            let mut rng = fastrand::Rng::with_seed(7);
            (1..100_000).find(|_| self.attempt(rng.f64() < share) == so).unwrap()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_kind_that_fails_from_the_first_is_told_after_three() {
        let mut run = Run::new(SECOND);
        assert_eq!(run.until(1.0, true), 3);
        let failing = run.baseline.failing(&Kind::new("mail").unwrap(), run.now).unwrap();
        assert_eq!((failing.attempts, failing.failed, failing.error.as_str()), (3, 3, "no such host"));
    }

    #[test]
    fn a_proven_kind_that_breaks_is_told_within_ten_and_ends_after_ten_good_ones() {
        for every in [Duration::from_millis(1), SECOND] {
            let mut run = Run::new(every);
            (0..5_000).for_each(|_| assert!(!run.attempt(false)));
            assert!(run.until(1.0, true) <= 10);
            (0..100_000).for_each(|_| assert!(run.attempt(true), "hours of failures do not become usual"));
            assert_eq!(run.until(0.0, false), 10);
        }
    }

    #[test]
    fn a_kind_that_usually_fails_now_and_then_is_not_failing() {
        for (share, seed) in [(0.01, 1), (0.03, 2), (0.05, 3)] {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut run = Run::new(Duration::from_millis(20));
            (0..500_000).for_each(|_| _ = run.attempt(rng.f64() < share));
            assert_eq!(run.alarms, 0, "{share}: 500,000 attempts in 2.8 hours");
        }
    }

    #[test]
    fn a_kind_that_has_always_failed_often_is_learnt() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut run = Run::new(Duration::from_millis(20));
        (0..100_000).for_each(|_| _ = run.attempt(rng.f64() < 0.25));
        let so_far = run.alarms;
        (0..100_000).for_each(|_| _ = run.attempt(rng.f64() < 0.25));
        assert_eq!(run.alarms, so_far, "after the first 100,000 it is usual");
        assert!(run.until(0.9, true) < 100);
    }

    /// Attempts of a crew: each goes to one of its workers.
    fn crew(workers: usize, attempts: usize, share: f64, seed: u64) -> usize {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut all: Vec<Baseline> = std::iter::repeat_with(Baseline::default).take(workers).collect();
        let (mut now, wall) = (crate::clock::instant(), Timestamp::from_ms(7));
        let mut alarm = |_: &usize| {
            now += Duration::from_millis(200);
            let one = rng.usize(..workers);
            if rng.f64() < share {
                all[one].failed("no such host", now, wall);
            } else {
                all[one].succeeded(1, now, wall);
            }
            fail_together(&all.iter().map(|one| one.trend(now)).collect::<Vec<_>>())
        };
        (1..=attempts).find(|n| alarm(n)).unwrap_or(0)
    }

    #[test]
    fn what_fails_all_over_a_crew_is_told_as_soon_as_in_one_worker() {
        for workers in [1, 3, 8, 40] {
            assert_eq!(crew(workers, 100, 1.0, 1), 3, "{workers} workers, and all fails");
        }
    }

    #[test]
    fn what_fails_now_and_then_all_over_a_crew_is_not_failing() {
        for (workers, share) in [(2, 0.01), (2, 0.05), (3, 0.03), (8, 0.05), (40, 0.01), (40, 0.05)] {
            assert_eq!(crew(workers, 50_000, share, 4), 0, "{workers} workers, {share}");
        }
    }

    #[test]
    fn after_ten_minutes_without_an_attempt_nothing_is_known() {
        let mut run = Run::new(SECOND);
        run.until(1.0, true);
        assert!(fail_together(&[run.baseline.trend(run.now)]));
        run.now += SILENCE;
        assert_eq!(run.baseline.trend(run.now), Trend::default());
        assert!(!run.fails());
        assert!(!run.attempt(true), "one failure after that is one failure");
    }
}
