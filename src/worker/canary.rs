//! Canaries: the worker proves itself with jobs that are sent to it alone, through the real path: inserted, claimed,
//! run by a handler, settled. The first one, and a rehearsal of the activation hook, are its self-test: before they pass
//! it is `starting` and claims nothing else. Canaries need no slot, never wait behind a backlog, and go to workers that
//! are not active as well.
//!
//! Others may send canaries, too, of every kind that declares a payload for it: nobody's `charge_card` is called. A
//! canary passes when the code of its handler gave a receipt, and the store confirmed the outcome.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::hook::{self, Phase};
use super::lease::Lease;
use super::ready::Item;
use super::state::{Core, lock};
use super::{Ended, executor};
use crate::activation::WorkerState;
use crate::ids::{JobId, Nonce};
use crate::job::{Args, Context, Handler, Job, JobResult, NewJob, Outcome};
use crate::names::Kind;
use crate::store::{
    Batch, Claim, ClaimAsk, ErrorKind, FaultCode, Lane, MAX_BATCH, Put, Settle, Settled, Space, StoreError,
    Verdict,
};

/// A canary that is not back by then has failed.
const PATIENCE: Duration = Duration::from_secs(8);
/// Nobody waits for it any longer than this.
const EXPIRES: Duration = Duration::from_secs(30);
/// Between attempts of a self-test that fails.
const AGAIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
const LONGEST: Duration = Duration::from_secs(2);
/// How long the receipts of canaries that others sent are kept.
const KEEP_RECEIPT: Duration = Duration::from_secs(3_600);
/// More canaries than this at once are left for the next look.
const AT_ONCE: usize = MAX_BATCH;

/// The kind of the worker's own canaries: it gives its nonce back as the receipt.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Canary {
    nonce: String,
}

impl Job for Canary {
    const KIND: &'static str = "sluicegate.canary";
    fn timeout() -> Duration {
        PATIENCE
    }
}

impl Handler for Canary {
    async fn run(self, ctx: Context) -> JobResult {
        ctx.receipt(&self.nonce);
        Ok(Outcome::Done)
    }
}

/// What is known of canaries on their way.
#[derive(Debug, Default)]
pub(super) struct Canaries {
    /// Own ones: who waits for them.
    waiting: Mutex<HashMap<JobId, oneshot::Sender<Result<(), String>>>>,
    /// What handlers gave.
    receipts: Mutex<HashMap<JobId, String>>,
    /// Why the last own one failed, if it did.
    error: Mutex<Option<String>>,
}

/// A receipt, as it is kept in `Space::Receipt` under the canary's id.
#[derive(Serialize)]
struct Receipt<'a> {
    worker: &'a str,
    release: &'a str,
    generation: u64,
    kind: &'a str,
    passed: bool,
    /// What the handler gave.
    receipt: Option<String>,
    error: Option<String>,
}

impl Canaries {
    pub(super) fn error(&self) -> Option<String> {
        lock(&self.error).clone()
    }

    /// How the last own one went; `true` when that is news.
    fn went(&self, error: Option<String>) -> bool {
        let mut last = lock(&self.error);
        let changed = last.is_some() != error.is_some();
        *last = error;
        changed
    }

    /// The receipt of a run that is over.
    pub(super) fn receipt(&self, id: JobId) -> Option<String> {
        lock(&self.receipts).get(&id).cloned()
    }

    pub(super) fn keep(&self, id: JobId, receipt: String) {
        lock(&self.receipts).insert(id, receipt);
    }
}

/// Proves itself, and then goes on doing so.
pub(super) async fn prove(core: Arc<Core>) {
    let mut failures = 0;
    while !core.stop.is_cancelled() {
        let passed = tokio::select! { passed = own(&core) => passed, () = core.over.cancelled() => return };
        let proven = match (&passed, core.is_proven()) {
            (Ok(()), false) => {
                core.pass_step(FaultCode::SelfTestFailed);
                rehearse(&core).await
            }
            (Ok(()), true) => true,
            (Err(_), proven) => proven,
        };
        let error = passed.as_ref().err().map(ToString::to_string);
        if let Some(error) = &error
            && !proven
        {
            core.fail_step(FaultCode::SelfTestFailed, error.clone());
        }
        let changed = core.canaries.went(error);
        // A store without room takes no canary, but the jobs that it holds must go on: that is how it gets room again.
        let full = passed.as_ref().is_err_and(Failed::is_for_lack_of_room);
        if proven || full {
            core.prove();
        }
        if changed {
            core.wake_heartbeat.notify_one();
        }
        failures = if passed.is_ok() && proven { 0 } else { failures + 1 };
        let pause = match failures {
            0 => core.options.canary_every,
            n => AGAIN.get(n - 1).unwrap_or(&LONGEST).min(&core.options.canary_every).to_owned(),
        };
        if rest(&core, pause).await {
            return;
        }
    }
}

/// Until the next own canary; those that others sent are run meanwhile. `true` when the worker stops.
async fn rest(core: &Arc<Core>, pause: Duration) -> bool {
    let end = tokio::time::Instant::now() + pause;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => return false,
            () = core.stop.cancelled() => return true,
            () = core.wake_canary.notified() => {
                if let Err(error) = claim(core).await {
                    tracing::debug!(error = %error, "canaries wait, and could not be claimed");
                }
            }
        }
    }
}

async fn rehearse(core: &Core) -> bool {
    let Some(hook) = &core.options.hook else { return true };
    match hook::run(core, hook, Phase::Rehearse, core.generation.load(Relaxed)).await {
        Ok(()) => {
            core.pass_step(FaultCode::ActivationHookFailed);
            true
        }
        Err(why) => {
            let why = format!("the rehearsal of the activation hook failed: {why}");
            // The canary did pass: that it has not must not stand before the cause.
            core.become_state(WorkerState::Starting, Some(why.clone()));
            core.fail_step(FaultCode::ActivationHookFailed, why);
            false
        }
    }
}

