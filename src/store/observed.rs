//! The wrapper that measures an engine: it adds nothing to the meaning, and passes the same conformance suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;

use super::{
    About, Acted, Action, Actor, Beat, Census, Claim, ClaimAsk, Flip, Flipped, Guard, Insert, LedgerEntry,
    Page, PageAsk, Pause, Paused, Presence, Put, Record, Renewed, Seen, Settle, Settled, Space, Store,
    StoreError, SweepAsk, Swept, Wake,
};
use crate::activation::Activation;
use crate::clock::{self, Timestamp};
use crate::histogram::{Histogram, Times};
use crate::ids::{JobId, Nonce};
use crate::job::{JobRecord, NewJob};
use crate::names::{Queue, Tier};

/// Upper bounds of the buckets of an operation's times, in seconds. One is at 5 ms: no call may block others for longer.
const BOUNDS: [f64; 12] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// What is kept of one operation. The counters are read one by one, so a snapshot under load may be off by a call.
#[derive(Debug)]
struct Mark {
    calls: AtomicU64,
    answers: AtomicU64,
    errors: AtomicU64,
    abandoned: AtomicU64,
    nanos: AtomicU64,
    slowest: AtomicU64,
    times: Histogram,
}

impl Default for Mark {
    fn default() -> Self {
        let none = AtomicU64::default;
        Self {
            calls: none(),
            answers: none(),
            errors: none(),
            abandoned: none(),
            nanos: none(),
            slowest: none(),
            times: Histogram::new(&BOUNDS),
        }
    }
}

/// One call under way; when it is dropped unanswered, its caller gave it up.
struct Call<'a> {
    mark: &'a Mark,
    begun: Instant,
    answered: bool,
}

impl Mark {
    fn begin(&self) -> Call<'_> {
        self.calls.fetch_add(1, Relaxed);
        Call { mark: self, begun: clock::instant(), answered: false }
    }

    fn read(&self, op: &'static str) -> Seat {
        Seat {
            op,
            calls: self.calls.load(Relaxed),
            answers: self.answers.load(Relaxed),
            errors: self.errors.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            total: Duration::from_nanos(self.nanos.load(Relaxed)),
            slowest: Duration::from_nanos(self.slowest.load(Relaxed)),
        }
    }
}

impl Call<'_> {
    fn end<T>(mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.answered = true;
        let took = self.begun.elapsed();
        self.mark.times.add(took);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.mark.nanos.fetch_add(took, Relaxed);
        self.mark.slowest.fetch_max(took, Relaxed);
        match &answer {
            Ok(_) => self.mark.answers.fetch_add(1, Relaxed),
            Err(_) => self.mark.errors.fetch_add(1, Relaxed),
        };
        answer
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.mark.abandoned.fetch_add(1, Relaxed);
            // Otherwise a store that hangs, whose callers give up, would look like one that nobody asks.
            self.mark.times.add(self.begun.elapsed());
        }
    }
}

/// What one operation has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Seat {
    /// Its name, as in [`Store`].
    pub op: &'static str,
    /// Calls begun.
    pub calls: u64,
    /// Calls that were answered.
    pub answers: u64,
    /// Calls that ended in a [`StoreError`].
    pub errors: u64,
    /// Calls that their caller gave up before there was an answer.
    pub abandoned: u64,
    /// Time spent in answered and failed calls.
    #[serde(with = "crate::clock::secs")]
    pub total: Duration,
    /// The slowest of them.
    #[serde(with = "crate::clock::secs")]
    pub slowest: Duration,
}

impl Seat {
    /// Calls that have not ended yet.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.calls.saturating_sub(self.answers + self.errors + self.abandoned)
    }

    /// The mean time of an ended call; zero when there was none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let ended = u32::try_from(self.answers + self.errors).unwrap_or(u32::MAX);
        self.total.checked_div(ended).unwrap_or_default()
    }
}

/// Any store, measured.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn Store>,
    marks: Marks,
}

impl Observed {
    /// Around a store.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, marks: Marks::default() }
    }

    /// The store inside.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// What every operation has cost so far, in the order of [`Store`].
    #[must_use]
    pub fn snapshot(&self) -> Vec<Seat> {
        self.marks.read()
    }

    /// How long the calls of every operation took, in the order of [`Store`]: answered, failed, or given up by whoever
    /// made them.
    #[must_use]
    pub fn times(&self) -> Vec<(&'static str, Times)> {
        self.marks.times()
    }

    /// What one operation has cost so far; `None` when there is no such operation.
    #[must_use]
    pub fn of(&self, op: &str) -> Option<Seat> {
        self.snapshot().into_iter().find(|seat| seat.op == op)
    }
}

/// One [`Mark`] for every operation.
macro_rules! marks {
    ($($op:ident),+ $(,)?) => {
        #[derive(Debug, Default)]
        struct Marks {
            $($op: Mark,)+
        }

        impl Marks {
            fn read(&self) -> Vec<Seat> {
                vec![$(self.$op.read(stringify!($op)),)+]
            }

            fn times(&self) -> Vec<(&'static str, Times)> {
                vec![$((stringify!($op), self.$op.times.read()),)+]
            }
        }
    };
}

marks!(
    insert, claim, settle, renew, sweep, subscribe, get, page, bulk, census, tiers, activation, flip, commit,
    extend, record, put, records, pause, pauses, append, ledger, ledger_end, beat, workers, probe
);

