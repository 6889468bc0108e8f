//! The sequential test of one stream of first attempts: looked at after every job or every second, it errs no more
//! often than it was allowed to.
//!
//! 1. Until it has decided, Wald's sequential probability ratio test (1945) of "fails much more often" (share `broken`)
//!    against "as usual" (share `usual`). Its ratio never falls below the limit for passing by more than one look, so a
//!    stream that begins well and then breaks has little credit to use up.
//! 2. Once it has passed, a CUSUM (Page, 1954) of the same ratio watches for a change. A test started anew would carry
//!    the credit of good jobs again, up to three of its units at the worst moment; a CUSUM carries none, and no rule
//!    with the same rate of false alarms finds a change sooner (Moustakides, 1986).
//!
//! Each of the two has its own half of the stream's budget. For the CUSUM it holds however long it watches: a run that
//! began at its k-th job must reach ln(k (k + 1) / α), which by Ville's inequality happens with probability
//! α / (k (k + 1)) at most, and the sum of these over all k is α.

use serde::{Deserialize, Serialize};

use super::exact;

/// How often a release as good as usual may be failed by chance: once in a hundred deploys, all streams together. It is
/// divided among them.
pub const FALSE_FAIL: f64 = 0.01;
/// How often a stream of a broken release may pass by chance. This is not divided: a bad release is let through only
/// when *all* of its bad streams pass, and those that did are watched on.
pub const FALSE_PASS: f64 = 0.05;
/// "Fails much more often" is this share at least…
pub const BROKEN: f64 = 0.20;
/// …and so many times the usual one.
const TIMES: f64 = 4.0;
/// Usual is never taken to be better than this: no history is long enough to tell.
const BEST: f64 = 0.01;
/// A kind that usually fails more often than this is ill already: it has no usual share to be judged by.
const ILL: f64 = 0.10;
/// Its budget is absolute instead.
const ABSOLUTE: Rates = Rates { usual: 0.05, broken: 0.25, ill: true };

/// What a stream is tested for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The share of first attempts that may fail, 0 to 1.
    pub usual: f64,
    /// The share that must be found out.
    pub broken: f64,
    /// Whether the stable release fails this kind so often that the budget is an absolute one.
    pub ill: bool,
}

impl Rates {
    /// For a kind, from what the stable release made of it. `broken` is the least share that must be found out:
    /// [`BROKEN`] finds broken workers fast.
    ///
    /// Usual is the upper bound of Clopper and Pearson, and never more than twice what was seen: three jobs without a
    /// failure do not allow the next release to fail at 63 %.
    #[must_use]
    pub fn after(past: Count, broken: f64) -> Self {
        let bound = exact::upper_bound(past.failed, past.all(), exact::CONFIDENCE);
        let usual = bound.min(2.0 * past.share()).max(BEST);
        if usual > ILL {
            return ABSOLUTE;
        }
        Self { usual, broken: broken.max(TIMES * usual), ill: false }
    }

    /// The logarithm of the ratio of likelihoods, broken to usual.
    #[must_use]
    pub fn ratio(&self, ok: u64, failed: u64) -> f64 {
        let good = ((1.0 - self.broken) / (1.0 - self.usual)).ln();
        ok as f64 * good + failed as f64 * (self.broken / self.usual).ln()
    }
}

/// First attempts, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Succeeded.
    pub ok: u64,
    /// Failed.
    pub failed: u64,
}

impl Count {
    /// Both.
    #[must_use]
    pub const fn all(self) -> u64 {
        self.ok + self.failed
    }

    /// What came since then; `None` when it went back.
    #[must_use]
    pub fn since(self, before: Self) -> Option<Self> {
        let (ok, failed) = (self.ok.checked_sub(before.ok)?, self.failed.checked_sub(before.failed)?);
        Some(Self { ok, failed })
    }

