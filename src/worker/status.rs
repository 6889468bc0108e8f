//! The state of the worker: what it is doing, since when, and why. Every change is told to the store at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::state::{Core, lock};
use crate::activation::{Activation, WorkerState};
use crate::clock::{self, Timestamp};
use crate::store::{Fault, FaultCode, Quiet};

/// What it is doing, and since when.
#[derive(Debug)]
pub(super) struct Status {
    state: WorkerState,
    since: Instant,
    reason: Option<String>,
    /// Told not to claim by a signal, or by the app that it runs in…
    told: Option<Quiet>,
    /// …or through the store.
    ordered: Option<Quiet>,
    /// The step on its way to active that failed.
    fault: Option<Fault>,
    /// What the store answered last, when that was not this worker's release.
    activation: Option<Activation>,
}

/// The state with everything about it.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) state: WorkerState,
    pub(super) age: Duration,
    pub(super) reason: Option<String>,
    pub(super) quiet: Option<Quiet>,
    pub(super) fault: Option<Fault>,
    pub(super) activation: Option<Activation>,
}

impl Status {
    pub(super) fn new() -> Self {
        Self {
            state: WorkerState::Starting,
            since: clock::instant(),
            reason: Some("has not registered yet".to_owned()),
            told: None,
            ordered: None,
            fault: None,
            activation: None,
        }
    }

    fn quiet(&self) -> Option<&Quiet> {
        self.told.as_ref().or(self.ordered.as_ref())
    }
}

/// Who, why, and until when, for people.
fn words(quiet: &Quiet) -> String {
    match quiet.until {
        Some(until) => format!("quiet until {until} by {}: {}", quiet.owner, quiet.reason),
        None => format!("quiet without an end by {}: {}", quiet.owner, quiet.reason),
    }
}

impl Core {
    /// Moves to a state, if the table of worker states allows it. A quiet worker stays quiet whatever the store says.
    pub(super) fn become_state(&self, next: WorkerState, reason: Option<String>) {
        let mut status = lock(&self.status);
        let (next, reason) = match (status.quiet(), next) {
            (Some(quiet), WorkerState::Active | WorkerState::Inactive) => {
                (WorkerState::Quiet, Some(words(quiet)))
            }
            _ => (next, reason),
        };
        if next == WorkerState::Active {
            status.activation = None;
        }
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
    pub(super) fn status(&self) -> Standing {
        let status = lock(&self.status);
        Standing {
            state: status.state,
            age: status.since.elapsed(),
            reason: status.reason.clone(),
            quiet: status.quiet().cloned(),
            fault: status.fault.clone(),
            activation: status.activation.clone(),
        }
    }

    pub(super) fn state_now(&self) -> WorkerState {
        lock(&self.status).state
    }

    /// Remembers what the store answered instead of "active".
    pub(super) fn not_active(&self, current: Option<Activation>) {
        lock(&self.status).activation = current;
    }

    // ---- the steps on its way to active

    /// Its own canary came back, and its activation hook was rehearsed.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    pub(super) fn prove(&self) {
        if !self.proven.swap(true, Relaxed) {
            self.become_state(WorkerState::Inactive, Some("proven; has not asked the store yet".to_owned()));
            self.wake_claimer.notify_one();
        }
    }

    /// A step on the way to active failed: told until it passes.
    pub(super) fn fail_step(&self, code: FaultCode, detail: String) {
        let mut status = lock(&self.status);
        if status.fault.as_ref().is_some_and(|fault| fault.code == code && fault.detail == detail) {
            return;
        }
        tracing::error!(worker = %self.options.name, release = %self.release, code = code.as_str(), detail,
            "worker is not proven: a step failed");
        status.fault = Some(Fault { code, detail, at: clock::wall() });
        drop(status);
        self.wake_heartbeat.notify_one();
    }

    /// The step passed.
    pub(super) fn pass_step(&self, code: FaultCode) {
        let mut status = lock(&self.status);
        if status.fault.as_ref().is_some_and(|fault| fault.code == code) {
            tracing::info!(worker = %self.options.name, code = code.as_str(), "the step passes again");
            status.fault = None;
            drop(status);
            self.wake_heartbeat.notify_one();
        }
    }

    // ---- told not to claim

    pub(super) fn quiet(&self, quiet: Quiet) {
        lock(&self.status).told = Some(quiet);
        self.hush();
    }

    pub(super) fn resume(&self) {
        if lock(&self.status).told.take().is_some() {
            self.speak_up();
        }
    }

    /// What the store's orders say of this worker now; an order to resume lifts what a signal said, too.
    pub(super) fn ordered(&self, quiet: Option<Quiet>, resume: bool) {
        let mut status = lock(&self.status);
        let before = status.quiet().cloned();
        if resume {
            status.told = None;
        }
        status.ordered = quiet;
        let after = status.quiet().cloned();
        drop(status);
        match (before, after) {
            (before, after) if before == after => {}
            (Some(_), None) => self.speak_up(),
            _ => self.hush(),
        }
    }

    /// What has come to its end by the store's time ends by itself.
    pub(super) fn lapse(&self, now: Timestamp) {
        let over = |quiet: &Option<Quiet>| {
            quiet.as_ref().and_then(|quiet| quiet.until).is_some_and(|until| until <= now)
        };
        let mut status = lock(&self.status);
        let (told, ordered) = (over(&status.told), over(&status.ordered));
        if !told && !ordered {
            return;
        }
        if told {
            status.told = None;
        }
        if ordered {
            status.ordered = None;
        }
        let still = status.quiet().is_some();
        drop(status);
        tracing::info!(worker = %self.options.name, "the time for which the worker was to be quiet is over");
        if still { self.hush() } else { self.speak_up() }
    }

    fn hush(&self) {
        if self.is_proven() {
            self.become_state(WorkerState::Inactive, None); // which a quiet worker cannot be
        }
        self.give_back_unstarted();
        self.wake_claimer.notify_one();
    }

    fn speak_up(&self) {
        if self.is_proven() {
            let reason = "resumed, and has not asked the store yet".to_owned();
            self.become_state(WorkerState::Inactive, Some(reason));
        }
        self.wake_claimer.notify_one();
    }

    pub(super) fn is_quiet(&self) -> bool {
        lock(&self.status).quiet().is_some()
    }

    pub(super) fn watch_state(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }
}
