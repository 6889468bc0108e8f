//! Enqueue: single, many, unique, with a bypass. Concurrent single enqueues ride one round trip together.
//!
//! - [`way`]: which way a job went; `tally`: how many jobs were enqueued, for metrics
//! - [`inline`] (feature `worker`): jobs that their caller runs itself; `attempt` is one such run

#[cfg(feature = "worker")]
mod attempt;
#[cfg(feature = "worker")]
pub mod inline;
mod tally;
pub mod way;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::ids::JobId;
use crate::job::{Bypass, InvalidJob, Job, NewJob, State};
use crate::names::{Kind, Queue, Tier};
use crate::store::{Durability, ErrorKind, Insert, MAX_BATCH, Store, StoreError};

#[cfg(feature = "worker")]
pub use inline::Handlers;
use tally::Tally;
pub use tally::{Sent, SentCount};
pub use way::{Declined, Way};

/// A job of a batch waits so long for a place among those that run here; then it is queued.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// Enqueues jobs of one tier. Cheap to clone; share one per process.
#[derive(Debug, Clone)]
pub struct Client {
    store: Arc<dyn Store>,
    tier: Tier,
    singles: Arc<Coalescer>,
    tally: Option<Arc<Tally>>,
    #[cfg(feature = "worker")]
    handlers: Option<Arc<Handlers>>,
}

/// A job that is in the store, or that its caller has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enqueued {
    /// Its id.
    pub id: JobId,
    /// Where it is.
    pub state: State,
    /// What it survives; `None` when it was there before, or is not in the store.
    pub durability: Option<Durability>,
    /// Whether the same job had been enqueued before.
    pub replayed: bool,
    /// Which way it went.
    #[serde(flatten)]
    pub way: Way,
}

