//! What a worker knows of itself.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::state::{Core, lock};
use crate::activation::Activation;
use crate::clock;
use crate::store::Presence;

/// What a worker knows of itself, for health and status: a snapshot, from memory, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// What it tells the store.
    pub presence: Presence,
    /// Whether it names a release; one that does not runs as the implicit release of an unmanaged tier.
    pub managed: bool,
    /// The activation that the store answered last, if it was another than this worker's.
    pub activation: Option<Activation>,
    /// The store's last error, if its last call failed, and for how many seconds it has been away.
    pub store_down: Option<(String, f64)>,
    /// Whether the claim loop knew of waiting jobs when it last looked.
    pub backlog: bool,
    /// Outcomes that the store has not confirmed yet.
    pub unsettled: usize,
    /// Jobs whose lease was lost while this worker held them.
    pub lost: u64,
}

impl Facts {
    /// Of a managed worker of which nothing else is known.
    #[must_use]
    pub fn new(presence: Presence) -> Self {
        Self {
            presence,
            managed: true,
            activation: None,
            store_down: None,
            backlog: false,
            unsettled: 0,
            lost: 0,
        }
    }
}

pub(super) fn gather(core: &Core) -> Facts {
    let now_ms = core.now_ms();
    let standing = core.status();
    let (ticks, loop_age) = core.ticks(now_ms);
    let (failing, tallies) = {
        let outcomes = lock(&core.outcomes);
        let now = clock::instant();
        (outcomes.failing(now), outcomes.tell(now))
    };
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let presence = Presence {
        worker: core.options.name.clone(),
        incarnation: core.incarnation,
        host: core.host.clone(),
        pid: std::process::id(),
        release: core.release.clone(),
        capability: core.capability.clone(),
        artifact: core.options.artifact.get().cloned(),
        joining: false,
        state: standing.state,
        state_age: standing.age,
        reason: standing.reason,
        fault: standing.fault,
        quiet: standing.quiet,
        generation: core.generation.load(Relaxed),
        kinds: core.versions.clone(),
        queues: core.options.queues.clone(),
        slots: small(core.options.slots),
        busy: small(core.ready.running()),
        stuck: small(core.stuck.load(Relaxed)),
        ticks,
        loop_age,
        claim_age: core.claim_age(now_ms),
        progress_age: core.progress_at.age(now_ms),
        canary_age: core.canary_at.age(now_ms),
        canary_error: core.canaries.error(),
        stalled: stalled(core, now_ms),
        runtime_age: Duration::from_millis(now_ms.saturating_sub(core.runtime_tick.load(Relaxed))),
        failing,
        tallies,
        completed: core.completed.load(Relaxed),
        failed: core.failed.load(Relaxed),
        restarts: core.restarts.load(Relaxed),
        restarted: core.restarted.get().cloned().unwrap_or_default(),
        health: core.options.health.clone(),
        clock: clock::wall(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Facts {
        presence,
        managed: core.options.release.is_some(),
        activation: standing.activation,
        store_down: core.outage.down(),
        backlog: core.backlog.load(Relaxed),
        unsettled: core.unsettled.load(Relaxed),
        lost: core.lost.load(Relaxed),
    }
}

/// For how long jobs have been waiting while slots were free and none started.
fn stalled(core: &Core, now_ms: u64) -> Option<Duration> {
    let waiting = core.idle_backlog.age(now_ms)?;
    Some(core.progress_at.age(now_ms).map_or(waiting, |progress| waiting.min(progress)))
}