#[async_trait]
impl Store for Observed {
    fn about(&self) -> About {
        self.inner.about()
    }

    async fn insert(&self, tier: &Tier, jobs: Vec<NewJob>) -> Result<Vec<Insert>, StoreError> {
        let call = self.marks.insert.begin();
        call.end(self.inner.insert(tier, jobs).await)
    }

    async fn claim(&self, ask: ClaimAsk) -> Result<Claim, StoreError> {
        let call = self.marks.claim.begin();
        call.end(self.inner.claim(ask).await)
    }

    async fn settle(&self, tier: &Tier, items: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        let call = self.marks.settle.begin();
        call.end(self.inner.settle(tier, items).await)
    }

    async fn renew(
        &self,
        tier: &Tier,
        leases: Vec<Nonce>,
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        let call = self.marks.renew.begin();
        call.end(self.inner.renew(tier, leases, lease).await)
    }

    async fn sweep(&self, ask: SweepAsk) -> Result<Swept, StoreError> {
        let call = self.marks.sweep.begin();
        call.end(self.inner.sweep(ask).await)
    }

    async fn subscribe(&self, tier: &Tier) -> Result<Box<dyn Wake>, StoreError> {
        let call = self.marks.subscribe.begin();
        call.end(self.inner.subscribe(tier).await)
    }

    async fn get(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let call = self.marks.get.begin();
        call.end(self.inner.get(tier, id).await)
    }

    async fn page(&self, tier: &Tier, ask: PageAsk) -> Result<Page, StoreError> {
        let call = self.marks.page.begin();
        call.end(self.inner.page(tier, ask).await)
    }

    async fn bulk(
        &self,
        tier: &Tier,
        ids: Vec<JobId>,
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError> {
        let call = self.marks.bulk.begin();
        call.end(self.inner.bulk(tier, ids, action, by).await)
    }

    async fn census(&self, tier: &Tier) -> Result<Census, StoreError> {
        let call = self.marks.census.begin();
        call.end(self.inner.census(tier).await)
    }

    async fn tiers(&self) -> Result<Vec<Tier>, StoreError> {
        let call = self.marks.tiers.begin();
        call.end(self.inner.tiers().await)
    }

    async fn activation(&self, tier: &Tier) -> Result<Option<Activation>, StoreError> {
        let call = self.marks.activation.begin();
        call.end(self.inner.activation(tier).await)
    }

    async fn flip(
        &self,
        tier: &Tier,
        expect: Option<u64>,
        next: Flip,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        let call = self.marks.flip.begin();
        call.end(self.inner.flip(tier, expect, next, by).await)
    }

    async fn commit(
        &self,
        tier: &Tier,
        generation: u64,
        guard: Option<&Guard>,
        by: &Actor,
    ) -> Result<Flipped, StoreError> {
        let call = self.marks.commit.begin();
        call.end(self.inner.commit(tier, generation, guard, by).await)
    }

    async fn extend(
        &self,
        tier: &Tier,
        seen: &Activation,
        within: Duration,
        guard: Option<&Guard>,
    ) -> Result<Flipped, StoreError> {
        let call = self.marks.extend.begin();
        call.end(self.inner.extend(tier, seen, within, guard).await)
    }

    async fn record(&self, tier: &Tier, space: Space, key: &str) -> Result<Option<Record>, StoreError> {
        let call = self.marks.record.begin();
        call.end(self.inner.record(tier, space, key).await)
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
        let call = self.marks.put.begin();
        call.end(self.inner.put(tier, space, key, expect, value, keep).await)
    }

    async fn records(
        &self,
        tier: &Tier,
        space: Space,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let call = self.marks.records.begin();
        call.end(self.inner.records(tier, space, after, limit).await)
    }

    async fn pause(
        &self,
        tier: &Tier,
        queue: &Queue,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<Option<Paused>, StoreError> {
        let call = self.marks.pause.begin();
        call.end(self.inner.pause(tier, queue, pause, by).await)
    }

    async fn pauses(&self, tier: &Tier) -> Result<Vec<Paused>, StoreError> {
        let call = self.marks.pauses.begin();
        call.end(self.inner.pauses(tier).await)
    }

    async fn append(&self, tier: &Tier, event: &str, by: &Actor, detail: &str) -> Result<u64, StoreError> {
        let call = self.marks.append.begin();
        call.end(self.inner.append(tier, event, by, detail).await)
    }

    async fn ledger(&self, tier: &Tier, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        let call = self.marks.ledger.begin();
        call.end(self.inner.ledger(tier, after, limit).await)
    }

    async fn ledger_end(&self, tier: &Tier) -> Result<u64, StoreError> {
        let call = self.marks.ledger_end.begin();
        call.end(self.inner.ledger_end(tier).await)
    }

    async fn beat(&self, tier: &Tier, presence: &Presence) -> Result<Beat, StoreError> {
        let call = self.marks.beat.begin();
        call.end(self.inner.beat(tier, presence).await)
    }

    async fn workers(&self, tier: &Tier) -> Result<Vec<Seen>, StoreError> {
        let call = self.marks.workers.begin();
        call.end(self.inner.workers(tier).await)
    }

    async fn probe(&self, tier: &Tier) -> Result<Timestamp, StoreError> {
        let call = self.marks.probe.begin();
        call.end(self.inner.probe(tier).await)
    }
}
