//! The wrapper that measures an engine: it adds nothing to the meaning, and passes the same conformance suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::{
    About, Acted, Action, Actor, Beat, Census, Claim, ClaimAsk, Flip, Flipped, Insert, LedgerEntry, Page,
    PageAsk, Presence, Put, Record, Renewed, Seen, Settle, Settled, Space, Store, StoreError, SweepAsk,
    Swept, Wake,
};
use crate::activation::Activation;
use crate::clock::{Timestamp, instant};
use crate::ids::{JobId, Nonce};
use crate::job::{JobRecord, NewJob};
use crate::names::Tier;

/// The operations, in the order of the trait.
pub const OPERATIONS: [&str; 19] = [
    "insert",
    "claim",
    "settle",
    "renew",
    "sweep",
    "subscribe",
    "get",
    "page",
    "bulk",
    "census",
    "activation",
    "flip",
    "record",
    "put",
    "records",
    "append",
    "ledger",
    "beat",
    "workers",
];
/// Upper bounds of the duration buckets are powers of two of this: 64 µs, 128 µs, … 2 s, and everything above.
const FIRST_BUCKET: Duration = Duration::from_micros(64);
const BUCKETS: usize = 17;

/// A store whose calls are counted and timed.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn Store>,
    counts: [Counts; OPERATIONS.len()],
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
    longest: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What was counted of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Its name.
    pub operation: &'static str,
    /// Calls that have returned.
    pub calls: u64,
    /// Of these, those that returned an error.
    pub errors: u64,
    /// Time spent in them, in seconds.
    #[serde(with = "crate::clock::secs")]
    pub total: Duration,
    /// The longest, in seconds.
    #[serde(with = "crate::clock::secs")]
    pub longest: Duration,
    /// Calls by duration: up to 64 µs, 128 µs, … and the rest.
    pub buckets: [u64; BUCKETS],
}

impl Observed {
    /// Around a store.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counts: Default::default() }
    }

    /// What was counted so far, operations without calls left out.
    #[must_use]
    pub fn measured(&self) -> Vec<Measured> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let all = OPERATIONS.iter().zip(&self.counts).map(|(operation, counts)| Measured {
            operation,
            calls: read(&counts.calls),
            errors: read(&counts.errors),
            total: Duration::from_micros(read(&counts.micros)),
            longest: Duration::from_micros(read(&counts.longest)),
            buckets: std::array::from_fn(|index| counts.buckets.get(index).map_or(0, read)),
        });
        all.filter(|measured| measured.calls > 0).collect()
    }

    async fn timed<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = instant();
        let answer = call.await;
        if let Some(counts) =
            OPERATIONS.iter().position(|name| *name == operation).and_then(|index| self.counts.get(index))
        {
            counts.add(began.elapsed(), answer.is_err());
        }
        answer
    }
}

impl Counts {
    fn add(&self, took: Duration, failed: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bound = |index: usize| FIRST_BUCKET.saturating_mul(1 << index);
        let bucket = (0..BUCKETS - 1).find(|index| took <= bound(*index)).unwrap_or(BUCKETS - 1);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.longest.fetch_max(micros, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Store for Observed {
    fn about(&self) -> About {
        self.inner.about()
    }
    async fn insert(&self, tier: &Tier, jobs: Vec<NewJob>) -> Result<Vec<Insert>, StoreError> {
        self.timed("insert", self.inner.insert(tier, jobs)).await
    }
    async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        self.timed("claim", self.inner.claim(ask)).await
    }
    async fn settle(&self, tier: &Tier, items: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.timed("settle", self.inner.settle(tier, items)).await
    }
    async fn renew(
        &self,
        tier: &Tier,
        leases: Vec<Nonce>,
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        self.timed("renew", self.inner.renew(tier, leases, lease)).await
    }
    async fn sweep(&self, ask: SweepAsk) -> Result<Swept, StoreError> {
        self.timed("sweep", self.inner.sweep(ask)).await
    }
    async fn subscribe(&self, tier: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        self.timed("subscribe", self.inner.subscribe(tier)).await
    }
    async fn get(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.timed("get", self.inner.get(tier, id)).await
    }
    async fn page(&self, tier: &Tier, ask: PageAsk) -> Result<Page, StoreError> {
        self.timed("page", self.inner.page(tier, ask)).await
    }
    async fn bulk(
        &self,
        tier: &Tier,
        ids: Vec<JobId>,
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError> {
        self.timed("bulk", self.inner.bulk(tier, ids, action, by)).await
    }
    async fn census(&self, tier: &Tier) -> Result<Census, StoreError> {
        self.timed("census", self.inner.census(tier)).await
    }
    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError> {
        self.timed("activation", self.inner.activation(tier)).await
    }
    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        self.timed("flip", self.inner.flip(tier, expect, next, by)).await
    }
    async fn record(&self, tier: &Tier, space: Space, key: &str) -> Result<Option<Record>, StoreError> {
        self.timed("record", self.inner.record(tier, space, key)).await
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
        self.timed("put", self.inner.put(tier, space, key, expect, value, keep)).await
    }
    async fn records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.timed("records", self.inner.records(tier, space, after, limit)).await
    }
    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError> {
        self.timed("append", self.inner.append(tier, event, by, detail)).await
    }
    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        self.timed("ledger", self.inner.ledger(tier, after, limit)).await
    }
    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError> {
        self.timed("beat", self.inner.beat(tier, presence)).await
    }
    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError> {
        self.timed("workers", self.inner.workers(tier)).await
    }
    async fn probe(&self, tier: &Tier) -> Result<Timestamp, StoreError> {
        self.inner.probe(tier).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let counts = Counts::default();
        for (micros, bucket) in [(1, 0), (64, 0), (65, 1), (1_000, 4), (3_000_000, 16)] {
            counts.add(Duration::from_micros(micros), false);
            assert!(counts.buckets[bucket].load(Ordering::Relaxed) > 0, "{micros}");
        }
        assert_eq!(counts.longest.load(Ordering::Relaxed), 3_000_000);
    }
}
