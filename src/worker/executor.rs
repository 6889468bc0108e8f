//! Runs jobs, each isolated from the others: a panic, a time-out or a handler that ignores its cancellation costs that
//! one attempt.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::lease::{Cause, Held};
use super::outcome::{self, Attempt, End};
use super::ready::Item;
use super::state::{Core, Runnable};
use crate::clock;
use crate::job::handler::{self, Receipt, STUCK};
use crate::job::{Context, JobResult};
use crate::store::{Claimed, Verdict};

/// A stop waits no longer than this for a job that it cancelled.
const STOP_CANCEL_GRACE: Duration = Duration::from_secs(1);

/// Starts a runner: it holds a slot until no job waits.
pub(super) fn spawn(core: &Arc<Core>) {
    let of = Arc::clone(core);
    super::conductor::supervise(core, "executor", async move {
        while let Some((item, woken)) = of.ready.next(&of.wake_claimer) {
            // Whom a task wakes runs next on the same thread, and on no other: a handler that blocks it would hold up the claims…
            if woken {
                tokio::task::yield_now().await;
            }
            if run(&of, item).await {
                tokio::task::yield_now().await; // …and the settles of the whole worker.
            }
            // Handlers that are ready at once would otherwise keep this thread from everything else.
            tokio::task::consume_budget().await;
        }
    });
}

/// Runs a canary at once: it needs no slot, and does not count as work.
pub(super) fn spawn_canary(core: &Arc<Core>, item: Item) {
    let of = Arc::clone(core);
    super::conductor::supervise(core, "canary's runner", async move {
        let lease = Arc::clone(&item.lease);
        if let Some(held) = lease.jobs.get(item.index) {
            let begun = clock::instant();
            let verdict = run_canary(&of, item, held).await;
            of.report(&lease, held, begun.elapsed(), verdict);
        }
    });
}

async fn run_canary(core: &Core, mut item: Item, held: &Held) -> Verdict {
    let id = item.job.id;
    let own = item.job.kind == core.canary.entry.info.kind;
    let kind = if own { Some(&core.canary) } else { core.kinds.get(&item.job.kind) };
    let Some(kind) = kind else {
        let error = format!("no handler of this worker is for kind `{}`", item.job.kind);
        return Verdict::Dead { error };
    };
    if !own {
        let Some(payload) = &kind.entry.info.canary else {
            let error =
                format!("kind `{}` declares no canary payload: it is not run for real", item.job.kind);
            return Verdict::Dead { error };
        };
        (item.job.args, item.job.version) = (payload.clone(), kind.entry.info.version);
    }
    let given = Arc::new(std::sync::Mutex::new(None));
    let verdict = attempt(core, &item, held, kind, Some(Arc::clone(&given))).await;
    let receipt = super::state::lock(&given).take();
    match (verdict, receipt) {
        (Verdict::Completed, None) => {
            Verdict::Dead { error: "the handler said done, but gave no receipt".to_owned() }
        }
        (verdict, receipt) => {
            if let Some(receipt) = receipt {
                core.canaries.keep(id, receipt);
            }
            verdict
        }
    }
}

/// Whether the settler was woken for its outcome.
async fn run(core: &Core, item: Item) -> bool {
    let lease = Arc::clone(&item.lease);
    let mut woken = false;
    // There by construction: the lease was made from the same batch.
    if let Some(held) = lease.jobs.get(item.index) {
        let begun = clock::instant();
        let waited = lease.store_time_at(begun).since(item.job.due_at);
        let (verdict, ran) = match runnable(core, &item, held) {
            Err(verdict) => (verdict, None),
            Ok(kind) => {
                // Now, and not when it has ended: a wait must show while the jobs that waited run.
                held.line.waits.add(waited);
                (attempt(core, &item, held, kind, None).await, Some(begun.elapsed()))
            }
        };
        core.watched(&item, held, waited, ran, &verdict);
        woken = core.report(&lease, held, ran.unwrap_or_default(), verdict);
    }
    core.finished.fetch_add(1, Relaxed);
    core.progress_at.set(core.now_ms());
    if core.ready.ended() {
        core.calmer.notify_waiters();
    }
    woken
}

/// What runs a job, or why it is not begun at all.
fn runnable<'c>(core: &'c Core, item: &Item, held: &Held) -> Result<&'c Runnable, Verdict> {
    let job = &item.job;
    match held.cause() {
        Cause::Asked => return Err(Verdict::Cancelled),
        Cause::Stop | Cause::Lost => return Err(Verdict::Return),
        Cause::None | Cause::TimedOut => {}
    }
    if job.expires_at.is_some_and(|at| at <= item.lease.store_time()) {
        return Err(Verdict::Expired);
    }
    match core.kinds.get(&job.kind) {
        None => Err(outcome::unknown(job.kind.as_str())),
        Some(kind) if job.version > kind.entry.info.version => {
            Err(outcome::newer(job.version, kind.entry.info.version))
        }
        Some(kind) => Ok(kind),
    }
}

