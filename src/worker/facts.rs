//! What a worker knows of itself.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::state::Core;
use crate::store::Presence;

/// What a worker knows of itself, for health and status: a snapshot, from memory, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// What it tells the store.
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
    /// Outcomes that the store has not confirmed yet.
    pub unsettled: usize,
    /// Jobs whose lease was lost while this worker held them.
    pub lost: u64,
}

pub(super) fn gather(core: &Core) -> Facts {
    let now_ms = core.now_ms();
    let (state, reason, state_age) = core.status();
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let presence = Presence {
        worker: core.options.name.clone(),
        incarnation: core.incarnation,
        host: core.host.clone(),
        pid: std::process::id(),
        release: core.release.clone(),
        capability: core.capability.clone(),
        state,
        reason,
        generation: core.generation.load(Relaxed),
        kinds: core.versions.clone(),
        queues: core.options.queues.clone(),
        slots: small(core.options.slots),
        busy: small(core.ready.running()),
        stuck: small(core.stuck.load(Relaxed)),
        ticks: core.ticks.load(Relaxed),
        claim_age: core.claim_age(now_ms),
        progress_age: core.progress_at.age(now_ms),
        completed: core.completed.load(Relaxed),
        failed: core.failed.load(Relaxed),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Facts {
        presence,
        state_age,
        store_down: core.outage.down(),
        runtime_age: Duration::from_millis(now_ms.saturating_sub(core.runtime_tick.load(Relaxed))),
        backlog: core.backlog.load(Relaxed),
        unsettled: core.unsettled.load(Relaxed),
        lost: core.lost.load(Relaxed),
    }
}
