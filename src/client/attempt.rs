//! One run in the caller: under a deadline, and isolated, so that a panic or a hang costs this run and nothing else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::clock;
use crate::job::handler::{self, STUCK, chain, panic_message};
use crate::job::registry::Entry;
use crate::job::{Args, Context, JobResult, Outcome};

/// How a run ended.
pub(super) enum Ended {
    Done,
    Failed(Failed),
    /// Its thread is deaf to its cancellation, and goes on.
    Stuck(JoinHandle<std::thread::Result<Option<JobResult>>>),
}

/// A run that did not complete its job. The queue decides what becomes of it, whatever the handler asked for: giving up, parking
/// and counting attempts are made where operators see them.
pub(super) struct Failed {
    pub(super) error: String,
    /// When the handler wants the next run; zero for at once.
    pub(super) after: Duration,
}

/// Runs it. The handler is dropped at the deadline, wherever it is.
pub(super) async fn run(
    entry: &Arc<Entry>,
    args: &Args,
    version: u32,
    ctx: Context,
    limit: Duration,
) -> Ended {
    let (cancel, span) = (ctx.cancel.clone(), ctx.span.clone());
    let begun = std::panic::catch_unwind(AssertUnwindSafe(|| (entry.begin)(args, version, ctx)));
    let work = match begun {
        Ok(Ok(work)) => work,
        Ok(Err(error)) => return failed(format!("its args cannot be read: {}", chain(&error))),
        Err(panic) => return panicked(&*panic),
    };
    if entry.info.blocking {
        on_a_thread(work, span, cancel, limit).await
    } else {
        here(work, span, cancel, limit).await
    }
}

async fn here(
    work: BoxFuture<'static, JobResult>,
    span: tracing::Span,
    cancel: CancellationToken,
    limit: Duration,
) -> Ended {
    let mut work = AssertUnwindSafe(work.instrument(span)).catch_unwind();
    let ended = tokio::time::timeout(limit, &mut work).await;
    cancel.cancel();
    // What a handler holds may panic when it is dropped, too.
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(move || drop(work)));
    match (ended, dropped) {
        (Ok(Ok(result)), Ok(())) => returned(result),
        (Ok(Err(panic)), _) | (_, Err(panic)) => panicked(&*panic),
        (Err(_), Ok(())) => timed_out(limit),
    }
}

async fn on_a_thread(
    work: BoxFuture<'static, JobResult>,
    span: tracing::Span,
    cancel: CancellationToken,
    limit: Duration,
) -> Ended {
    let mut thread = handler::on_a_thread(work, span, cancel.clone());
    let mut joined = tokio::time::timeout(limit, &mut thread).await.ok();
    if joined.is_none() {
        cancel.cancel();
        joined = tokio::time::timeout(STUCK, &mut thread).await.ok();
    }
    match joined {
        Some(Ok(ended)) => of_thread(ended, limit),
        Some(Err(_)) => failed("its thread ended with the runtime".to_owned()),
        None => Ended::Stuck(thread),
    }
}

/// What a thread came to, in time or not.
pub(super) fn of_thread(ended: std::thread::Result<Option<JobResult>>, limit: Duration) -> Ended {
    match ended {
        Ok(Some(result)) => returned(result),
        Ok(None) => timed_out(limit),
        Err(panic) => panicked(&*panic),
    }
}

fn returned(result: JobResult) -> Ended {
    let (error, after) = match result {
        Ok(Outcome::Done) => return Ended::Done,
        Ok(Outcome::RetryIn(after, error)) => (error, after),
        Ok(Outcome::RetryAt(at, error)) => (error, at.since(clock::wall())),
        Ok(Outcome::Snooze(after)) => ("asked to be called later".to_owned(), after),
        Ok(Outcome::Dead(error) | Outcome::Park(error) | Outcome::Uncertain(error)) => {
            (error, Duration::ZERO)
        }
        Err(error) => (chain(&error), Duration::ZERO),
    };
    Ended::Failed(Failed { error, after })
}

fn failed(error: String) -> Ended {
    Ended::Failed(Failed { error, after: Duration::ZERO })
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Ended {
    failed(format!("panicked: {}", panic_message(panic)))
}

fn timed_out(limit: Duration) -> Ended {
    failed(format!("timed out after {}", clock::human(limit)))
}
