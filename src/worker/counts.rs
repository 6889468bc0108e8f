//! What became of jobs, by queue and kind: for metrics. A batch of outcomes takes the lock once, and jobs of one kind in
//! a row find their place once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::settler::Outcome;
use super::state::{Core, lock};
use crate::histogram::bucket;
use crate::names::{Kind, Queue};
use crate::store::{Settle, Settled, Verdict};

/// Upper bounds of the buckets of run times, in seconds; one more holds the rest.
pub const BOUNDS: [f64; 10] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0];

/// How jobs ended, by queue and kind. Every registered kind is there from the start, in its own queue.
pub type Counts = BTreeMap<(Queue, Kind), Count>;

/// How an attempt ended, for whoever counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It did its work.
    Success,
    /// It failed.
    Error,
    /// It was called off.
    Cancelled,
    /// It came too late.
    Expired,
    /// Its lease was lost before its outcome arrived: somebody else runs it as well.
    Duplicate,
}

impl Done {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Success, Self::Error, Self::Cancelled, Self::Expired, Self::Duplicate];

    /// The name, as in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Duplicate => "duplicate",
        }
    }
}

/// How the jobs of one kind in one queue ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Count {
    success: u64,
    error: u64,
    cancelled: u64,
    expired: u64,
    duplicate: u64,
    /// Failed attempts that will be repeated.
    pub retried: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Attempts by run time: each bucket alone, not summed up.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All run times together.
    pub ran: Duration,
}

impl Count {
    /// How many ended so.
    #[must_use]
    pub const fn of(&self, done: Done) -> u64 {
        match done {
            Done::Success => self.success,
            Done::Error => self.error,
            Done::Cancelled => self.cancelled,
            Done::Expired => self.expired,
            Done::Duplicate => self.duplicate,
        }
    }

    fn add(&mut self, settle: &Settle, answer: Settled) {
        if answer == Settled::Lost {
            self.duplicate += 1;
            return;
        }
        match &settle.verdict {
            Verdict::Completed => self.success += 1,
            Verdict::Retry { .. } => (self.error, self.retried) = (self.error + 1, self.retried + 1),
            Verdict::Dead { .. } => (self.error, self.dead) = (self.error + 1, self.dead + 1),
            Verdict::Cancelled => self.cancelled += 1,
            Verdict::Expired => self.expired += 1,
            // These did not end: they wait again.
            Verdict::Snooze { .. } | Verdict::Park { .. } | Verdict::Return => return,
        }
        self.ran(settle.ran);
    }

    fn ran(&mut self, ran: Duration) {
        if let Some(count) = self.buckets.get_mut(bucket(&BOUNDS, ran)) {
            *count += 1;
        }
        self.ran += ran;
    }
}

/// Counts a batch of outcomes that the store has answered.
pub(super) fn count(core: &Core, batch: &[Outcome], answers: &[Settled]) {
    let work = batch.iter().zip(answers).filter(|(outcome, _)| !outcome.is_canary());
    let ends = work.filter_map(|(outcome, answer)| {
        let (queue, kind) = outcome.held()?.place();
        Some((queue, kind, outcome.settle(), *answer))
    });
    let ends: Vec<_> = ends.collect();
    let mut counts = lock(&core.counts);
    for run in ends.chunk_by(|a, b| a.0 == b.0 && a.1 == b.1) {
        let Some((queue, kind, ..)) = run.first() else { continue };
        let count = counts.entry(((*queue).clone(), known(core, kind))).or_default();
        run.iter().for_each(|(_, _, settle, answer)| count.add(settle, *answer));
    }
}

fn known(core: &Core, kind: &Kind) -> Kind {
    if core.kinds.contains_key(kind) { kind.clone() } else { Kind::other() }
}

/// Every kind in its own queue, at zero: a series that appears with its first value hides that value from rates.
pub(super) fn none_yet<'a>(kinds: impl Iterator<Item = (&'a Queue, &'a Kind)>) -> Counts {
    kinds.map(|(queue, kind)| ((queue.clone(), kind.clone()), Count::default())).collect()
}
