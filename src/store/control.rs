//! What is asked of a store's control plane, and what it answers: the activation, records, the ledger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::activation::{Activation, Mode};
use crate::clock::Timestamp;
use crate::names::{Queue, Release};

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
    /// Only while this record is what its holder read.
    pub guard: Option<Guard>,
    /// The generation is at least this: after a store has lost its memory, above all that workers have seen. 0: the next one.
    pub least: u64,
}

impl Flip {
    /// To a release, for good.
    #[must_use]
    pub const fn committed(release: Release) -> Self {
        Self {
            release,
            mode: Mode::Committed,
            confirm_within: None,
            fallback: None,
            deploy: None,
            guard: None,
            least: 0,
        }
    }

    /// The generation that it has after another.
    #[must_use]
    pub fn generation(&self, expect: Option<u64>) -> u64 {
        (expect.unwrap_or(0) + 1).max(self.least)
    }
}

/// A record that must still be what was read, in the same atomic step: what a deploy holds its lock by. Whoever lost it to
/// another controller while it stood still changes nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Its space.
    pub space: Space,
    /// Its key.
    pub key: String,
    /// The version that was read.
    pub version: u64,
}

/// The answer to a flip, a commit or an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flipped {
    /// Installed.
    Now(Activation),
    /// What is there is not what was expected; nothing was changed.
    Raced(Option<Activation>),
    /// The guard is not what it was: somebody else carries on. Nothing was changed.
    Fenced,
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
    /// Which worker of a release said goodbye last, by release.
    Drain,
    /// What the handlers of canary jobs prove.
    Receipt,
    /// How releases did, by release.
    Evidence,
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
            Self::Evidence => "evidence",
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