/// Why an own canary failed.
enum Failed {
    Store(&'static str, StoreError),
    Otherwise(String),
}

impl Failed {
    fn is_for_lack_of_room(&self) -> bool {
        matches!(self, Self::Store(_, error) if error.kind == ErrorKind::Full)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(step, error) => write!(f, "the canary could not be {step}: {error}"),
            Self::Otherwise(why) => f.write_str(why),
        }
    }
}

/// Sends a canary to itself and waits until it is back.
async fn own(core: &Arc<Core>) -> Result<(), Failed> {
    let (tell, told) = oneshot::channel();
    let nonce = Nonce::new().to_string();
    let bad =
        |error: &dyn std::fmt::Display| Failed::Otherwise(format!("the canary could not be made: {error}"));
    let kind = Kind::new(Canary::KIND).map_err(|error| bad(&error))?;
    let args = Args::of(&Canary { nonce: nonce.clone() }).map_err(|error| bad(&error))?;
    let job = NewJob { silent: true, ..NewJob::canary(kind, args, &core.options.name, EXPIRES) };
    let id = job.id;
    lock(&core.canaries.waiting).insert(id, tell);
    let result = tokio::time::timeout(PATIENCE, there_and_back(core, job, &nonce, told)).await;
    lock(&core.canaries.waiting).remove(&id);
    lock(&core.canaries.receipts).remove(&id);
    let late = || Failed::Otherwise(format!("the canary {id} was not back within {} s", PATIENCE.as_secs()));
    let result = result.unwrap_or_else(|_| Err(late()));
    if result.is_ok() {
        core.canary_at.set(core.now_ms());
    }
    result
}

async fn there_and_back(
    core: &Arc<Core>,
    job: NewJob,
    nonce: &str,
    told: oneshot::Receiver<Result<(), String>>,
) -> Result<(), Failed> {
    let id = job.id;
    let stored = core.store.insert(&core.options.tier, vec![job]).await;
    core.heard("canary", stored.clone().map(drop));
    stored.map_err(|error| Failed::Store("stored", error))?;
    claim(core).await.map_err(|error| Failed::Store("claimed", error))?;
    let gone = || Failed::Otherwise(format!("the canary {id} was stored and claimed, and never settled"));
    told.await.map_err(|_| gone())?.map_err(Failed::Otherwise)?;
    if core.canaries.receipt(id).as_deref() == Some(nonce) {
        Ok(())
    } else {
        Err(Failed::Otherwise(format!("the canary {id} is settled, but its handler gave no receipt")))
    }
}

/// Claims the canaries that wait for this worker, and runs them.
async fn claim(core: &Arc<Core>) -> Result<(), StoreError> {
    let ask = ClaimAsk {
        lane: Lane::Canaries,
        max: AT_ONCE,
        nonce: Nonce::new(),
        suspects: false,
        ..super::claimer::ask_of(core)
    };
    let answer = core.store.claim(ask).await;
    core.heard("canary", answer.as_ref().map(drop).map_err(Clone::clone));
    match answer? {
        Claim::Canaries(batch) => run(core, batch),
        Claim::Superseded => core.doom(Ended::Superseded),
        Claim::Active(_) | Claim::NotActive { .. } => {}
    }
    Ok(())
}

fn run(core: &Arc<Core>, batch: Batch) {
    if batch.jobs.is_empty() {
        return;
    }
    let lease = Arc::new(Lease::of_canaries(&batch, core.now_ms()));
    core.add_lease(&lease);
    for (index, job) in batch.jobs.into_iter().enumerate() {
        executor::spawn_canary(core, Item { lease: Arc::clone(&lease), index, job });
    }
}

/// The store answered the settle of a canary.
pub(super) fn settled(core: &Arc<Core>, kind: &Kind, settle: &Settle, answer: Settled) {
    let error = match (answer, &settle.verdict) {
        (Settled::Lost, _) => Some("its lease was lost before it was settled".to_owned()),
        (_, Verdict::Completed) => None,
        (_, Verdict::Dead { error } | Verdict::Retry { error, .. }) => Some(error.clone()),
        (_, other) => Some(format!("it was not run: {other:?}")),
    };
    let own = lock(&core.canaries.waiting).remove(&settle.id);
    match own {
        Some(tell) => drop(tell.send(error.map_or(Ok(()), Err))), // whoever waited may be gone
        None => keep_receipt(core, kind, settle.id, error),
    }
}

/// Whoever sent it reads its receipt in the store.
fn keep_receipt(core: &Arc<Core>, kind: &Kind, id: JobId, error: Option<String>) {
    let receipt = Receipt {
        worker: core.options.name.as_str(),
        release: core.release.as_str(),
        generation: core.generation.load(Relaxed),
        kind: kind.as_str(),
        passed: error.is_none(),
        receipt: lock(&core.canaries.receipts).remove(&id),
        error,
    };
    let (core, value) = (Arc::clone(core), json!(receipt).to_string());
    tokio::spawn(async move {
        let (tier, key) = (&core.options.tier, id.to_string());
        let put = core.store.put(tier, Space::Receipt, &key, 0, &value, Some(KEEP_RECEIPT));
        match put.await {
            Ok(Put::Done(_) | Put::Raced(_)) => {} // raced: the same canary's receipt is there
            Err(error) => tracing::warn!(%id, %error, "the receipt of a canary could not be stored"),
        }
    });
}
