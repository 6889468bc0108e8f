//! What is asked of a store's control plane, and what it answers: the activation, records, the ledger, presence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::Timestamp;
use crate::ids::Nonce;
use crate::names::{Kind, Queue, Release, WorkerName};

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// A person (`ada@host`), a worker (`worker/w-1`), or a program.
    pub who: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What to install as the next activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// The release that may claim.
    pub release: Release,
    /// Whether it stands.
    pub mode: Mode,
    /// For a provisional one: how long from now until it reverts.
    pub confirm_within: Option<Duration>,
    /// For a provisional one: what it reverts to.
    pub fallback: Option<Release>,
    /// The deploy that does it.
    pub deploy: Option<String>,
}

/// The answer to a flip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flipped {
    /// Installed.
    Now(Activation),
    /// The generation is not the expected one; nothing was changed.
    Raced(Option<Activation>),
}

/// Kinds of versioned records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// Side effects, by job and key.
    Effect,
    /// Releases.
    Release,
    /// Deploys.
    Deploy,
    /// Pauses and limits.
    Control,
    /// Drains.
    Drain,
    /// What the handlers of canary jobs prove.
    Receipt,
}

impl Space {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Effect => "effect",
            Self::Release => "release",
            Self::Deploy => "deploy",
            Self::Control => "control",
            Self::Drain => "drain",
            Self::Receipt => "receipt",
        }
    }
}

/// A versioned record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Rises with every write; a deleted and recreated record never repeats one.
    pub version: u64,
    /// JSON text.
    pub value: String,
    /// When it was last written (store time).
    pub at: Timestamp,
}

/// The answer to a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Written, as this version.
    Done(u64),
    /// The version is not the expected one; this is what is there.
    Raced(Option<Record>),
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// Rises by one.
    pub seq: u64,
    /// Store time.
    pub at: Timestamp,
    /// What happened.
    pub event: String,
    /// Who did it, and why.
    #[serde(flatten)]
    pub by: Actor,
    /// More, as JSON text.
    pub detail: String,
}

/// How long a queue is to be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pause {
    /// So long from now (store time), then it lapses by itself; `None`: until somebody resumes it.
    pub for_: Option<Duration>,
}

/// A queue that is paused: no claim takes its jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The queue.
    pub queue: Queue,
    /// Who paused it, and why.
    pub by: Actor,
    /// Since when (store time).
    pub at: Timestamp,
    /// When it lapses by itself (store time); `None`: not before somebody resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub worker: WorkerName,
    /// This process, among all that ever had the name.
    #[serde(skip, default)]
    pub incarnation: Nonce,
    /// Where it runs.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its release.
    pub release: Release,
    /// Its release and build, as one text: what it parked as undecodable is not un-parked for the same again.
    pub capability: String,
    /// What it believes it is.
    pub state: WorkerState,
    /// Why, when it is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
    /// Seconds since the last answered claim.
    #[serde(with = "crate::clock::secs::option")]
    pub claim_age: Option<Duration>,
    /// Seconds since a job last started or ended.
    #[serde(with = "crate::clock::secs::option")]
    pub progress_age: Option<Duration>,
    /// Jobs completed by this process.
    pub completed: u64,
    /// Attempts failed in this process.
    pub failed: u64,
    /// Version of this library.
    pub version: String,
}

/// The answer to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Known.
    Ok {
        /// The store's time.
        now: Timestamp,
        /// The revision of what operators set in the tier: another number than at the last beat says that a record of
        /// [`Space::Control`] was written or deleted, or a queue paused or resumed, since then. 0 before the first of them.
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
