//! What a judge looks at: what is known before, and what is seen at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sprt::{BROKEN, Count};
use crate::health::tier::rules::is_simulated;
use crate::names::{Kind, Queue, Release, WorkerName};
use crate::store::{Seen, Tallies};

/// The kind of the canaries that a worker sends to itself, and that others may send as well, with a nonce as their
/// argument. In [`Terms::with_canary`] it proves workers whose own kinds have no canary payloads; it proves no kind.
pub const OWN: &str = "sluicegate.canary";
/// The kind that stands for those that a worker does not name in its tallies.
const OTHER: &str = "other";

/// What is judged, and by what: fixed when a deploy begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The release that is judged.
    pub release: Release,
    /// The release that it replaces; `None` for a first one.
    pub stable: Option<Release>,
    /// How the stable release did, by kind.
    pub past: BTreeMap<Kind, Count>,
    /// The kinds that the release registers.
    pub kinds: BTreeSet<Kind>,
    /// Those of them that declare a canary payload.
    pub with_canary: BTreeSet<Kind>,
    /// Kinds that somebody said need no proof.
    pub waived: BTreeSet<Kind>,
    /// How many workers are expected.
    pub workers: usize,
    /// The least share of failures that must be found out, 0 to 1.
    pub broken: f64,
    /// Whether a kind that no job can prove must be waived before the release passes.
    pub strict: bool,
}

impl Terms {
    /// Of a first release with so many workers; everything else is to be filled in.
    #[must_use]
    pub const fn new(release: Release, workers: usize) -> Self {
        Self {
            release,
            stable: None,
            past: BTreeMap::new(),
            kinds: BTreeSet::new(),
            with_canary: BTreeSet::new(),
            waived: BTreeSet::new(),
            workers,
            broken: BROKEN,
            strict: false,
        }
    }
}

/// What is seen at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The living workers of the release that is judged.
    pub workers: BTreeMap<WorkerName, Hands>,
    /// Those of the stable release, at the same time.
    pub stable: BTreeMap<WorkerName, Hands>,
    /// The same canary sent to both releases at the same moment, by kind: the pairs that differ.
    pub pairs: BTreeMap<Kind, Pairs>,
    /// Kinds that have waiting jobs or a schedule.
    pub wanted: BTreeSet<Kind>,
    /// Queues in which jobs wait.
    pub queues: BTreeSet<Queue>,
    /// What is left of the time in which a release is watched at least; zero while it is not active yet.
    pub left: Duration,
}

/// Canaries that were sent as pairs and ended differently.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Failed on the release that is judged, and passed on the stable one.
    pub only_here: u64,
    /// The other way round.
    pub only_there: u64,
}

/// One worker and what it has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hands {
    /// Tells one count of first attempts from another: a worker that restarted counts anew.
    pub life: i64,
    /// The kinds it registers.
    pub kinds: BTreeSet<Kind>,
    /// The queues it serves; `None` for all.
    pub queues: Option<BTreeSet<Queue>>,
    /// First attempts of real jobs.
    pub jobs: BTreeMap<Kind, Outcomes>,
    /// Canaries, as whoever sent them counted.
    pub canaries: BTreeMap<Kind, Canaries>,
}

/// How jobs ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// How many.
    pub count: Count,
    /// The last error.
    pub error: Option<String>,
}

/// Canaries of one kind to one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Canaries {
    /// Sent.
    pub sent: u64,
    /// Of these, those that came back, or did not within their time: they failed.
    pub ended: Outcomes,
}

impl Canaries {
    /// Those on their way.
    #[must_use]
    pub const fn under_way(&self) -> u64 {
        self.sent.saturating_sub(self.ended.count.all())
    }
}

impl Observed {
    /// The workers of both releases, from what they told the store. Of the release that is judged only what it did under
    /// `generation` counts (0: it is not active yet, so only canaries do); of the stable one whatever it told last.
    #[must_use]
    pub fn from_workers(workers: &[Seen], terms: &Terms, generation: u64) -> Self {
        let mut observed = Self::default();
        let living = workers.iter().filter(|seen| !seen.is_stale() && !is_simulated(seen));
        for seen in living {
            let (presence, name) = (&seen.presence, seen.presence.worker.clone());
            if presence.release == terms.release {
                observed.workers.insert(name, Hands::new(seen, tallied(seen, generation)));
            } else if terms.stable.as_ref() == Some(&presence.release) {
                observed.stable.insert(name, Hands::new(seen, presence.tallies.as_ref()));
            }
        }
        observed
    }
}

/// What a worker tells of a generation.
pub(super) fn tallied(seen: &Seen, generation: u64) -> Option<&Tallies> {
    seen.presence.tallies.as_ref().filter(|tallies| tallies.generation == generation && generation > 0)
}

impl Hands {
    fn new(seen: &Seen, tallies: Option<&Tallies>) -> Self {
        let presence = &seen.presence;
        let mut hands = Self {
            kinds: presence.kinds.iter().map(|(kind, _)| kind.clone()).collect(),
            queues: presence.queues.as_ref().map(|queues| queues.iter().cloned().collect()),
            ..Self::default()
        };
        hands.kinds.extend(Kind::new(OWN));
        let Some(tallies) = tallies else { return hands };
        hands.life = tallies.since.ms();
        for (kind, tally) in &tallies.kinds {
            let count = Count { ok: tally.ok, failed: tally.failed };
            let error = tallies.errors.get(kind).cloned();
            hands.jobs.insert(kind.clone(), Outcomes { count, error });
        }
        let count = Count { ok: tallies.other.ok, failed: tallies.other.failed };
        if let (true, Ok(other)) = (count.all() > 0, Kind::new(OTHER)) {
            hands.jobs.entry(other).or_default().count += count;
        }
        hands
    }

    /// Whether it serves a queue.
    #[must_use]
    pub fn serves(&self, queue: &Queue) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.contains(queue))
    }
}