/// A job that is not in the store, or of which nobody knows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnqueueError {
    /// It was refused before it reached the store.
    #[error(transparent)]
    Invalid(#[from] InvalidJob),
    /// Its id exists with other content.
    #[error(
        "job {0} exists with other content: an id or idempotency key names one piece of work for good, so use another"
    )]
    Conflict(JobId),
    /// Another job holds its unique key.
    #[error("unique key is held by job {holder} ({state})")]
    Held {
        /// That job.
        holder: JobId,
        /// Where it is.
        state: State,
    },
    /// The store did not answer: the job may or may not be in it. Enqueue the same id again to find out; that cannot
    /// duplicate it.
    #[error("unknown whether job {id} was stored: {source}")]
    Unknown {
        /// Its id.
        id: JobId,
        /// What the store said.
        source: StoreError,
    },
    /// It failed here, and the store did not take it: nobody keeps it. If the store did not answer, it may be in it all the
    /// same: then it runs again.
    #[error("{}: it failed here ({error}), and {source}", if source.kind == ErrorKind::Timeout {
        "nobody knows whether the job is kept"
    } else {
        "the job is not done and not kept"
    })]
    Failed {
        /// Its id.
        id: JobId,
        /// What its handler said.
        error: String,
        /// What the store said.
        source: Box<StoreError>,
    },
    /// The store refused or could not be reached; the job is not in it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Client {
    /// A client of a tier.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, tier: Tier) -> Self {
        let singles = Arc::new(Coalescer::new(Arc::clone(&store), tier.clone(), None));
        Self {
            store,
            tier,
            singles,
            tally: None,
            #[cfg(feature = "worker")]
            handlers: None,
        }
    }

    /// Counts what is enqueued from now on, for metrics. These are the kinds that are counted by name, each with its own
    /// queue.
    #[must_use]
    pub fn counting<'a>(mut self, kinds: impl Iterator<Item = (&'a Queue, &'a Kind)>) -> Self {
        let tally = Arc::new(Tally::of(kinds));
        self.tally = Some(Arc::clone(&tally));
        self.singles = Arc::new(Coalescer::new(Arc::clone(&self.store), self.tier.clone(), Some(tally)));
        self
    }

    /// What this client and its clones have enqueued; empty unless they are counting.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.tally.as_ref().map(|tally| tally.read()).unwrap_or_default()
    }

    /// Opens the store at a URL, for the default tier.
    ///
    /// # Errors
    /// When the URL is no store's, or the store cannot be opened.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let parsed = url.parse::<crate::location::StoreUrl>().map_err(|error| {
            StoreError::new("open", crate::location::without_password(url), ErrorKind::Unsupported, error)
        })?;
        Ok(Self::new(crate::store::open(&parsed).await?, Tier::default()))
    }

    /// The tier.
    #[must_use]
    pub fn tier(&self) -> &Tier {
        &self.tier
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Enqueues a typed job with its kind's defaults.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn enqueue<J: Job>(&self, job: &J) -> Result<Enqueued, EnqueueError> {
        self.insert(NewJob::of(job)?).await
    }

    /// Enqueues one job, or runs it here if it has a [`Bypass`]. Calls that are made at the same time share a round trip.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn insert(&self, job: NewJob) -> Result<Enqueued, EnqueueError> {
        self.insert_within(job, Duration::ZERO).await
    }

    /// The same; a place among the jobs that run here is waited for so long.
    async fn insert_within(&self, job: NewJob, wait: Duration) -> Result<Enqueued, EnqueueError> {
        let job = job.check()?;
        match self.try_inline(&job, wait).await {
            Ok(answer) => answer,
            Err(why) => {
                let later = tally::is_later(&job);
                Ok(self.singles.insert(job, later).await?.declined(why))
            }
        }
    }

    /// Whether a job is to run here.
    fn wanted(&self, job: &NewJob) -> Bypass {
        #[cfg(feature = "worker")]
        if let Some(handlers) = &self.handlers {
            return handlers.wanted(job);
        }
        job.bypass.unwrap_or_default()
    }

    /// No process of such a build runs anything.
    #[cfg(not(feature = "worker"))]
    async fn try_inline(
        &self,
        job: &NewJob,
        _: Duration,
    ) -> Result<Result<Enqueued, EnqueueError>, Option<Declined>> {
        Err((self.wanted(job) != Bypass::Never).then_some(Declined::NoHandler))
    }

    /// Enqueues many jobs, a batch at a time; one answer each, in order. After a batch that the store did not take,
    /// the rest is not tried and has the same error. Jobs with a [`Bypass`] go their way, a bounded number at a time.
    pub async fn insert_many(&self, jobs: Vec<NewJob>) -> Vec<Result<Enqueued, EnqueueError>> {
        if jobs.iter().all(|job| self.wanted(job) == Bypass::Never) {
            return self.queue_many(jobs).await;
        }
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let mut answers: Vec<Option<Result<Enqueued, EnqueueError>>> = ids.iter().map(|_| None).collect();
        let (here, queued): (Vec<_>, Vec<_>) =
            jobs.into_iter().enumerate().partition(|(_, job)| self.wanted(job) != Bypass::Never);
        let (places, queued): (Vec<usize>, Vec<NewJob>) = queued.into_iter().unzip();
        let mut running = tokio::task::JoinSet::new();
        for (at, job) in here {
            let client = self.clone();
            running.spawn(async move { (at, client.insert_within(job, BATCH_WAIT).await) });
        }
        let mut put = |at: usize, answer| answers.get_mut(at).map(|slot| *slot = Some(answer));
        for (at, answer) in places.into_iter().zip(self.queue_many(queued).await) {
            put(at, answer);
        }
        while let Some(joined) = running.join_next().await {
            match joined {
                Ok((at, answer)) => drop(put(at, answer)),
                Err(error) => tracing::error!(%error, "a task that enqueued a job ended"),
            }
        }
        let vanished = |id| Err(self.unknown(id, "the task that enqueued it ended"));
        answers.into_iter().zip(ids).map(|(answer, id)| answer.unwrap_or_else(|| vanished(id))).collect()
    }

    /// Nobody lived to tell whether it was stored.
    fn unknown(&self, id: JobId, detail: impl std::fmt::Display) -> EnqueueError {
        EnqueueError::Unknown { id, source: self.no_answer("insert", detail) }
    }

    fn no_answer(&self, op: &'static str, detail: impl std::fmt::Display) -> StoreError {
        StoreError::new(op, self.store.about().location, ErrorKind::Timeout, detail)
    }

    async fn queue_many(&self, jobs: Vec<NewJob>) -> Vec<Result<Enqueued, EnqueueError>> {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            let batch: Vec<NewJob> = jobs.by_ref().take(MAX_BATCH).collect();
            let some = answers.len();
            let later = batch.iter().map(tally::is_later).collect();
            answers.extend(insert_batch(&*self.store, &self.tier, self.tally.as_deref(), batch, later).await);
            if let Some(Err(EnqueueError::Store(error) | EnqueueError::Unknown { source: error, .. })) =
                answers.get(some)
            {
                let error = error.clone();
                answers.extend(jobs.by_ref().map(|_| Err(EnqueueError::Store(error.clone()))));
            }
        }
        answers
    }
}

