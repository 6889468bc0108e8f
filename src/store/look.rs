//! What every engine does alike when it lists and counts.

use std::collections::BTreeMap;

use super::digest::{COMPLETED, FAILED, INSERTED};
use super::{PageAsk, QueueCensus};
use crate::clock::Timestamp;
use crate::job::{JobRecord, State};
use crate::names::{Kind, Queue};

/// Whether a page that asks so shows a job. Canaries are shown to who names their queue.
pub(super) fn wanted(record: &JobRecord, ask: &PageAsk, now: Timestamp) -> bool {
    (!record.queue.is_canaries() || ask.queue.as_ref().is_some_and(Queue::is_canaries))
        && ask.state.is_none_or(|state| record.state == state)
        && ask.queue.as_ref().is_none_or(|queue| record.queue == *queue)
        && ask.kind.as_ref().is_none_or(|kind| record.kind == *kind)
        && ask.tags.iter().all(|(key, value)| record.extras.tags.get(key) == Some(value))
        && ask
            .error
            .as_ref()
            .is_none_or(|text| record.last_error().is_some_and(|error| error.contains(text.as_str())))
        && ask.older_than.is_none_or(|age| now.since(record.enqueued_at) >= age)
}

/// A queue without jobs.
pub(super) fn empty(queue: Queue) -> QueueCensus {
    QueueCensus {
        queue,
        states: State::ALL.into_iter().map(|state| (state, 0)).collect(),
        kinds: BTreeMap::new(),
        oldest_wait: None,
        inserted_total: 0,
        completed_total: 0,
        failed_total: 0,
    }
}

/// Adds one counter.
pub(super) fn add(entry: &mut QueueCensus, kind: Kind, code: i64, n: u64) {
    match u8::try_from(code) {
        Ok(INSERTED) => entry.inserted_total += n,
        Ok(COMPLETED) => entry.completed_total += n,
        Ok(FAILED) => entry.failed_total += n,
        _ => {
            if let Some(state) = State::from_code(code).filter(|_| n > 0) {
                *entry.states.entry(state).or_default() += n;
                *entry.kinds.entry(kind).or_default().entry(state).or_default() += n;
            }
        }
    }
}
