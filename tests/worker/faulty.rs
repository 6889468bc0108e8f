//! A store whose answers can be made to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate::activation::Activation;
use sluicegate::clock::Timestamp;
use sluicegate::ids::{JobId, Nonce};
use sluicegate::job::{JobRecord, NewJob};
use sluicegate::names::{Queue, Tier};
use sluicegate::store::*;
use tokio::sync::Semaphore;

/// Forwards to a real store, unless told otherwise.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn Store>,
    /// Nothing is answered.
    pub(crate) away: AtomicBool,
    /// Nothing is stored: there is no room.
    pub(crate) full: AtomicBool,
    /// Nothing is stored: it may not be.
    pub(crate) read_only: AtomicBool,
    /// Settles are refused for good.
    pub(crate) corrupt: AtomicBool,
    /// Settles panic, as a bug in one of the worker's parts would.
    pub(crate) panics: AtomicBool,
    /// Every lease is lost.
    pub(crate) lost: AtomicBool,
    /// A census waits at the gate.
    pub(crate) held: AtomicBool,
    pub(crate) gate: Semaphore,
    pub(crate) calls: AtomicU64,
}

impl Faulty {
    pub(crate) fn around(inner: Arc<dyn Store>) -> Arc<Self> {
        let off = || AtomicBool::new(false);
        let calls = AtomicU64::new(0);
        Arc::new(Self {
            inner,
            away: off(),
            full: off(),
            read_only: off(),
            corrupt: off(),
            panics: off(),
            lost: off(),
            held: off(),
            gate: Semaphore::new(0),
            calls,
        })
    }

    /// Waits until nobody else holds the store: every part of a worker, its heartbeat's thread too, has ended.
    pub(crate) async fn let_go(self: &Arc<Self>) {
        super::bench::eventually("all parts ended", async || match Arc::strong_count(self) {
            1 => Ok(()),
            more => Err(format!("{more} handles")),
        })
        .await;
    }

    fn through(&self, op: &'static str) -> Result<&dyn Store, StoreError> {
        self.calls.fetch_add(1, SeqCst);
        if self.away.load(SeqCst) {
            return Err(StoreError::new(op, "faulty", ErrorKind::Unavailable, "unplugged"));
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl Store for Faulty {
    fn about(&self) -> About {
        self.inner.about()
    }
    async fn insert(&self, tier: &Tier, jobs: Vec<NewJob>) -> Result<Vec<Insert>, StoreError> {
        if self.full.load(SeqCst) {
            return Err(StoreError::new("insert", "faulty", ErrorKind::Full, "no room"));
        }
        if self.read_only.load(SeqCst) {
            return Err(StoreError::new(
                "insert",
                "faulty",
                ErrorKind::ReadOnly,
                "you can't write against a replica",
            ));
        }
        self.through("insert")?.insert(tier, jobs).await
    }
    async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        self.through("claim")?.claim(ask).await
    }
    async fn settle(&self, tier: &Tier, items: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        if self.corrupt.load(SeqCst) {
            return Err(StoreError::new("settle", "faulty", ErrorKind::Corrupt, "scrambled"));
        }
        assert!(!self.panics.load(SeqCst), "a bug");
        self.through("settle")?.settle(tier, items).await
    }
    async fn renew(
        &self,
        tier: &Tier,
        leases: Vec<Nonce>,
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        if self.lost.load(SeqCst) {
            return Ok(leases.iter().map(|_| Renewed::Lost).collect());
        }
        self.through("renew")?.renew(tier, leases, lease).await
    }
    async fn sweep(&self, ask: SweepAsk) -> Result<Swept, StoreError> {
        self.through("sweep")?.sweep(ask).await
    }
    async fn subscribe(&self, tier: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        self.through("subscribe")?.subscribe(tier).await
    }
    async fn get(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.through("get")?.get(tier, id).await
    }
    async fn page(&self, tier: &Tier, ask: PageAsk) -> Result<Page, StoreError> {
        self.through("page")?.page(tier, ask).await
    }
    async fn bulk(
        &self,
        tier: &Tier,
        ids: Vec<JobId>,
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError> {
        self.through("bulk")?.bulk(tier, ids, action, by).await
    }
    async fn census(&self, tier: &Tier) -> Result<Census, StoreError> {
        if self.held.load(SeqCst) {
            self.gate.acquire().await.expect("open").forget();
        }
        self.through("census")?.census(tier).await
    }
    async fn tiers(&self) -> Result<Vec<Tier>, StoreError> {
        self.through("tiers")?.tiers().await
    }
    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError> {
        self.through("activation")?.activation(tier).await
    }
    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        self.through("flip")?.flip(tier, expect, next, by).await
    }
    async fn commit(
        &self,
        tier: &Tier,
        generation: u64,
        guard: Option<&Guard>,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        self.through("commit")?.commit(tier, generation, guard, by).await
    }
    async fn extend(
        &self,
        tier: &Tier,
        seen: &Activation,
        within: Duration,
        guard: Option<&Guard>,
    ) -> Result<Flipped, StoreError> {
        self.through("extend")?.extend(tier, seen, within, guard).await
    }
    async fn record(&self, tier: &Tier, space: Space, key: &str) -> Result<Option<Record>, StoreError> {
        self.through("record")?.record(tier, space, key).await
    }
    async fn put(
        &self,
        tier: &Tier,
        space: Space,
        key: &str,
        expect: u64,
        value: &str,
        keep: Option<Duration>,
    ) -> Result<Put, StoreError> {
        self.through("put")?.put(tier, space, key, expect, value, keep).await
    }
    async fn records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.through("records")?.records(tier, space, after, limit).await
    }
    async fn pause(
        &self,
        tier: &Tier,
        queue: &Queue,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<Option<Paused>, StoreError> {
        self.through("pause")?.pause(tier, queue, pause, by).await
    }
    async fn pauses(&self, tier: &Tier) -> Result<Vec<Paused>, StoreError> {
        self.through("pauses")?.pauses(tier).await
    }
    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError> {
        self.through("append")?.append(tier, event, by, detail).await
    }
    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        self.through("ledger")?.ledger(tier, after, limit).await
    }
    async fn ledger_end(&self, tier: &Tier) -> Result<u64, StoreError> {
        self.through("ledger_end")?.ledger_end(tier).await
    }
    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError> {
        self.through("beat")?.beat(tier, presence).await
    }
    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError> {
        self.through("workers")?.workers(tier).await
    }
    async fn probe(&self, tier: &Tier) -> Result<Timestamp, StoreError> {
        self.through("probe")?.probe(tier).await
    }
}