async fn attempt(core: &Core, item: &Item, held: &Held, kind: &Runnable, canary: Option<Receipt>) -> Verdict {
    let job = &item.job;
    let info = &kind.entry.info;
    let extras = job.extras.clone().unwrap_or_else(|| Arc::clone(&core.no_extras));
    let timeout = extras.timeout.unwrap_or(info.timeout);
    let token = held.begin(core.now_ms(), timeout);
    if canary.is_none() {
        core.progress_at.set(core.now_ms());
    }

    let retry = extras.retry.as_ref().unwrap_or(&info.retry);
    let mut ctx = context(core, job, kind, Arc::clone(&extras), retry.max_attempts, token.clone());
    ctx.canary = canary;
    let span = ctx.span.clone();
    let begin =
        std::panic::catch_unwind(AssertUnwindSafe(|| (kind.entry.begin)(&job.args, job.version, ctx)));
    let end = match begin {
        Err(panic) => End::Panicked(outcome::panic_message(&*panic)),
        Ok(Err(error)) => return outcome::undecodable(&error),
        Ok(Ok(work)) => {
            let guard = Guarded { held, token: &token, timeout, cancel_grace: core.options.cancel_grace };
            if info.blocking { guard.on_a_thread(work, span).await } else { guard.here(work, span).await }
        }
    };
    let now = item.lease.store_time();
    let verdict = Attempt { cause: held.cause(), failures: job.failures, retry, timeout, now }.verdict(end);
    tell(job, &verdict);
    verdict
}

fn context(
    core: &Core,
    job: &Claimed,
    kind: &Runnable,
    extras: Arc<crate::job::new::Extras>,
    max_attempts: u32,
    cancel: CancellationToken,
) -> Context {
    let attempt = job.failures.saturating_add(1);
    Context {
        id: job.id,
        tier: core.options.tier.clone(),
        kind: job.kind.clone(),
        queue: job.queue.clone(),
        attempt,
        max_attempts,
        enqueued_at: job.enqueued_at,
        expires_at: job.expires_at,
        extras,
        worker: core.options.name.clone(),
        release: core.release.clone(),
        cancel,
        settings: Arc::clone(&kind.settings),
        shared: core.shared.clone(),
        effects: Arc::clone(&core.effects),
        canary: None,
        span: tracing::info_span!("job", id = %job.id, kind = %job.kind, queue = %job.queue, attempt),
    }
}

/// Says what did not go well. Never the error's text: it may quote a payload, and the store keeps it with the job.
fn tell(job: &Claimed, verdict: &Verdict) {
    let attempt = job.failures.saturating_add(1);
    match verdict {
        Verdict::Retry { delay, .. } => {
            tracing::info!(id = %job.id, kind = %job.kind, attempt, again_in = %clock::human(*delay), "attempt failed");
        }
        Verdict::Dead { .. } => tracing::warn!(id = %job.id, kind = %job.kind, attempt, "job is dead"),
        Verdict::Park { why, .. } => {
            tracing::warn!(id = %job.id, kind = %job.kind, why = why.as_str(), "job is parked");
        }
        _ => {}
    }
}

/// One attempt under its time-out and cancellation.
struct Guarded<'a> {
    held: &'a Held,
    token: &'a CancellationToken,
    timeout: Duration,
    cancel_grace: Duration,
}

impl Guarded<'_> {
    /// On this task. The first poll comes before any timer: most short jobs are done with it.
    async fn here(&self, work: BoxFuture<'static, JobResult>, span: tracing::Span) -> End {
        let mut work = AssertUnwindSafe(work.instrument(span)).catch_unwind();
        let first = std::future::poll_fn(|cx| Poll::Ready(work.poll_unpin(cx))).await;
        let result = match first {
            Poll::Ready(result) => Some(result),
            Poll::Pending => tokio::select! {
                biased;
                result = &mut work => Some(result),
                () = self.due() => tokio::select! {
                    biased;
                    result = &mut work => Some(result),
                    () = tokio::time::sleep(self.patience()) => None,
                },
            },
        };
        // What a handler holds may panic when it is dropped, too.
        let dropped = std::panic::catch_unwind(AssertUnwindSafe(move || drop(work)));
        match (result, dropped) {
            (Some(Ok(result)), Ok(())) => End::Returned(result),
            (Some(Err(panic)), _) | (_, Err(panic)) => End::Panicked(outcome::panic_message(&*panic)),
            (None, Ok(())) => End::Dropped,
        }
    }

    /// On a thread of its own. A future that waits can be dropped there as well; code that burns CPU or blocks can
    /// not be ended by anybody: it is reported as stuck, and keeps its slot and its lease until it returns.
    async fn on_a_thread(&self, work: BoxFuture<'static, JobResult>, span: tracing::Span) -> End {
        let abandon = CancellationToken::new();
        let mut thread = handler::on_a_thread(work, span, abandon.clone());
        let mut joined = tokio::select! {
            biased;
            joined = &mut thread => Some(joined),
            () = self.due() => tokio::time::timeout(self.patience(), &mut thread).await.ok(),
        };
        if joined.is_none() {
            abandon.cancel();
            joined = tokio::time::timeout(STUCK, &mut thread).await.ok();
        }
        let joined = match joined {
            Some(joined) => joined,
            None => {
                self.held.mark_stuck();
                thread.await
            }
        };
        match joined {
            Ok(Ok(Some(result))) => End::Returned(result),
            Ok(Ok(None)) => End::Dropped,
            Ok(Err(panic)) => End::Panicked(outcome::panic_message(&*panic)),
            Err(_) => End::Dropped, // the runtime is going away
        }
    }

    /// Returns when the attempt has been cancelled, by its time-out or by somebody.
    async fn due(&self) {
        tokio::select! {
            () = self.token.cancelled() => {}
            () = tokio::time::sleep(self.timeout) => self.held.cancel(Cause::TimedOut),
        }
    }

    /// How long a cancelled attempt may take to end by itself.
    fn patience(&self) -> Duration {
        match self.held.cause() {
            Cause::Stop | Cause::Lost => self.cancel_grace.min(STOP_CANCEL_GRACE),
            _ => self.cancel_grace,
        }
    }
}
