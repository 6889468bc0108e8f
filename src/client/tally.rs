//! What this process enqueued, by queue and kind: for metrics. A batch takes the lock once, and jobs of one kind in a row
//! find their place once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::job::{NewJob, State, When};
use crate::names::{Kind, Queue};
use crate::store::Insert;

/// What was enqueued, by queue and kind. Every known kind is there from the start, in its own queue; all others are one.
pub type Sent = BTreeMap<(Queue, Kind), SentCount>;

/// How many jobs of one kind were put into one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SentCount {
    /// To run at once.
    pub now: u64,
    /// To run later, as whoever enqueued them asked.
    pub scheduled: u64,
}

/// The tally of a client and its clones.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kinds: BTreeSet<Kind>,
    sent: Mutex<Sent>,
}

/// Jobs in a row that are counted alike.
pub(super) struct Run {
    queue: Queue,
    kind: Kind,
    later: bool,
    jobs: usize,
}

/// Whether a job is to run later.
pub(super) fn is_later(job: &NewJob) -> bool {
    !matches!(job.when, When::Now | When::After(std::time::Duration::ZERO))
}

/// What will be counted of a batch, once the store has answered.
pub(super) fn runs<'a>(jobs: impl Iterator<Item = (&'a NewJob, bool)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (job, later) in jobs {
        match runs.last_mut() {
            Some(run) if run.later == later && run.kind == job.kind && run.queue == job.queue => {
                run.jobs += 1;
            }
            _ => runs.push(Run { queue: job.queue.clone(), kind: job.kind.clone(), later, jobs: 1 }),
        }
    }
    runs
}

impl Tally {
    /// Of a process that knows these kinds.
    pub(super) fn of<'a>(kinds: impl Iterator<Item = (&'a Queue, &'a Kind)>) -> Self {
        let sent: Sent =
            kinds.map(|(queue, kind)| ((queue.clone(), kind.clone()), SentCount::default())).collect();
        Self { kinds: sent.keys().map(|(_, kind)| kind.clone()).collect(), sent: Mutex::new(sent) }
    }

    /// Counts what is in the store now and was not before.
    pub(super) fn count(&self, runs: Vec<Run>, answers: &[Insert]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = answers.iter();
        for run in runs {
            let (mut now, mut scheduled) = (0, 0);
            for answer in answers.by_ref().take(run.jobs) {
                match answer {
                    // A time that has passed is now.
                    Insert::Stored { state: State::Scheduled, .. } if run.later => scheduled += 1,
                    Insert::Stored { .. } => now += 1,
                    Insert::Existing { .. } | Insert::Conflict { .. } | Insert::Held { .. } => {}
                }
            }
            if now + scheduled == 0 {
                continue; // what is refused makes no series
            }
            let kind = if self.kinds.contains(&run.kind) { run.kind } else { Kind::other() };
            let count = sent.entry((run.queue, kind)).or_default();
            (count.now, count.scheduled) = (count.now + now, count.scheduled + scheduled);
        }
    }

    pub(super) fn read(&self) -> Sent {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
