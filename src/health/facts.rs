//! What the rules look at: a plain struct, gathered from the worker's own snapshot and from what was seen before.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::activation::WorkerState;
use crate::clock::{self, Timestamp};
use crate::worker::{self, Worker};

/// Where a probe finds the facts. It must answer from memory, in microseconds, whatever the worker is doing.
pub trait Source: Send + Sync + 'static {
    /// A snapshot; `None` when there is none (the worker has not started).
    fn facts(&self) -> Option<worker::Facts>;
}

impl Source for Worker {
    fn facts(&self) -> Option<worker::Facts> {
        Worker::facts(self)
    }
}

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// When this was gathered (host time; for people).
    pub now: Timestamp,
    /// The worker's name.
    pub worker: String,
    /// Its release.
    pub release: String,
    /// Its state.
    pub state: WorkerState,
    /// Since when it is in it.
    pub state_age: Duration,
    /// Why, when it is not active.
    pub reason: Option<String>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many run now.
    pub busy: u32,
    /// How many of those ignore their cancellation.
    pub stuck: u32,
    /// Age of the last tick of the runtime that jobs run on.
    pub runtime_age: Duration,
    /// Age of the last answered claim; `None` before the first.
    pub claim_age: Option<Duration>,
    /// Since a job last started or ended; `None` before the first.
    pub progress_age: Option<Duration>,
    /// For how long the claim loop has been seen not to turn.
    pub loop_age: Duration,
    /// For how long slots have been seen free, look after look; `None` when none are.
    pub free_age: Option<Duration>,
    /// For how long jobs have been seen waiting, look after look; `None` when none are.
    pub backlog_age: Option<Duration>,
    /// The store's last error and how long it has been away, if it is.
    pub store_down: Option<(String, Duration)>,
}

impl Facts {
    /// From the worker's snapshot, and what was seen before.
    #[must_use]
    pub fn gather(worker: &worker::Facts, past: &Past, now: Timestamp) -> Self {
        let presence = &worker.presence;
        Self {
            now,
            worker: presence.worker.to_string(),
            release: presence.release.to_string(),
            state: presence.state,
            state_age: presence.state_age,
            reason: presence.reason.clone(),
            slots: presence.slots,
            busy: presence.busy,
            stuck: presence.stuck,
            runtime_age: presence.runtime_age,
            claim_age: presence.claim_age,
            progress_age: presence.progress_age,
            loop_age: past.loop_age,
            free_age: past.free_age,
            backlog_age: past.backlog_age,
            store_down: worker
                .store_down
                .as_ref()
                .map(|(error, secs)| (error.clone(), Duration::try_from_secs_f64(*secs).unwrap_or_default())),
        }
    }
}

/// For how long something has been so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// The claim loop has not turned.
    pub loop_age: Duration,
    /// Slots have been free.
    pub free_age: Option<Duration>,
    /// Jobs have been waiting.
    pub backlog_age: Option<Duration>,
}

/// Remembers since when things have been so. A snapshot only says what is *now*: an idle worker whose first job arrives
/// this millisecond has made no progress for hours, and one whose slots were full until this millisecond has claimed
/// nothing for as long, without any fault.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    backlog_since: Option<Instant>,
    free_since: Option<Instant>,
    ticks: u64,
    ticked: Option<Instant>,
}

impl Memory {
    /// Looks at a source, and remembers. Call it about once a second, and for every probe.
    #[must_use]
    pub fn look(&self, source: &dyn Source) -> Option<Facts> {
        let worker = source.facts()?;
        let past = self.remember(&worker, clock::instant());
        Some(Facts::gather(&worker, &past, clock::wall()))
    }

    pub(super) fn remember(&self, worker: &worker::Facts, now: Instant) -> Past {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let presence = &worker.presence;
        seen.backlog_since = worker.backlog.then(|| seen.backlog_since.unwrap_or(now));
        seen.free_since = (presence.busy < presence.slots).then(|| seen.free_since.unwrap_or(now));
        if seen.ticked.is_none() || seen.ticks != presence.ticks {
            (seen.ticks, seen.ticked) = (presence.ticks, Some(now));
        }
        let age = |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        Past {
            loop_age: age(seen.ticked).unwrap_or_default(),
            free_age: age(seen.free_since),
            backlog_age: age(seen.backlog_since),
        }
    }
}
