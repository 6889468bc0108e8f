//! What runs a job: the `Handler` trait, the context it gets, and outcomes as values.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::args::Args;
use super::define::Job;
use super::new::Extras;
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::names::{Kind, Queue, Release, Tier, WorkerName};

/// What a handler says of an attempt that it decided. An `Err` is a failed attempt: it costs one, and is retried by the
/// job's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Failed; try again after this delay instead of the policy's. Costs an attempt.
    RetryIn(Duration, String),
    /// Failed; try again at this time (store time). Costs an attempt.
    RetryAt(Timestamp, String),
    /// Not yet; call again after this delay. Costs no attempt.
    Snooze(Duration),
    /// Give up for good, with the reason.
    Dead(String),
    /// Wait for a decision or another release, with the reason. Costs no attempt.
    Park(String),
    /// A side effect may or may not have happened: wait for a person to say which. Costs no attempt.
    Uncertain(String),
}

/// The error of a failed attempt: anything that can be printed.
pub type JobError = Box<dyn std::error::Error + Send + Sync>;
/// What a handler returns.
pub type JobResult = Result<Outcome, JobError>;

/// Runs one kind of job.
pub trait Handler: Job {
    /// Set it for kinds that burn CPU or block: they run on threads of their own, so that they cannot stall the others.
    const BLOCKING: bool = false;

    /// Runs one attempt. It is dropped (or, when `BLOCKING`, reported as stuck) if it goes on after its time-out and
    /// the cancellation that follows.
    fn run(self, ctx: Context) -> impl Future<Output = JobResult> + Send;

    /// Reads arguments written as `version` (never newer than [`Job::VERSION`]: those are parked). Override it to
    /// accept older shapes.
    ///
    /// # Errors
    /// When they cannot be read; the job is parked, not failed.
    fn decode(args: &Args, version: u32) -> Result<Self, JobError> {
        let _ = version;
        Ok(args.read()?)
    }

    /// What to run as a canary: arguments whose real run does no harm. A handler that declares some looks at
    /// [`Context::is_canary`] where it must, goes its usual way as far as it can, and ends with [`Context::receipt`].
    /// `None`: canaries do not run this kind.
    fn canary() -> Option<Self> {
        None
    }
}

/// The message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".to_owned())
}

/// Runs a blocking handler on a thread of its own; `None` when it was abandoned where it waits.
pub(crate) fn on_a_thread(
    work: BoxFuture<'static, JobResult>,
    span: tracing::Span,
    abandoned: CancellationToken,
) -> JoinHandle<std::thread::Result<Option<JobResult>>> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _entered = span.enter();
        let all = async {
            tokio::select! { biased; result = work => Some(result), () = abandoned.cancelled() => None }
        };
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(all)))
    })
}

/// A thread that was told to end is waited for so long before it is called stuck.
pub(crate) const STUCK: Duration = Duration::from_millis(100);

/// An error with its causes.
pub(crate) fn chain(error: &JobError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

/// Where a canary's handler puts its receipt.
pub type Receipt = Arc<Mutex<Option<String>>>;

/// What a side effect's record says when it is begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nobody has begun it: go ahead, then call `sent` or `not_sent`.
    Fresh,
    /// It was sent by an earlier attempt: do not send again.
    Sent,
    /// An earlier attempt began it and never reported: nobody knows. Do not send blindly; return
    /// [`Outcome::Uncertain`].
    Unknown,
}

/// The durable record of side effects that must not repeat. Implemented over the store by the worker.
#[async_trait]
pub trait Effects: Send + Sync {
    /// Says that the effect is about to happen; durable before it returns.
    async fn begin(&self, job: JobId, key: &str) -> Result<Effect, JobError>;
    /// Says that it happened.
    async fn sent(&self, job: JobId, key: &str) -> Result<(), JobError>;
    /// Says that it certainly did not happen, so that it may be begun again.
    async fn not_sent(&self, job: JobId, key: &str) -> Result<(), JobError>;
}

/// Values that handlers share (clients, pools, settings), by type.
#[derive(Clone, Default)]
pub struct Shared(Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Shared {
    /// With one more value; it takes the place of another of its type.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(self, value: T) -> Self {
        let mut map = (*self.0).clone();
        map.insert(TypeId::of::<T>(), Arc::new(value));
        Self(Arc::new(map))
    }

    /// The value of a type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).and_then(|value| Arc::clone(value).downcast().ok())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} values)", self.0.len())
    }
}

/// What a handler is given beside its arguments.
#[derive(Clone)]
pub struct Context {
    /// The job's id: stable over retries, so receivers can dedupe by it.
    pub id: JobId,
    /// Its tier.
    pub tier: Tier,
    /// Its kind.
    pub kind: Kind,
    /// Its queue.
    pub queue: Queue,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// After how many failed attempts it is dead.
    pub max_attempts: u32,
    /// When it was enqueued (store time).
    pub enqueued_at: Timestamp,
    /// When it is too late (store time).
    pub expires_at: Option<Timestamp>,
    /// Tags, trace context and the like.
    pub extras: Arc<Extras>,
    /// The worker that runs it.
    pub worker: WorkerName,
    /// That worker's release.
    pub release: Release,
    /// Cancelled at the time-out, when somebody cancels the job, when the lease is lost, and at the end of a stop's
    /// grace.
    pub cancel: CancellationToken,
    /// The settings of its kind, from the configuration.
    pub settings: Arc<serde_json::Value>,
    /// What handlers share.
    pub shared: Shared,
    /// The record of side effects.
    pub effects: Arc<dyn Effects>,
    /// There when this is a canary: where its receipt goes.
    pub canary: Option<Receipt>,
    /// The job's tracing span.
    pub span: tracing::Span,
}

impl Context {
    /// Whether this is a canary: a run that proves that the kind works, and must have no effect on the world.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        self.canary.is_some()
    }

    /// Proves that the code of a canary's handler ran: a text that only running it can know, such as the answer of what
    /// it called. A canary that ends without one has failed. Does nothing in ordinary jobs.
    pub fn receipt(&self, text: &str) {
        if let Some(canary) = &self.canary {
            *canary.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
        }
    }

    /// The settings of this kind, typed.
    ///
    /// # Errors
    /// When they do not have the shape.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, JobError> {
        Ok(serde_json::from_value((*self.settings).clone())?)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
