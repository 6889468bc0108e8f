//! How a case gets a store, and makes its time pass.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::activation::{Mode, WorkerState};
use sluicegate::clock::{ManualClock, Timestamp};
use sluicegate::ids::{JobId, Nonce};
use sluicegate::job::{Args, JobRecord, NewJob, State};
use sluicegate::names::{Kind, Release, Tier, WorkerName};
use sluicegate::store::observed::Observed;
use sluicegate::store::sqlite::{Options, SqliteStore};
use sluicegate::store::{
    Actor, Batch, Claim, ClaimAsk, Flip, Flipped, Insert, Presence, Settle, Settled, Store, SweepAsk, Swept,
    Verdict,
};
use tempfile::TempDir;

pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// One engine, or one wrapper around one.
pub(crate) trait Harness: Sized {
    async fn new() -> Self;
    /// A client of the store.
    fn store(&self) -> Arc<dyn Store>;
    /// Another client of the same store, as another process would have.
    async fn another(&self) -> Arc<dyn Store>;
    /// Lets the store's time pass.
    fn pass(&self, time: Duration);
}

pub(crate) struct OnSqlite {
    dir: TempDir,
    clock: ManualClock,
    store: Arc<dyn Store>,
}

async fn open(dir: &TempDir, clock: &ManualClock) -> Arc<dyn Store> {
    let options = Options { clock: Arc::new(clock.clone()), ..Options::default() };
    Arc::new(SqliteStore::open_with(&dir.path().join("jobs.db"), options).await.expect("a store"))
}

impl Harness for OnSqlite {
    async fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let clock = ManualClock::new(Timestamp::from_ms(1_800_000_000_000));
        let store = open(&dir, &clock).await;
        Self { dir, clock, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn another(&self) -> Arc<dyn Store> {
        open(&self.dir, &self.clock).await
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

pub(crate) struct ObservedSqlite {
    inner: OnSqlite,
    store: Arc<dyn Store>,
}

impl Harness for ObservedSqlite {
    async fn new() -> Self {
        let inner = OnSqlite::new().await;
        let store = Arc::new(Observed::new(inner.store()));
        Self { inner, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn another(&self) -> Arc<dyn Store> {
        Arc::new(Observed::new(self.inner.another().await))
    }

    fn pass(&self, time: Duration) {
        self.inner.pass(time);
    }
}

pub(crate) fn tier() -> Tier {
    Tier::default()
}

pub(crate) fn by() -> Actor {
    Actor { who: "test".into(), reason: None }
}

pub(crate) fn job() -> NewJob {
    NewJob::raw(Kind::new("echo").expect("a kind"), Args::default())
}

pub(crate) fn release(name: &str) -> Release {
    Release::new(name).expect("a release")
}

/// Calls that every case makes, in one line each.
pub(crate) struct Hand {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) name: String,
    pub(crate) incarnation: Nonce,
}

impl Hand {
    pub(crate) fn of(store: Arc<dyn Store>, name: &str) -> Self {
        Self { store, name: name.to_owned(), incarnation: Nonce::new() }
    }

    pub(crate) async fn insert(&self, job: NewJob) -> Insert {
        self.store.insert(&tier(), vec![job]).await.expect("an answer").pop().expect("one answer")
    }

    pub(crate) async fn insert_new(&self, job: NewJob) -> JobId {
        match self.insert(job).await {
            Insert::Stored { id, .. } => id,
            other => panic!("not stored: {other:?}"),
        }
    }

    pub(crate) async fn activate(&self, name: &str) -> u64 {
        self.flip(name, Mode::Committed, None).await
    }

    pub(crate) async fn flip(&self, name: &str, mode: Mode, fallback: Option<(&str, Duration)>) -> u64 {
        let expect =
            self.store.activation(&tier()).await.expect("an answer").map(|current| current.generation);
        let next = Flip {
            release: release(name),
            mode,
            confirm_within: fallback.map(|(_, within)| within),
            fallback: fallback.map(|(name, _)| release(name)),
            deploy: None,
        };
        match self.store.flip(&tier(), expect, next, &by()).await.expect("an answer") {
            Flipped::Now(activation) => activation.generation,
            Flipped::Raced(current) => panic!("raced: {current:?}"),
        }
    }

    pub(crate) fn ask(&self, name: &str, generation: u64, max: usize) -> ClaimAsk {
        ClaimAsk {
            tier: tier(),
            worker: WorkerName::new(&self.name).expect("a name"),
            incarnation: self.incarnation,
            release: release(name),
            generation,
            queues: None,
            max,
            lease: LEASE,
            nonce: Nonce::new(),
            suspects: true,
        }
    }

    pub(crate) async fn claim(&self, max: usize) -> Batch {
        match self.store.claim(self.ask("default", 0, max)).await.expect("an answer") {
            Claim::Active(batch) => batch,
            other => panic!("not active: {other:?}"),
        }
    }

    pub(crate) async fn settle(&self, batch: &Batch, index: usize, verdict: Verdict) -> Settled {
        let job = &batch.jobs[index];
        let item =
            Settle { nonce: batch.nonce, id: job.id, slot: job.slot, ran: Duration::from_millis(1), verdict };
        self.store.settle(&tier(), vec![item]).await.expect("an answer").pop().expect("one answer")
    }

    pub(crate) async fn get(&self, id: JobId) -> Option<JobRecord> {
        self.store.get(&tier(), id).await.expect("an answer")
    }

    pub(crate) async fn state(&self, id: JobId) -> State {
        self.get(id).await.expect("the job").state
    }

    pub(crate) async fn sweep(&self) -> Swept {
        self.sweep_as("test/1", &["echo"]).await
    }

    pub(crate) async fn sweep_as(&self, capability: &str, kinds: &[&str]) -> Swept {
        let kinds = kinds.iter().map(|kind| Kind::new(kind).expect("a kind")).collect();
        let ask = SweepAsk { tier: tier(), capability: capability.into(), kinds, lease: LEASE };
        self.store.sweep(ask).await.expect("an answer")
    }

    /// Sweeps as a living tier does, so that a lost worker is told from a store that was away.
    pub(crate) async fn sweep_for(&self, harness: &impl Harness, time: Duration) -> Swept {
        let step = Duration::from_secs(5);
        let mut sum = Swept::default();
        let mut left = time;
        while !left.is_zero() {
            harness.pass(left.min(step));
            left = left.saturating_sub(step);
            let swept = self.sweep().await;
            sum.rescued += swept.rescued;
            sum.quarantined += swept.quarantined;
            sum.expired += swept.expired;
            sum.trimmed += swept.trimmed;
        }
        sum
    }

    pub(crate) fn presence(&self, state: WorkerState) -> Presence {
        Presence {
            worker: WorkerName::new(&self.name).expect("a name"),
            incarnation: self.incarnation,
            host: "host".into(),
            pid: 1,
            release: release("default"),
            capability: "default/1".into(),
            state,
            reason: None,
            generation: 0,
            kinds: Vec::new(),
            queues: None,
            slots: 1,
            busy: 0,
            stuck: 0,
            ticks: 0,
            claim_age: None,
            progress_age: None,
            completed: 0,
            failed: 0,
            version: "0".into(),
        }
    }
}
