//! Starts the parts and ends them in order. A part that dies ends the worker: never half-dead.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::lease::Cause;
use super::state::Core;
use super::{Ended, canary, claimer, heartbeat, outcome, settler, sweeper};
use crate::activation::WorkerState;
use crate::store::{StoreError, Verdict};

/// Cancelled jobs have this long at a stop before what still runs is given back all the same.
const AFTER_CANCEL: Duration = Duration::from_millis(1_500);
/// A hurried stop waits so long for a store that is away to take the last outcomes.
const LAST_OUTCOMES: Duration = Duration::from_secs(2);
/// The job runtime proves that it moves at least this often.
const RUNTIME_TICK: Duration = Duration::from_millis(500);

/// Starts all parts on the current runtime.
pub(super) fn start(core: &Arc<Core>) -> Result<(), StoreError> {
    let heart = heartbeat::start(core)?;
    let claimer = supervise(core, "claimer", claimer::claim(Arc::clone(core)));
    supervise(core, "settler", settler::settle(Arc::clone(core)));
    supervise(core, "sweeper", sweeper::sweep(Arc::clone(core)));
    supervise(core, "canary", canary::prove(Arc::clone(core)));
    supervise(core, "ticker", tick(Arc::clone(core)));
    let conductor = Conductor { core: Arc::clone(core) };
    tokio::spawn(conductor.run(claimer, heart));
    Ok(())
}

/// Runs a part; its panic ends the worker.
pub(super) fn supervise(
    core: &Arc<Core>,
    part: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let core = Arc::clone(core);
    tokio::spawn(async move {
        if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
            let message = outcome::panic_message(&*panic);
            core.doom(Ended::Broken(format!("the {part} panicked: {message}")));
        }
    })
}

async fn tick(core: Arc<Core>) {
    loop {
        core.runtime_tick.store(core.now_ms(), Relaxed);
        tokio::select! {
            () = tokio::time::sleep(RUNTIME_TICK) => {}
            () = core.over.cancelled() => return,
        }
    }
}

/// Waits for the end and sees to it. When it is dropped instead, the runtime is gone, and so is the worker: its
/// heartbeat must not live on and keep leases that nobody works on.
struct Conductor {
    core: Arc<Core>,
}

impl Drop for Conductor {
    fn drop(&mut self) {
        self.core.stop.cancel();
        self.core.over.cancel();
        self.core.silence.cancel();
        self.core.end(Ended::Broken("the runtime of the worker was shut down".into()));
    }
}

impl Conductor {
    async fn run(self, claimer: JoinHandle<()>, heart: oneshot::Receiver<()>) {
        let core = &self.core;
        let stopped = async {
            core.stop.cancelled().await;
            let before = core.returned.load(Relaxed); // at flips and when it was quiet
            self.wind_down(claimer).await;
            Ended::Stopped { returned: core.returned.load(Relaxed) - before }
        };
        let (doomed, ended) = tokio::select! {
            biased;
            () = core.doomed.cancelled() => (true, core.doomed_by()),
            ended = stopped => (false, Some(ended)),
        };
        let ended = ended.unwrap_or_else(|| Ended::Broken("for a reason unknown".into()));
        if doomed {
            self.give_up().await;
        }
        core.over.cancel();
        if !doomed {
            core.become_state(WorkerState::Stopped, None);
        }
        core.silence.cancel();
        heart.await.ok(); // resolves by being dropped
        match &ended {
            Ended::Stopped { returned } => {
                tracing::info!(worker = %core.options.name, returned, "worker stopped");
            }
            Ended::Superseded => {
                tracing::warn!(worker = %core.options.name, "worker superseded: another process registered under its name");
            }
            Ended::Broken(reason) => tracing::error!(worker = %core.options.name, reason, "worker is broken"),
        }
        core.end(ended);
    }

    /// A stop, in order: no more claims, give back what waits, let finish what runs, cancel it, give it back, and tell
    /// the store everything.
    async fn wind_down(&self, claimer: JoinHandle<()>) {
        let core = &self.core;
        core.become_state(WorkerState::Stopping, None);
        core.close_ready();
        let deadline = tokio::time::Instant::now() + core.options.grace;
        let idle = || core.ready.running() == 0;
        self.until(idle, deadline, true).await;
        core.cancel_all(Cause::Stop);
        self.until(idle, tokio::time::Instant::now() + AFTER_CANCEL, false).await;
        self.give_back_running();
        // A claim that was on its way has brought its jobs by now, or its reply is lost with the store.
        let claimed = async { claimer.await.ok() };
        let patience = (tokio::time::Instant::now() + LAST_OUTCOMES).max(deadline);
        tokio::select! {
            _ = claimed => {}
            () = self.until(|| false, patience, true) => {}
        }
        let settled = || core.unsettled.load(Relaxed) == 0;
        self.until(settled, patience, true).await;
        if !settled() && core.hurry.is_cancelled() {
            self.until(settled, tokio::time::Instant::now() + LAST_OUTCOMES, false).await;
        }
        let unsettled = core.unsettled.load(Relaxed);
        if unsettled > 0 {
            tracing::warn!(worker = %core.options.name, unsettled,
                "store is away: these outcomes could not be told; their jobs run again when their leases end");
        }
    }

    /// Waits until it is so, or the deadline, or (when it may) until a second stop.
    async fn until(&self, so: impl Fn() -> bool, deadline: tokio::time::Instant, may_hurry: bool) {
        let core = &self.core;
        loop {
            let mut calmer = std::pin::pin!(core.calmer.notified());
            calmer.as_mut().enable();
            if so() {
                return;
            }
            tokio::select! {
                () = calmer => {}
                () = tokio::time::sleep_until(deadline) => return,
                () = core.hurry.cancelled(), if may_hurry => return,
            }
        }
    }

    /// What runs on after its cancellation: the process is about to end, and an end costs no attempt.
    fn give_back_running(&self) {
        for lease in self.core.leases() {
            for held in lease.jobs.iter().filter(|held| held.is_running()) {
                self.core.report(&lease, held, Duration::ZERO, Verdict::Return);
            }
        }
    }

    /// It cannot settle any more, or what it holds belongs to another process: nothing is given back, everything is
    /// cancelled.
    async fn give_up(&self) {
        let core = &self.core;
        core.stop.cancel();
        for lease in core.leases() {
            lease.lose();
        }
        core.close_ready();
        let idle = || core.ready.running() == 0;
        self.until(idle, tokio::time::Instant::now() + AFTER_CANCEL, false).await;
    }
}
