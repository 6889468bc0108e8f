//! A fresh store of some engine, time that can be moved, and short words for what every test does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate::activation::{Activation, Mode, WorkerState};
use sluicegate::clock::{ManualClock, Timestamp};
use sluicegate::ids::{JobId, Nonce};
use sluicegate::job::{Args, JobRecord, NewJob, State};
use sluicegate::names::{Kind, Queue, Release, Tier, WorkerName};
use sluicegate::store::observed::Observed;
use sluicegate::store::sqlite::{Options, SqliteStore};
use sluicegate::store::*;

use crate::redis::proxy::{Proxy, Way};
use crate::redis::server::Server;

/// One engine, or one wrapper around one, as the suite sees it.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// An empty store of its own.
    async fn fresh() -> Self
    where
        Self: Sized;
    /// A client of it. Every call opens another one, as another process would.
    async fn client(&self) -> Arc<dyn Store>;
    /// Moves the store's time, or waits for it.
    async fn pass(&self, time: Duration);
    /// The short time that leases and delays are counted in here.
    fn unit(&self) -> Duration;
    /// The longest time that can pass here; tests that need more are left out.
    fn patience(&self) -> Duration;
}

/// SQLite, with a clock that is moved by hand.
pub(crate) struct Sqlite {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

#[async_trait]
impl Harness for Sqlite {
    async fn fresh() -> Self {
        let clock = ManualClock::new(Timestamp::from_ms(1_768_036_445_123));
        Self { folder: tempfile::tempdir().expect("a folder"), clock }
    }
    async fn client(&self) -> Arc<dyn Store> {
        let options = Options { clock: Arc::new(self.clock.clone()), ..Options::default() };
        let path = self.folder.path().join("jobs.db");
        Arc::new(SqliteStore::open_with(&path, options).await.expect("a store"))
    }
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
    fn unit(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn patience(&self) -> Duration {
        Duration::MAX
    }
}

/// A Redis server of its own, whose clock is moved by hand.
pub(crate) struct Redis(Server);

#[async_trait]
impl Harness for Redis {
    async fn fresh() -> Self {
        Self(Server::start())
    }
    async fn client(&self) -> Arc<dyn Store> {
        connect(&self.0.url()).await
    }
    async fn pass(&self, time: Duration) {
        self.0.pass(time);
    }
    fn unit(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn patience(&self) -> Duration {
        Duration::MAX
    }
}

/// The same behind a wire that takes its time, as between two machines of one place.
pub(crate) struct Proxied {
    proxy: Proxy,
    server: Server,
}

#[async_trait]
impl Harness for Proxied {
    async fn fresh() -> Self {
        let server = Server::start();
        let proxy = Proxy::before(&server);
        proxy.delay(Way::Both, Duration::from_micros(500));
        Self { proxy, server }
    }
    async fn client(&self) -> Arc<dyn Store> {
        connect(&self.proxy.url()).await
    }
    async fn pass(&self, time: Duration) {
        self.server.pass(time);
    }
    fn unit(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn patience(&self) -> Duration {
        Duration::MAX
    }
}

pub(crate) async fn connect(url: &str) -> Arc<dyn Store> {
    sluicegate::store::open(&url.parse().expect("a URL")).await.expect("a store")
}

/// Any engine, measured.
pub(crate) struct Measured<H>(H);

#[async_trait]
impl<H: Harness> Harness for Measured<H> {
    async fn fresh() -> Self {
        Self(H::fresh().await)
    }
    async fn client(&self) -> Arc<dyn Store> {
        Arc::new(Observed::new(self.0.client().await))
    }
    async fn pass(&self, time: Duration) {
        self.0.pass(time).await;
    }
    fn unit(&self) -> Duration {
        self.0.unit()
    }
    fn patience(&self) -> Duration {
        self.0.patience()
    }
}

/// A worker, as far as a store can tell.
#[derive(Debug, Clone)]
pub(crate) struct Hand {
    pub(crate) name: WorkerName,
    pub(crate) incarnation: Nonce,
    pub(crate) release: Release,
    pub(crate) generation: u64,
    pub(crate) queues: Option<Vec<Queue>>,
    pub(crate) suspects: bool,
}

impl Hand {
    pub(crate) fn new(name: &str, release_name: &str) -> Self {
        Self {
            name: WorkerName::new(name).unwrap(),
            incarnation: Nonce::new(),
            release: release(release_name),
            generation: 1,
            queues: None,
            suspects: true,
        }
    }

