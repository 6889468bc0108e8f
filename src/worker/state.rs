//! What the parts of a worker share. Locks are held for moments, never over I/O; counters are atomics.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::canary::{Canaries, Canary};
use super::counts::{self, Counts};
use super::lease::{Cause, Lease, millis};
use super::obey::Obeyed;
use super::options::Options;
use super::outage::Outage;
use super::ready::Ready;
use super::settler::Outcome;
use super::status::Status;
use super::tally::Outcomes;
use super::waits::Lines;
use super::{Ended, Facts};
use crate::activation::WorkerState;
use crate::clock::{self, Timestamp};
use crate::ids::Nonce;
use crate::job::handler::{Effects, Shared};
use crate::job::new::Extras;
use crate::job::registry::{Entry, Registry, RegistryError};
use crate::location::host;
use crate::names::{Kind, Release};
use crate::store::{Store, StoreEffects, StoreError};

/// A kind with the settings it has in this worker.
#[derive(Debug)]
pub(super) struct Runnable {
    pub(super) entry: Arc<Entry>,
    pub(super) settings: Arc<serde_json::Value>,
}

/// Everything that the parts share.
pub(super) struct Core {
    // what does not change
    pub(super) store: Arc<dyn Store>,
    pub(super) options: Options,
    pub(super) release: Release,
    /// Release and build: an app that is rebuilt without a new release name may read what the last build could not.
    pub(super) capability: String,
    pub(super) incarnation: Nonce,
    pub(super) host: String,
    pub(super) kinds: HashMap<Kind, Runnable>,
    /// What runs the worker's own canaries.
    pub(super) canary: Runnable,
    pub(super) versions: Vec<(Kind, u32)>,
    pub(super) shared: Shared,
    pub(super) effects: Arc<dyn Effects>,
    pub(super) no_extras: Arc<Extras>,
    begun: Instant,

    // jobs on their way, in order
    pub(super) ready: Ready,
    pub(super) outbox: Mutex<VecDeque<Outcome>>,
    leases: Mutex<HashMap<Nonce, Arc<Lease>>>,

    // counters; times are milliseconds since `begun`
    pub(super) unsettled: AtomicUsize,
    pub(super) finished: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) counts: Mutex<Counts>,
    pub(super) lines: Lines,
    pub(super) stuck: AtomicUsize,
    pub(super) generation: AtomicU64,
    /// The store's last answer was that this worker's release is the active one…
    pub(super) in_charge: AtomicBool,
    /// …or that another, named one is.
    pub(super) managed_by_others: AtomicBool,
    ticks: AtomicU64,
    ticked_at: OnceLockMs,
    pub(super) runtime_tick: AtomicU64,
    claimed_at: OnceLockMs,
    pub(super) progress_at: OnceLockMs,
    pub(super) backlog: AtomicBool,
    /// Since when jobs have been waiting while slots were free.
    pub(super) idle_backlog: OnceLockMs,
    pub(super) suspect: AtomicBool,
    pub(super) canary_at: OnceLockMs,
    pub(super) restarts: AtomicU32,
    /// When that was, lately.
    pub(super) restarted: OnceLock<Vec<Timestamp>>,

    // how it proves itself
    pub(super) proven: AtomicBool,
    /// The generation for which the activation hook has passed.
    pub(super) hooked: AtomicU64,
    pub(super) canaries: Canaries,
    pub(super) outcomes: Mutex<Outcomes>,
    /// The store's time at its last answer to a beat, and when that was.
    store_time: Mutex<Option<(Instant, Timestamp)>>,
    pub(super) obeyed: Mutex<Obeyed>,

    // what wakes whom
    pub(super) wake_claimer: Notify,
    pub(super) wake_settler: Notify,
    pub(super) wake_sweeper: Notify,
    pub(super) wake_heartbeat: Notify,
    pub(super) wake_canary: Notify,
    /// Something that the conductor waits for went down: running jobs, or unsettled outcomes.
    pub(super) calmer: Notify,

    // how it ends
    pub(super) stop: CancellationToken,
    pub(super) hurry: CancellationToken,
    /// It cannot go on.
    pub(super) doomed: CancellationToken,
    doom: OnceLock<Ended>,
    /// The parts end now; the heartbeat goes on.
    pub(super) over: CancellationToken,
    /// The heartbeat ends now.
    pub(super) silence: CancellationToken,

    pub(super) outage: Outage,
    /// The observer panicked once, and is not called again.
    pub(super) blind: AtomicBool,
    pub(super) status: Mutex<Status>,
    pub(super) state: watch::Sender<WorkerState>,
    ended: watch::Sender<Option<Ended>>,
}

