//! A store whose caller dies at one of its calls, or does not hear of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate::activation::Activation;
use sluicegate::clock::Timestamp;
use sluicegate::ids::{JobId, Nonce};
use sluicegate::job::{JobRecord, NewJob};
use sluicegate::names::{Queue, Tier};
use sluicegate::store::*;
use tokio::sync::Notify;

/// What happens at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done, and its caller does not live to see it. What is not yet done then is the same as before the next call.
    Dies,
    /// It is done, and the answer is lost.
    Unheard,
    /// Its caller stands still before it, until it is let go.
    Late,
}

/// Calls that change something.
pub(super) const WRITES: &[&str] = &["insert", "flip", "commit", "extend", "put", "append"];

/// Forwards everything. One call has its fate: the n-th of these.
#[derive(Debug)]
pub(super) struct Doomed {
    inner: Arc<dyn Store>,
    fate: Fate,
    of: &'static [&'static str],
    at: u64,
    calls: AtomicU64,
    /// The caller is dead: drop it.
    pub(super) dead: Notify,
    /// The caller stands still…
    pub(super) still: Notify,
    /// …until somebody tells it to go on.
    pub(super) go: Notify,
}

impl Doomed {
    pub(super) fn around(inner: &Arc<dyn Store>, fate: Fate, of: &'static [&'static str], at: u64) -> Self {
        Self {
            inner: Arc::clone(inner),
            fate,
            of,
            at,
            calls: AtomicU64::new(0),
            dead: Notify::new(),
            still: Notify::new(),
            go: Notify::new(),
        }
    }

    /// Whether the call came at all.
    pub(super) fn met_its_fate(&self) -> bool {
        self.calls.load(SeqCst) >= self.at
    }

    async fn before(&self, op: &'static str) {
        let next = self.of.contains(&op) && self.calls.load(SeqCst) + 1 == self.at;
        if self.fate == Fate::Late && next {
            self.still.notify_one();
            self.go.notified().await;
        }
    }

    async fn after<T>(&self, op: &'static str, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.of.contains(&op) || self.calls.fetch_add(1, SeqCst) + 1 != self.at {
            return answer;
        }
        match self.fate {
            Fate::Dies => {
                self.dead.notify_one();
                std::future::pending().await
            }
            Fate::Late => answer,
            Fate::Unheard => Err(StoreError::new(op, "doomed", ErrorKind::Timeout, "the answer is lost")),
        }
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $of:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        impl Store for Doomed {
            fn about(&self) -> About {
                self.inner.about()
            }
            $(async fn $name(&self, $($arg: $of),*) -> Result<$answer, StoreError> {
                self.before(stringify!($name)).await;
                let answer = self.inner.$name($($arg),*).await;
                self.after(stringify!($name), answer).await
            })+
        }
    };
}

forward! {
    insert(tier: &Tier, jobs: Vec<NewJob>) -> Vec<Insert>;
    claim(ask: ClaimAsk) -> Claim;
    settle(tier: &Tier, items: Vec<Settle>) -> Vec<Settled>;
    renew(tier: &Tier, leases: Vec<Nonce>, lease: Duration) -> Vec<Renewed>;
    sweep(ask: SweepAsk) -> Swept;
    subscribe(tier: &Tier) -> Box<dyn Wake>;
    get(tier: &Tier, id: JobId) -> Option<JobRecord>;
    page(tier: &Tier, ask: PageAsk) -> Page;
    bulk(tier: &Tier, ids: Vec<JobId>, action: Action, by: &Actor) -> Vec<Acted>;
    census(tier: &Tier) -> Census;
    tiers() -> Vec<Tier>;
    activation(tier: &Tier) -> Option<Activation>;
    flip(tier: &Tier, expect: Option<u64>, next: Flip, by: &Actor) -> Flipped;
    commit(tier: &Tier, generation: u64, guard: Option<&Guard>, by: &Actor) -> Flipped;
    extend(tier: &Tier, seen: &Activation, within: Duration, guard: Option<&Guard>) -> Flipped;
    record(tier: &Tier, space: Space, key: &str) -> Option<Record>;
    put(tier: &Tier, space: Space, key: &str, expect: u64, value: &str, keep: Option<Duration>) -> Put;
    records(tier: &Tier, space: Space, after: Option<&str>, limit: usize) -> Vec<Record>;
    pause(tier: &Tier, queue: &Queue, pause: Option<Pause>, by: &Actor) -> Option<Paused>;
    pauses(tier: &Tier) -> Vec<Paused>;
    append(tier: &Tier, event: &str, by: &Actor, detail: &str) -> u64;
    ledger(tier: &Tier, after: u64, limit: usize) -> Vec<LedgerEntry>;
    ledger_end(tier: &Tier) -> u64;
    beat(tier: &Tier, presence: &Presence) -> Beat;
    workers(tier: &Tier) -> Vec<Seen>;
    probe(tier: &Tier) -> Timestamp;
}
