//! A job that its caller runs itself: stored first, so that the queue runs it if the caller dies; run under a deadline; then
//! completed in the store, or handed over. With the store away it runs without that net.
//!
//! It does not run twice: what is stored is scheduled beyond the deadline, so that no worker takes it meanwhile; another caller
//! with the same id, or unique key, is told where the job is and runs nothing. It may run again only when the store could not be
//! told in time that it ran, and then the answer says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Ended, Failed};
use super::way::{Declined, Way};
use super::{Client, EnqueueError, Enqueued};
use crate::activation::WorkerState;
use crate::clock::{self, instant};
use crate::ids::JobId;
use crate::job::bypass::MAX_BYPASS_DEADLINE;
use crate::job::handler::{Effect, Effects, JobError};
use crate::job::registry::{Entry, Registry};
use crate::job::{Bypass, Context, Expiry, NewJob, State, When};
use crate::names::{Release, Tier, WorkerName};
use crate::store::{Acted, Action, Actor, Durability, ErrorKind, Seen, StoreEffects, StoreError};

/// Runs at a time, unless asked otherwise: the others are queued.
const RUNS: usize = 64;
/// A caller waits so long for the store before a run, and once more after it.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is stored becomes the queue's so long after the deadline: time to tell the store how the run went.
const MARGIN: Duration = Duration::from_secs(5);
/// Between two tries to tell it.
const AGAIN: Duration = Duration::from_millis(200);

/// What this process can run itself.
#[derive(Debug, Clone)]
pub struct Handlers {
    registry: Registry,
    settings: BTreeMap<String, Arc<serde_json::Value>>,
    /// Of a kind that has none.
    nothing: Arc<serde_json::Value>,
    slots: Arc<Semaphore>,
    /// Who runs them, for the record of side effects.
    name: WorkerName,
}

impl From<Registry> for Handlers {
    fn from(registry: Registry) -> Self {
        Self {
            registry,
            settings: BTreeMap::new(),
            nothing: Arc::new(serde_json::json!({})),
            slots: Arc::new(Semaphore::new(RUNS)),
            name: WorkerName::caller(),
        }
    }
}

impl Handlers {
    /// With the settings of kinds, by name.
    #[must_use]
    pub fn settings(mut self, settings: impl IntoIterator<Item = (String, serde_json::Value)>) -> Self {
        self.settings = settings.into_iter().map(|(kind, value)| (kind, Arc::new(value))).collect();
        self
    }

    /// With another number of runs at a time; the default is 64. What is beyond it is queued.
    #[must_use]
    pub fn limit(mut self, runs: usize) -> Self {
        self.slots = Arc::new(Semaphore::new(runs));
        self
    }

