//! Claimed jobs that wait for a slot, and the slots. A runner is a task that holds a slot: it takes one job after the
//! other until none waits, so that a short job costs neither a task nor a permit of its own.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::lease::Lease;
use super::state::{Core, lock};
use crate::store::{Batch, Claimed, Verdict};

/// One claimed job on its way.
pub(super) struct Item {
    pub(super) lease: Arc<Lease>,
    pub(super) index: usize,
    pub(super) job: Claimed,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    runners: usize,
    closed: bool,
}

/// The queue between claimer and executor.
pub(super) struct Ready {
    slots: usize,
    inner: Mutex<Inner>,
    queued: AtomicUsize,
    running: AtomicUsize,
    /// The claimer wants to be woken when so few are queued.
    low: AtomicUsize,
    hungry: AtomicBool,
}

impl Ready {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            inner: Mutex::default(),
            queued: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            low: AtomicUsize::new(0),
            hungry: AtomicBool::new(false),
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    pub(super) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// Asks to be woken when room opens while at most `low` jobs are queued.
    pub(super) fn hungry_below(&self, low: usize) {
        self.low.store(low, Relaxed);
        self.hungry.store(true, Relaxed);
    }

    /// Queues jobs; returns how many runners to start for them, or the jobs when it is closed.
    fn push(&self, items: Vec<Item>) -> Result<usize, Vec<Item>> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(items);
        }
        inner.items.extend(items);
        let start = inner.items.len().min(self.slots - inner.runners);
        inner.runners += start;
        self.queued.store(inner.items.len(), Relaxed);
        Ok(start)
    }

    /// The next job for a runner, and whether the claimer was woken for more; `None` ends the runner.
    pub(super) fn next(&self, claimer: &Notify) -> Option<(Item, bool)> {
        let mut inner = lock(&self.inner);
        let item = inner.items.pop_front();
        match &item {
            Some(_) => {
                self.queued.store(inner.items.len(), Relaxed);
                self.running.fetch_add(1, Relaxed);
            }
            None => inner.runners -= 1,
        }
        let low = inner.items.len() <= self.low.load(Relaxed);
        drop(inner);
        let woken = low && self.hungry.swap(false, Relaxed);
        if woken {
            claimer.notify_one();
        }
        item.map(|item| (item, woken))
    }

    /// A job ended; `true` when none runs any more.
    pub(super) fn ended(&self) -> bool {
        self.running.fetch_sub(1, Relaxed) == 1
    }

    fn drain(&self, close: bool) -> VecDeque<Item> {
        let mut inner = lock(&self.inner);
        inner.closed |= close;
        self.queued.store(0, Relaxed);
        std::mem::take(&mut inner.items)
    }
}

impl Core {
    /// Takes a claimed batch in: a lease, its jobs queued, runners for them.
    pub(super) fn take_in(self: &Arc<Self>, batch: Batch) {
        if batch.jobs.is_empty() {
            return;
        }
        let lease = Arc::new(Lease::new(&batch, self.now_ms(), &self.lines));
        self.add_lease(&lease);
        let jobs = batch.jobs.into_iter().enumerate();
        let items = jobs.map(|(index, job)| Item { lease: Arc::clone(&lease), index, job }).collect();
        match self.ready.push(items) {
            Ok(runners) => {
                for _ in 0..runners {
                    super::executor::spawn(self);
                }
            }
            Err(items) => items.into_iter().for_each(|item| self.give_back(item)),
        }
        if self.is_quiet() {
            self.give_back_unstarted(); // it was told while the claim was on its way
        }
    }

    /// Gives a claimed batch back as it came.
    pub(super) fn hand_back(&self, batch: Batch) {
        if batch.jobs.is_empty() {
            return;
        }
        let lease = Arc::new(Lease::new(&batch, self.now_ms(), &self.lines));
        self.add_lease(&lease);
        for held in &lease.jobs {
            self.report(&lease, held, std::time::Duration::ZERO, Verdict::Return);
        }
    }

    /// Gives back what has not begun.
    pub(super) fn give_back_unstarted(&self) {
        self.ready.drain(false).into_iter().for_each(|item| self.give_back(item));
    }

    /// The same, for good: what comes later is given back as well.
    pub(super) fn close_ready(&self) {
        self.ready.drain(true).into_iter().for_each(|item| self.give_back(item));
    }

    fn give_back(&self, item: Item) {
        if let Some(held) = item.lease.jobs.get(item.index) {
            self.report(&item.lease, held, std::time::Duration::ZERO, Verdict::Return);
        }
    }
}
