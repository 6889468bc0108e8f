//! The seam for whoever watches (telemetry): a look at every attempt as it ends, and sums. The worker knows nothing of
//! who looks, and whatever that one does costs no job more than the call.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::counts::{Counts, Done};
use super::lease::{Cause, Held};
use super::ready::Item;
use super::state::Core;
use crate::store::{Claimed, Verdict};

/// Looks at attempts as they end. It is called on the job's own thread: it must take no lock that others hold, and never wait.
pub trait Observer: Send + Sync {
    /// An attempt ended.
    fn ended(&self, attempt: &Attempted<'_>);
}

/// One attempt that ended.
#[derive(Debug)]
pub struct Attempted<'a> {
    /// The job, as it was claimed.
    pub job: &'a Claimed,
    /// How long it ran; `None` when it was not begun at all.
    pub ran: Option<Duration>,
    /// How long after it could run it began: after it was enqueued, or was due.
    pub waited: Duration,
    /// What became of it.
    pub fate: Fate,
    /// In what way it failed. Never the error's text: it may quote a payload, and the store keeps it with the job.
    pub fault: Option<Fault>,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The job is done.
    Success,
    /// It failed, for now or for good.
    Error,
    /// It was called off.
    Cancelled,
    /// It was too late.
    Expired,
    /// It is asked to run later.
    Snoozed,
    /// It waits for something.
    Parked,
    /// It was given back.
    Returned,
    /// It belongs to another worker by now.
    Lost,
}

impl Fate {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Snoozed => "snoozed",
            Self::Parked => "parked",
            Self::Returned => "returned",
            Self::Lost => "lost",
        }
    }

    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Completed => Self::Success,
            Verdict::Retry { .. } | Verdict::Dead { .. } => Self::Error,
            Verdict::Cancelled => Self::Cancelled,
            Verdict::Expired => Self::Expired,
            Verdict::Snooze { .. } => Self::Snoozed,
            Verdict::Park { .. } => Self::Parked,
            Verdict::Return => Self::Returned,
        }
    }
}

/// In what way an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It took too long.
    Timeout,
    /// It panicked.
    Panic,
    /// The handler returned an error.
    Error,
}

impl Fault {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Error => "error",
        }
    }

    fn of(cause: Cause, verdict: &Verdict) -> Option<Self> {
        let (Verdict::Retry { error, .. } | Verdict::Dead { error }) = verdict else { return None };
        Some(match cause {
            Cause::TimedOut => Self::Timeout,
            _ if error.starts_with("panicked: ") => Self::Panic,
            _ => Self::Error,
        })
    }
}

/// Attempts that ended since the worker began and whose end the store knows, by outcome: the sum of [`Counts`]. What was
/// given back, snoozed or parked was not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processed {
    /// Done.
    pub success: u64,
    /// Failed attempts.
    pub error: u64,
    /// Called off.
    pub cancelled: u64,
    /// Too late.
    pub expired: u64,
}

impl Processed {
    pub(super) fn sum(counts: &Counts) -> Self {
        let all = |done| counts.values().map(|count| count.of(done)).sum();
        Self {
            success: all(Done::Success),
            error: all(Done::Error),
            cancelled: all(Done::Cancelled),
            expired: all(Done::Expired),
        }
    }

    /// Each outcome, in the word that metrics use, with its count.
    #[must_use]
    pub fn by_outcome(&self) -> [(Fate, u64); 4] {
        [
            (Fate::Success, self.success),
            (Fate::Error, self.error),
            (Fate::Cancelled, self.cancelled),
            (Fate::Expired, self.expired),
        ]
    }
}

impl Core {
    /// An attempt ended, or was refused before it began.
    pub(super) fn watched(
        &self,
        item: &Item,
        held: &Held,
        waited: Duration,
        ran: Option<Duration>,
        verdict: &Verdict,
    ) {
        let Some(observer) = &self.options.observer else { return };
        if self.blind.load(Relaxed) {
            return;
        }
        let fate = match held.cause() {
            Cause::Lost => Fate::Lost,
            _ if item.lease.is_lost() => Fate::Lost,
            _ if held.is_done() => Fate::Returned, // a stop gave it back while it ran
            _ => Fate::of(verdict),
        };
        let fault = Fault::of(held.cause(), verdict);
        let attempt = Attempted { job: &item.job, ran, waited, fate, fault };
        let seen = std::panic::catch_unwind(AssertUnwindSafe(|| observer.ended(&attempt)));
        if seen.is_err() && !self.blind.swap(true, Relaxed) {
            tracing::error!("what watches the jobs panicked, and is not called again; the jobs go on");
        }
    }
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