    /// Runs a job for which there is no store, because it could not be opened. A job that must not run here, and one that fails,
    /// is an error that says so.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    pub async fn run_without_store(
        &self,
        tier: &Tier,
        job: NewJob,
        error: StoreError,
    ) -> Result<Enqueued, EnqueueError> {
        let job = job.check()?;
        if self.wanted(&job) == Bypass::Never {
            return Err(EnqueueError::Store(error));
        }
        match self.plan(&job, Duration::ZERO).await {
            Ok(run) if counts_as_away(&error) => {
                let ctx = self.context(tier, &job, &run, Arc::new(NoEffects(error.clone())));
                run.alone(&job, ctx, error).await
            }
            _ => Err(EnqueueError::Store(error)),
        }
    }

    /// What its kind says, unless the caller says otherwise.
    #[must_use]
    pub fn wanted(&self, job: &NewJob) -> Bypass {
        let of_kind = || self.registry.entry(&job.kind).map(|entry| entry.info.bypass);
        job.bypass.or_else(of_kind).unwrap_or_default()
    }

    /// What runs it here, and its deadline, if it can run here at all.
    fn fits(&self, job: &NewJob) -> Result<(&Arc<Entry>, Duration), Declined> {
        let entry = self.registry.entry(&job.kind).ok_or(Declined::NoHandler)?;
        let info = &entry.info;
        if !matches!(job.when, When::Now | When::After(Duration::ZERO)) || job.extras.canary.is_some() {
            return Err(Declined::Delayed);
        }
        if job.version > info.version {
            return Err(Declined::Newer);
        }
        let timeout = job.extras.timeout.unwrap_or(info.timeout);
        let mut deadline = info.bypass_deadline.min(MAX_BYPASS_DEADLINE).min(timeout);
        // The store's clock decides what is too late. The host's is near enough for not beginning what is.
        let life = job.expiry.map(|expiry| match expiry {
            Expiry::After(span) => span,
            Expiry::At(at) => at.since(clock::wall()),
        });
        deadline = deadline.min(life.unwrap_or(deadline));
        if deadline.is_zero() {
            return Err(Declined::Expired);
        }
        Ok((entry, deadline))
    }

    /// The same with a place for it; `wait` is how long one is waited for.
    async fn plan(&self, job: &NewJob, wait: Duration) -> Result<Run, Declined> {
        let (entry, deadline) = self.fits(job)?;
        let place = Arc::clone(&self.slots).acquire_owned();
        match tokio::time::timeout(wait, place).await {
            Ok(Ok(place)) => Ok(Run { entry: Arc::clone(entry), deadline, _place: place }),
            _ => Err(Declined::Busy),
        }
    }

    fn context(&self, tier: &Tier, job: &NewJob, run: &Run, effects: Arc<dyn Effects>) -> Context {
        let retry = job.extras.retry.as_ref().unwrap_or(&run.entry.info.retry);
        let now = clock::wall();
        let settings = self.settings.get(job.kind.as_str()).unwrap_or(&self.nothing);
        Context {
            id: job.id,
            tier: tier.clone(),
            kind: job.kind.clone(),
            queue: job.queue.clone(),
            attempt: 1,
            max_attempts: retry.max_attempts,
            enqueued_at: now,
            expires_at: job.expiry.map(|expiry| expiry.at(now)),
            extras: Arc::new(job.extras.clone()),
            worker: self.name.clone(),
            release: Release::default(),
            cancel: CancellationToken::new(),
            settings: Arc::clone(settings),
            shared: self.registry.shared(),
            effects,
            canary: None,
            span: tracing::info_span!("job", id = %job.id, kind = %job.kind, queue = %job.queue, inline = true),
        }
    }
}

/// A job that will run here.
struct Run {
    entry: Arc<Entry>,
    deadline: Duration,
    /// Held as long as anything of it runs.
    _place: OwnedSemaphorePermit,
}

impl Run {
    async fn attempt(&self, job: &NewJob, ctx: Context) -> (Ended, Duration) {
        let begun = instant();
        let ended = attempt::run(&self.entry, &job.args, job.version, ctx, self.deadline).await;
        (ended, begun.elapsed())
    }

    /// Without a net: it is done, or nobody keeps it and the caller is told.
    async fn alone(self, job: &NewJob, ctx: Context, error: StoreError) -> Result<Enqueued, EnqueueError> {
        let (ended, took) = self.attempt(job, ctx).await;
        unrecorded(job.id, ended, took, error)
    }
}

/// What is known of a run of which the store knows nothing, or may know something.
fn unrecorded(id: JobId, ended: Ended, took: Duration, source: StoreError) -> Result<Enqueued, EnqueueError> {
    let error = match ended {
        Ended::Done => return Ok(done(id, None, Way::unrecorded(took, &source))),
        Ended::Failed(failed) => failed.error,
        Ended::Stuck(_) => stuck(),
    };
    Err(EnqueueError::Failed { id, error, source: Box::new(source) })
}

fn done(id: JobId, durability: Option<Durability>, way: Way) -> Enqueued {
    Enqueued { id, state: State::Completed, durability, replayed: false, way }
}

fn stuck() -> String {
    "timed out, and its thread cannot be ended: it still runs here".to_owned()
}

impl Way {
    fn unrecorded(took: Duration, error: &StoreError) -> Self {
        Self::InlineUnrecorded {
            took,
            may_repeat: error.kind == ErrorKind::Timeout,
            error: error.to_string(),
        }
    }
}

/// Anything but a call that broke a limit: a store that is full, read-only or damaged does not take the job either.
fn counts_as_away(error: &StoreError) -> bool {
    error.kind != ErrorKind::Refused
}

/// What the store said of the job that is the net, as far as is known.
type Stored = Result<Enqueued, EnqueueError>;

impl Client {
    /// With what this process can run itself, for kinds with a [`Bypass`]: a [`Registry`], or [`Handlers`] made of one.
    #[must_use]
    pub fn with_handlers(mut self, handlers: impl Into<Handlers>) -> Self {
        self.handlers = Some(Arc::new(handlers.into()));
        self
    }