/// A time that may not have come yet: milliseconds plus one, zero for never.
#[derive(Debug, Default)]
pub(super) struct OnceLockMs(AtomicU64);

impl OnceLockMs {
    pub(super) fn set(&self, now_ms: u64) {
        self.0.store(now_ms + 1, Relaxed);
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Notes the time unless one is noted.
    pub(super) fn begin(&self, now_ms: u64) {
        self.0.compare_exchange(0, now_ms + 1, Relaxed, Relaxed).ok();
    }

    pub(super) fn age(&self, now_ms: u64) -> Option<Duration> {
        let at = self.0.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(now_ms.saturating_sub(at)))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(super) fn new(
        store: Arc<dyn Store>,
        registry: &Registry,
        options: Options,
    ) -> Result<Self, RegistryError> {
        let canary = Entry::of::<Canary>()?;
        let kinds = registry.entries().map(|entry| {
            let settings = options.settings.get(entry.info.kind.as_str()).cloned();
            let settings = Arc::new(settings.unwrap_or_else(|| serde_json::json!({})));
            (entry.info.kind.clone(), Runnable { entry: Arc::clone(entry), settings })
        });
        let release = options.release.clone().unwrap_or_default();
        Ok(Self {
            canary: Runnable { entry: Arc::new(canary), settings: Arc::new(serde_json::json!({})) },
            capability: format!("{release}/{}", build()),
            effects: Arc::new(StoreEffects::new(&store, &options.tier, &options.name)),
            release,
            incarnation: Nonce::new(),
            host: host(),
            kinds: kinds.collect(),
            versions: registry.kinds(),
            shared: registry.shared(),
            no_extras: Arc::default(),
            begun: clock::instant(),
            ready: Ready::new(options.slots.max(1)),
            outbox: Mutex::default(),
            leases: Mutex::default(),
            unsettled: AtomicUsize::new(0),
            finished: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            counts: Mutex::new(counts::none_yet(registry.infos().map(|info| (&info.queue, &info.kind)))),
            lines: Lines::of(registry.infos().map(|info| &info.queue).chain(options.queues.iter().flatten())),
            stuck: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            in_charge: AtomicBool::new(false),
            managed_by_others: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            ticked_at: OnceLockMs::default(),
            runtime_tick: AtomicU64::new(0),
            claimed_at: OnceLockMs::default(),
            progress_at: OnceLockMs::default(),
            backlog: AtomicBool::new(false),
            idle_backlog: OnceLockMs::default(),
            suspect: AtomicBool::new(false),
            canary_at: OnceLockMs::default(),
            restarts: AtomicU32::new(0),
            restarted: OnceLock::new(),
            proven: AtomicBool::new(false),
            hooked: AtomicU64::new(0),
            canaries: Canaries::default(),
            outcomes: Mutex::default(),
            store_time: Mutex::default(),
            obeyed: Mutex::default(),
            wake_claimer: Notify::new(),
            wake_settler: Notify::new(),
            wake_sweeper: Notify::new(),
            wake_heartbeat: Notify::new(),
            wake_canary: Notify::new(),
            calmer: Notify::new(),
            stop: CancellationToken::new(),
            hurry: CancellationToken::new(),
            doomed: CancellationToken::new(),
            doom: OnceLock::new(),
            over: CancellationToken::new(),
            silence: CancellationToken::new(),
            outage: Outage::default(),
            blind: AtomicBool::new(false),
            status: Mutex::new(Status::new()),
            state: watch::Sender::new(WorkerState::Starting),
            ended: watch::Sender::new(None),
            store,
            options,
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        millis(self.begun.elapsed())
    }

    /// The store said what time it is.
    pub(super) fn store_said(&self, now: Timestamp) {
        *lock(&self.store_time) = Some((clock::instant(), now));
    }

    /// The store's time, by this host's monotonic clock since it last told.
    pub(super) fn store_now(&self) -> Timestamp {
        lock(&self.store_time).map_or_else(clock::wall, |(at, now)| now.plus(at.elapsed()))
    }

    // ---- how it ends

    /// It cannot go on; the first reason stands.
    pub(super) fn doom(&self, how: Ended) {
        if self.doom.set(how).is_ok() {
            self.doomed.cancel();
        }
    }

    pub(super) fn doomed_by(&self) -> Option<Ended> {
        self.doom.get().cloned()
    }

    /// Says how it ended, once.
    pub(super) fn end(&self, how: Ended) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(how);
            }
            first
        });
    }

    pub(super) fn watch_ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }

    // ---- the store's answers

    /// Notes how a call of a part went. A store that refuses for good ends the worker: it could only pretend to work.
    pub(super) fn heard<T>(&self, part: &'static str, answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.outage.answered(part);
                Some(value)
            }
            Err(error) => {
                self.outage.failed(part, &error);
                if !error.is_transient() {
                    self.doom(Ended::Broken(error.to_string()));
                }
                None
            }
        }
    }

    /// The same for a subscription: it may stand for a while after the store ceased to answer, so it proves nothing.
    pub(super) fn subscribed<T>(&self, part: &'static str, answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) => self.heard(part, Err(error)),
        }
    }

    /// The claim loop turned.
    pub(super) fn tick(&self) {
        self.ticks.fetch_add(1, Relaxed);
        self.ticked_at.set(self.now_ms());
    }

    /// The whole process stood still: no part of it is to blame for that time.
    pub(super) fn stood_still(&self) {
        let now_ms = self.now_ms();
        self.runtime_tick.store(now_ms, Relaxed);
        self.ticked_at.set(now_ms);
    }

    /// How often it did, and how long ago it last did.
    pub(super) fn ticks(&self, now_ms: u64) -> (u64, Duration) {
        (self.ticks.load(Relaxed), self.ticked_at.age(now_ms).unwrap_or(Duration::from_millis(now_ms)))
    }

    pub(super) fn claim_answered(&self) {
        self.claimed_at.set(self.now_ms());
    }

    pub(super) fn claim_age(&self, now_ms: u64) -> Option<Duration> {
        self.claimed_at.age(now_ms)
    }

    // ---- leases

    pub(super) fn leases(&self) -> Vec<Arc<Lease>> {
        lock(&self.leases).values().cloned().collect()
    }

    pub(super) fn add_lease(&self, lease: &Arc<Lease>) {
        if lease.suspect {
            self.suspect.store(true, Relaxed);
        }
        lock(&self.leases).insert(lease.nonce, Arc::clone(lease));
    }

    /// One job of a lease is over, as far as the store is concerned.
    pub(super) fn release(&self, lease: &Lease) {
        if lease.release_one() {
            lock(&self.leases).remove(&lease.nonce);
            if lease.suspect {
                self.suspect.store(false, Relaxed);
                self.wake_claimer.notify_one();
            }
        }
    }

    /// The jobs that run now, a line each.
    pub(super) fn dump(&self) -> Vec<String> {
        self.leases().iter().flat_map(|lease| lease.describe(self.now_ms())).collect()
    }

    /// Cancels all that runs or waits.
    pub(super) fn cancel_all(&self, cause: Cause) {
        for lease in self.leases() {
            lease.jobs.iter().filter(|held| !held.is_done()).for_each(|held| held.cancel(cause));
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let facts: Facts = super::facts::gather(self);
        f.debug_struct("Worker").field("facts", &facts).finish_non_exhaustive()
    }
}

/// What tells this build from another of the same version: the size and date of the program's file.
fn build() -> String {
    let file = std::env::current_exe().and_then(std::fs::metadata);
    let date = file
        .as_ref()
        .ok()
        .and_then(|file| file.modified().ok())
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{:x}-{:x}", file.map_or(0, |file| file.len()), date.map_or(0, |date| date.as_millis()))
}
