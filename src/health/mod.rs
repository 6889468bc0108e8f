//! Health: facts are gathered, rules judge them purely, a verdict is a value that faces render.

use crate::worker::{Facts, Worker};

/// Where a probe finds the facts. It must answer from memory.
pub trait Source: Send + Sync + 'static {
    /// A snapshot; `None` when there is none (the worker's own bookkeeping is broken).
    fn facts(&self) -> Option<Facts>;
}

impl Source for Worker {
    fn facts(&self) -> Option<Facts> {
        Worker::facts(self)
    }
}
