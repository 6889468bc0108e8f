//! Which way a job went: to the queue, or through its caller.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::names::WorkerName;

/// Which way a job went. In JSON `way` names it, beside `took` (seconds), `why` or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Way {
    /// A worker runs it.
    Queued {
        /// Why its caller did not, when it was to.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<Declined>,
    },
    /// It was enqueued before, and went its way then: it was not run here again.
    Existing,
    /// It ran here, and the store knows that it is done.
    Inline {
        /// How long it ran.
        #[serde(with = "crate::clock::secs")]
        took: Duration,
    },
    /// It ran here and is done, and the store was away: no record of it remains.
    InlineUnrecorded {
        /// How long it ran.
        #[serde(with = "crate::clock::secs")]
        took: Duration,
        /// Whether it may run again: the store has it, or nobody knows whether it does.
        may_repeat: bool,
        /// What the store said.
        error: String,
    },
    /// It was tried here, and failed: a worker runs it.
    QueuedAfterInline {
        /// What its handler said.
        error: String,
    },
}

/// Why a caller did not run a job that it was to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declined {
    /// This process has no handler of its kind.
    NoHandler,
    /// It is to run later.
    Delayed,
    /// It is too late for it, or its whole life is shorter than the shortest run.
    Expired,
    /// Its arguments are of a newer version than the handler here reads.
    Newer,
    /// As many run here already as may.
    Busy,
    /// A worker that can take it is active.
    Active(WorkerName),
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHandler => f.write_str("no handler here"),
            Self::Delayed => f.write_str("it is to run later"),
            Self::Expired => f.write_str("it is too late for it"),
            Self::Newer => f.write_str("its args are newer than the handler here"),
            Self::Busy => f.write_str("as many run here already as may"),
            Self::Active(worker) => write!(f, "worker {worker} is active"),
        }
    }
}

impl Serialize for Declined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
