//! A job as a store remembers it, for people and programs to read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::Args;
use super::new::Extras;
use super::state::State;
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::names::{Kind, Queue, Release, Tier, WorkerName};

/// Longest error text kept for one attempt, in bytes; the rest is cut.
pub const MAX_ERROR: usize = 2_000;
/// Most attempts whose story is kept; older ones are dropped from the middle of it, never the first.
pub const MAX_HISTORY: usize = 20;

/// Why a job is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parked {
    /// No worker that met it knows its kind.
    UnknownKind,
    /// Its arguments cannot be read by the release that met it (a newer version, or another shape).
    Undecodable,
    /// A side effect may or may not have happened; a person decides.
    Uncertain,
    /// The handler asked for it.
    Asked,
}

impl Parked {
    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown_kind",
            Self::Undecodable => "undecodable",
            Self::Uncertain => "uncertain",
            Self::Asked => "asked",
        }
    }
}

/// One attempt that did not complete the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, in store time.
    pub at: Timestamp,
    /// What came of it: `failed`, `crashed`, `snoozed`, `parked`, `returned`, `cancelled`, `expired`. `inline`: its caller ran
    /// it, with an error if that did not complete it.
    pub outcome: String,
    /// The error or reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it ran, in seconds.
    #[serde(default, with = "crate::clock::secs::option", skip_serializing_if = "Option::is_none")]
    pub ran: Option<Duration>,
    /// The worker that held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// That worker's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
}

impl Attempt {
    /// Something that happened to a job outside of any worker.
    #[cfg(any(feature = "sqlite", feature = "redis"))]
    pub(crate) fn outside(at: Timestamp, outcome: &str, error: Option<String>) -> Self {
        Self { at, outcome: outcome.into(), error, ran: None, worker: None, release: None }
    }
}

/// Everything a store knows of a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobRecord {
    /// Its identity.
    pub id: JobId,
    /// Its tier.
    pub tier: Tier,
    /// What it is.
    pub kind: Kind,
    /// Where it waits.
    pub queue: Queue,
    /// Where it is.
    pub state: State,
    /// Its arguments.
    pub args: Args,
    /// The version of the arguments.
    pub version: u32,
    /// Its priority.
    pub priority: i8,
    /// Failed attempts so far.
    pub failures: u32,
    /// Workers that were lost while they ran it.
    pub crashes: u32,
    /// When it was inserted, in store time.
    pub enqueued_at: Timestamp,
    /// When it may run (again), while it is scheduled or retryable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// When it is too late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When its last attempt was claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How long the completing attempt ran, in seconds.
    #[serde(with = "crate::clock::secs::option", skip_serializing_if = "Option::is_none")]
    pub ran: Option<Duration>,
    /// The worker that holds it or held it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// That worker's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// Why it is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// Attempts that did not complete it, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
    /// Everything rare.
    #[serde(flatten)]
    pub extras: Extras,
}

impl JobRecord {
    /// The last error, if an attempt failed.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.history.iter().rev().find_map(|attempt| attempt.error.as_deref())
    }
}

/// Appends to a history within its bounds.
pub fn remember(history: &mut Vec<Attempt>, mut attempt: Attempt) {
    if let Some(error) = &mut attempt.error
        && error.len() > MAX_ERROR
    {
        let mut cut = MAX_ERROR;
        while !error.is_char_boundary(cut) {
            cut -= 1;
        }
        error.truncate(cut);
        error.push('…');
    }
    if history.len() >= MAX_HISTORY {
        history.remove(1);
    }
    history.push(attempt);
}
