//! Enqueue: single, many, unique. Concurrent single enqueues ride one round trip together.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::ids::JobId;
use crate::job::{InvalidJob, Job, NewJob, State};
use crate::names::Tier;
use crate::store::{Durability, ErrorKind, Insert, MAX_BATCH, Store, StoreError};

/// Enqueues jobs of one tier. Cheap to clone; share one per process.
#[derive(Debug, Clone)]
pub struct Client {
    store: Arc<dyn Store>,
    tier: Tier,
    singles: Arc<Coalescer>,
}

/// A job that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id.
    pub id: JobId,
    /// Where it is.
    pub state: State,
    /// What it survives; `None` when it was there before.
    pub durability: Option<Durability>,
    /// Whether the same job had been enqueued before.
    pub replayed: bool,
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
    /// The store refused or could not be reached; the job is not in it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Client {
    /// A client of a tier.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, tier: Tier) -> Self {
        let singles = Arc::new(Coalescer::new(Arc::clone(&store), tier.clone()));
        Self { store, tier, singles }
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

    /// Enqueues one job. Calls that are made at the same time share a round trip.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn insert(&self, job: NewJob) -> Result<Enqueued, EnqueueError> {
        let job = job.check()?;
        self.singles.insert(job).await
    }

    /// Enqueues many jobs, a batch at a time; one answer each, in order. After a batch that the store did not take,
    /// the rest is not tried and has the same error.
    pub async fn insert_many(&self, jobs: Vec<NewJob>) -> Vec<Result<Enqueued, EnqueueError>> {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            let batch: Vec<NewJob> = jobs.by_ref().take(MAX_BATCH).collect();
            let some = answers.len();
            answers.extend(insert_batch(&*self.store, &self.tier, batch).await);
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

/// One round trip. Every job is checked first; a job that is refused does not hold the others up.
async fn insert_batch(
    store: &dyn Store,
    tier: &Tier,
    jobs: Vec<NewJob>,
) -> Vec<Result<Enqueued, EnqueueError>> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    match store.insert(tier, jobs).await {
        Ok(answers) => answers.into_iter().map(Enqueued::from_insert).collect(),
        Err(error) if error.kind == ErrorKind::Timeout => {
            ids.into_iter().map(|id| Err(EnqueueError::Unknown { id, source: error.clone() })).collect()
        }
        Err(error) => ids.into_iter().map(|_| Err(EnqueueError::Store(error.clone()))).collect(),
    }
}

impl Enqueued {
    fn from_insert(answer: Insert) -> Result<Self, EnqueueError> {
        match answer {
            Insert::Stored { id, state, durability } => {
                Ok(Self { id, state, durability: Some(durability), replayed: false })
            }
            Insert::Existing { id, state } => Ok(Self { id, state, durability: None, replayed: true }),
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
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: Vec<(NewJob, Answer)>,
    /// A task is sending; it takes what is added before it ends.
    sending: bool,
}

impl Coalescer {
    fn new(store: Arc<dyn Store>, tier: Tier) -> Self {
        Self { store, tier, waiting: Mutex::default() }
    }

    async fn insert(self: &Arc<Self>, job: NewJob) -> Result<Enqueued, EnqueueError> {
        let id = job.id;
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.jobs.push((job, answer));
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
            let (jobs, answers): (Vec<NewJob>, Vec<Answer>) = batch.into_iter().unzip();
            let results = insert_batch(&*self.store, &self.tier, jobs).await;
            for (answer, result) in answers.into_iter().zip(results) {
                if answer.send(result).is_err() {
                    tracing::debug!("a caller went away before its job was stored");
                }
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<(NewJob, Answer)>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let size = waiting.jobs.len().min(MAX_BATCH);
        waiting.sending = size > 0;
        (size > 0).then(|| waiting.jobs.drain(..size).collect())
    }
}