    /// Runs a job here if it is to, or says why not. A place among those that run is waited for so long.
    pub(super) async fn try_inline(&self, job: &NewJob, wait: Duration) -> Result<Stored, Option<Declined>> {
        let bypass = self.wanted(job);
        if bypass == Bypass::Never {
            return Err(None);
        }
        let handlers = self.handlers.as_ref().ok_or(Declined::NoHandler)?;
        handlers.fits(job)?; // or the store would be asked in vain
        let begun = instant();
        if bypass == Bypass::WhenInactive
            && let Some(worker) = self.server_of(job).await
        {
            return Err(Some(Declined::Active(worker)));
        }
        let patience = PATIENCE.saturating_sub(begun.elapsed());
        let run = handlers.plan(job, wait).await?;
        let effects = StoreEffects::new(&self.store, &self.tier, &handlers.name);
        let ctx = handlers.context(&self.tier, job, &run, Arc::new(effects));
        // A task of its own: a caller that goes away must not leave half a run behind.
        let (client, id, job) = (self.clone(), job.id, job.clone());
        let all = tokio::spawn(async move { client.inline(run, job, ctx, patience).await });
        Ok(all.await.unwrap_or_else(|_| Err(self.unknown(id, "the task that ran it ended"))))
    }

    /// A worker that can take the job now: the store knows that it lives and that its release is the active one. When the store
    /// does not answer, nobody takes anything.
    async fn server_of(&self, job: &NewJob) -> Option<WorkerName> {
        let both = async {
            let activation = self.store.activation(&self.tier).await.ok()??;
            let workers = self.store.workers(&self.tier).await.ok()?;
            let serves = |seen: &Seen| {
                let it = &seen.presence;
                !seen.is_stale()
                    && it.state == WorkerState::Active
                    && it.release == activation.release
                    && it.serves(&job.queue)
                    && it.kinds.iter().any(|(kind, version)| *kind == job.kind && *version >= job.version)
            };
            workers.into_iter().find(serves).map(|seen| seen.presence.worker)
        };
        tokio::time::timeout(PATIENCE, both).await.ok().flatten()
    }

    /// Store, run, tell.
    async fn inline(self, run: Run, job: NewJob, ctx: Context, patience: Duration) -> Stored {
        let net = NewJob { when: When::After(run.deadline + MARGIN), ..job.clone() };
        let singles = Arc::clone(&self.singles);
        // Scheduled only so that no worker takes it meanwhile: whoever enqueued it wants it now.
        let mut insert = tokio::spawn(async move { singles.insert(net, false).await });
        match tokio::time::timeout(patience, &mut insert).await {
            Ok(stored) => self.knowing(run, &job, ctx, self.joined(job.id, stored)).await,
            Err(_) => self.not_knowing(run, job, ctx, insert).await,
        }
    }

    fn joined(&self, id: JobId, joined: Result<Stored, tokio::task::JoinError>) -> Stored {
        joined.unwrap_or_else(|error| Err(self.unknown(id, error)))
    }

    /// The store answered before the run.
    async fn knowing(&self, run: Run, job: &NewJob, ctx: Context, stored: Stored) -> Stored {
        match stored {
            // Whoever enqueued it first ran it, or runs it now.
            Ok(before) if before.replayed => Ok(before),
            Ok(net) => {
                let (ended, took) = run.attempt(job, ctx).await;
                self.tell(run, net, ended, took).await
            }
            Err(EnqueueError::Store(error)) if counts_as_away(&error) => run.alone(job, ctx, error).await,
            Err(EnqueueError::Unknown { source, .. }) => run.alone(job, ctx, source).await,
            Err(refused) => Err(refused),
        }
    }

    /// The store has not answered yet. It may do so during the run, or after it.
    async fn not_knowing(
        &self,
        run: Run,
        job: NewJob,
        ctx: Context,
        mut insert: JoinHandle<Stored>,
    ) -> Stored {
        let (ended, took) = run.attempt(&job, ctx).await;
        let late = || self.no_answer("insert", format!("no answer within {}", clock::human(PATIENCE)));
        match tokio::time::timeout(PATIENCE, &mut insert).await {
            Ok(stored) => match self.joined(job.id, stored) {
                // It was there before, and is somebody's: what failed here says nothing about it.
                Ok(before) if before.replayed && !matches!(ended, Ended::Done) => Ok(before),
                Ok(net) => self.tell(run, net, ended, took).await,
                Err(EnqueueError::Store(source) | EnqueueError::Unknown { source, .. }) => {
                    unrecorded(job.id, ended, took, source)
                }
                Err(refused) => Err(refused),
            },
            Err(_) => {
                if matches!(ended, Ended::Done) {
                    self.record_when_stored(insert, took);
                }
                unrecorded(job.id, ended, took, late())
            }
        }
    }

