//! The store seam: everything that must outlive a process goes through this trait, and one conformance suite
//! (`tests/store`) proves each engine, and each wrapper around one, against the same rules.
//!
//! 1. **Conservation.** A job whose insert was acknowledged is in exactly one state until a purge or its retention ends.
//! 2. **Fence at claim.** A claim carries (release, generation); the same atomic step that takes jobs compares them
//!    with the activation ([`crate::activation::decide`]).
//! 3. **Fence at settle.** Settles and renewals carry the lease's nonce. A lost lease changes nothing and is a value.
//! 4. **Dead-man.** An overdue provisional activation reverts at the poll of a living worker of its fallback.
//! 5. **Store time.** Leases, schedules and expiry use the store's clock.
//! 6. **Idempotent insert.** The same id and content again is the same job; other content is a conflict.
//! 7. **Honest outcomes.** An insert says how durable it is, or that nobody knows.
//! 8. **Bounded steps.** Batches of at most [`MAX_BATCH`]; nothing scans a backlog.
//! 9. **Attempts are earned.** A failure costs an attempt; a crash is counted apart; stops and parks cost nothing.
//! 10. **An outage is not a crash.** After the store was away, nothing is rescued before every worker had one lease
//!     length to renew.
//!
//! Results are values; a [`StoreError`] means that the answer is not known or the store cannot serve.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::new::Extras;
use crate::job::{Args, JobRecord, NewJob, Parked, State};
use crate::location::StoreUrl;
use crate::names::{Kind, Queue, Release, Tier, WorkerName};

pub mod observed;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// Most jobs that one call takes, settles, promotes or rescues.
pub const MAX_BATCH: usize = 500;
/// Completed jobs are kept this long…
pub const KEEP_COMPLETED: Duration = Duration::from_secs(3600);
/// …and at most so many per queue.
pub const KEEP_COMPLETED_PER_QUEUE: u64 = 10_000;
/// Dead, cancelled and expired jobs, and effect records, are kept this long.
pub const KEEP_DEAD: Duration = Duration::from_secs(30 * 24 * 3600);
/// An idempotency key is remembered this long after its job completed.
pub const KEEP_KEYS: Duration = Duration::from_secs(24 * 3600);
/// Crashes after which a job is quarantined.
pub const MAX_CRASHES: u32 = 3;

