//! Takes jobs from the store: only as many as can start soon, and again as soon as half of them have begun, so that
//! claims, jobs and settles overlap. Wake-ups drive it; polling is the fallback.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::hook::{self, Hook, Phase};
use super::outage::RECONNECT;
use super::state::Core;
use super::{Ended, obey};
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::{self, Timestamp};
use crate::ids::Nonce;
use crate::names::Release;
use crate::retry::Reconnect;
use crate::store::{Batch, Claim, ClaimAsk, ErrorKind, FaultCode, Flip, Flipped, Lane, MAX_BATCH, Wake};

/// Claimed ahead of the slots is what runs in this time, …
const PREFETCH: f64 = 0.050;
/// …and never more than this.
const MAX_PREFETCH: f64 = 1_000.0;
/// No claims while more outcomes than this wait to be settled.
const MAX_UNSETTLED: usize = 4 * MAX_BATCH;
/// The claim loop ticks at least this often, as a sign of life, with or without a call.
const TICK: Duration = Duration::from_secs(1);

/// An idle worker asks so often even if nothing woke it.
const FALLBACK: Duration = Duration::from_secs(8);
/// Between runs of an activation hook that fails.
const HOOK_AGAIN: Duration = Duration::from_secs(3);
/// A poll that may revert an overdue activation comes so long after it is overdue.
const AFTER_DUE: Duration = Duration::from_millis(10);

/// What to do after an answer.
enum Next {
    /// Ask again as soon as there is room.
    Again,
    /// Nothing more is there: wait to be woken, for no longer than this.
    Wait(Option<Duration>),
    /// Ask again after this.
    Pause(Duration),
    /// The store is away.
    Away,
    /// The worker is over.
    End,
}

pub(super) async fn claim(core: Arc<Core>) {
    let mut pace = Pace::new();
    let mut reconnect = Reconnect::new(Duration::from_millis(100), RECONNECT);
    let mut wake: Option<Box<dyn Wake>> = None;
    let mut unheard: Option<Nonce> = None;
    while !core.stop.is_cancelled() {
        core.tick();
        let room = if core.is_quiet() || !core.is_proven() { 0 } else { pace.room(&core) };
        if room == 0 {
            nudged(&core, TICK).await;
            continue;
        }
        // Subscribe before asking: what is enqueued between the answer and the wait must not be missed.
        if wake.is_none() {
            wake = core.subscribed("claimer", core.store.subscribe(&core.options.tier).await);
        }
        let suspects = !core.suspect.load(Relaxed);
        let next = if wake.is_some() { ask(&core, room, suspects, &mut unheard).await } else { Next::Away };
        if matches!(next, Next::Again | Next::Wait(_)) {
            reconnect.reset();
        }
        match next {
            Next::Again => {}
            Next::Wait(most) => {
                if let Some(wake) = &mut wake {
                    idle(&core, wake.as_mut(), suspects, most).await;
                }
            }
            Next::Pause(pause) => ticking(&core, tokio::time::sleep(pause)).await.unwrap_or_default(),
            Next::Away => {
                wake = None; // what happened meanwhile may not have reached it
                ticking(&core, tokio::time::sleep(reconnect.next_delay())).await.unwrap_or_default();
            }
            Next::End => return,
        }
    }
}

/// Waits for something without seeming dead; `None` when the worker stops first.
async fn ticking<T>(core: &Core, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            () = core.stop.cancelled() => return None,
            () = tokio::time::sleep(TICK) => core.tick(),
        };
    }
}

/// Waits until there may be room, or for the time-out.
async fn nudged(core: &Core, timeout: Duration) {
    tokio::select! {
        () = core.wake_claimer.notified() => {}
        () = core.stop.cancelled() => {}
        () = tokio::time::sleep(timeout) => {}
    }
}

/// Waits for something new. Without a wake-up it returns after [`FALLBACK`]: wake-ups come with everything that is new, and
/// an idle worker makes at most one call a second in all, its beats, sweeps and canaries counted.
async fn idle(core: &Core, wake: &mut dyn Wake, asked_for_suspects: bool, most: Option<Duration>) {
    let every = FALLBACK.mul_f64(0.95 + 0.1 * fastrand::f64());
    let begun = clock::instant();
    loop {
        let left = most.map_or(every, |most| most.min(every)).saturating_sub(begun.elapsed()).min(TICK);
        if left.is_zero() {
            return;
        }
        tokio::select! {
            woken = wake.woken(left) => if woken { return },
            () = core.wake_claimer.notified() => {
                // Other nudges are about room, which an idle worker has.
                if core.is_quiet() || !asked_for_suspects && !core.suspect.load(Relaxed) {
                    return;
                }
            }
            () = core.stop.cancelled() => return,
        }
        core.tick();
    }
}

