//! Reports outcomes to the store: one call at a time and in order (two in flight could overtake each other), with
//! everything that came up while the last one was under way, and no timers. While the store is away outcomes wait here;
//! there are never more of them than jobs that were claimed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::lease::{Cause, Held, Lease};
use super::outage::RECONNECT;
use super::state::{Core, lock};
use crate::retry::Reconnect;
use crate::store::{MAX_BATCH, Settle, Settled, Verdict};

/// What became of one job, with its lease.
pub(super) struct Outcome {
    lease: Arc<Lease>,
    index: usize,
    settle: Settle,
}

impl Outcome {
    pub(super) fn held(&self) -> Option<&Held> {
        self.lease.jobs.get(self.index)
    }

    pub(super) fn settle(&self) -> &Settle {
        &self.settle
    }

    /// The generation that its job was claimed under.
    pub(super) fn generation(&self) -> u64 {
        self.lease.generation
    }

    /// Canaries do not count as work.
    pub(super) fn is_canary(&self) -> bool {
        self.lease.canary
    }
}

impl Core {
    /// Reports what became of a job, once: whoever is first. A lost lease changes nothing, so nothing is sent.
    pub(super) fn report(&self, lease: &Arc<Lease>, held: &Held, ran: Duration, verdict: Verdict) -> bool {
        if !held.finish() {
            return false;
        }
        if held.cause() == Cause::Lost || lease.is_lost() {
            self.lost.fetch_add(1, Relaxed);
            self.release(lease);
            return false;
        }
        if verdict == Verdict::Return {
            self.returned.fetch_add(1, Relaxed);
        }
        let settle = Settle { nonce: lease.nonce, id: held.id, slot: held.slot(), ran, verdict };
        self.unsettled.fetch_add(1, Relaxed);
        let first = {
            let mut outbox = lock(&self.outbox);
            outbox.push_back(Outcome { lease: Arc::clone(lease), index: held.index, settle });
            outbox.len() == 1
        };
        self.wake_settler.notify_one();
        first
    }
}

pub(super) async fn settle(core: Arc<Core>) {
    loop {
        let batch = take(&core);
        if batch.is_empty() {
            tokio::select! {
                () = core.wake_settler.notified() => continue,
                () = core.over.cancelled() => return,
            }
        }
        let Some(answers) = send(&core, &batch).await else { return };
        account(&core, &batch, &answers);
    }
}

fn take(core: &Core) -> Vec<Outcome> {
    let mut outbox = lock(&core.outbox);
    let count = outbox.len().min(MAX_BATCH);
    outbox.drain(..count).collect()
}

/// Sends until there is an answer to each; `None` when the worker is over before that. A batch that fails is sent in smaller
/// parts: many leases are many round trips, and on a bad wire the whole might never get through.
async fn send(core: &Core, batch: &[Outcome]) -> Option<Vec<Settled>> {
    let (mut answers, mut size) = (Vec::with_capacity(batch.len()), batch.len());
    let mut reconnect = Reconnect::new(Duration::from_millis(100), RECONNECT);
    while answers.len() < batch.len() {
        let items =
            batch.iter().skip(answers.len()).take(size).map(|outcome| outcome.settle.clone()).collect();
        let answer = core.store.settle(&core.options.tier, items).await;
        if let Some(some) = core.heard("settler", answer) {
            answers.extend(some);
            size = batch.len().min(size * 2);
            reconnect.reset();
            continue;
        }
        size = (size / 2).max(1);
        tokio::select! {
            () = tokio::time::sleep(reconnect.next_delay()) => {}
            () = core.over.cancelled() => return None,
        }
    }
    Some(answers)
}

fn account(core: &Arc<Core>, batch: &[Outcome], answers: &[Settled]) {
    let (mut completed, mut failed, mut lost, mut again) = (0, 0, 0, false);
    super::tally::take_in(core, batch, answers);
    for (outcome, answer) in batch.iter().zip(answers) {
        if outcome.lease.canary {
            if let Some(held) = outcome.held() {
                super::canary::settled(core, &held.kind, &outcome.settle, *answer);
            }
            continue;
        }
        if *answer == Settled::Lost {
            lost += 1;
            tracing::debug!(id = %outcome.settle.id, "lease was lost before its outcome arrived: nothing was changed");
        } else {
            match &outcome.settle.verdict {
                Verdict::Completed => completed += 1,
                Verdict::Dead { .. } => failed += 1,
                Verdict::Retry { .. } => (failed, again) = (failed + 1, true),
                Verdict::Snooze { .. } => again = true,
                _ => {}
            }
        }
    }
    super::counts::count(core, batch, answers);
    core.completed.fetch_add(completed, Relaxed);
    core.failed.fetch_add(failed, Relaxed);
    core.lost.fetch_add(lost, Relaxed);
    for outcome in batch {
        core.release(&outcome.lease);
    }
    core.unsettled.fetch_sub(batch.len(), Relaxed);
    core.wake_claimer.notify_one();
    core.calmer.notify_waiters();
    if again {
        core.wake_sweeper.notify_one(); // something is due earlier, perhaps
    }
}
