//! What workers say of themselves, and how the store saw them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Tallies;
use crate::activation::WorkerState;
use crate::clock::Timestamp;
use crate::ids::Nonce;
use crate::names::{Kind, Queue, Release, WorkerName};

/// A worker that said nothing for so long is stale: three beats.
pub const STALE: Duration = Duration::from_secs(9);
/// How the names of workers begin that `doctor --simulate` makes up. A judge does not miss them when they are gone, so no
/// real worker may have such a name.
pub const SIMULATED: &str = "simulated-";
/// A worker remembers for so long when its process was replaced.
pub const RESTARTS_KEPT: Duration = Duration::from_secs(600);
/// Most of these times that it remembers: the last ones.
pub const MAX_RESTARTS: usize = 8;

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub worker: WorkerName,
    /// This process, among all that ever had the name.
    #[serde(skip, default)]
    pub incarnation: Nonce,
    /// Whether this is its first word: only that takes the name over from another process.
    #[serde(skip, default)]
    pub joining: bool,
    /// Where it runs.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its release.
    pub release: Release,
    /// Its release and build, as one text: what it parked as undecodable is not un-parked for the same again.
    pub capability: String,
    /// SHA-256 of the program it runs, in hex, once it has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// What it believes it is.
    pub state: WorkerState,
    /// For how many seconds.
    #[serde(default, with = "crate::clock::secs")]
    pub state_age: Duration,
    /// Why, when it is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The step on its way to active that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Who told it not to claim, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// The newest generation it has seen.
    pub generation: u64,
    /// The kinds it can run, with the version of their arguments.
    pub kinds: Vec<(Kind, u32)>,
    /// The queues it serves; `None` for all.
    pub queues: Option<Vec<Queue>>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many run now.
    pub busy: u32,
    /// How many of those ignore their cancellation.
    pub stuck: u32,
    /// Ticks of the claim loop.
    pub ticks: u64,
    /// Seconds since the last of them; at most one and a bit while it lives.
    #[serde(default, with = "crate::clock::secs")]
    pub loop_age: Duration,
    /// Seconds since the last answered claim.
    #[serde(with = "crate::clock::secs::option")]
    pub claim_age: Option<Duration>,
    /// Seconds since a job last started or ended.
    #[serde(with = "crate::clock::secs::option")]
    pub progress_age: Option<Duration>,
    /// Seconds since its last canary ran and was settled; `None` before the first.
    #[serde(default, with = "crate::clock::secs::option", skip_serializing_if = "Option::is_none")]
    pub canary_age: Option<Duration>,
    /// Why its last canary failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_error: Option<String>,
    /// For how many seconds jobs have been waiting for it while it had free slots and started none.
    #[serde(default, with = "crate::clock::secs::option", skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Duration>,
    /// Age in seconds of the last tick of the runtime that jobs run on.
    #[serde(default, with = "crate::clock::secs")]
    pub runtime_age: Duration,
    /// Kinds whose first attempts fail far above their baseline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<Failing>,
    /// How first attempts went under its generation; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tallies: Option<Tallies>,
    /// Jobs completed by this process.
    pub completed: u64,
    /// Attempts failed in this process.
    pub failed: u64,
    /// How often a process took this name over from one that had not said goodbye.
    #[serde(default)]
    pub restarts: u32,
    /// When that was, lately (store time), oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarted: Vec<Timestamp>,
    /// Where its probes listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Its host's clock when it said this.
    #[serde(default)]
    pub clock: Timestamp,
    /// Version of this library.
    pub version: String,
}

impl Presence {
    /// A worker that has done nothing yet.
    #[must_use]
    pub fn new(worker: WorkerName, incarnation: Nonce, release: Release) -> Self {
        Self {
            worker,
            incarnation,
            joining: false,
            host: String::new(),
            pid: std::process::id(),
            capability: release.to_string(),
            release,
            artifact: None,
            state: WorkerState::Starting,
            state_age: Duration::ZERO,
            reason: None,
            fault: None,
            quiet: None,
            generation: 0,
            kinds: Vec::new(),
            queues: None,
            slots: 1,
            busy: 0,
            stuck: 0,
            ticks: 0,
            loop_age: Duration::ZERO,
            claim_age: None,
            progress_age: None,
            canary_age: None,
            canary_error: None,
            stalled: None,
            runtime_age: Duration::ZERO,
            failing: Vec::new(),
            tallies: None,
            completed: 0,
            failed: 0,
            restarts: 0,
            restarted: Vec::new(),
            health: None,
            clock: Timestamp::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Presence {
    /// When processes of a name were replaced, up to now, where another one takes it over from this one without goodbye.
    #[cfg(feature = "worker")]
    pub(crate) fn restarted_after(before: &Seen) -> Vec<Timestamp> {
        let now = before.at.plus(before.age);
        let recent = |at: &&Timestamp| now.since(**at) < RESTARTS_KEPT;
        let mut all: Vec<Timestamp> = before.presence.restarted.iter().filter(recent).copied().collect();
        all.push(now);
        all.split_off(all.len().saturating_sub(MAX_RESTARTS))
    }

    /// Whether it serves a queue.
    #[must_use]
    pub fn serves(&self, queue: &Queue) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.contains(queue))
    }
}

/// A step on the way to active that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which, for programs.
    pub code: FaultCode,
    /// What happened, for people.
    pub detail: String,
    /// When (host time).
    pub at: Timestamp,
}

/// The steps that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FaultCode {
    /// The worker's own canary did not come back through the store.
    SelfTestFailed,
    /// The activation hook is missing, hangs, or ended with an error.
    ActivationHookFailed,
    /// The store knows an older generation than this worker has seen.
    StoreWentBack,
    /// What a newer version calls it.
    #[serde(other)]
    Other,
}

impl FaultCode {
    /// All of them, in order.
    pub const ALL: [Self; 4] =
        [Self::SelfTestFailed, Self::ActivationHookFailed, Self::StoreWentBack, Self::Other];

    /// The code, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfTestFailed => "SELF_TEST_FAILED",
            Self::ActivationHookFailed => "ACTIVATION_HOOK_FAILED",
            Self::StoreWentBack => "STORE_WENT_BACK",
            Self::Other => "OTHER",
        }
    }
}

/// Who told a worker not to claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// Who.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when (store time); `None`: until somebody resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A kind whose first attempts fail far above its baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failing {
    /// The kind.
    pub kind: Kind,
    /// Since when (host time).
    pub since: Timestamp,
    /// First attempts since then.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The share that failed before, 0 to 1.
    pub baseline: f64,
    /// The last error.
    pub error: String,
}

/// The answer to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Known.
    Ok {
        /// The store's time.
        now: Timestamp,
        /// The revision of what operators set in the tier: another number than at the last beat says that a record of
        /// [`Space::Control`](super::Space::Control) was written or deleted, or a queue paused or resumed, since then. 0
        /// before the first of them.
        control: u64,
    },
    /// Another process registered under this name.
    Superseded,
}

/// A worker as the store saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// What it said last.
    #[serde(flatten)]
    pub presence: Presence,
    /// When (store time).
    pub at: Timestamp,
    /// Seconds since then.
    #[serde(with = "crate::clock::secs")]
    pub age: Duration,
    /// When this incarnation first appeared (store time).
    pub since: Timestamp,
}

impl Seen {
    /// Whether it said nothing for three beats.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.age > STALE
    }
}
