//! Keeps leases and presence, on a thread of its own with a runtime of its own: a handler that blocks the job runtime
//! must cost neither. It looks at the jobs as well, because a blocked runtime cannot.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::lease::{Cause, Lease, millis};
use super::state::Core;
use super::{Ended, facts, obey};
use crate::activation::WorkerState;
use crate::store::{Beat, ErrorKind, MAX_BATCH, Presence, Renewed, Space, StoreError, overwrite};

/// A job runtime that did not tick for so long is reported.
const RUNTIME_STALLED: Duration = Duration::from_secs(5);
/// A sleep of this thread that took so much longer than it should: the whole process stood still (SIGSTOP, a frozen host).
const STOOD_STILL: Duration = Duration::from_secs(2);
/// Then its parts have so long to go on before it tells of itself: what it had to say at once would be its own sleep.
const COME_TO: Duration = Duration::from_secs(1);
/// A stop says "stopped" to a store that is away for no longer than this.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The word that the last worker of a release leaves is kept for so long.
const KEEP_GOODBYE: Duration = Duration::from_secs(30 * 86_400);

/// The first beat: the worker is known to the store, or cannot start. Only that takes the name over from another process.
pub(super) async fn register(core: &Core) -> Result<(), StoreError> {
    let tier = &core.options.tier;
    let before =
        core.store.workers(tier).await?.into_iter().find(|seen| seen.presence.worker == core.options.name);
    if let Some(before) = before {
        core.restarts.store(before.presence.restarts.saturating_add(1), Relaxed);
        core.restarted.get_or_init(|| Presence::restarted_after(&before));
    }
    let presence = Presence { joining: true, ..facts::gather(core).presence };
    if let Beat::Ok { now, control } = core.store.beat(tier, &presence).await? {
        core.store_said(now);
        obey::obey(core, control).await; // who shall be quiet must not claim at first
    }
    let reason = "registered; its self-test has not passed yet".to_owned();
    core.become_state(WorkerState::Starting, Some(reason));
    Ok(())
}