/// The seam. Cheap to share: engines are handles to something that serves many callers.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Which engine, where, how durable. No I/O.
    fn about(&self) -> About;

    // ---- data plane: hot, batched

    /// Inserts jobs; one answer each, in order. At most [`MAX_BATCH`]. All that are stored become durable together.
    async fn insert(&self, tier: &Tier, jobs: Vec<NewJob>) -> Result<Vec<Insert>, StoreError>;

    /// Takes jobs under one lease, if the activation allows it.
    async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError>;

    /// Reports what became of claimed jobs; one answer each, in order. At most [`MAX_BATCH`].
    async fn settle(&self, tier: &Tier, items: Vec<Settle>) -> Result<Vec<Settled>, StoreError>;

    /// Prolongs leases by `lease` from now (store time); one answer each, in order.
    async fn renew(
        &self,
        tier: &Tier,
        leases: Vec<Nonce>,
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError>;

    /// Promotes what is due, rescues what lost its worker, expires, un-parks and trims; at most [`MAX_BATCH`] of each.
    async fn sweep(&self, ask: SweepAsk) -> Result<Swept, StoreError>;

    /// Subscribes to "there may be something new for this tier" (jobs ready or scheduled, activation changed). What
    /// happens after this returns is not missed.
    async fn subscribe(&self, tier: &Tier) -> Result<Box<dyn Wake>, StoreError>;

    /// One job, by id.
    async fn get(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// Jobs, newest first, one page at a time.
    async fn page(&self, tier: &Tier, ask: PageAsk) -> Result<Page, StoreError>;

    /// Does one thing to several jobs; one answer each, in order. At most [`MAX_BATCH`].
    async fn bulk(
        &self,
        tier: &Tier,
        ids: Vec<JobId>,
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError>;

    /// Counts per queue, kind and state, and the oldest waiting job; O(queues × kinds), not O(jobs).
    async fn census(&self, tier: &Tier) -> Result<Census, StoreError>;

    // ---- control plane: cold

    /// The activation of a tier, if there is one.
    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError>;

    /// Installs the next activation if the generation is still `expect` (`None`: there is no activation yet), and
    /// records it in the ledger in the same step.
    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError>;

    /// Reads one versioned record.
    async fn record(&self, tier: &Tier, space: Space, key: &str) -> Result<Option<Record>, StoreError>;

    /// Writes a record if its version is still `expect` (0: it does not exist). A record with `keep` vanishes so long
    /// after its last write. An empty value deletes it.
    async fn put(
        &self,
        tier: &Tier,
        space: Space,
        key: &str,
        expect: u64,
        value: &str,
        keep: Option<Duration>,
    ) -> Result<Put, StoreError>;

    /// Lists records by key, after a key; at most [`MAX_BATCH`].
    async fn records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Appends to the ledger; returns the sequence number.
    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError>;

    /// Reads the ledger after a sequence number, oldest first; at most [`MAX_BATCH`].
    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError>;

    /// Announces a worker, or says that it still lives. A new incarnation of a name takes it over: the leases of the
    /// old one are rescued at once, and the old one's next beat answers [`Beat::Superseded`]. A worker whose state is
    /// `stopped` is removed.
    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError>;

    /// The workers of a tier, by name, living and stale.
    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError>;

    /// A round trip through the path that writes take; answers the store's time.
    async fn probe(&self, tier: &Tier) -> Result<Timestamp, StoreError>;
}

/// A subscription to wake-ups.
#[async_trait]
pub trait Wake: Send {
    /// Returns when something happened since the last call (or since the subscription), or after the time-out; `true`
    /// when something happened.
    async fn woken(&mut self, timeout: Duration) -> bool;
}

/// Opens the store at a URL, creating it when it does not exist.
///
/// # Errors
/// When it cannot be reached or used; says why and what to do.
pub async fn open(url: &StoreUrl) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(path).await?)),
        #[cfg(not(feature = "sqlite"))]
        StoreUrl::Sqlite(_) => {
            Err(StoreError::new("open", url, ErrorKind::Unsupported, "built without the feature `sqlite`"))
        }
    }
}

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

/// What an acknowledged insert survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// On disk: a power cut.
    Disk,
    /// On so many replicas: the loss of the master.
    Replica(u32),
    /// In memory: the death of the client only.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::Replica(n) => write!(f, "replica {n}"),
            Self::Memory => f.write_str("memory"),
        }
    }
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

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct ClaimAsk {
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
    /// Most jobs to take, at most [`MAX_BATCH`]; 0 only asks for the activation.
    pub max: usize,
    /// How long the lease lasts.
    pub lease: Duration,
    /// What will identify the lease.
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
    },
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
    /// Whether more were waiting than were taken.
    pub more: bool,
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
    /// As in [`Presence::capability`].
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
    /// Most jobs to answer; at most [`MAX_BATCH`].
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

/// Why a store could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It cannot be reached, or is locked by another process. Nothing is known to have happened.
    Unavailable,
    /// It did not answer in time. A write may or may not have happened.
    Timeout,
    /// No room left.
    Full,
    /// It may not be written.
    ReadOnly,
    /// What it holds is damaged, or is not a store.
    Corrupt,
    /// It was written by a newer version.
    Newer,
    /// This engine or build cannot do that.
    Unsupported,
    /// A limit of the call was broken by the caller.
    Refused,
}

/// A store that could not answer: what was tried, where, why, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {op} in store {store}: {detail}")]
pub struct StoreError {
    /// The operation.
    pub op: &'static str,
    /// Where, without passwords.
    pub store: String,
    /// The class.
    pub kind: ErrorKind,
    /// The cause.
    pub detail: String,
    /// The way out, if there is a known one.
    pub hint: Option<String>,
}

impl StoreError {
    /// A new error.
    #[must_use]
    pub fn new(
        op: &'static str,
        store: impl fmt::Display,
        kind: ErrorKind,
        detail: impl fmt::Display,
    ) -> Self {
        Self { op, store: store.to_string(), kind, detail: detail.to_string(), hint: None }
    }

    /// With the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether trying again later can help by itself.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Full | ErrorKind::ReadOnly
        )
    }
}
