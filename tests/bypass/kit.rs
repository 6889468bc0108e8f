//! A page that is made anew by a job, and a client that runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate::client::Handlers;
use sluicegate::job::{JobRecord, State};
use sluicegate::names::Tier;
use sluicegate::store::Store;
use sluicegate::worker::{Options, Registry, Worker};
use sluicegate::{
    Bypass, Client, Context, EnqueueError, Enqueued, Handler, Job, JobResult, NewJob, Outcome, Way,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::both::{Engine, Place};
use crate::worker::bench::{eventually, options};

/// A page is to be fresh within this, whatever the tier does.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// How often the page was made, and what holds its making up.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) begun: Arc<AtomicU64>,
    pub(super) made: Arc<AtomicU64>,
    pub(super) gate: Arc<Semaphore>,
    /// What `fail` says in the queue as well.
    pub(super) broken: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self { begun: Arc::default(), made: Arc::default(), gate: Arc::new(Semaphore::new(0)), broken: false }
    }
}

impl Page {
    pub(super) fn made(&self) -> u64 {
        self.made.load(SeqCst)
    }

    /// Waits until so many runs have begun.
    pub(super) async fn begun(&self, runs: u64) {
        eventually("a run begins", async || {
            let begun = self.begun.load(SeqCst);
            if begun >= runs { Ok(()) } else { Err(begun.to_string()) }
        })
        .await;
    }
}

/// Makes the page anew; in the caller first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bust {
    pub(super) act: String,
}

impl Job for Bust {
    const KIND: &'static str = "page.bust";
    const QUEUE: &'static str = "pages";
    fn bypass() -> Bypass {
        Bypass::First
    }
    fn bypass_deadline() -> Duration {
        Duration::from_millis(700)
    }
}

impl Handler for Bust {
    async fn run(self, ctx: Context) -> JobResult {
        let page = ctx.shared.get::<Page>().expect("a page");
        page.begun.fetch_add(1, SeqCst);
        let here = ctx.worker.as_str().starts_with("caller-");
        match self.act.as_str() {
            _ if page.broken => return Err("the cache is broken".into()),
            "fail" => return Err("the cache says no".into()),
            "fail here" if here => return Err("the cache says no".into()),
            "panic here" if here => panic!("as told"),
            "hang here" if here => std::future::pending().await,
            "later here" if here => {
                return Ok(Outcome::RetryIn(Duration::from_secs(3_000), "not now".into()));
            }
            "give up here" if here => return Ok(Outcome::Dead("never".into())),
            "gate" => page.gate.acquire().await.expect("open").forget(),
            "effect" => {
                ctx.effects.begin(ctx.id, "purge").await?;
                ctx.effects.sent(ctx.id, "purge").await?;
            }
            _ => {}
        }
        page.made.fetch_add(1, SeqCst);
        Ok(Outcome::Done)
    }
}

/// The same on a thread of its own, deaf to its cancellation until the gate opens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deaf {}

impl Job for Deaf {
    const KIND: &'static str = "page.deaf";
    fn bypass() -> Bypass {
        Bypass::First
    }
    fn bypass_deadline() -> Duration {
        Duration::from_millis(50)
    }
}

impl Handler for Deaf {
    const BLOCKING: bool = true;
    async fn run(self, ctx: Context) -> JobResult {
        let page = ctx.shared.get::<Page>().expect("a page");
        page.begun.fetch_add(1, SeqCst);
        while page.gate.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        page.made.fetch_add(1, SeqCst);
        Ok(Outcome::Done)
    }
}

/// Runs in the caller only when nobody else would.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Calm {}

impl Job for Calm {
    const KIND: &'static str = "page.calm";
    fn bypass() -> Bypass {
        Bypass::WhenInactive
    }
}

impl Handler for Calm {
    async fn run(self, ctx: Context) -> JobResult {
        ctx.shared.get::<Page>().expect("a page").made.fetch_add(1, SeqCst);
        Ok(Outcome::Done)
    }
}

