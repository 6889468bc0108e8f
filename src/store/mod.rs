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

use crate::activation::Activation;
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::{JobRecord, NewJob};
use crate::location::StoreUrl;
use crate::names::{Queue, Tier};

mod control;
mod data;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod digest;
#[cfg(feature = "worker")]
mod effects;
mod error;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod look;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod meaning;
pub mod observed;
pub mod orders;
mod overwrite;
mod presence;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod tallies;

pub use crate::location::Durability;
pub use control::*;
pub use data::*;
#[cfg(feature = "worker")]
pub(crate) use effects::StoreEffects;
pub use error::{ErrorKind, StoreError};
pub(crate) use overwrite::overwrite;
pub use presence::*;
pub use tallies::{MAX_TALLIES, MAX_TALLY_ERRORS, Tallies, Tally, Trend};

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
/// Canary jobs that have ended, in whatever way, are kept this long…
pub const KEEP_CANARIES: Duration = Duration::from_secs(3600);
/// …and at most so many per tier.
pub const KEEP_CANARIES_PER_TIER: u64 = 1_000;
/// Most queues of a tier that are paused at once: a claim looks at all of them.
pub const MAX_PAUSES: usize = 500;
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

    /// Subscribes to "there may be something new for this tier" (jobs ready or scheduled, activation or controls changed). What
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

    /// The tiers that this store knows, by name: each that has an activation, or workers present, or ever had a job enqueued.
    /// A name may be there before what it stands for, and outlast it; what works is never missing.
    async fn tiers(&self) -> Result<Vec<Tier>, StoreError>;

    /// The activation of a tier, if there is one.
    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError>;

    /// Installs the next activation if the generation is still `expect` (`None`: there is no activation yet), and
    /// records it in the ledger in the same step. A deadline that is moved meanwhile, or a commit, is no other generation.
    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError>;

    /// Lets the provisional activation of this generation stand, and records it in the same step. The generation stays:
    /// nothing changes for the workers. One that stands already is answered as it is.
    async fn commit(
        &self,
        tier: &Tier,
        generation: u64,
        guard: Option<&Guard>,
        by: &Actor,
    ) -> Result<Flipped, StoreError>;

    /// Moves `confirm_by` of a provisional activation to `within` from now (store time), if the activation is still what the
    /// caller saw, in every part. Whoever saw an older one loses: another extension, a commit and the dead-man all count. Done
    /// every second by whoever watches, so it is not in the ledger, and nobody is woken: for the workers nothing changes. One
    /// that is overdue can be extended until the dead-man has fired.
    async fn extend(
        &self,
        tier: &Tier,
        seen: &Activation,
        within: Duration,
        guard: Option<&Guard>,
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

    /// Pauses a queue from now on, or resumes it (`None`), and records it in the ledger in the same step (`queue.paused`,
    /// `queue.resumed`). Claims check it themselves: none takes a job of a paused queue, in whatever place it stands, until the
    /// pause lapses by store time or is resumed. What runs goes on, and canary jobs do not mind. A queue that is not known yet
    /// can be paused, a paused one paused anew; resuming one that is not paused changes nothing. Answers the pause that
    /// stood before.
    async fn pause(
        &self,
        tier: &Tier,
        queue: &Queue,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<Option<Paused>, StoreError>;

    /// The pauses of a tier that stand now, by queue; at most [`MAX_PAUSES`].
    async fn pauses(&self, tier: &Tier) -> Result<Vec<Paused>, StoreError>;

    /// Appends to the ledger; returns the sequence number.
    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError>;

    /// Reads the ledger after a sequence number, oldest first; at most [`MAX_BATCH`].
    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError>;

    /// The sequence number of the last entry of the ledger; 0 when it has none.
    async fn ledger_end(&self, tier: &Tier) -> Result<u64, StoreError>;

    /// Announces a worker, or says that it still lives. A new incarnation of a name takes it over: the leases of the
    /// old one are rescued at once, and the old one's next beat answers [`Beat::Superseded`]. A worker whose state is
    /// `stopped` is removed.
    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError>;

    /// The workers of a tier, by name, living and stale.
    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError>;

    /// A round trip through the path that inserts take: fails when they would; answers the store's time.
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
    open_wanting(url, None).await
}

/// The same, if an acknowledged insert survives there what it must survive.
///
/// # Errors
/// As [`open`], and when the store's settings promise less.
pub async fn open_wanting(
    url: &StoreUrl,
    durability: Option<Durability>,
) -> Result<Arc<dyn Store>, StoreError> {
    if let (StoreUrl::Sqlite(_), Some(Durability::Replica(_))) = (url, durability) {
        let detail = "`store.durability` asks for replicas, which a SQLite file does not have";
        return Err(
            StoreError::new("open", url, ErrorKind::Unsupported, detail).hint("ask for `disk`, or use Redis")
        );
    }
    match url {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(path).await?)),
        #[cfg(not(feature = "sqlite"))]
        StoreUrl::Sqlite(_) => {
            Err(StoreError::new("open", url, ErrorKind::Unsupported, "built without the feature `sqlite`"))
        }
        #[cfg(feature = "redis")]
        StoreUrl::Redis(place) => {
            let options = redis::Options { durability };
            Ok(Arc::new(redis::RedisStore::open(place, options).await?))
        }
        #[cfg(not(feature = "redis"))]
        StoreUrl::Redis(_) => {
            Err(StoreError::new("open", url, ErrorKind::Unsupported, "built without the feature `redis`"))
        }
    }
}