    /// If the store took the job after all, it learns that it ran.
    fn record_when_stored(&self, insert: JoinHandle<Stored>, took: Duration) {
        let client = self.clone();
        tokio::spawn(async move {
            if let Ok(Ok(net)) = insert.await {
                client.keep_telling(net.id, Action::RanInline { ran: took }, None).await.ok();
            }
        });
    }

    /// Tells the store how the run went.
    async fn tell(&self, run: Run, net: Enqueued, ended: Ended, took: Duration) -> Stored {
        match ended {
            Ended::Done => {
                let answer = self.tell_in_time(net.id, Action::RanInline { ran: took }, None).await;
                Ok(match answer {
                    Ok(acted) => Enqueued { state: acted.state(), way: Way::Inline { took }, ..net },
                    Err(error) => {
                        let error = error.to_string();
                        let way = Way::InlineUnrecorded { took, may_repeat: true, error };
                        done(net.id, net.durability, way)
                    }
                })
            }
            Ended::Failed(Failed { error, after }) => {
                let over = Action::HandOver { after };
                // If it cannot be told, the net is there: the queue has it, only later.
                let state = match self.tell_in_time(net.id, over, Some(error.clone())).await {
                    Ok(acted) => acted.state(),
                    Err(_) => net.state,
                };
                Ok(Enqueued { state, way: Way::QueuedAfterInline { error }, ..net })
            }
            Ended::Stuck(thread) => {
                let deadline = run.deadline;
                let (client, id) = (self.clone(), net.id);
                // It keeps its place until it ends. The queue's turn comes by the net, so that both do not run at once.
                tokio::spawn(async move {
                    if let Ok(ended) = thread.await
                        && let Ended::Done = attempt::of_thread(ended, deadline)
                    {
                        client.keep_telling(id, Action::RanInline { ran: took }, None).await.ok();
                    }
                    drop(run);
                });
                Ok(Enqueued { way: Way::QueuedAfterInline { error: stuck() }, ..net })
            }
        }
    }

    /// Waits a moment for the store to take note; goes on trying without the caller.
    async fn tell_in_time(
        &self,
        id: JobId,
        action: Action,
        error: Option<String>,
    ) -> Result<Acted, StoreError> {
        let client = self.clone();
        let telling = tokio::spawn(async move { client.keep_telling(id, action, error).await });
        match tokio::time::timeout(PATIENCE, telling).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(self.no_answer("change jobs", error)),
            Err(_) => {
                let late = format!("no answer within {}", clock::human(PATIENCE));
                Err(self.no_answer("change jobs", late))
            }
        }
    }

    /// Until the store answers, or the queue's turn has come anyway.
    async fn keep_telling(
        &self,
        id: JobId,
        action: Action,
        error: Option<String>,
    ) -> Result<Acted, StoreError> {
        let by = Actor { who: "its caller".to_owned(), reason: error };
        let begun: Instant = instant();
        loop {
            match self.store.bulk(&self.tier, vec![id], action, &by).await {
                Ok(answers) => return Ok(answers.first().copied().unwrap_or(Acted::NotFound)),
                Err(error) if !error.is_transient() || begun.elapsed() > MARGIN => return Err(error),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

impl Acted {
    /// Where the job is by now. One that is gone had ended.
    const fn state(self) -> State {
        match self {
            Self::Done(state) | Self::Unchanged(state) | Self::Refused(state) => state,
            Self::Asked => State::Running,
            Self::NotFound => State::Completed,
        }
    }
}

/// The record of side effects, without a store to keep it: what needs one does not run.
struct NoEffects(StoreError);

#[async_trait]
impl Effects for NoEffects {
    async fn begin(&self, _: JobId, _: &str) -> Result<Effect, JobError> {
        Err(self.0.clone().into())
    }
    async fn sent(&self, _: JobId, _: &str) -> Result<(), JobError> {
        Err(self.0.clone().into())
    }
    async fn not_sent(&self, _: JobId, _: &str) -> Result<(), JobError> {
        Err(self.0.clone().into())
    }
}
