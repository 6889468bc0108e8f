//! Takes jobs from the store: only as many as can start soon, and again as soon as half of them have begun, so that
//! claims, jobs and settles overlap. Wake-ups drive it; polling is the fallback.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Ended;
use super::outage::RECONNECT;
use super::state::Core;
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock;
use crate::ids::Nonce;
use crate::names::Release;
use crate::retry::Reconnect;
use crate::store::{Actor, Batch, Claim, ClaimAsk, ErrorKind, Flip, Flipped, Lane, MAX_BATCH, Wake};

/// Claimed ahead of the slots is what runs in this time, …
const PREFETCH: f64 = 0.050;
/// …and never more than this.
const MAX_PREFETCH: f64 = 1_000.0;
/// No claims while more outcomes than this wait to be settled.
const MAX_UNSETTLED: usize = 4 * MAX_BATCH;
/// The claim loop ticks at least this often, as a sign of life, with or without a call.
const TICK: Duration = Duration::from_secs(1);

/// What to do after an answer.
enum Next {
    /// Ask again as soon as there is room.
    Again,
    /// Nothing more is there: wait to be woken.
    Wait,
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
        core.ticks.fetch_add(1, Relaxed);
        let room = if core.is_quiet() { 0 } else { pace.room(&core) };
        if room == 0 {
            nudged(&core, TICK).await;
            continue;
        }
        // Subscribe before asking: what is enqueued between the answer and the wait must not be missed.
        if wake.is_none() {
            core.calling();
            wake = core.subscribed("claimer", core.store.subscribe(&core.options.tier).await);
        }
        let suspects = !core.suspect.load(Relaxed);
        let next = if wake.is_some() { ask(&core, room, suspects, &mut unheard).await } else { Next::Away };
        match next {
            Next::Again => reconnect.reset(),
            Next::Wait => {
                reconnect.reset();
                if let Some(wake) = &mut wake {
                    idle(&core, wake.as_mut(), suspects).await;
                }
            }
            Next::Away => {
                wake = None; // what happened meanwhile may not have reached it
                let delay = reconnect.next_delay();
                tokio::select! { () = tokio::time::sleep(delay) => {} () = core.stop.cancelled() => {} }
            }
            Next::End => return,
        }
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

/// Waits for something new. Without a wake-up it returns a good second after the worker's last call of any kind: beats
/// and sweeps count, so that an idle worker makes at most one call a second in all.
async fn idle(core: &Core, wake: &mut dyn Wake, asked_for_suspects: bool) {
    let every = 1_500 + fastrand::u64(..400);
    loop {
        let since = core.now_ms().saturating_sub(core.last_call.load(Relaxed));
        let Some(left) = every.checked_sub(since).filter(|&left| left > 0) else { return };
        let left = Duration::from_millis(left).min(TICK);
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
        core.ticks.fetch_add(1, Relaxed);
    }
}

/// `unheard` is the nonce of a claim whose answer was lost: perhaps it took jobs.
async fn ask(core: &Arc<Core>, max: usize, suspects: bool, unheard: &mut Option<Nonce>) -> Next {
    let nonce = unheard.take().unwrap_or_default();
    let ask = ClaimAsk {
        lane: Lane::Jobs,
        tier: core.options.tier.clone(),
        worker: core.options.name.clone(),
        incarnation: core.incarnation,
        release: core.release.clone(),
        generation: core.generation.load(Relaxed),
        queues: core.options.queues.clone(),
        max,
        lease: core.options.lease,
        nonce,
        suspects,
    };
    core.calling();
    let answer = core.store.claim(ask).await;
    *unheard = answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Timeout).then_some(nonce);
    match core.heard("claimer", answer) {
        None => Next::Away,
        Some(Claim::Active(batch)) => serve(core, batch),
        Some(Claim::NotActive { current, .. }) => stand_by(core, current).await,
        Some(Claim::Canaries(_)) => Next::Wait, // the answer to another question
        Some(Claim::Superseded) => {
            core.doom(Ended::Superseded);
            Next::End
        }
    }
}

fn serve(core: &Arc<Core>, batch: Batch) -> Next {
    core.claim_answered();
    core.generation.fetch_max(batch.generation, Relaxed);
    core.become_state(WorkerState::Active, None);
    core.backlog.store(batch.more, Relaxed);
    // Also when nothing was taken: then what was too late went, and what waits behind it is next.
    let again = batch.more;
    core.take_in(batch);
    if again { Next::Again } else { Next::Wait }
}

/// The store says that this worker may not claim: gives back what has not begun, and says why.
async fn stand_by(core: &Arc<Core>, current: Option<Activation>) -> Next {
    core.claim_answered();
    core.backlog.store(false, Relaxed);
    core.give_back_unstarted();
    let tier = &core.options.tier;
    let Some(current) = current else {
        if core.options.release.is_none() {
            return activate_itself(core).await;
        }
        core.become_state(WorkerState::Inactive, Some(format!("no release is active in tier `{tier}`")));
        return Next::Wait;
    };
    let (active, mine) = (&current.release, &core.release);
    let known = core.generation.load(Relaxed);
    let reason = if active != mine {
        let own = match &core.options.release {
            Some(mine) => format!("this worker is `{mine}`"),
            None => "this worker names no release".to_owned(),
        };
        format!("release `{active}` is active in tier `{tier}` (generation {}), {own}", current.generation)
    } else {
        let now = current.generation;
        format!(
            "the store of tier `{tier}` went back: it is at generation {now}, this worker has seen {known}"
        )
    };
    core.become_state(WorkerState::Inactive, Some(reason));
    Next::Wait
}

/// Nobody ever activated anything, and this worker names no release: the tier is unmanaged, and `default` serves it.
/// Only the store's answer to the next claim makes the worker active.
async fn activate_itself(core: &Core) -> Next {
    let flip = Flip {
        release: Release::default(),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
    };
    let reason = Some("the first worker without a release in a tier without an activation".to_owned());
    let by = Actor { who: format!("worker/{}", core.options.name), reason };
    core.calling();
    match core.heard("claimer", core.store.flip(&core.options.tier, None, flip, &by).await) {
        Some(Flipped::Now(_)) => Next::Again,
        Some(Flipped::Raced(_)) => Next::Wait, // somebody else did, and that wakes this worker
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
