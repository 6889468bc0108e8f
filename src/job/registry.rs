//! The kinds a process can run, as a worker or as a caller: a static table from exact names to handlers, with their types
//! erased.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::args::{Args, InvalidArgs};
use super::bypass::Bypass;
use super::handler::{Context, Handler, JobError, JobResult, Shared};
use crate::names::{BadName, Kind, Queue};
use crate::retry::RetryPolicy;

/// Reads the arguments and returns the attempt, not yet begun. An error means that they cannot be read.
pub(crate) type Begin = fn(&Args, u32, Context) -> Result<BoxFuture<'static, JobResult>, JobError>;

/// What is known of one kind.
#[derive(Debug, Clone)]
pub struct KindInfo {
    /// Its name.
    pub kind: Kind,
    /// The queue its jobs wait in unless the caller names another.
    pub queue: Queue,
    /// The newest version of the arguments that its handler reads.
    pub version: u32,
    /// Time-out of an attempt, unless the job brings its own.
    pub timeout: Duration,
    /// Attempts and delays, unless the job brings its own.
    pub retry: RetryPolicy,
    /// Whether it runs on threads of its own.
    pub blocking: bool,
    /// What its canaries run; `None` when it has none.
    pub canary: Option<Args>,
    /// Whether its callers run it themselves, unless they say otherwise.
    pub bypass: Bypass,
    /// How long such a run may take.
    pub bypass_deadline: Duration,
}

/// One kind with its handler.
pub(crate) struct Entry {
    pub(crate) info: KindInfo,
    pub(crate) begin: Begin,
}

impl Entry {
    pub(crate) fn of<H: Handler>() -> Result<Self, RegistryError> {
        let canary = H::canary().map(|payload| Args::of(&payload)).transpose()?;
        let info = KindInfo {
            kind: Kind::new(H::KIND)?,
            queue: Queue::new(H::QUEUE)?,
            version: H::VERSION,
            timeout: H::timeout(),
            retry: H::retry(),
            blocking: H::BLOCKING,
            canary,
            bypass: H::bypass(),
            bypass_deadline: H::bypass_deadline(),
        };
        Ok(Self { info, begin: begin::<H> })
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

/// The kinds a process can run, and what their handlers share.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    entries: BTreeMap<Kind, Arc<Entry>>,
    shared: Shared,
}

impl Registry {
    /// Knows no kind yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind.
    ///
    /// # Errors
    /// When its names are refused, or the kind is registered already.
    pub fn add<H: Handler>(&mut self) -> Result<&mut Self, RegistryError> {
        let entry = Entry::of::<H>()?;
        if self.entries.contains_key(&entry.info.kind) {
            return Err(RegistryError::Twice(H::KIND.to_owned()));
        }
        self.entries.insert(entry.info.kind.clone(), Arc::new(entry));
        Ok(self)
    }

    /// Adds a value that handlers get from `ctx.shared`.
    pub fn share<T: Send + Sync + 'static>(&mut self, value: T) -> &mut Self {
        self.shared = std::mem::take(&mut self.shared).with(value);
        self
    }

    /// What handlers share.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// The kinds by name, with the version of their arguments.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, u32)> {
        self.entries.values().map(|entry| (entry.info.kind.clone(), entry.info.version)).collect()
    }

    /// Everything about one kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&KindInfo> {
        self.entries.values().map(|entry| &entry.info).find(|info| info.kind.as_str() == kind)
    }

    /// Everything about every kind, by name.
    pub fn infos(&self) -> impl Iterator<Item = &KindInfo> {
        self.entries.values().map(|entry| &entry.info)
    }

    pub(crate) fn entry(&self, kind: &Kind) -> Option<&Arc<Entry>> {
        self.entries.get(kind)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }
}

fn begin<H: Handler>(
    args: &Args,
    version: u32,
    ctx: Context,
) -> Result<BoxFuture<'static, JobResult>, JobError> {
    let job = H::decode(args, version)?;
    Ok(Box::pin(job.run(ctx)))
}

/// A kind that cannot be registered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// Its name is refused.
    #[error(transparent)]
    Name(#[from] BadName),
    /// What its canaries run is no JSON, or too large.
    #[error("its canary payload cannot be written: {0}")]
    Canary(#[from] InvalidArgs),
    /// There is another of that name.
    #[error("kind `{0}` is registered twice: give one of the two another name")]
    Twice(String),
}