    /// The share that failed.
    #[must_use]
    pub fn share(self) -> f64 {
        self.failed as f64 / self.all().max(1) as f64
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, more: Self) {
        (self.ok, self.failed) = (self.ok + more.ok, self.failed + more.failed);
    }
}

/// What came since the last look, with its ratio.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct News {
    count: Count,
    ratio: f64,
}

impl News {
    /// Of one kind.
    #[must_use]
    pub fn of(count: Count, rates: &Rates) -> Self {
        Self { count, ratio: rates.ratio(count.ok, count.failed) }
    }

    pub(super) const fn count(&self) -> Count {
        self.count
    }

    pub(super) const fn ratio(&self) -> f64 {
        self.ratio
    }
}

impl std::ops::AddAssign for News {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.ratio += more.ratio;
    }
}

/// Where a test stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Not decided.
    Open,
    /// Passed, and watched since.
    Passed,
    /// Failed.
    Failed,
}

/// The test of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sprt {
    /// The budget of each half.
    alpha: f64,
    step: Step,
    score: f64,
    /// What the score is made of: all, or since the CUSUM was last at zero.
    run: Count,
    total: Count,
    /// Jobs since it passed.
    watched: u64,
    /// Whether it passed before it failed.
    changed: bool,
}

impl Sprt {
    /// One that fails a good stream with at most this probability.
    #[must_use]
    pub fn new(budget: f64) -> Self {
        Self {
            alpha: budget / 2.0,
            step: Step::Open,
            score: 0.0,
            run: Count::default(),
            total: Count::default(),
            watched: 0,
            changed: false,
        }
    }

    /// Takes in what came since the last look. It passes with so many jobs at least.
    pub fn look(&mut self, news: News, at_least: u64) -> Step {
        if news.count.all() == 0 {
            return self.step;
        }
        self.total += news.count;
        self.run += news.count;
        self.score += news.ratio;
        match self.step {
            Step::Open if self.score >= ((1.0 - FALSE_PASS) / self.alpha).ln() => self.step = Step::Failed,
            Step::Open
                if self.score <= (FALSE_PASS / (1.0 - self.alpha)).ln() && self.run.all() >= at_least =>
            {
                (self.step, self.score, self.run) = (Step::Passed, 0.0, Count::default());
            }
            Step::Passed => {
                self.watched += news.count.all();
                self.watch();
            }
            // A long outage must not take as long to heal.
            Step::Failed => self.score = self.score.min(-self.alpha.ln()),
            Step::Open => {}
        }
        self.step
    }

    fn watch(&mut self) {
        if self.score <= 0.0 {
            (self.score, self.run) = (0.0, Count::default());
            return;
        }
        let first = (self.watched - self.run.all() + 1) as f64;
        if self.score >= (first * (first + 1.0) / self.alpha).ln() {
            (self.step, self.changed) = (Step::Failed, true);
        }
    }