/// Starts the thread; what it returns resolves when the thread has ended.
pub(super) fn start(core: &Arc<Core>) -> Result<oneshot::Receiver<()>, StoreError> {
    let refused = |error: std::io::Error| {
        StoreError::new("start", core.store.about().location, ErrorKind::Unavailable, error)
            .hint("raise the limit of threads of this process")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
    let (ended, end) = oneshot::channel();
    let of = Arc::clone(core);
    let life = move || {
        let all = std::panic::AssertUnwindSafe(|| runtime.block_on(beat(&of)));
        if let Err(panic) = std::panic::catch_unwind(all) {
            let message = super::outcome::panic_message(&*panic);
            of.doom(Ended::Broken(format!("the heartbeat panicked: {message}")));
        }
        drop(ended);
    };
    std::thread::Builder::new().name("sluicegate-heartbeat".into()).spawn(life).map_err(refused)?;
    Ok(end)
}

async fn beat(core: &Core) {
    let (presence, renew) = (core.options.presence_every, core.options.renew_every);
    let look = (renew / 4).min(presence / 2).min(Duration::from_secs(1)).max(Duration::from_millis(10));
    let mut next_beat = core.now_ms() + millis(presence);
    let mut stalled = false;
    loop {
        let slept = core.now_ms();
        let told = tokio::select! {
            biased;
            () = core.silence.cancelled() => break,
            () = core.wake_heartbeat.notified() => true,
            () = tokio::time::sleep(look) => false,
        };
        if core.now_ms().saturating_sub(slept) > millis(look + STOOD_STILL) {
            core.stood_still();
            next_beat = core.now_ms() + millis(COME_TO);
        }
        core.outage.tell();
        watch_runtime(core, &mut stalled);
        look_at_jobs(core);
        look_at_backlog(core);
        core.lapse(core.store_now());
        let calls = async {
            renew_due(core).await;
            if told || core.now_ms() >= next_beat {
                next_beat = core.now_ms() + millis(presence);
                say(core).await;
            }
        };
        tokio::select! {
            biased;
            () = core.silence.cancelled() => break, // a slow store does not hold up the end
            () = calls => {}
        }
    }
    if core.state_now() == WorkerState::Stopped {
        // Before its presence is gone, or a judge that asks in between finds nobody, and no reason.
        tokio::time::timeout(LAST_WORD, goodbye(core)).await.ok();
        if tokio::time::timeout(LAST_WORD, say(core)).await.is_err() {
            tracing::debug!("the store did not hear that the worker stopped");
        }
    }
}

/// Leaves word for whoever asks why nobody of its release lives.
async fn goodbye(core: &Core) {
    let value = json!({ "worker": core.options.name }).to_string();
    let (tier, key) = (&core.options.tier, core.release.as_str());
    let left = overwrite(&*core.store, tier, Space::Drain, key, &value, Some(KEEP_GOODBYE)).await;
    if let Err(error) = left {
        tracing::debug!(%error, "the store did not hear why the worker is gone");
    }
}

/// Tells the store that the worker lives.
async fn say(core: &Core) {
    let answer = core.store.beat(&core.options.tier, &facts::gather(core).presence).await;
    match core.heard("heartbeat", answer) {
        Some(Beat::Ok { now, control }) => {
            core.store_said(now);
            obey::obey(core, control).await;
        }
        Some(Beat::Superseded) => core.doom(Ended::Superseded),
        None => {}
    }
}

/// Renews all leases as soon as one is due, so that they stay together.
async fn renew_due(core: &Core) {
    let (now_ms, every) = (core.now_ms(), millis(core.options.renew_every));
    let live: Vec<Arc<Lease>> = core.leases().into_iter().filter(|lease| !lease.is_lost()).collect();
    if !live.iter().any(|lease| lease.age(now_ms) >= every) {
        return;
    }
    let due: Vec<Arc<Lease>> = live.into_iter().filter(|lease| lease.age(now_ms) >= every / 2).collect();
    for chunk in due.chunks(MAX_BATCH) {
        let nonces = chunk.iter().map(|lease| lease.nonce).collect();
        let answer = core.store.renew(&core.options.tier, nonces, core.options.lease).await;
        let Some(answers) = core.heard("heartbeat", answer) else { return };
        for (lease, answer) in chunk.iter().zip(answers) {
            match answer {
                Renewed::Until { cancel, .. } => {
                    lease.renewed(now_ms);
                    cancel_asked(lease, cancel);
                }
                Renewed::Lost => lose(core, lease),
            }
        }
    }
}

fn cancel_asked(lease: &Lease, ids: Vec<crate::ids::JobId>) {
    if ids.is_empty() {
        return;
    }
    let ids: HashSet<_> = ids.into_iter().collect();
    lease.jobs.iter().filter(|held| ids.contains(&held.id)).for_each(|held| held.cancel(Cause::Asked));
}

fn lose(core: &Core, lease: &Lease) {
    let open = lease.lose();
    if open > 0 {
        tracing::warn!(worker = %core.options.name, jobs = open, "lease was lost: its jobs are cancelled and will not be settled");
    }
}

/// Counts the jobs that run on although they should have ended.
fn look_at_jobs(core: &Core) {
    // One look later than the executor would drop them itself.
    let slack = core.options.cancel_grace + Duration::from_secs(1);
    let (now_ms, mut stuck) = (core.now_ms(), 0);
    for lease in core.leases() {
        for held in lease.jobs.iter().filter(|held| held.is_stuck(now_ms, slack)) {
            held.mark_stuck();
            stuck += 1;
        }
    }
    if core.stuck.swap(stuck, Relaxed) != stuck {
        core.wake_heartbeat.notify_one();
    }
}

/// Notes since when jobs have been waiting while slots are free.
fn look_at_backlog(core: &Core) {
    let waiting = core.backlog.load(Relaxed) && core.state_now() == WorkerState::Active;
    if waiting && core.ready.running() < core.ready.slots() {
        core.idle_backlog.begin(core.now_ms());
    } else {
        core.idle_backlog.clear();
    }
}

fn watch_runtime(core: &Core, stalled: &mut bool) {
    let age = Duration::from_millis(core.now_ms().saturating_sub(core.runtime_tick.load(Relaxed)));
    if (age >= RUNTIME_STALLED) != *stalled {
        *stalled = !*stalled;
        core.wake_heartbeat.notify_one(); // the tier hears of it now, and not with the next beat
        if *stalled {
            tracing::warn!(worker = %core.options.name, ?age,
                "job runtime is blocked: a handler blocks its threads; mark that kind as BLOCKING");
        }
    }
}