/// One round trip. Every job is checked first; a job that is refused does not hold the others up. `later` says of each
/// whether whoever enqueued it wants it to run later.
async fn insert_batch(
    store: &dyn Store,
    tier: &Tier,
    tally: Option<&Tally>,
    jobs: Vec<NewJob>,
    later: Vec<bool>,
) -> Vec<Result<Enqueued, EnqueueError>> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let counted = tally.map(|tally| (tally, tally::runs(jobs.iter().zip(later))));
    match store.insert(tier, jobs).await {
        Ok(answers) => {
            if let Some((tally, runs)) = counted {
                tally.count(runs, &answers);
            }
            answers.into_iter().map(Enqueued::from_insert).collect()
        }
        Err(error) if error.kind == ErrorKind::Timeout => {
            ids.into_iter().map(|id| Err(EnqueueError::Unknown { id, source: error.clone() })).collect()
        }
        Err(error) => ids.into_iter().map(|_| Err(EnqueueError::Store(error.clone()))).collect(),
    }
}

impl Enqueued {
    /// With the reason why its caller did not run it.
    fn declined(mut self, declined: Option<Declined>) -> Self {
        if let Way::Queued { why } = &mut self.way {
            *why = declined;
        }
        self
    }

    fn from_insert(answer: Insert) -> Result<Self, EnqueueError> {
        match answer {
            Insert::Stored { id, state, durability } => {
                let way = Way::Queued { why: None };
                Ok(Self { id, state, durability: Some(durability), replayed: false, way })
            }
            Insert::Existing { id, state } => {
                Ok(Self { id, state, durability: None, replayed: true, way: Way::Existing })
            }
            Insert::Conflict { id } => Err(EnqueueError::Conflict(id)),
            Insert::Held { holder, state } => Err(EnqueueError::Held { holder, state }),
        }
    }
}

type Answer = oneshot::Sender<Result<Enqueued, EnqueueError>>;

/// Puts single enqueues that wait at the same time into one batch: the first caller starts a task that sends whatever
/// has gathered while the batch before was on its way, without any timer.
#[derive(Debug)]
struct Coalescer {
    store: Arc<dyn Store>,
    tier: Tier,
    tally: Option<Arc<Tally>>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With whether each is to run later.
    jobs: Vec<((NewJob, bool), Answer)>,
    /// A task is sending; it takes what is added before it ends.
    sending: bool,
}

impl Coalescer {
    fn new(store: Arc<dyn Store>, tier: Tier, tally: Option<Arc<Tally>>) -> Self {
        Self { store, tier, tally, waiting: Mutex::default() }
    }

    async fn insert(self: &Arc<Self>, job: NewJob, later: bool) -> Result<Enqueued, EnqueueError> {
        let id = job.id;
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.jobs.push(((job, later), answer));
            !std::mem::replace(&mut waiting.sending, true)
        };
        if start {
            // A task of its own: a caller that goes away must not take the others' answers with it.
            tokio::spawn(Arc::clone(self).send());
        }
        answered.await.unwrap_or_else(|_| {
            let source = StoreError::new(
                "insert",
                self.store.about().location,
                ErrorKind::Timeout,
                "the sending task ended",
            );
            Err(EnqueueError::Unknown { id, source })
        })
    }

    async fn send(self: Arc<Self>) {
        while let Some(batch) = self.next_batch() {
            let (jobs, answers): (Vec<(NewJob, bool)>, Vec<Answer>) = batch.into_iter().unzip();
            let (jobs, later) = jobs.into_iter().unzip();
            let results = insert_batch(&*self.store, &self.tier, self.tally.as_deref(), jobs, later).await;
            for (answer, result) in answers.into_iter().zip(results) {
                if answer.send(result).is_err() {
                    tracing::debug!("a caller went away before its job was stored");
                }
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<((NewJob, bool), Answer)>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let size = waiting.jobs.len().min(MAX_BATCH);
        waiting.sending = size > 0;
        (size > 0).then(|| waiting.jobs.drain(..size).collect())
    }
}
