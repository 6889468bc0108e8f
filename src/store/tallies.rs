//! How first attempts went, as a worker tells it with its beat: what a judge near the store counts, without asking the
//! release that is judged for anything else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::names::Kind;

/// Most kinds that a worker names; the rest is told together. A beat is said every three seconds by every worker and
/// read by every judge: it stays below 25 kB.
pub const MAX_TALLIES: usize = 180;
/// Most of them whose last error is told.
pub const MAX_TALLY_ERRORS: usize = 10;

/// First attempts by kind since a worker became active under a generation. Only what the store confirmed is counted,
/// and what was claimed under an earlier generation is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallies {
    /// The generation.
    pub generation: u64,
    /// When counting began (store time): another time is another process, or another count.
    pub since: Timestamp,
    /// By kind; those without a count are left out.
    #[serde(default)]
    pub kinds: BTreeMap<Kind, Tally>,
    /// All kinds that are not named.
    #[serde(default, skip_serializing_if = "Tally::is_empty")]
    pub other: Tally,
    /// The last errors of the kinds that failed most, shortened.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<Kind, String>,
}

/// First attempts of one kind. Written as a list of its numbers, in this order; later versions may add to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<u64>", from = "Vec<u64>")]
pub struct Tally {
    /// Succeeded.
    pub ok: u64,
    /// Failed.
    pub failed: u64,
    /// Of the last 500 to 1,000: succeeded.
    pub recent_ok: u64,
    /// Of these: failed.
    pub recent_failed: u64,
    /// Canaries that others sent: passed.
    pub canaries_passed: u64,
    /// Of these: failed.
    pub canaries_failed: u64,
    /// Where the worker's own test of the kind stands.
    pub trend: Trend,
}

/// Where a worker's test of "first attempts fail far above what is usual" stands, for whoever puts several together: a
/// kind can fail all over a tier and stay below the limit of each worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trend {
    /// The score, in hundredths; nothing speaks against the kind at zero.
    pub score: u64,
    /// Successes in a row, up to as many as end a score.
    pub in_a_row: u64,
    /// First attempts within about an hour.
    pub recent: u64,
    /// First attempts since the score was zero.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
}

impl From<Tally> for Vec<u64> {
    fn from(tally: Tally) -> Self {
        let mut numbers = <[u64; 6]>::from(tally).to_vec();
        if tally.trend != Trend::default() {
            let Trend { score, in_a_row, recent, attempts, failed } = tally.trend;
            numbers.extend([score, in_a_row, recent]);
            if score > 0 {
                numbers.extend([attempts, failed]);
            }
        }
        numbers
    }
}

impl From<Tally> for [u64; 6] {
    fn from(tally: Tally) -> Self {
        [
            tally.ok,
            tally.failed,
            tally.recent_ok,
            tally.recent_failed,
            tally.canaries_passed,
            tally.canaries_failed,
        ]
    }
}

impl From<Vec<u64>> for Tally {
    fn from(numbers: Vec<u64>) -> Self {
        let at = |place: usize| numbers.get(place).copied().unwrap_or_default();
        Self {
            ok: at(0),
            failed: at(1),
            recent_ok: at(2),
            recent_failed: at(3),
            canaries_passed: at(4),
            canaries_failed: at(5),
            trend: Trend { score: at(6), in_a_row: at(7), recent: at(8), attempts: at(9), failed: at(10) },
        }
    }
}

impl Tally {
    /// What is remembered as recent is halved when it is so much.
    const RECENT: u64 = 1_000;

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts first attempts.
    pub fn count(&mut self, ok: u64, failed: u64) {
        (self.ok, self.failed) = (self.ok + ok, self.failed + failed);
        (self.recent_ok, self.recent_failed) = (self.recent_ok + ok, self.recent_failed + failed);
        while self.recent_ok + self.recent_failed >= Self::RECENT {
            (self.recent_ok, self.recent_failed) = (self.recent_ok / 2, self.recent_failed / 2);
        }
    }

    /// With those of another; a trend is one worker's and one kind's.
    pub fn add(&mut self, other: &Self) {
        let (mine, theirs) = (<[u64; 6]>::from(*self), <[u64; 6]>::from(*other));
        let sums: Vec<u64> = mine.into_iter().zip(theirs).map(|(a, b)| a + b).collect();
        *self = Self { trend: self.trend, ..sums.into() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_is_the_share_of_late_and_not_of_always() {
        let mut tally = Tally::default();
        (0..100_000).for_each(|_| tally.count(1, 0));
        (0..1_000).for_each(|n| tally.count(n % 2, 1 - n % 2));
        assert_eq!((tally.ok, tally.failed), (100_500, 500));
        let recent = tally.recent_ok + tally.recent_failed;
        assert!((499..1_000).contains(&recent) && tally.recent_failed * 4 > recent, "{tally:?}");
    }

    #[test]
    fn a_newer_or_older_list_of_numbers_is_read() {
        let tally: Tally = serde_json::from_str("[3,1]").expect("fewer");
        assert_eq!((tally.ok, tally.failed, tally.canaries_passed), (3, 1, 0));
        let tally: Tally = serde_json::from_str("[3,1,3,1,2,0,203,0,4,2,1,99]").expect("more");
        assert_eq!(tally.trend, Trend { score: 203, in_a_row: 0, recent: 4, attempts: 2, failed: 1 });
        assert_eq!(serde_json::to_string(&tally).expect("JSON"), "[3,1,3,1,2,0,203,0,4,2,1]");
        let plain = Tally { trend: Trend::default(), ..tally };
        assert_eq!(serde_json::to_string(&plain).expect("JSON"), "[3,1,3,1,2,0]");
    }
}
