//! A lease and the jobs under it, shared by the parts that must agree on them: one allocation per claim, no map of jobs.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::waits::{Line, Lines};
use crate::clock::{self, Timestamp};
use crate::ids::{JobId, Nonce};
use crate::names::{Kind, Queue};
use crate::store::{Batch, Claimed};

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;

/// Why a running job was cancelled. The first cause stands, except that a lost lease beats all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cause {
    /// It was not.
    None = 0,
    /// Its time-out.
    TimedOut = 1,
    /// Somebody cancelled the job.
    Asked = 2,
    /// The worker stops.
    Stop = 3,
    /// The job is no longer ours.
    Lost = 4,
}

/// One job under a lease.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: JobId,
    slot: u64,
    /// Its place in the lease.
    pub(super) index: usize,
    pub(super) kind: Kind,
    pub(super) line: Arc<Line>,
    pub(super) attempt: u32,
    /// Waiting, running or done. It becomes done once: whoever does that reports its outcome, and nobody else.
    phase: AtomicU8,
    cause: AtomicU8,
    /// Milliseconds since the worker began.
    started: AtomicU64,
    timeout: AtomicU64,
    stuck: AtomicBool,
    cancel: OnceLock<CancellationToken>,
}

impl Held {
    fn new(index: usize, job: &Claimed, line: Arc<Line>) -> Self {
        Self {
            id: job.id,
            slot: job.slot,
            index,
            kind: job.kind.clone(),
            line,
            attempt: job.failures.saturating_add(1),
            phase: AtomicU8::new(WAITING),
            cause: AtomicU8::new(Cause::None as u8),
            started: AtomicU64::new(0),
            timeout: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            cancel: OnceLock::new(),
        }
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    pub(super) fn place(&self) -> (&Queue, &Kind) {
        (&self.line.queue, &self.kind)
    }

    /// Marks it running; the token is cancelled already if somebody was faster.
    pub(super) fn begin(&self, now_ms: u64, timeout: Duration) -> CancellationToken {
        self.started.store(now_ms, Ordering::Relaxed);
        self.timeout.store(millis(timeout), Ordering::Relaxed);
        let token = self.cancel.get_or_init(CancellationToken::new).clone();
        self.phase.compare_exchange(WAITING, RUNNING, Ordering::SeqCst, Ordering::SeqCst).ok();
        if self.cause() != Cause::None {
            token.cancel();
        }
        token
    }

    /// Marks it done; `true` for the one caller that did.
    pub(super) fn finish(&self) -> bool {
        self.phase.swap(DONE, Ordering::SeqCst) != DONE
    }

    pub(super) fn cause(&self) -> Cause {
        match self.cause.load(Ordering::SeqCst) {
            1 => Cause::TimedOut,
            2 => Cause::Asked,
            3 => Cause::Stop,
            4 => Cause::Lost,
            _ => Cause::None,
        }
    }

    /// Asks it to end.
    pub(super) fn cancel(&self, cause: Cause) {
        if cause == Cause::Lost {
            self.cause.store(cause as u8, Ordering::SeqCst);
        } else {
            let none = Cause::None as u8;
            self.cause.compare_exchange(none, cause as u8, Ordering::SeqCst, Ordering::SeqCst).ok();
        }
        if let Some(token) = self.cancel.get() {
            token.cancel();
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == RUNNING
    }

    pub(super) fn is_done(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == DONE
    }

    /// Whether it runs on although it should have ended: told so by the executor, or seen to be `slack` past its
    /// time-out (a blocked runtime cannot tell).
    pub(super) fn is_stuck(&self, now_ms: u64, slack: Duration) -> bool {
        let end = self.timeout.load(Ordering::Relaxed).saturating_add(millis(slack));
        let late = now_ms.saturating_sub(self.started.load(Ordering::Relaxed)) > end;
        self.is_running() && (late || self.stuck.load(Ordering::Relaxed))
    }

    /// Reports it as stuck, once.
    pub(super) fn mark_stuck(&self) {
        if !self.stuck.swap(true, Ordering::Relaxed) {
            tracing::warn!(id = %self.id, kind = %self.kind, queue = %self.line.queue, cause = ?self.cause(),
                "job ignores its cancellation and keeps its slot");
        }
    }

    fn describe(&self, now_ms: u64) -> String {
        let secs = |ms: u64| clock::human(Duration::from_millis(ms));
        let mut line = format!(
            "{} kind={} queue={} attempt={} running {} of {}",
            self.id,
            self.kind,
            self.line.queue,
            self.attempt,
            secs(now_ms.saturating_sub(self.started.load(Ordering::Relaxed))),
            secs(self.timeout.load(Ordering::Relaxed)),
        );
        match self.cause() {
            Cause::None => {}
            Cause::TimedOut => line.push_str(", timed out"),
            Cause::Asked => line.push_str(", cancelled"),
            Cause::Stop => line.push_str(", cancelled by the stop"),
            Cause::Lost => line.push_str(", lease lost"),
        }
        if self.stuck.load(Ordering::Relaxed) {
            line.push_str(", stuck");
        }
        line
    }
}

/// Jobs that were claimed together.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) nonce: Nonce,
    pub(super) suspect: bool,
    /// The generation its jobs were claimed under.
    pub(super) generation: u64,
    /// Holds canaries, which do not count as work.
    pub(super) canary: bool,
    store_now: Timestamp,
    claimed: Instant,
    /// Jobs whose outcome the store has not confirmed.
    left: AtomicUsize,
    lost: AtomicBool,
    renewed: AtomicU64,
    pub(super) jobs: Box<[Held]>,
}

impl Lease {
    pub(super) fn new(batch: &Batch, now_ms: u64, lines: &Lines) -> Self {
        let mut line = lines.finder();
        let held = |(index, job): (usize, &Claimed)| Held::new(index, job, line(&job.queue));
        Self {
            nonce: batch.nonce,
            suspect: batch.suspect,
            generation: batch.generation,
            canary: false,
            store_now: batch.now,
            claimed: clock::instant(),
            left: AtomicUsize::new(batch.jobs.len()),
            lost: AtomicBool::new(false),
            renewed: AtomicU64::new(now_ms),
            jobs: batch.jobs.iter().enumerate().map(held).collect(),
        }
    }

    /// One that holds canaries, in a line that nobody reads.
    pub(super) fn of_canaries(batch: &Batch, now_ms: u64) -> Self {
        Self { canary: true, ..Self::new(batch, now_ms, &Lines::default()) }
    }

    /// The store's time, by this host's monotonic clock since the claim.
    pub(super) fn store_time(&self) -> Timestamp {
        self.store_time_at(clock::instant())
    }

    /// The same at another moment.
    pub(super) fn store_time_at(&self, at: Instant) -> Timestamp {
        self.store_now.plus(at.saturating_duration_since(self.claimed))
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// The jobs are no longer ours: cancels what runs. Returns how many had not ended.
    pub(super) fn lose(&self) -> usize {
        self.lost.store(true, Ordering::SeqCst);
        let open = self.jobs.iter().filter(|held| !held.is_done());
        open.map(|held| held.cancel(Cause::Lost)).count()
    }

    /// One job less; `true` when it was the last.
    pub(super) fn release_one(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Milliseconds since it was claimed or renewed.
    pub(super) fn age(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.renewed.load(Ordering::Relaxed))
    }

    pub(super) fn renewed(&self, now_ms: u64) {
        self.renewed.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn describe(&self, now_ms: u64) -> Vec<String> {
        self.jobs.iter().filter(|held| held.is_running()).map(|held| held.describe(now_ms)).collect()
    }
}

/// A duration as whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
