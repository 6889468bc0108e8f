//! What is asked of a store's data plane, and what it answers: jobs in, claims, settles, lists, counts.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::activation::Activation;
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::new::Extras;
use crate::job::{Args, JobRecord, Parked, State};
use crate::location::Durability;
use crate::names::{Kind, Queue, Release, Tier, WorkerName};

/// What an engine is.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// `sqlite` or `redis`.
    pub engine: &'static str,
    /// Where, without passwords.
    pub location: String,
    /// The engine's version and settings, for people.
    pub detail: String,
    /// What an acknowledged insert survives.
    pub durability: Durability,
}

/// The answer to one insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insert {
    /// Stored now.
    Stored {
        /// The job.
        id: JobId,
        /// Its state: `available` or `scheduled`.
        state: State,
        /// What it survives.
        durability: Durability,
    },
    /// The same id and content were inserted before: the same job.
    Existing {
        /// The job.
        id: JobId,
        /// Where it is now.
        state: State,
    },
    /// The id exists with other content. Nothing was changed.
    Conflict {
        /// The job that has the id.
        id: JobId,
    },
    /// Another job holds the unique key. Nothing was stored.
    Held {
        /// The job that holds it.
        holder: JobId,
        /// Where that job is.
        state: State,
    },
}

/// Which jobs a claim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lane {
    /// The tier's jobs, if the activation allows it; never a canary.
    #[default]
    Jobs,
    /// Canary jobs that are addressed to the worker that asks, whatever the activation and the pauses say. Such a claim
    /// changes no activation: the dead-man waits for one of [`Lane::Jobs`].
    Canaries,
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct ClaimAsk {
    /// Which jobs it is for.
    pub lane: Lane,
    /// The tier.
    pub tier: Tier,
    /// Who asks.
    pub worker: WorkerName,
    /// That process, among all that ever had the name.
    pub incarnation: Nonce,
    /// Its release.
    pub release: Release,
    /// The newest generation it has seen.
    pub generation: u64,
    /// The queues it serves; `None` for all of the tier.
    pub queues: Option<Vec<Queue>>,
    /// Most jobs to take, at most [`MAX_BATCH`](super::MAX_BATCH); 0 only asks for the activation.
    pub max: usize,
    /// How long the lease lasts.
    pub lease: Duration,
    /// What will identify the lease. A claim that ended as [`ErrorKind::Timeout`](super::ErrorKind::Timeout) is asked again with
    /// the same: if it was done, its answer comes again, and its jobs need not wait for the end of a lease that nobody knows.
    pub nonce: Nonce,
    /// Whether a suspect may be taken (a job that was running when a worker died): it is handed out alone, and a worker
    /// runs at most one at a time, so that its neighbours are not charged when it kills again.
    pub suspects: bool,
}

/// The answer to a claim.
#[derive(Debug, Clone)]
pub enum Claim {
    /// The worker is active. `jobs` may be empty; then there is no lease.
    Active(Batch),
    /// The worker is not active and takes nothing.
    NotActive {
        /// The tier's activation, if there is one.
        current: Option<Activation>,
        /// The store's time.
        now: Timestamp,
        /// Whether canary jobs wait for this worker.
        canaries: bool,
    },
    /// To a claim of [`Lane::Canaries`]: canary jobs of this worker, of which there may be none; then there is no lease. The
    /// generation is that of the tier's activation, 0 when it has none.
    Canaries(Batch),
    /// Another process registered under this worker's name.
    Superseded,
}

/// Jobs under one lease.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The generation the jobs were claimed under.
    pub generation: u64,
    /// The lease.
    pub nonce: Nonce,
    /// The store's time at the claim.
    pub now: Timestamp,
    /// When the lease ends unless it is renewed (store time).
    pub until: Timestamp,
    /// The jobs.
    pub jobs: Vec<Claimed>,
    /// Whether this is one suspect, alone.
    pub suspect: bool,
    /// Whether more were waiting than were taken; what waits in a paused queue does not count.
    pub more: bool,
    /// Whether canary jobs wait for this worker: they are taken by a claim of [`Lane::Canaries`].
    pub canaries: bool,
}

/// One claimed job.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its identity.
    pub id: JobId,
    /// The engine's own handle on it; carried back with the settle.
    pub slot: u64,
    /// What it is.
    pub kind: Kind,
    /// Where it waited.
    pub queue: Queue,
    /// Its arguments.
    pub args: Args,
    /// The version of the arguments.
    pub version: u32,
    /// Failed attempts so far.
    pub failures: u32,
    /// Workers lost so far.
    pub crashes: u32,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// Since when it could run: when it was enqueued, or when its delay, its pause after a failure or its parking ended.
    pub due_at: Timestamp,
    /// When it is too late.
    pub expires_at: Option<Timestamp>,
    /// Everything rare.
    pub extras: Option<Arc<Extras>>,
}

/// What became of one claimed job.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The lease it was claimed under.
    pub nonce: Nonce,
    /// The job.
    pub id: JobId,
    /// The engine's handle from the claim.
    pub slot: u64,
    /// How long it ran; zero when it did not.
    pub ran: Duration,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Completed,
    /// Failed; costs an attempt; again after the delay.
    Retry {
        /// From now, store time.
        delay: Duration,
        /// Why.
        error: String,
    },
    /// Failed for good; costs an attempt.
    Dead {
        /// Why.
        error: String,
    },
    /// Again after the delay; costs nothing.
    Snooze {
        /// From now, store time.
        delay: Duration,
    },
    /// Waits for something; costs nothing.
    Park {
        /// For what.
        why: Parked,
        /// In words.
        reason: String,
    },
    /// Called off while it ran.
    Cancelled,
    /// Too late.
    Expired,
    /// Given back to the head of its list; costs nothing.
    Return,
}

