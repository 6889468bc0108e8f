//! A store of its own, kinds that do as they are told, and waiting with a deadline.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate::activation::WorkerState;
use sluicegate::clock;
use sluicegate::ids::JobId;
use sluicegate::job::handler::Effect;
use sluicegate::job::{Args, JobRecord, JobResult, NewJob, State};
use sluicegate::names::{Kind, Release, Tier, WorkerName};
use sluicegate::retry::RetryPolicy;
use sluicegate::store::{Insert, Store};
use sluicegate::worker::{Options, Registry, Worker};
use sluicegate::{Context, Handler, Job, Outcome};
use tokio::sync::{Semaphore, watch};

pub(crate) use crate::both::Engine;
use crate::both::Place;

/// Nothing here takes this long unless it is broken.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the handlers and the test tell each other.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    pub(crate) started: Arc<AtomicU64>,
    pub(crate) dropped: Arc<AtomicU64>,
    pub(crate) notes: Arc<Mutex<Vec<String>>>,
    pub(crate) gate: Arc<Semaphore>,
    changed: watch::Sender<u64>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            started: Arc::default(),
            dropped: Arc::default(),
            notes: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            changed: watch::Sender::new(0),
        }
    }
}

impl Signals {
    fn start(&self) {
        self.started.fetch_add(1, SeqCst);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until so many attempts have begun.
    pub(crate) async fn begun(&self, count: u64) {
        let mut changed = self.changed.subscribe();
        let enough = async { drop(changed.wait_for(|_| self.started.load(SeqCst) >= count).await) };
        tokio::time::timeout(LONG, enough).await.expect("attempts begin");
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }
}

struct Dropped(Arc<AtomicU64>);
impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Does what it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) act: String,
}

impl Job for Probe {
    const KIND: &'static str = "test.probe";
    const VERSION: u32 = 2;
    fn retry() -> RetryPolicy {
        RetryPolicy { max_attempts: 2, base: Duration::from_millis(1), ..RetryPolicy::default() }
    }
}

impl Handler for Probe {
    async fn run(self, ctx: Context) -> JobResult {
        let signals = ctx.shared.get::<Signals>().expect("signals");
        signals.start();
        let _dropped = Dropped(Arc::clone(&signals.dropped));
        match self.act.as_str() {
            "done" => Ok(Outcome::Done),
            "panic" => panic!("as told"),
            "fail" => Err("as told".into()),
            "snooze once" if signals.started.load(SeqCst) == 1 => {
                Ok(Outcome::Snooze(Duration::from_millis(1)))
            }
            "snooze once" => Ok(Outcome::Done),
            "die" => Ok(Outcome::Dead("given up".into())),
            "uncertain" => Ok(Outcome::Uncertain("who knows".into())),
            "gate" => {
                signals.gate.acquire().await.expect("open").forget();
                Ok(Outcome::Done)
            }
            "heed" => {
                ctx.cancel.cancelled().await;
                Err("cancelled".into())
            }
            "hang" => std::future::pending().await,
            "effect" => effect(&ctx, &signals).await,
            "sleep 1" => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Outcome::Done)
            }
            other => Err(format!("unknown act {other}").into()),
        }
    }
}

/// Sends once; the first attempt fails after it was sent, and the second one must not send again.
async fn effect(ctx: &Context, signals: &Signals) -> JobResult {
    let seen = ctx.effects.begin(ctx.id, "mail").await?;
    signals.notes.lock().unwrap().push(format!("{}: {seen:?}", ctx.attempt));
    if seen == Effect::Fresh {
        ctx.effects.sent(ctx.id, "mail").await?;
        return Err("after it was sent".into());
    }
    let begun = ctx.effects.begin(ctx.id, "sms").await?;
    let again = ctx.effects.begin(ctx.id, "sms").await?;
    ctx.effects.not_sent(ctx.id, "sms").await?;
    let cleared = ctx.effects.begin(ctx.id, "sms").await?;
    signals.notes.lock().unwrap().push(format!("{begun:?} {again:?} {cleared:?}"));
    Ok(Outcome::Done)
}

/// Blocks its thread until the gate opens, deaf to everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deaf {}

impl Job for Deaf {
    const KIND: &'static str = "test.deaf";
    fn timeout() -> Duration {
        Duration::from_millis(50)
    }
}

impl Handler for Deaf {
    const BLOCKING: bool = true;
    async fn run(self, ctx: Context) -> JobResult {
        let signals = ctx.shared.get::<Signals>().expect("signals");
        signals.start();
        while signals.gate.try_acquire().is_err() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(Outcome::Done)
    }
}

/// Nothing at all.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noop {}

impl Job for Noop {
    const KIND: &'static str = "test.noop";
}

