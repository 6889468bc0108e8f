//! What a verdict and a lost worker mean for a job, the same for every engine.

use super::{MAX_CRASHES, Pause, Verdict};
use crate::clock::{MAX_DURATION, Timestamp};
use crate::job::State;
use crate::names::{Queue, WorkerName};

/// What becomes of a job that was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Consequence {
    /// Where it goes.
    pub(super) state: State,
    /// As its story tells it.
    pub(super) outcome: &'static str,
    /// Why.
    pub(super) error: Option<String>,
    /// When it may run again.
    pub(super) run_at: Option<Timestamp>,
    /// Whether it costs an attempt.
    pub(super) costs: bool,
}

impl Verdict {
    /// What it makes of a job; `None` for what adds nothing to its story: done, or given back.
    pub(super) fn consequence(&self, now: Timestamp) -> Option<Consequence> {
        let (state, outcome, error, delay, costs) = match self {
            Self::Completed | Self::Return => return None,
            Self::Retry { delay, error } => (State::Retryable, "failed", Some(error), Some(*delay), true),
            Self::Dead { error } => (State::Dead, "failed", Some(error), None, true),
            Self::Snooze { delay } => (State::Scheduled, "snoozed", None, Some(*delay), false),
            Self::Park { reason, .. } => (State::Parked, "parked", Some(reason), None, false),
            Self::Cancelled => (State::Cancelled, "cancelled", None, None, false),
            Self::Expired => (State::Expired, "expired", None, None, false),
        };
        Some(Consequence {
            state,
            outcome,
            error: error.cloned(),
            run_at: delay.map(|delay| now.plus(delay)),
            costs,
        })
    }
}

/// How often a suspect that was lost alone has crashed by now; `None` when it is not charged: nothing at all completed since its
/// last charge (`mark`) although other work was there, so the whole fleet is failing, and it is not this job's fault.
pub(super) fn charged<N: PartialEq>(
    crashes: u32,
    mark: Option<N>,
    completed: N,
    others: bool,
) -> Option<u32> {
    if mark == Some(completed) && others {
        return None;
    }
    // The loss that made it a suspect was its first.
    Some(crashes.max(1) + 1)
}

/// What the story of a job says whose worker was lost.
pub(super) fn lost(worker: &WorkerName) -> String {
    format!("worker {worker} was lost while it held this job")
}

/// What the story of a job says that crashed too often.
pub(super) fn quarantined() -> String {
    format!(
        "its worker died {MAX_CRASHES} times while it ran; see the attempts above, and retry it when the cause is gone"
    )
}

/// Why a queue is not paused like this.
pub(super) fn unpausable(queue: &Queue, pause: Option<Pause>) -> Option<String> {
    if queue.is_canaries() {
        return Some("canary jobs are not paused".into());
    }
    let span = pause.and_then(|pause| pause.for_).filter(|span| *span > MAX_DURATION)?;
    Some(format!("a pause of {} s is too long: at most {} s", span.as_secs(), MAX_DURATION.as_secs()))
}

/// What the ledger says of a pause, or of its end.
pub(super) fn pause_detail(queue: &Queue, pause: Option<Pause>) -> (&'static str, String) {
    let (event, detail) = match pause {
        None => ("queue.resumed", serde_json::json!({ "queue": queue })),
        Some(Pause { for_ }) => {
            let secs = for_.map(|span| span.as_secs_f64());
            ("queue.paused", serde_json::json!({ "queue": queue, "for": secs }))
        }
    };
    (event, detail.to_string())
}