    pub(crate) fn generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    pub(crate) fn presence(&self, state: WorkerState, capability: &str) -> Presence {
        Presence {
            joining: state == WorkerState::Starting,
            capability: capability.into(),
            state,
            generation: self.generation,
            kinds: vec![(Kind::new("test.job").unwrap(), 1)],
            queues: self.queues.clone(),
            slots: 8,
            ..Presence::new(self.name.clone(), self.incarnation, self.release.clone())
        }
    }
}

/// A fresh store and one client of it.
pub(crate) struct Rig {
    pub(crate) harness: Box<dyn Harness>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tier: Tier,
}

impl Rig {
    pub(crate) async fn new<H: Harness + 'static>() -> Self {
        let harness = H::fresh().await;
        let store = harness.client().await;
        Self { harness: Box::new(harness), store, tier: Tier::default() }
    }

    /// The same, with release `r1` active as generation 1.
    pub(crate) async fn active<H: Harness + 'static>() -> Self {
        let rig = Self::new::<H>().await;
        rig.flip(None, "r1").await;
        rig
    }

    // ---- time

    pub(crate) fn units(&self, count: u32) -> Duration {
        self.harness.unit() * count
    }

    /// Every lease of the suite.
    pub(crate) fn lease(&self) -> Duration {
        self.units(3)
    }

    pub(crate) async fn pass(&self, units: u32) {
        self.harness.pass(self.units(units)).await;
    }

    /// Whether so much time can pass on this engine; when not, the test ends here.
    pub(crate) fn can_wait(&self, time: Duration) -> bool {
        let can = time <= self.harness.patience();
        if !can {
            println!("left out: {time:?} cannot pass on this engine");
        }
        can
    }

    pub(crate) async fn now(&self) -> Timestamp {
        self.store.probe(&self.tier).await.expect("the time")
    }

    // ---- activation

    pub(crate) async fn flip(&self, expect: Option<u64>, name: &str) -> Activation {
        let next = committed(name);
        match self.store.flip(&self.tier, expect, next, &actor()).await.expect("a flip") {
            Flipped::Now(activation) => activation,
            other => panic!("{other:?}"),
        }
    }

    /// Installs a provisional activation that reverts after so many units.
    pub(crate) async fn provisional(
        &self,
        expect: u64,
        name: &str,
        fallback: &str,
        units: u32,
    ) -> Activation {
        let next = Flip {
            mode: Mode::Provisional,
            confirm_within: Some(self.units(units)),
            fallback: Some(release(fallback)),
            ..committed(name)
        };
        match self.store.flip(&self.tier, Some(expect), next, &actor()).await.expect("a flip") {
            Flipped::Now(activation) => activation,
            other => panic!("{other:?}"),
        }
    }

    // ---- jobs

    pub(crate) async fn inserts(&self, jobs: Vec<NewJob>) -> Vec<Insert> {
        self.store.insert(&self.tier, jobs).await.expect("an insert")
    }

    pub(crate) async fn insert(&self, job: NewJob) -> Insert {
        self.inserts(vec![job]).await.remove(0)
    }

