//! How long jobs waited until they began, by queue: for metrics. A claimed batch looks its queues up once; a job that
//! begins adds to its queue's times without a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::state::lock;
use crate::histogram::{Histogram, Times};
use crate::names::Queue;

/// Upper bounds of the buckets of waits, in seconds: from what an idle worker needs to a backlog of days.
pub const WAITS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];

/// How long the jobs of each queue waited, from when they could run until they began. An attempt that is repeated counts
/// from when it was due. Every queue that a worker is told of is there from the start.
pub type Waits = BTreeMap<Queue, Times>;

/// A queue, and how long its jobs waited.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) queue: Queue,
    pub(super) waits: Histogram,
}

/// The lines of all queues.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<BTreeMap<Queue, Arc<Line>>>);

impl Lines {
    /// With these queues, at zero: a series that appears with its first value hides that value from rates.
    pub(super) fn of<'a>(queues: impl Iterator<Item = &'a Queue>) -> Self {
        let lines = Self::default();
        queues.for_each(|queue| drop(lines.line(queue)));
        lines
    }

    fn line(&self, queue: &Queue) -> Arc<Line> {
        let mut lines = lock(&self.0);
        let new = || Arc::new(Line { queue: queue.clone(), waits: Histogram::new(&WAITS) });
        Arc::clone(lines.entry(queue.clone()).or_insert_with(new))
    }

    /// The line of each job's queue, one after the other: a batch comes in runs of one queue.
    pub(super) fn finder(&self) -> impl FnMut(&Queue) -> Arc<Line> {
        let mut last: Option<Arc<Line>> = None;
        move |queue| match &last {
            Some(line) if line.queue == *queue => Arc::clone(line),
            _ => Arc::clone(last.insert(self.line(queue))),
        }
    }

    pub(super) fn read(&self) -> Waits {
        lock(&self.0).iter().map(|(queue, line)| (queue.clone(), line.waits.read())).collect()
    }
}