/// What every claim of this worker says.
pub(super) fn ask_of(core: &Core) -> ClaimAsk {
    ClaimAsk {
        tier: core.options.tier.clone(),
        worker: core.options.name.clone(),
        incarnation: core.incarnation,
        release: core.release.clone(),
        generation: core.generation.load(Relaxed),
        queues: core.options.queues.clone(),
        max: 0,
        lease: core.options.lease,
        nonce: Nonce::new(),
        suspects: false,
        lane: Lane::Jobs,
    }
}

/// `unheard` is the nonce of a claim whose answer was lost: perhaps it took jobs.
async fn ask(core: &Arc<Core>, room: usize, suspects: bool, unheard: &mut Option<Nonce>) -> Next {
    let nonce = unheard.take().unwrap_or_default();
    // The first question of a worker with a hook takes nothing: the hook runs before its first claim.
    let max = if core.options.hook.is_some() && core.hooked.load(Relaxed) == 0 { 0 } else { room };
    let ask = ClaimAsk { max, nonce, suspects, ..ask_of(core) };
    let answer = core.store.claim(ask).await;
    *unheard = answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Timeout).then_some(nonce);
    match core.heard("claimer", answer) {
        None => Next::Away,
        Some(Claim::Active(batch)) => serve(core, batch).await,
        Some(Claim::NotActive { current, now, canaries }) => {
            look_for_canaries(core, canaries);
            stand_by(core, current, now).await
        }
        Some(Claim::Canaries(_)) => Next::Again, // the answer to another question
        Some(Claim::Superseded) => {
            core.doom(Ended::Superseded);
            Next::End
        }
    }
}

fn look_for_canaries(core: &Core, canaries: bool) {
    if canaries {
        core.wake_canary.notify_one();
    }
}

async fn serve(core: &Arc<Core>, batch: Batch) -> Next {
    core.claim_answered();
    core.pass_step(FaultCode::StoreWentBack);
    core.generation.fetch_max(batch.generation, Relaxed);
    core.in_charge.store(true, Relaxed);
    look_for_canaries(core, batch.canaries);
    if let Some(hook) = &core.options.hook
        && core.hooked.load(Relaxed) != batch.generation
    {
        let generation = batch.generation;
        core.hand_back(batch); // of a generation that this worker did not know yet
        return take_office(core, hook, generation).await;
    }
    core.become_state(WorkerState::Active, None);
    core.backlog.store(batch.more, Relaxed);
    // Also when nothing was taken: then what was too late went, and what waits behind it is next.
    let again = batch.more;
    core.take_in(batch);
    if again { Next::Again } else { Next::Wait(None) }
}

/// The store says that this worker is active; before its first claim the activation hook must pass.
async fn take_office(core: &Arc<Core>, hook: &Hook, generation: u64) -> Next {
    let reason = format!("the activation hook runs, for generation {generation}");
    if core.status().fault.is_none() {
        core.become_state(WorkerState::Inactive, Some(reason));
    }
    match ticking(core, hook::run(core, hook, Phase::Activate, generation)).await {
        None => Next::End,
        Some(Ok(())) => {
            core.hooked.store(generation, Relaxed);
            core.pass_step(FaultCode::ActivationHookFailed);
            Next::Again
        }
        Some(Err(why)) => {
            core.become_state(WorkerState::Inactive, Some(format!("activation hook failed: {why}")));
            core.fail_step(FaultCode::ActivationHookFailed, why);
            Next::Pause(HOOK_AGAIN)
        }
    }
}

/// The store says that this worker may not claim: gives back what has not begun, and says why.
async fn stand_by(core: &Arc<Core>, current: Option<Activation>, now: Timestamp) -> Next {
    core.claim_answered();
    core.backlog.store(false, Relaxed);
    core.give_back_unstarted();
    core.not_active(current.clone());
    let tier = &core.options.tier;
    let (mine, known) = (&core.release, core.generation.load(Relaxed));
    let Some(current) = current else {
        return without_activation(core, known).await;
    };
    core.in_charge.store(false, Relaxed);
    core.managed_by_others.store(!current.release.is_implicit(), Relaxed);
    let active = &current.release;
    if active == mine {
        let reason = format!(
            "the store of tier `{tier}` went back: it is at generation {}, this worker has seen {known}",
            current.generation
        );
        core.fail_step(FaultCode::StoreWentBack, reason.clone());
        core.become_state(WorkerState::Inactive, Some(reason));
        return Next::Wait(None);
    }
    core.pass_step(FaultCode::StoreWentBack);
    let own = match &core.options.release {
        Some(mine) => format!("this worker is `{mine}`"),
        None => "this worker names no release".to_owned(),
    };
    let reason =
        format!("release `{active}` is active in tier `{tier}` (generation {}), {own}", current.generation);
    core.become_state(WorkerState::Inactive, Some(reason));
    Next::Wait(due(&current, mine, now))
}