    /// Inserts one that must be stored.
    pub(crate) async fn add(&self, job: NewJob) -> JobId {
        match self.insert(job).await {
            Insert::Stored { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn add_many(&self, count: u64) -> Vec<JobId> {
        let mut ids = Vec::new();
        let mut from = 0;
        while from < count {
            let to = count.min(from + MAX_BATCH as u64);
            for answer in self.inserts((from..to).map(job).collect()).await {
                match answer {
                    Insert::Stored { id, .. } => ids.push(id),
                    other => panic!("{other:?}"),
                }
            }
            from = to;
        }
        ids
    }

    pub(crate) async fn get(&self, id: JobId) -> JobRecord {
        self.store.get(&self.tier, id).await.expect("an answer").expect("a job")
    }

    pub(crate) async fn state(&self, id: JobId) -> State {
        self.get(id).await.state
    }

    pub(crate) fn ask(&self, hand: &Hand, max: usize) -> ClaimAsk {
        ClaimAsk {
            lane: Lane::Jobs,
            tier: self.tier.clone(),
            worker: hand.name.clone(),
            incarnation: hand.incarnation,
            release: hand.release.clone(),
            generation: hand.generation,
            queues: hand.queues.clone(),
            max,
            lease: self.lease(),
            nonce: Nonce::new(),
            suspects: hand.suspects,
        }
    }

    pub(crate) async fn try_claim(&self, hand: &Hand, max: usize) -> Claim {
        self.store.claim(self.ask(hand, max)).await.expect("an answer")
    }

    pub(crate) async fn claim(&self, hand: &Hand, max: usize) -> Batch {
        match self.try_claim(hand, max).await {
            Claim::Active(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    /// Claims nothing: the worker is refused.
    pub(crate) async fn refused(&self, hand: &Hand) -> Option<Activation> {
        match self.try_claim(hand, 10).await {
            Claim::NotActive { current, .. } => current,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn settle(&self, batch: &Batch, id: JobId, verdict: Verdict) -> Settled {
        let slot = batch.jobs.iter().find(|job| job.id == id).expect("it is in the batch").slot;
        let item = Settle { nonce: batch.nonce, id, slot, ran: Duration::from_millis(3), verdict };
        self.store.settle(&self.tier, vec![item]).await.expect("an answer").remove(0)
    }

    pub(crate) async fn settle_all(&self, batch: &Batch, verdict: &Verdict) {
        let item = |job: &Claimed| Settle {
            nonce: batch.nonce,
            id: job.id,
            slot: job.slot,
            ran: Duration::from_millis(3),
            verdict: verdict.clone(),
        };
        let items: Vec<_> = batch.jobs.iter().map(item).collect();
        let answers = self.store.settle(&self.tier, items).await.expect("answers");
        assert!(answers.iter().all(|answer| *answer == Settled::Ok), "{answers:?}");
    }

    pub(crate) async fn renew(&self, nonce: Nonce) -> Renewed {
        self.store.renew(&self.tier, vec![nonce], self.lease()).await.expect("an answer").remove(0)
    }

    pub(crate) fn sweeper(&self) -> SweepAsk {
        SweepAsk {
            tier: self.tier.clone(),
            capability: "r1+build1".into(),
            kinds: Vec::new(),
            lease: self.lease(),
        }
    }

    pub(crate) async fn sweep(&self) -> Swept {
        self.store.sweep(self.sweeper()).await.expect("a sweep")
    }

    /// Lets every lease run out that is not renewed, while the fleet keeps sweeping: no outage.
    pub(crate) async fn leases_end(&self) -> Swept {
        let mut sum = Swept::default();
        for _ in 0..5 {
            let swept = self.sweep().await;
            sum.rescued += swept.rescued;
            sum.quarantined += swept.quarantined;
            self.pass(1).await;
        }
        let swept = self.sweep().await;
        sum.rescued += swept.rescued;
        sum.quarantined += swept.quarantined;
        sum
    }

    pub(crate) async fn act(&self, id: JobId, action: Action) -> Acted {
        self.store.bulk(&self.tier, vec![id], action, &actor()).await.expect("an answer").remove(0)
    }

    pub(crate) async fn beat(&self, hand: &Hand, state: WorkerState) -> Beat {
        let presence = hand.presence(state, &format!("{}+build1", hand.release));
        self.store.beat(&self.tier, &presence).await.expect("an answer")
    }

    pub(crate) async fn census(&self) -> Census {
        self.store.census(&self.tier).await.expect("a census")
    }
}

pub(crate) fn job(n: u64) -> NewJob {
    raw("test.job", &format!("{{\"n\":{n}}}"))
}

pub(crate) fn raw(kind: &str, args: &str) -> NewJob {
    NewJob::raw(Kind::new(kind).unwrap(), Args::parse(args.as_bytes()).unwrap())
}

pub(crate) fn release(name: &str) -> Release {
    Release::new(name).unwrap()
}

pub(crate) fn committed(name: &str) -> Flip {
    Flip {
        release: release(name),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    }
}

pub(crate) fn actor() -> Actor {
    Actor { who: "ada@here".into(), reason: Some("a test".into()) }
}

pub(crate) fn ids(batch: &Batch) -> Vec<JobId> {
    batch.jobs.iter().map(|job| job.id).collect()
}

pub(crate) fn retry(delay: Duration) -> Verdict {
    Verdict::Retry { delay, error: "no luck".into() }
}
