//! How a release did: for each kind its last thousand first attempts. One small record per release; a deploy writes it
//! when it commits a release and when it retains one, and the next one reads it as what is usual.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observed::tallied;
use super::sprt::Count;
use crate::names::{Kind, Release, Tier};
use crate::store::{Seen, Space, Store, StoreError, overwrite};

/// So many first attempts of a kind are remembered.
pub const REMEMBERED: u64 = 1_000;

impl Count {
    /// With newer ones; of the older as many are forgotten as are too many.
    #[must_use]
    pub fn then(self, newer: Self) -> Self {
        let newer = newer.shrunk(REMEMBERED);
        let older = self.shrunk(REMEMBERED - newer.all());
        Self { ok: older.ok + newer.ok, failed: older.failed + newer.failed }
    }

    /// The same share of so many at most.
    fn shrunk(self, most: u64) -> Self {
        if self.all() <= most {
            return self;
        }
        let failed = (self.share() * most as f64).round() as u64;
        Self { ok: most - failed, failed }
    }
}

/// How a release did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Before the generation that was written down last.
    #[serde(default)]
    older: BTreeMap<Kind, Count>,
    /// The generation that was written down last…
    #[serde(default)]
    generation: u64,
    /// …and how it did.
    #[serde(default)]
    newest: BTreeMap<Kind, Count>,
}

impl History {
    /// Each kind's last first attempts.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<Kind, Count> {
        let mut kinds = self.older.clone();
        for (kind, newer) in &self.newest {
            let count = kinds.entry(kind.clone()).or_default();
            *count = count.then(*newer);
        }
        kinds
    }

    /// Takes in what the workers of a generation tell. Taking the same generation in again replaces what it told before,
    /// so that a step that is repeated after a crash counts once; less than it told before (its workers have gone) and
    /// an older generation change nothing.
    pub fn merge(&mut self, generation: u64, told: BTreeMap<Kind, Count>) {
        if generation < self.generation {
            return;
        }
        if generation > self.generation {
            (self.older, self.generation, self.newest) = (self.kinds(), generation, BTreeMap::new());
        }
        for (kind, count) in told {
            let there = self.newest.entry(kind).or_default();
            if count.all() >= there.all() {
                *there = count;
            }
        }
    }

    /// What the workers of a release tell of a generation, together.
    #[must_use]
    pub fn told(workers: &[Seen], release: &Release, generation: u64) -> BTreeMap<Kind, Count> {
        let mut told: BTreeMap<Kind, Count> = BTreeMap::new();
        for seen in workers.iter().filter(|seen| seen.presence.release == *release) {
            for (kind, tally) in tallied(seen, generation).into_iter().flat_map(|tallies| &tallies.kinds) {
                *told.entry(kind.clone()).or_default() +=
                    Count { ok: tally.recent_ok, failed: tally.recent_failed };
            }
        }
        told.into_iter().map(|(kind, count)| (kind, count.shrunk(REMEMBERED))).collect()
    }

    /// Reads a release's record; an empty one when there is none, or none that can be read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(store: &dyn Store, tier: &Tier, release: &Release) -> Result<Self, StoreError> {
        let record = store.record(tier, Space::Evidence, release.as_str()).await?;
        // What a newer version wrote otherwise costs a deploy its baseline, not its life.
        Ok(record.and_then(|record| serde_json::from_str(&record.value).ok()).unwrap_or_default())
    }

    /// Takes in what the workers tell and writes it down.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn keep(
        store: &dyn Store,
        tier: &Tier,
        release: &Release,
        generation: u64,
    ) -> Result<Self, StoreError> {
        let workers = store.workers(tier).await?;
        let mut history = Self::read(store, tier, release).await?;
        history.merge(generation, Self::told(&workers, release, generation));
        let value = serde_json::json!(history).to_string();
        overwrite(store, tier, Space::Evidence, release.as_str(), &value, None).await?;
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        Kind::new("notify.email").expect("a kind")
    }

    fn told(ok: u64, failed: u64) -> BTreeMap<Kind, Count> {
        [(kind(), Count { ok, failed })].into()
    }

    fn after(history: &History) -> Count {
        history.kinds()[&kind()]
    }

    #[test]
    fn the_last_thousand_are_remembered_and_the_older_ones_fade() {
        let old = Count { ok: 900, failed: 100 };
        assert_eq!(old.then(Count { ok: 10, failed: 0 }), Count { ok: 901, failed: 99 });
        assert_eq!(old.then(Count { ok: 500, failed: 0 }), Count { ok: 950, failed: 50 });
        assert_eq!(old.then(Count { ok: 99_000, failed: 1_000 }), Count { ok: 990, failed: 10 });
        assert_eq!(Count::default().then(Count { ok: 3, failed: 1 }), Count { ok: 3, failed: 1 });
    }

    #[test]
    fn a_generation_that_is_told_twice_counts_once() {
        let mut history = History::default();
        history.merge(7, told(100, 4));
        history.merge(7, told(100, 4));
        assert_eq!(after(&history), Count { ok: 100, failed: 4 });
        history.merge(7, told(200, 4));
        history.merge(7, told(3, 3));
        assert_eq!(after(&history), Count { ok: 200, failed: 4 }, "workers that went take nothing with them");
        history.merge(9, told(50, 1));
        history.merge(7, told(1_000, 0));
        assert_eq!(after(&history), Count { ok: 250, failed: 5 }, "what is late changes nothing");
    }

    #[test]
    fn it_can_be_written_and_read() {
        let mut history = History::default();
        history.merge(7, told(100, 4));
        let text = serde_json::json!(history).to_string();
        assert_eq!(serde_json::from_str::<History>(&text).expect("readable"), history);
    }
}
