//! Exact statistics of counts. They explain and bound; decisions are made by the sequential test, because these hold
//! only for one look at a number of jobs that was chosen beforehand.
//!
//! Written out here: a crate for it brings three others, and all of it rests on two functions that the tests compare with
//! published values.

/// The confidence of the bounds that are shown.
pub const CONFIDENCE: f64 = 0.95;

/// The highest share of failures that the counts allow: one-sided upper bound of Clopper and Pearson (1934).
#[must_use]
pub fn upper_bound(failed: u64, of: u64, confidence: f64) -> f64 {
    if failed >= of {
        return 1.0;
    }
    if failed == 0 {
        return 1.0 - (1.0 - confidence).powf(1.0 / of as f64); // what the "rule of three" (3 / n) approximates
    }
    let (a, b) = ((failed + 1) as f64, (of - failed) as f64);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..32 {
        let middle = f64::midpoint(low, high);
        if beta(a, b, middle) < confidence { low = middle } else { high = middle }
    }
    high
}

/// So many jobs without a failure show that fewer than this share fail: the exact rule of three.
#[must_use]
pub fn failure_free(below: f64, confidence: f64) -> u64 {
    ((1.0 - confidence).ln() / (1.0 - below).ln()).ceil() as u64
}

/// How likely at least so many of all failures are "here" by chance, if it makes no difference where a job runs:
/// Fisher's exact test, one-sided.
#[must_use]
pub fn fisher(failed: u64, of: u64, failed_there: u64, of_there: u64) -> f64 {
    let tables = Tables { failures: failed + failed_there, here: of, there: of_there };
    let mean = tables.failures as f64 * of as f64 / (of + of_there).max(1) as f64;
    if failed as f64 > mean {
        return tables.tail(failed, 1).min(1.0);
    }
    // Below the mean the other tail is the small one, and sums up without losing digits.
    let fewer = failed.checked_sub(1).map_or(0.0, |most| tables.tail(most, -1));
    (1.0 - fewer).max(0.0)
}

/// All tables with the same margins: so many failures among the jobs here and there.
struct Tables {
    failures: u64,
    here: u64,
    there: u64,
}

impl Tables {
    /// How likely so many of the failures are here: the hypergeometric distribution.
    fn probability(&self, failed: u64) -> f64 {
        let Some(rest) = self.failures.checked_sub(failed).filter(|rest| *rest <= self.there) else {
            return 0.0;
        };
        if failed > self.here {
            return 0.0;
        }
        let choose = |n: u64, k: u64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
        (choose(self.here, failed) + choose(self.there, rest) - choose(self.here + self.there, self.failures))
            .exp()
    }

    /// The sum from there on, away from the mean: each term is smaller than the one before.
    fn tail(&self, from: u64, step: i64) -> f64 {
        let (mut sum, mut at) = (0.0, Some(from));
        while let Some(failed) = at {
            let term = self.probability(failed);
            sum += term;
            if term <= sum * 1e-15 {
                break;
            }
            at = failed.checked_add_signed(step);
        }
        sum
    }
}

/// How likely at least so many of the pairs that differ failed only here, if both sides are alike: McNemar's exact test,
/// one-sided.
#[must_use]
pub fn mcnemar(only_here: u64, only_there: u64) -> f64 {
    if only_here == 0 { 1.0 } else { beta(only_here as f64, only_there as f64 + 1.0, 0.5) }
}

fn ln_factorial(n: u64) -> f64 {
    ln_gamma(n as f64 + 1.0)
}

/// Stirling's series, from 15 on, where its fourth term is below 1e-12 (Abramowitz and Stegun 6.1.41, 6.1.15).
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 15.0 {
        product *= x;
        x += 1.0;
    }
    let square = x * x;
    let series =
        (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1_260.0 - 1.0 / (1_680.0 * square)) / square) / square) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - f64::ln(product)
}

/// The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8, evaluated as Lentz
/// (1976) does).
fn beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    for step in 1..=100_000_u32 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        result *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        result *= d * c;
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found} is not {expected} ± {within}");
    }

    /// Factorials, and the half: Γ(1/2) = √π.
    #[test]
    fn gamma_is_right() {
        close(ln_gamma(1.0), 0.0, 1e-13);
        close(ln_gamma(0.5), 0.572_364_942_924_700_1, 1e-13);
        close(ln_gamma(11.0), 3_628_800_f64.ln(), 1e-12);
        close(ln_factorial(170), 706.573_062_245_787_4, 1e-10);
    }

    /// The two-sided 95 % intervals that textbooks give are one-sided ones at 97.5 %: 4 of 20 is (5.73 %, 43.66 %), 10 of
    /// 100 is (4.90 %, 17.62 %), 0 of 10 ends at 30.85 %.
    #[test]
    fn clopper_pearson_is_as_published() {
        close(upper_bound(4, 20, 0.975), 0.436_614, 1e-6);
        close(upper_bound(10, 100, 0.975), 0.176_223, 1e-6);
        close(upper_bound(0, 10, 0.975), 0.308_497, 1e-6);
        // The lower end for successes is the upper one for failures.
        close(1.0 - upper_bound(16, 20, 0.975), 0.057_334, 1e-6);
        close(upper_bound(3, 3, 0.95), 1.0, 0.0);
        close(upper_bound(0, 0, 0.95), 1.0, 0.0);
    }

    #[test]
    fn a_bound_of_a_million_jobs_is_its_share_and_comes_at_once() {
        let share = upper_bound(10_000, 1_000_000, 0.95);
        // The normal approximation: p + 1.645 √(p (1 - p) / n).
        close(share, 0.01 + 1.645 * (0.01_f64 * 0.99 / 1e6).sqrt(), 2e-6);
    }

    /// The rule of three, exactly: 14 jobs for 20 %, 29 for 10 %, 59 for 5 %, 299 for 1 %.
    #[test]
    fn the_rule_of_three_is_as_published() {
        for (below, jobs) in [(0.2, 14), (0.1, 29), (0.05, 59), (0.01, 299)] {
            assert_eq!(failure_free(below, 0.95), jobs);
            assert!(upper_bound(0, jobs, 0.95) <= below && upper_bound(0, jobs - 1, 0.95) > below);
        }
        close(upper_bound(0, 300, 0.95), 3.0 / 300.0, 1e-4);
    }

    /// Fisher's own (The Design of Experiments, 1935): 3 of 4 cups right is 17 of 70, all of them 1 of 70.
    #[test]
    fn fisher_is_as_published() {
        close(fisher(3, 4, 1, 4), 17.0 / 70.0, 1e-12);
        close(fisher(4, 4, 0, 4), 1.0 / 70.0, 1e-12);
        close(fisher(0, 4, 4, 4), 1.0, 1e-12);
        // 3 of 20 against 10 of 1,000, and a case without any failure.
        close(fisher(3, 20, 10, 1_000), 0.001_6, 5e-5);
        close(fisher(0, 20, 0, 1_000), 1.0, 1e-12);
        close(fisher(500_000, 1_000_000, 5_000, 1_000_000), 0.0, 1e-300);
        close(fisher(5_000, 1_000_000, 500_000, 1_000_000), 1.0, 1e-12);
    }

    /// Seven pairs that differ, all to one side, are the first below 1 %: 1 in 128. 8 of 10 is 56 in 1,024.
    #[test]
    fn mcnemar_is_as_published() {
        close(mcnemar(7, 0), 1.0 / 128.0, 1e-12);
        close(mcnemar(8, 2), 56.0 / 1_024.0, 1e-12);
        close(mcnemar(0, 5), 1.0, 0.0);
    }
}