pub(super) fn registry(page: &Page) -> Registry {
    let mut registry = Registry::new();
    registry.add::<Bust>().unwrap().add::<Deaf>().unwrap().add::<Calm>().unwrap().share(page.clone());
    registry
}

pub(super) fn bust(act: &str) -> NewJob {
    NewJob::of(&Bust { act: act.into() }).unwrap()
}

/// One store, one page, and a caller with its handler.
pub(super) struct Site {
    pub(super) place: Place,
    pub(super) store: Arc<dyn Store>,
    pub(super) page: Page,
    pub(super) client: Client,
}

impl Site {
    pub(super) async fn on(engine: Engine) -> Self {
        let place = Place::new(engine);
        let (store, page) = (place.open().await, Page::default());
        let client = Client::new(Arc::clone(&store), Tier::default()).with_handlers(registry(&page));
        Self { place, store, page, client }
    }

    pub(super) async fn worker(&self, change: impl FnOnce(Options) -> Options) -> Worker {
        self.worker_of(registry(&self.page), change).await
    }

    pub(super) async fn worker_of(&self, kinds: Registry, change: impl FnOnce(Options) -> Options) -> Worker {
        Worker::start(Arc::clone(&self.store), kinds, change(options())).await.expect("a worker")
    }

    /// Another caller, that runs fewer at a time.
    pub(super) fn limited(&self, runs: usize) -> Client {
        let handlers = Handlers::from(registry(&self.page)).limit(runs);
        Client::new(Arc::clone(&self.store), Tier::default()).with_handlers(handlers)
    }

    /// A caller whose run has begun; the gate holds it.
    pub(super) async fn caller(&self, job: NewJob) -> JoinHandle<Result<Enqueued, EnqueueError>> {
        let client = self.client.clone();
        let caller = tokio::spawn(async move { client.insert(job).await });
        self.page.begun(1).await;
        caller
    }

    /// Runs one here, in time.
    pub(super) async fn fresh(&self, act: &str) -> Enqueued {
        let (made, begun) = (self.page.made(), sluicegate::clock::instant());
        let done = self.client.insert(bust(act)).await.expect("it runs");
        println!("{:?} after {:?}", done.way, begun.elapsed());
        assert!(begun.elapsed() < FRESH, "{:?}: {done:?}", begun.elapsed());
        assert_eq!(self.page.made(), made + 1, "{done:?}");
        done
    }

    /// Runs one here, in time, and the store knows.
    pub(super) async fn recorded(&self, act: &str) -> JobRecord {
        let done = self.fresh(act).await;
        assert!(matches!(done.way, Way::Inline { .. }), "{done:?}");
        assert_eq!((done.state, done.replayed), (State::Completed, false));
        let job = self.get(&done).await;
        assert_eq!((job.state, job.failures), (State::Completed, 0));
        let told = job.history.last().expect("a story");
        assert_eq!((told.outcome.as_str(), &told.error), ("inline", &None));
        job
    }

    pub(super) async fn get(&self, job: &Enqueued) -> JobRecord {
        self.store.get(&Tier::default(), job.id).await.expect("an answer").expect("a job")
    }

    pub(super) async fn reaches(&self, job: &Enqueued, state: State) -> JobRecord {
        eventually(&format!("{} is {state}", job.id), async || {
            // What was stored late may not be there yet.
            match self.store.get(&Tier::default(), job.id).await.expect("an answer") {
                Some(now) if now.state == state => Ok(now),
                other => Err(format!("{:?}", other.map(|now| (now.state, now.history)))),
            }
        })
        .await
    }

    pub(super) async fn count(&self, state: State) -> u64 {
        let census = self.store.census(&Tier::default()).await.expect("an answer");
        census.queues.iter().map(|queue| queue.states[&state]).sum()
    }
}
