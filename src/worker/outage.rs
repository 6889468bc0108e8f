//! Whether the store answers, and the few log lines about it: at most one in ten seconds per process, however many
//! parts and workers notice.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::store::StoreError;

/// The longest delay between attempts to reach it: with what a connection takes, work resumes within three seconds.
pub(super) const RECONNECT: Duration = Duration::from_millis(1_500);
const BETWEEN_LINES: Duration = Duration::from_secs(10);
static LAST_LINE: Mutex<Option<Instant>> = Mutex::new(None);

fn may_log() -> bool {
    let now = clock::instant();
    let mut last = LAST_LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let free = last.is_none_or(|last| now.duration_since(last) >= BETWEEN_LINES);
    if free {
        *last = Some(now);
    }
    free
}

#[derive(Debug, Default)]
struct Inner {
    /// The parts of the worker whose last call failed: the error, and since when they have had no answer. A claim that only looks
    /// may be answered while nothing can be written, so each part speaks for itself.
    down: BTreeMap<&'static str, (String, Instant)>,
    /// When the outage began that the log knows of.
    told: Option<Instant>,
}

impl Inner {
    fn longest(&self) -> Option<&(String, Instant)> {
        self.down.values().min_by_key(|(_, since)| *since)
    }
}

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Inner>);

impl Outage {
    /// A call of a part failed.
    pub(super) fn failed(&self, part: &'static str, error: &StoreError) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = inner.down.get(part).map_or_else(clock::instant, |(_, since)| *since);
        inner.down.insert(part, (error.to_string(), since));
        drop(inner);
        self.tell();
    }

    /// A call of a part was answered.
    pub(super) fn answered(&self, part: &'static str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.down.remove(part).is_some() || inner.told.is_some();
        drop(inner);
        if known {
            self.tell();
        }
    }

    /// The error of the part that has been without an answer for longest, and for how many seconds.
    pub(super) fn down(&self) -> Option<(String, f64)> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.longest().map(|(error, since)| (error.clone(), since.elapsed().as_secs_f64()))
    }

    /// Logs a change that the log does not know yet, as soon as the limit allows it. Called at each heartbeat as well,
    /// so that "answers again" is said even when it came within the limit.
    pub(super) fn tell(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (inner.longest(), inner.told) {
            (Some((error, since)), None) if may_log() => {
                tracing::warn!(%error, "store is away: running jobs go on, outcomes are kept");
                let since = *since;
                inner.told = Some(since);
            }
            (None, Some(since)) if may_log() => {
                tracing::info!(after = %clock::human(since.elapsed()), "store answers again");
                inner.told = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErrorKind;

    #[test]
    fn an_answer_to_one_part_is_no_answer_to_another() {
        let error = StoreError::new("settle", "here", ErrorKind::Full, "disk full");
        let outage = Outage::default();
        outage.failed("settler", &error);
        outage.answered("claimer");
        assert!(outage.down().is_some_and(|(text, _)| text.contains("disk full")));
        outage.answered("settler");
        assert!(outage.down().is_none());
    }

    #[test]
    fn a_flapping_store_is_one_line_in_ten_seconds() {
        let error = StoreError::new("claim", "here", ErrorKind::Unavailable, "away");
        let outage = Outage::default();
        for _ in 0..1_000 {
            outage.failed("claimer", &error);
            assert!(outage.down().is_some_and(|(text, _)| text.contains("away")));
            outage.answered("claimer");
            assert!(outage.down().is_none());
        }
        // Whoever logged first in this process, there is no second line now.
        assert!(!may_log());
    }
}
