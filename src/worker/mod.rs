//! The worker: claims jobs, runs them, settles them, and proves that it lives. One role a file.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::activation::WorkerState;
use crate::job::{Handler, handler::Shared};
use crate::names::{BadName, Queue, Release, Tier, WorkerName};
use crate::store::{Presence, Store, StoreError};

/// How a worker runs. `Default` is what `sluicegate work` does.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tier it belongs to.
    pub tier: Tier,
    /// Its name; the same name again takes over.
    pub name: WorkerName,
    /// Its release; `None` runs as the implicit release `default`, which activates itself when the tier has no
    /// activation yet.
    pub release: Option<Release>,
    /// The queues it serves; `None` for all of the tier.
    pub queues: Option<Vec<Queue>>,
    /// How many jobs run at once.
    pub slots: usize,
    /// How long a stop waits for running jobs before it cancels them and gives them back.
    pub grace: Duration,
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How often leases are renewed.
    pub renew_every: Duration,
    /// How often the worker says that it lives.
    pub presence_every: Duration,
    /// After its time-out and the cancellation, a job has this long to end by itself.
    pub cancel_grace: Duration,
    /// Settings per kind, from the configuration.
    pub settings: std::collections::BTreeMap<String, serde_json::Value>,
}

/// The kinds a worker can run, and what their handlers share.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    _private: (),
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
        Err(RegistryError::Twice(String::new()))
    }

    /// Adds a value that handlers get from `ctx.shared`.
    pub fn share<T: Send + Sync + 'static>(&mut self, value: T) -> &mut Self {
        drop(value);
        self
    }

    /// What handlers share.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Shared::default()
    }

    /// The kinds by name, with the version of their arguments.
    #[must_use]
    pub fn kinds(&self) -> Vec<(crate::names::Kind, u32)> {
        Vec::new()
    }
}

/// A kind that cannot be registered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// Its name is refused.
    #[error(transparent)]
    Name(#[from] BadName),
    /// There is another of that name.
    #[error("kind `{0}` is registered twice")]
    Twice(String),
}

/// A running worker: a handle to watch and stop it. Dropping it does not stop the worker.
#[derive(Debug, Clone)]
pub struct Worker {
    facts: Arc<std::sync::Mutex<Facts>>,
}

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and gave everything back.
    Stopped {
        /// Jobs given back to the store unfinished.
        returned: u64,
    },
    /// Another process registered under its name.
    Superseded,
    /// One of its own parts died; the reason.
    Broken(String),
}

/// What a worker knows of itself, for health and status: a snapshot, from memory, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// What it last told the store.
    pub presence: Presence,
    /// Since when it is in its state, in seconds.
    #[serde(with = "crate::clock::secs")]
    pub state_age: Duration,
    /// The store's last error, if its last call failed, and for how many seconds it has been away.
    pub store_down: Option<(String, f64)>,
    /// Age of the last tick of the job runtime, in seconds.
    #[serde(with = "crate::clock::secs")]
    pub runtime_age: Duration,
    /// Whether the claim loop knew of waiting jobs when it last looked.
    pub backlog: bool,
}

impl Worker {
    /// Starts a worker on the current runtime and its heartbeat on a thread of its own. Returns once it is registered;
    /// it may still be inactive.
    ///
    /// # Errors
    /// When the store cannot be reached at all.
    pub async fn start(
        store: Arc<dyn Store>,
        registry: Registry,
        options: Options,
    ) -> Result<Self, StoreError> {
        let _ = (store, registry, options);
        Err(StoreError::new("start", "", crate::store::ErrorKind::Unsupported, "stub"))
    }

    /// What it knows of itself.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        self.facts.lock().ok().map(|facts| facts.clone())
    }

    /// Returns when its state is this one (for tests and for `dev`'s first lines).
    pub async fn until(&self, state: WorkerState) {
        let _ = state;
    }

    /// Stops claiming until [`Worker::resume`], with the reason shown everywhere.
    pub fn quiet(&self, reason: &str) {
        let _ = reason;
    }

    /// Claims again.
    pub fn resume(&self) {}

    /// Begins to stop: nothing more is claimed, what waits is given back at once, what runs has the grace to finish.
    /// Calling it again cuts the grace to nothing; even then nothing is lost.
    pub fn stop(&self) {}

    /// Waits for the end.
    pub async fn ended(&self) -> Ended {
        Ended::Stopped { returned: 0 }
    }

    /// The jobs that run now, for a person: one line each.
    #[must_use]
    pub fn dump(&self) -> Vec<String> {
        Vec::new()
    }
}