    /// Whether it failed, and what came since then makes up for it.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.step == Step::Failed && self.score <= 0.0
    }

    /// Forgets what it has seen: it must pass again.
    pub fn restart(&mut self) {
        *self = Self { alpha: self.alpha, ..Self::new(0.0) };
    }

    /// Drops what speaks against it so far, unless that has decided already.
    pub fn forget(&mut self) {
        match self.step {
            Step::Open => (self.score, self.run) = (self.score.min(0.0), Count::default()),
            Step::Passed => (self.score, self.run) = (0.0, Count::default()),
            Step::Failed => {}
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// What speaks against it: all that it has seen, or what came since it last gave no cause.
    #[must_use]
    pub const fn run(&self) -> Count {
        self.run
    }

    /// All that it has seen.
    #[must_use]
    pub const fn total(&self) -> Count {
        self.total
    }

    /// Whether it failed after it had passed.
    #[must_use]
    pub const fn changed(&self) -> bool {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rates = Rates { usual: 0.01, broken: 0.20, ill: false };

    fn until(step: Step, test: &mut Sprt, mut failed: impl FnMut() -> bool) -> u64 {
        (1..10_000)
            .find(|_| {
                let count = if failed() { Count { ok: 0, failed: 1 } } else { Count { ok: 1, failed: 0 } };
                test.look(News::of(count, &PLAIN), 1) == step
            })
            .expect("a decision")
    }

    /// The table that the design gives for α = 1 %, β = 5 %.
    #[test]
    fn one_stream_decides_as_soon_as_wald_says() {
        assert_eq!(until(Step::Passed, &mut Sprt::new(0.02), || false), 15);
        assert_eq!(until(Step::Failed, &mut Sprt::new(0.02), || true), 2);
    }

    #[test]
    fn nothing_is_never_a_pass() {
        let mut test = Sprt::new(0.02);
        for _ in 0..1_000 {
            assert_eq!(test.look(News::default(), 0), Step::Open);
        }
    }

    /// Looks at whole seconds can only decide later than looks at every job.
    #[test]
    fn errors_stay_below_what_was_allowed() {
        const RUNS: u32 = 4_000;
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut failed_good, mut passed_bad, mut alarms) = (0, 0, 0);
        for _ in 0..RUNS {
            let decide = |share: f64, rng: &mut fastrand::Rng| {
                let mut test = Sprt::new(0.02);
                while test.step() == Step::Open {
                    let count = Count { ok: 0, failed: u64::from(rng.f64() < share) };
                    let count = Count { ok: 1 - count.failed, ..count };
                    test.look(News::of(count, &PLAIN), 1);
                }
                test
            };
            let mut good = decide(0.01, &mut rng);
            failed_good += u32::from(good.step() == Step::Failed);
            passed_bad += u32::from(decide(0.20, &mut rng).step() == Step::Passed);
            if good.step() == Step::Passed {
                (0..500).for_each(|_| {
                    let failed = u64::from(rng.f64() < 0.01);
                    good.look(News::of(Count { ok: 1 - failed, failed }, &PLAIN), 1);
                });
                alarms += u32::from(good.step() == Step::Failed);
            }
        }
        let share = |n: u32| f64::from(n) / f64::from(RUNS);
        println!(
            "false fail {:.4}, false pass {:.4}, false alarm {:.4}",
            share(failed_good),
            share(passed_bad),
            share(alarms)
        );
        assert!(share(failed_good) <= 0.01 && share(passed_bad) <= 0.055 && share(alarms) <= 0.01);
        assert!(passed_bad > 0, "the test can tell");
    }

    #[test]
    fn a_change_after_ten_thousand_good_jobs_is_found_within_a_dozen() {
        let mut test = Sprt::new(0.000_1);
        (0..10_000).for_each(|_| _ = test.look(News::of(Count { ok: 1, failed: 0 }, &PLAIN), 15));
        assert_eq!(test.step(), Step::Passed);
        let jobs = until(Step::Failed, &mut test, || true);
        println!("{jobs} jobs");
        assert!(jobs <= 12 && test.changed());
        assert_eq!(
            test.run(),
            Count { ok: 0, failed: jobs },
            "what speaks against it, without the good time"
        );
    }

    #[test]
    fn usual_is_what_the_history_bears_out() {
        let usual = |ok, failed| Rates::after(Count { ok, failed }, BROKEN).usual;
        assert_eq!(usual(0, 0), 0.01, "a new kind");
        assert_eq!(usual(3, 0), 0.01, "a short history is no licence");
        assert!((usual(990, 10) - 0.016_9).abs() < 1e-4);
        assert!((usual(970, 30) - 0.040_5).abs() < 1e-3);
        let poisoned = Rates::after(Count { ok: 930, failed: 70 }, BROKEN);
        assert!(poisoned.broken > 0.30 && !poisoned.ill, "{poisoned:?}");
        assert_eq!(Rates::after(Count { ok: 300, failed: 700 }, BROKEN), ABSOLUTE);
    }
}
