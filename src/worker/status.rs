//! The state of the worker: what it is doing, since when, and why. Every change is told to the store at once.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::state::{Core, lock};
use crate::activation::WorkerState;
use crate::clock;

/// What it is doing, and since when.
#[derive(Debug)]
pub(super) struct Status {
    state: WorkerState,
    since: Instant,
    reason: Option<String>,
    /// Why it was told not to claim.
    quiet: Option<String>,
}

impl Status {
    pub(super) fn new() -> Self {
        Self { state: WorkerState::Starting, since: clock::instant(), reason: None, quiet: None }
    }
}

impl Core {
    /// Moves to a state, if the table of worker states allows it. A quiet worker stays quiet whatever the store says.
    pub(super) fn become_state(&self, next: WorkerState, reason: Option<String>) {
        let mut status = lock(&self.status);
        let (next, reason) = match (&status.quiet, next) {
            (Some(why), WorkerState::Active | WorkerState::Inactive) => {
                (WorkerState::Quiet, Some(why.clone()))
            }
            _ => (next, reason),
        };
        if status.state == next && status.reason == reason {
            return;
        }
        if status.state != next {
            if !status.state.may_become(next) {
                return;
            }
            status.since = clock::instant();
            status.state = next;
        }
        tracing::info!(worker = %self.options.name, release = %self.release, state = %next,
            reason = reason.as_deref().unwrap_or_default(), "worker state");
        status.reason = reason;
        drop(status);
        self.state.send_replace(next);
        self.wake_heartbeat.notify_one();
    }

    /// State, reason, and for how long.
    pub(super) fn status(&self) -> (WorkerState, Option<String>, Duration) {
        let status = lock(&self.status);
        (status.state, status.reason.clone(), status.since.elapsed())
    }

    pub(super) fn quiet(&self, reason: &str) {
        lock(&self.status).quiet = Some(reason.to_owned());
        self.become_state(WorkerState::Quiet, Some(reason.to_owned()));
        self.give_back_unstarted();
        self.wake_claimer.notify_one();
    }

    pub(super) fn resume(&self) {
        if lock(&self.status).quiet.take().is_some() {
            let reason = "resumed, and has not asked the store yet".to_owned();
            self.become_state(WorkerState::Inactive, Some(reason));
            self.wake_claimer.notify_one();
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        lock(&self.status).quiet.is_some()
    }

    pub(super) fn watch_state(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }
}