impl Handler for Noop {
    async fn run(self, _: Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// Has canaries, and a receipt that only its code knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Teller {
    number: u32,
}

impl Job for Teller {
    const KIND: &'static str = "test.teller";
}

impl Handler for Teller {
    async fn run(self, ctx: Context) -> JobResult {
        ctx.receipt(&format!("told {}", self.number));
        Ok(Outcome::Done)
    }
    fn canary() -> Option<Self> {
        Some(Self { number: 42 })
    }
}

/// Says done to canaries, and gives no receipt.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Silent {}

impl Job for Silent {
    const KIND: &'static str = "test.silent";
}

impl Handler for Silent {
    async fn run(self, ctx: Context) -> JobResult {
        assert!(ctx.is_canary());
        Ok(Outcome::Done)
    }
    fn canary() -> Option<Self> {
        Some(Self {})
    }
}

/// A store of its own, and what the handlers say.
pub(crate) struct Bench {
    _place: Option<Place>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tier: Tier,
    pub(crate) signals: Signals,
}

impl Bench {
    pub(crate) async fn on(engine: Engine) -> Self {
        let place = Place::new(engine);
        let store = place.open().await;
        Self { _place: Some(place), store, tier: Tier::default(), signals: Signals::default() }
    }

    /// The same on a store that is there.
    pub(crate) async fn at(url: &str) -> Self {
        Self::over(crate::store::bench::connect(url).await)
    }

    pub(crate) fn over(store: Arc<dyn Store>) -> Self {
        Self { _place: None, store, tier: Tier::default(), signals: Signals::default() }
    }

    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::new();
        registry.add::<Probe>().unwrap().add::<Deaf>().unwrap().add::<Noop>().unwrap();
        registry.add::<Teller>().unwrap().add::<Silent>().unwrap();
        registry.share(self.signals.clone());
        registry
    }

    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(options()).await
    }

    pub(crate) async fn worker_with(&self, options: Options) -> Worker {
        Worker::start(Arc::clone(&self.store), self.registry(), options).await.expect("a worker")
    }

    pub(crate) async fn probe(&self, act: &str) -> JobId {
        self.insert(NewJob::of(&Probe { act: act.into() }).unwrap()).await
    }

    pub(crate) async fn insert(&self, job: NewJob) -> JobId {
        match self.store.insert(&self.tier, vec![job]).await.expect("an insert").first() {
            Some(Insert::Stored { id, .. }) => *id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn many(&self, count: usize, job: impl Fn() -> NewJob) {
        let mut left = count;
        while left > 0 {
            let part = left.min(500);
            self.store.insert(&self.tier, (0..part).map(|_| job()).collect()).await.expect("an insert");
            left -= part;
        }
    }

    pub(crate) async fn get(&self, id: JobId) -> JobRecord {
        self.store.get(&self.tier, id).await.expect("an answer").expect("a job")
    }

    /// Waits until a job is there.
    pub(crate) async fn reaches(&self, id: JobId, state: State) -> JobRecord {
        eventually(&format!("{id} is {state}"), async || {
            let job = self.get(id).await;
            if job.state == state { Ok(job) } else { Err(format!("{} {:?}", job.state, job.history)) }
        })
        .await
    }
}

impl Drop for Bench {
    /// Lets blocked threads go, so that a test that fails does not hang.
    fn drop(&mut self) {
        self.signals.gate.add_permits(1_000);
    }
}

pub(crate) fn raw(kind: &str, args: &str) -> NewJob {
    NewJob::raw(Kind::new(kind).unwrap(), Args::parse(args.as_bytes()).unwrap())
}

/// Short times, so that nothing has to be waited for.
pub(crate) fn options() -> Options {
    Options {
        name: WorkerName::new("w-1").unwrap(),
        slots: 8,
        grace: Duration::from_secs(10),
        renew_every: Duration::from_millis(50),
        presence_every: Duration::from_millis(50),
        cancel_grace: Duration::from_millis(50),
        settings: BTreeMap::new(),
        ..Options::default()
    }
}

pub(crate) fn release(name: &str) -> Release {
    Release::new(name).unwrap()
}

pub(crate) async fn active(worker: &Worker) {
    tokio::time::timeout(LONG, worker.until(WorkerState::Active)).await.expect("active");
}

pub(crate) async fn ended(worker: &Worker) -> sluicegate::worker::Ended {
    tokio::time::timeout(LONG, worker.ended()).await.expect("an end")
}

/// Looks again and again until it is so, and says what it saw last when it never is.
pub(crate) async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let begun = clock::instant();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(last) if begun.elapsed() > LONG => panic!("waited in vain until {what}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Waits until the facts of a worker say so.
pub(crate) async fn facts_say(worker: &Worker, what: &str, so: impl Fn(&sluicegate::worker::Facts) -> bool) {
    eventually(what, async || {
        let facts = worker.facts().expect("facts");
        if so(&facts) { Ok(()) } else { Err(format!("{facts:?}")) }
    })
    .await;
}
