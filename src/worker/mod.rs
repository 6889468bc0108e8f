//! The worker: claims jobs, runs them, settles them, and proves that it lives. One role a file, in the order in which
//! a job meets them:
//!
//! - [`options`]: how a worker runs
//! - `claimer`: takes jobs from the store, as many as can start soon
//! - `ready`: holds them until a slot is free
//! - `executor`: runs them, each alone; `outcome` says what became of an attempt
//! - `settler`: reports that to the store; `counts`: by queue and kind, for metrics;
//!   `waits`: how long they waited until they began
//! - `heartbeat`: on a thread of its own, keeps leases and presence, whatever the handlers do
//! - `sweeper`: promotes what is due and rescues what lost its worker
//! - `canary`: proves the worker with jobs of its own, through the real path; `hook`: runs the activation hook
//! - `obey`: what operators tell it through the store
//! - `tally`: how first attempts went, for whoever judges the release; `baseline`: whether a kind fails far above what is
//!   usual
//! - [`watch`]: the seam for telemetry
//! - `lease`, `state`, `status`, `outage`: what the parts share
//! - `conductor`: starts the parts, and ends them in order
//! - [`facts`]: what it knows of itself, for health and status

pub(crate) mod baseline;
mod canary;
mod claimer;
mod conductor;
mod counts;
mod executor;
pub mod facts;
mod heartbeat;
pub mod hook;
mod lease;
mod obey;
pub mod options;
mod outage;
mod outcome;
mod ready;
mod settler;
mod state;
mod status;
mod sweeper;
mod tally;
mod waits;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use crate::activation::WorkerState;
pub use crate::job::registry::{KindInfo, Registry, RegistryError};
use crate::store::{ErrorKind, Quiet, SIMULATED, Store, StoreError};

pub use counts::{BOUNDS, Count, Counts, Done};
pub use facts::Facts;
pub use hook::Hook;
pub use options::Options;
use state::Core;
pub use waits::{WAITS, Waits};

/// A running worker: a handle to watch and stop it. Dropping it does not stop the worker; dropping the runtime it was
/// started on does, as a crash would: its leases run out.
#[derive(Debug, Clone)]
pub struct Worker {
    core: Arc<Core>,
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
    /// One of its own parts died, or the store refused it for good; the reason. The process should exit non-zero: what
    /// it held is rescued when its leases run out.
    Broken(String),
}

impl Worker {
    /// Starts a worker on the current runtime and its heartbeat on a thread of its own. Returns once it is registered;
    /// it may still be inactive.
    ///
    /// # Errors
    /// When the store cannot be reached at all, or the name is one that only made-up workers have.
    pub async fn start(
        store: Arc<dyn Store>,
        registry: Registry,
        options: Options,
    ) -> Result<Self, StoreError> {
        let place = store.about().location;
        if options.name.as_str().starts_with(SIMULATED) {
            let detail = format!(
                "worker `{}`: names that begin with `{SIMULATED}` are those of `doctor --simulate`, and nobody would miss it",
                options.name
            );
            return Err(StoreError::new("start", place, ErrorKind::Refused, detail)
                .hint("give it another name with `--name` or `worker.name`"));
        }
        let core = Core::new(store, &registry, options)
            .map_err(|error| StoreError::new("start", place, ErrorKind::Refused, error))?;
        let core = Arc::new(core);
        heartbeat::register(&core).await?;
        conductor::start(&core)?;
        Ok(Self { core })
    }

    /// What it knows of itself. Always there; an `Option` so that a face can hold a worker that is not up yet.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        Some(facts::gather(&self.core))
    }

    /// What became of its jobs, by queue and kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        state::lock(&self.core.counts).clone()
    }

    /// How long its jobs waited until they began, by queue.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.core.lines.read()
    }

    /// What it has processed.
    #[must_use]
    pub fn processed(&self) -> watch::Processed {
        watch::Processed::sum(&state::lock(&self.core.counts))
    }

    /// Returns when its state is this one, or when it has ended and can never be.
    pub async fn until(&self, state: WorkerState) {
        let mut states = self.core.watch_state();
        tokio::select! {
            _ = states.wait_for(|now| *now == state) => {}
            _ = self.ended() => {}
        }
    }

    /// Stops claiming for so long, or until [`Worker::resume`]; who and why is shown everywhere. What was claimed and has
    /// not begun is given back at once; what runs goes on.
    pub fn quiet(&self, owner: &str, reason: &str, span: Option<Duration>) {
        let until = span.map(|span| self.core.store_now().plus(span));
        self.core.quiet(Quiet { owner: owner.to_owned(), reason: reason.to_owned(), until });
    }

    /// Claims again, unless an operator quieted it through the store.
    pub fn resume(&self) {
        self.core.resume();
    }

    /// Begins to stop: nothing more is claimed, what waits is given back at once, what runs has the grace to finish.
    /// Calling it again cuts the grace to nothing; even then nothing is lost.
    pub fn stop(&self) {
        if self.core.stop.is_cancelled() {
            self.core.hurry.cancel();
        }
        self.core.stop.cancel();
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.core.watch_ended();
        let seen = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        seen.unwrap_or_else(|| Ended::Broken("the worker vanished".into()))
    }

    /// The jobs that run now, for a person: one line each.
    #[must_use]
    pub fn dump(&self) -> Vec<String> {
        self.core.dump()
    }
}