/// The answer to one settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done.
    Ok,
    /// The same settle was done before.
    Already,
    /// The lease does not hold the job any more; nothing was changed.
    Lost,
}

/// The answer to one renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// Prolonged.
    Until {
        /// The new end (store time).
        until: Timestamp,
        /// Jobs of this lease that somebody wants cancelled.
        cancel: Vec<JobId>,
    },
    /// There is no such lease any more.
    Lost,
}

/// What a sweeping worker tells of itself.
#[derive(Debug, Clone)]
pub struct SweepAsk {
    /// The tier.
    pub tier: Tier,
    /// As in [`Presence::capability`](super::Presence::capability).
    pub capability: String,
    /// The kinds it can run; parked jobs of these are un-parked.
    pub kinds: Vec<Kind>,
    /// One lease length, for rule 10.
    pub lease: Duration,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Scheduled and retryable jobs that became available.
    pub promoted: u64,
    /// Jobs of lost workers that became available again.
    pub rescued: u64,
    /// Jobs that crashed too often.
    pub quarantined: u64,
    /// Jobs that were too late.
    pub expired: u64,
    /// Parked jobs that can run now.
    pub unparked: u64,
    /// Ended jobs whose retention is over.
    pub trimmed: u64,
    /// There is more to do at once.
    pub more: bool,
    /// When the next job is due, from now.
    pub next_due: Option<Duration>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct PageAsk {
    /// Only this state.
    pub state: Option<State>,
    /// Only this queue.
    pub queue: Option<Queue>,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only with all of these tags.
    pub tags: Vec<(String, String)>,
    /// Only with this text in the last error.
    pub error: Option<String>,
    /// Only enqueued at least so long ago.
    pub older_than: Option<Duration>,
    /// Most jobs to answer; at most [`MAX_BATCH`](super::MAX_BATCH).
    pub limit: usize,
    /// Where the last page ended.
    pub token: Option<String>,
}

/// One page.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// The jobs, newest first.
    pub jobs: Vec<JobRecord>,
    /// Where to go on; `None` at the end. A page may be short, or empty, and still go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What to do to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Make it available: dead, cancelled and expired ones get a fresh set of attempts; waiting ones go now.
    Retry,
    /// Call it off: at once when it waits, by asking its worker when it runs.
    Cancel,
    /// Its caller ran it, and it is done: what waits is completed, and counted as such. What a worker holds by now is not
    /// touched. Not in the ledger: it is a job's own way, and no act of a person.
    RanInline {
        /// How long it ran, in seconds.
        #[serde(with = "crate::clock::secs")]
        ran: Duration,
    },
    /// Its caller tried to run it, and it is not done: from now on, or after a delay, it is the queue's, at no cost in
    /// attempts. The actor's reason is kept in its story. Only of a scheduled job: any other has gone its way. Not in the
    /// ledger either.
    HandOver {
        /// From now, store time, in seconds; zero: it is available.
        #[serde(with = "crate::clock::secs")]
        after: Duration,
    },
}

impl Action {
    /// What the ledger calls it.
    #[cfg(any(feature = "sqlite", feature = "redis"))]
    pub(super) const fn entry(self) -> Option<&'static str> {
        match self {
            Self::Retry => Some("jobs.retried"),
            Self::Cancel => Some("jobs.cancelled"),
            Self::RanInline { .. } | Self::HandOver { .. } => None,
        }
    }
}

/// The answer to one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "state")]
pub enum Acted {
    /// Done; the job is now there.
    Done(State),
    /// It was there already.
    Unchanged(State),
    /// Its worker was asked; it is still running.
    Asked,
    /// The move is not legal from this state.
    Refused(State),
    /// No such job.
    NotFound,
}

/// Counts of a tier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Per queue, by name.
    pub queues: Vec<QueueCensus>,
    /// Scheduled and retryable jobs that are due, at most [`MAX_BATCH`](super::MAX_BATCH) of them: a sweep makes them available.
    pub overdue: u64,
    /// When the first scheduled or retryable job is due, or was (store time).
    pub next_due: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

/// Counts of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueCensus {
    /// The queue.
    pub queue: Queue,
    /// Jobs by state; every state is there.
    pub states: std::collections::BTreeMap<State, u64>,
    /// Jobs by kind and state; only those above zero.
    pub kinds: std::collections::BTreeMap<Kind, std::collections::BTreeMap<State, u64>>,
    /// How long the oldest available job has waited since it was enqueued or became due, in seconds.
    #[serde(with = "crate::clock::secs::option")]
    pub oldest_wait: Option<Duration>,
    /// Inserted since the tier began.
    pub inserted_total: u64,
    /// Completed since the tier began.
    pub completed_total: u64,
    /// Failed attempts since the tier began.
    pub failed_total: u64,
}

impl QueueCensus {
    /// How many jobs of it are in a state.
    #[must_use]
    pub fn jobs(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }
}