/// The store has no activation of this tier: nobody ever made one, or it came back empty.
async fn without_activation(core: &Arc<Core>, known: u64) -> Next {
    let tier = &core.options.tier;
    if known > 0 {
        // What was active when the store lost its memory goes on, at a generation that nobody has seen.
        let reason = format!(
            "the store of tier `{tier}` has no activation any more, this worker has seen generation {known}"
        );
        core.fail_step(FaultCode::StoreWentBack, reason.clone());
        core.become_state(WorkerState::Inactive, Some(reason.clone()));
        if core.in_charge.load(Relaxed) {
            return install(core, core.release.clone(), known + 1, &reason).await;
        }
        return Next::Wait(None);
    }
    if core.options.release.is_some() {
        core.become_state(WorkerState::Inactive, Some(format!("no release is active in tier `{tier}`")));
        return Next::Wait(None);
    }
    if core.managed_by_others.load(Relaxed) {
        let reason =
            "the tier is managed, and its activation is gone; this worker names no release".to_owned();
        core.become_state(WorkerState::Inactive, Some(reason));
        return Next::Wait(None);
    }
    let Some(workers) = core.heard("claimer", core.store.workers(tier).await) else { return Next::Away };
    if let Some(other) = workers.iter().find(|seen| !seen.is_stale() && !seen.presence.release.is_implicit())
    {
        let reason = format!(
            "worker {} names release `{}`, so the tier is managed; this worker names none",
            other.presence.worker, other.presence.release
        );
        core.become_state(WorkerState::Inactive, Some(reason));
        return Next::Wait(None);
    }
    let why = "the first worker without a release in a tier without an activation";
    install(core, Release::default(), 0, why).await
}

/// When the poll of this worker may revert an activation that nobody confirmed: nobody else may be alive to see to it.
fn due(current: &Activation, mine: &Release, now: Timestamp) -> Option<Duration> {
    let by = current.confirm_by.filter(|_| current.mode == Mode::Provisional)?;
    (current.fallback.as_ref() == Some(mine)).then(|| by.since(now) + AFTER_DUE)
}

/// Makes a release active in a tier without an activation. Only the store's answer to the next claim makes the worker active.
async fn install(core: &Core, release: Release, least: u64, why: &str) -> Next {
    let flip = Flip { least, ..Flip::committed(release) };
    let by = obey::itself(core, why);
    match core.heard("claimer", core.store.flip(&core.options.tier, None, flip, &by).await) {
        Some(Flipped::Now(_)) => Next::Again,
        Some(Flipped::Raced(_) | Flipped::Fenced) => Next::Wait(None), // somebody else did, and that wakes this worker
        None => Next::Away,
    }
}

/// How much to claim.
struct Pace {
    /// Jobs ended per second, smoothed.
    rate: f64,
    at: Instant,
    finished: u64,
}

impl Pace {
    fn new() -> Self {
        Self { rate: 0.0, at: clock::instant(), finished: 0 }
    }

    fn measure(&mut self, core: &Core) {
        let elapsed = self.at.elapsed().as_secs_f64();
        if elapsed < 0.010 {
            return;
        }
        let finished = core.finished.load(Relaxed);
        let now = finished.saturating_sub(self.finished) as f64 / elapsed;
        // A long wait says more than the last few milliseconds did.
        let weight = (elapsed / 0.030).min(1.0);
        self.rate += weight * (now - self.rate);
        (self.at, self.finished) = (clock::instant(), finished);
    }

    /// Room for jobs now, or 0 when it is better to wait: then the claimer is woken when it is worth asking.
    fn room(&mut self, core: &Core) -> usize {
        self.measure(core);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000")]
        let prefetch = (self.rate * PREFETCH).min(MAX_PREFETCH) as usize;
        core.ready.hungry_below(prefetch / 2);
        if core.unsettled.load(Relaxed) > MAX_UNSETTLED {
            return 0; // the settler wakes the claimer after each call
        }
        let (queued, running) = (core.ready.queued(), core.ready.running());
        let target = core.ready.slots() + prefetch;
        let room = target.saturating_sub(queued + running);
        if queued > prefetch / 2 && room < target / 2 { 0 } else { room.min(MAX_BATCH) }
    }
}
