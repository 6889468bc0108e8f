//! What the rules look at: a plain struct, gathered from the worker's own snapshot and from what was seen before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::activation::{Activation, WorkerState};
use crate::clock::{self, Timestamp};
use crate::job::State;
use crate::names::{Queue, Tier};
use crate::store::{Census, Failing, Fault, QueueCensus, Quiet};
use crate::worker::{self, Counts, Waits, Worker};

/// Where a probe finds the facts. It must answer from memory, in microseconds, whatever the worker is doing.
pub trait Source: Send + Sync + 'static {
    /// A snapshot; `None` when there is none (the worker has not started).
    fn facts(&self) -> Option<worker::Facts>;

    /// What became of its jobs; empty when nothing is known.
    fn counts(&self) -> Counts {
        Counts::default()
    }

    /// How long its jobs waited; empty when nothing is known.
    fn waits(&self) -> Waits {
        Waits::default()
    }
}

impl Source for Worker {
    fn facts(&self) -> Option<worker::Facts> {
        Worker::facts(self)
    }

    fn counts(&self) -> Counts {
        Worker::counts(self)
    }

    fn waits(&self) -> Waits {
        Worker::waits(self)
    }
}

/// A queue whose oldest job waits longer than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowQueue {
    /// The queue.
    pub queue: Queue,
    /// For how long its oldest job has waited.
    pub wait: Duration,
    /// What the configuration allows.
    pub slo: Duration,
}

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// When this was gathered (host time; for people).
    pub now: Timestamp,
    /// The tier, when it is known.
    pub tier: Option<String>,
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
    /// Whether it names a release.
    pub managed: bool,
    /// The activation of another release, if the store answered one.
    pub other: Option<Activation>,
    /// The step on its way to active that failed, if one did.
    pub fault: Option<Fault>,
    /// Who told it not to claim, if somebody did.
    pub quiet: Option<Quiet>,
    /// Whether it was ever seen to have proved itself.
    pub started: bool,
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
    /// Since its last canary ran and was settled; `None` before the first.
    pub canary_age: Option<Duration>,
    /// Why its last canary failed, if it did.
    pub canary_error: Option<String>,
    /// Kinds whose first attempts fail far above their baseline.
    pub failing: Vec<Failing>,
    /// Queues over their limit, of those that this worker serves.
    pub slow_queues: Vec<SlowQueue>,
    /// Jobs that wait in its queues, when somebody counted lately.
    pub eligible: Option<u64>,
}

impl Facts {
    /// From the worker's snapshot, and what was seen before.
    #[must_use]
    pub fn gather(worker: &worker::Facts, past: &Past, now: Timestamp) -> Self {
        let presence = &worker.presence;
        Self {
            now,
            tier: past.tier.as_ref().map(ToString::to_string),
            worker: presence.worker.to_string(),
            release: presence.release.to_string(),
            state: presence.state,
            state_age: presence.state_age,
            reason: presence.reason.clone(),
            managed: worker.managed,
            other: worker.activation.clone(),
            fault: presence.fault.clone(),
            quiet: presence.quiet.clone(),
            started: past.started,
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
            canary_age: presence.canary_age,
            canary_error: presence.canary_error.clone(),
            failing: presence.failing.clone(),
            slow_queues: past.slow_queues.clone(),
            eligible: past.eligible,
        }
    }
}

/// What was seen before, of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// The tier it belongs to.
    pub tier: Option<Tier>,
    /// It has proved itself once.
    pub started: bool,
    /// For how long the claim loop has not turned.
    pub loop_age: Duration,
    /// For how long slots have been free.
    pub free_age: Option<Duration>,
    /// For how long jobs have been waiting.
    pub backlog_age: Option<Duration>,
    /// Queues over their limit.
    pub slow_queues: Vec<SlowQueue>,
    /// Jobs that wait in its queues.
    pub eligible: Option<u64>,
}

/// A count of the tier that is older than this says nothing about now.
const COUNT_HOLDS: Duration = Duration::from_secs(60);

/// Remembers since when things have been so. A snapshot only says what is *now*: an idle worker whose first job arrives
/// this millisecond has made no progress for hours, and one whose slots were full until this millisecond has claimed
/// nothing for as long, without any fault.
#[derive(Debug, Default)]
pub struct Memory {
    tier: Option<Tier>,
    slos: BTreeMap<Queue, Duration>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    backlog_since: Option<Instant>,
    free_since: Option<Instant>,
    ticks: u64,
    ticked: Option<Instant>,
    /// Never taken back: `/startupz` asks whether it started, not how it is.
    started: bool,
    census: Option<(Instant, Arc<Census>)>,
}

impl Memory {
    /// Of a worker of this tier, whose queues should not let a job wait for longer than this.
    #[must_use]
    pub fn new(tier: Option<Tier>, slos: BTreeMap<Queue, Duration>) -> Self {
        Self { tier, slos, seen: Mutex::default() }
    }

    /// Looks at a source, and remembers. Call it about once a second, and for every probe.
    #[must_use]
    pub fn look(&self, source: &dyn Source) -> Option<Facts> {
        Some(self.see(&source.facts()?))
    }

    /// The same, of what a source has told already.
    #[must_use]
    pub fn see(&self, worker: &worker::Facts) -> Facts {
        let past = self.remember(worker, clock::instant());
        Facts::gather(worker, &past, clock::wall())
    }

    /// The tier was counted.
    pub fn counted(&self, at: Instant, census: Arc<Census>) {
        self.seen().census = Some((at, census));
    }

    /// What each queue allows.
    #[must_use]
    pub fn slos(&self) -> &BTreeMap<Queue, Duration> {
        &self.slos
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember(&self, worker: &worker::Facts, now: Instant) -> Past {
        let mut seen = self.seen();
        let presence = &worker.presence;
        seen.backlog_since = worker.backlog.then(|| seen.backlog_since.unwrap_or(now));
        seen.free_since = (presence.busy < presence.slots).then(|| seen.free_since.unwrap_or(now));
        seen.started |=
            matches!(presence.state, WorkerState::Inactive | WorkerState::Active | WorkerState::Quiet);
        if seen.ticked.is_none() || seen.ticks != presence.ticks {
            (seen.ticks, seen.ticked) = (presence.ticks, Some(now));
        }
        let age = |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        let mut past = Past {
            tier: self.tier.clone(),
            started: seen.started,
            loop_age: age(seen.ticked).unwrap_or_default(),
            free_age: age(seen.free_since),
            backlog_age: age(seen.backlog_since),
            ..Past::default()
        };
        if let Some((at, census)) = &seen.census
            && now.saturating_duration_since(*at) < COUNT_HOLDS
        {
            let mine = || census.queues.iter().filter(|count| presence.serves(&count.queue));
            past.eligible = Some(mine().map(|count| count.jobs(State::Available)).sum());
            past.slow_queues = mine().filter_map(|count| self.slow(count)).collect();
        }
        past
    }

    /// Whether a queue was over its limit when it was counted.
    fn slow(&self, count: &QueueCensus) -> Option<SlowQueue> {
        let (wait, slo) = (count.oldest_wait?, *self.slos.get(&count.queue)?);
        (wait > slo).then(|| SlowQueue { queue: count.queue.clone(), wait, slo })
    }
}
