//! Taking turns between processes. SQLite's own lock is not fair: a busy writer takes it again before a sleeping one
//! wakes (measured: 15,164 commits against 1). So whoever wants to write queues on a lock of its own first, and lets
//! go of it as soon as it has SQLite's: the next in the queue is then the only one that contends, and the last holder has
//! to queue up behind it.
//!
//! The queue is politeness, not safety. A process that is stopped while it has the turn must not stop the others, so
//! after a quarter of a second they go on without, and do not wait for it again for some time.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::clock::instant;

const PATIENCE: Duration = Duration::from_millis(250);
/// So long nobody waits again for a turn that did not come.
const GRUDGE: Duration = Duration::from_secs(5);

/// This process's place in the queue.
#[derive(Debug)]
pub(super) struct Turn {
    file: Arc<File>,
    ask: SyncSender<()>,
    got: Receiver<()>,
    /// Cleared when we gave up, so that the helper does not keep a lock that nobody uses.
    wanted: Arc<AtomicBool>,
    /// The helper thread still waits for a lock that we gave up on.
    pending: bool,
    /// When we last gave up.
    gave_up: Option<Instant>,
}

impl Turn {
    /// `file` is the store's signal file; only its lock is used here.
    pub(super) fn new(file: Arc<File>) -> std::io::Result<Self> {
        let (ask, asked) = sync_channel::<()>(1);
        let (give, got) = sync_channel::<()>(1);
        let wanted = Arc::new(AtomicBool::new(false));
        let (locked, still_wanted) = (Arc::clone(&file), Arc::clone(&wanted));
        // A blocking flock cannot be given up; this thread does it for us, so that we can.
        std::thread::Builder::new().name("sqlite-turn".into()).stack_size(64 * 1024).spawn(move || {
            while asked.recv().is_ok() {
                if flock(locked.as_fd(), FlockOperation::LockExclusive).is_err() {
                    return;
                }
                if !still_wanted.load(Ordering::SeqCst)
                    && flock(locked.as_fd(), FlockOperation::Unlock).is_err()
                {
                    return;
                }
                if give.send(()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { file, ask, got, wanted, pending: false, gave_up: None })
    }

    /// Waits for the turn, but not for ever: whoever holds it and does not move costs everyone the patience once, and
    /// then nothing for a while.
    pub(super) fn take(&mut self) {
        if self.pending && self.got.try_recv().is_ok() {
            self.pending = false;
            return;
        }
        let impatient = self.gave_up.is_some_and(|at| at.elapsed() < GRUDGE);
        if !self.pending {
            if flock(self.file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.gave_up = None;
                return;
            }
            if impatient {
                return;
            }
            self.wanted.store(true, Ordering::SeqCst);
            self.pending = self.ask.try_send(()).is_ok();
        }
        if !self.pending || impatient {
            return;
        }
        self.wanted.store(true, Ordering::SeqCst);
        match self.got.recv_timeout(PATIENCE) {
            Ok(()) => (self.pending, self.gave_up) = (false, None),
            Err(_) => {
                self.wanted.store(false, Ordering::SeqCst);
                self.gave_up = Some(instant());
            }
        }
    }

    /// Lets the next one queue for SQLite's lock.
    pub(super) fn pass(&mut self) {
        if self.pending && self.got.try_recv().is_ok() {
            self.pending = false;
        }
        if !self.pending
            && let Err(error) = flock(self.file.as_fd(), FlockOperation::Unlock)
        {
            tracing::debug!(%error, "cannot unlock the turn");
        }
    }
}
