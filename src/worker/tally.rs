//! How the first attempts of each kind went, as far as the store has confirmed it: against the kind's baseline, and
//! counted for whoever judges the release. Retries do not count, nor does what ended without a say of the handler.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use super::baseline::Baseline;
use super::settler::Outcome;
use super::state::{Core, lock};
use crate::clock::{self, Timestamp};
use crate::names::{Kind, shown_long};
use crate::store::{Failing, MAX_TALLIES, MAX_TALLY_ERRORS, Settled, Tallies, Tally, Verdict};

/// What is known of each kind.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    kinds: HashMap<Kind, Known>,
    /// The generation that is counted, and since when (store time).
    generation: u64,
    since: Timestamp,
}

#[derive(Debug, Default)]
struct Known {
    baseline: Baseline,
    tally: Tally,
    error: String,
}

/// How one attempt ended.
struct End<'a> {
    kind: &'a Kind,
    error: Option<&'a str>,
    canary: bool,
    generation: u64,
}

impl Outcomes {
    /// Counts anew from a generation on.
    fn begin(&mut self, generation: u64, now: Timestamp) {
        (self.generation, self.since) = (generation, now);
        for known in self.kinds.values_mut() {
            (known.tally, known.error) = (Tally::default(), String::new());
        }
    }

    /// Counts; what was claimed under an earlier generation says nothing of this one.
    fn count(&mut self, end: &End<'_>, times: u64) {
        if !end.canary && end.generation < self.generation {
            return;
        }
        let known = self.kinds.entry(end.kind.clone()).or_default();
        match (end.canary, end.error) {
            (false, None) => known.tally.count(times, 0),
            (false, Some(_)) => known.tally.count(0, times),
            (true, None) => known.tally.canaries_passed += times,
            (true, Some(_)) => known.tally.canaries_failed += times,
        }
        if let Some(error) = end.error {
            error.clone_into(&mut known.error);
        }
    }

    /// The kinds that fail far above what is usual for them.
    pub(super) fn failing(&self, now: Instant) -> Vec<Failing> {
        self.kinds.iter().filter_map(|(kind, known)| known.baseline.failing(kind, now)).collect()
    }

    /// What to tell; `None` before the first outcome. Failures are named before successes.
    pub(super) fn tell(&self, now: Instant) -> Option<Tallies> {
        let counted = self.kinds.iter().filter(|(_, known)| !known.tally.is_empty());
        let mut counted: Vec<(&Kind, &Known)> = counted.collect();
        if counted.is_empty() {
            return None;
        }
        counted.sort_by_key(|(kind, known)| {
            let tally = &known.tally;
            (Reverse(tally.failed + tally.canaries_failed), Reverse(tally.ok), *kind)
        });
        let (named, rest) = counted.split_at(counted.len().min(MAX_TALLIES));
        let mut told = Tallies { generation: self.generation, since: self.since, ..Tallies::default() };
        for (kind, known) in named {
            let trend = known.baseline.trend(now);
            told.kinds.insert((*kind).clone(), Tally { trend, ..known.tally });
        }
        for (_, known) in rest {
            told.other.add(&known.tally);
        }
        for (kind, known) in named.iter().filter(|(_, known)| !known.error.is_empty()).take(MAX_TALLY_ERRORS)
        {
            told.errors.insert((*kind).clone(), shown_long(&known.error));
        }
        Some(told)
    }
}

/// Takes in a batch of outcomes that the store has answered.
pub(super) fn take_in(core: &Core, batch: &[Outcome], answers: &[Settled]) {
    let (now, wall) = (clock::instant(), clock::wall());
    let ends = batch.iter().zip(answers).filter(|(_, answer)| **answer != Settled::Lost);
    let ends: Vec<End<'_>> = ends.filter_map(|(outcome, _)| end(core, outcome)).collect();
    let newest = ends.iter().filter(|end| !end.canary).map(|end| end.generation).max().unwrap_or_default();
    let mut outcomes = lock(&core.outcomes);
    if newest > outcomes.generation {
        outcomes.begin(newest, core.store_now());
    }
    let mut changed = false;
    // Most batches are one run of successes of one kind.
    let alike = |a: &End<'_>, b: &End<'_>| {
        (a.kind, a.canary, a.generation) == (b.kind, b.canary, b.generation)
            && a.error.is_none()
            && b.error.is_none()
    };
    for run in ends.chunk_by(alike) {
        let Some(end) = run.first() else { continue };
        outcomes.count(end, run.len() as u64);
        if end.canary {
            continue;
        }
        let kind = end.kind;
        let baseline = &mut outcomes.kinds.entry(kind.clone()).or_default().baseline;
        let turned = match end.error {
            None => baseline.succeeded(u32::try_from(run.len()).unwrap_or(u32::MAX), now, wall),
            Some(error) => baseline.failed(error, now, wall),
        };
        if turned {
            let failing = baseline.failing(kind, now).is_some();
            tracing::warn!(%kind, release = %core.release, failing, "first attempts of this kind fail far above what is usual, or no longer");
        }
        changed |= turned;
    }
    drop(outcomes);
    if changed {
        core.wake_heartbeat.notify_one();
    }
}

/// A first attempt, or a canary that somebody else sent.
fn end<'o>(core: &Core, outcome: &'o Outcome) -> Option<End<'o>> {
    let held = outcome.held()?;
    let canary = outcome.is_canary();
    let counts = if canary { held.kind != core.canary.entry.info.kind } else { held.attempt == 1 };
    let error = match &outcome.settle().verdict {
        Verdict::Completed => None,
        Verdict::Retry { error, .. } | Verdict::Dead { error } => Some(error.as_str()),
        _ => return None,
    };
    counts.then(|| End { kind: &held.kind, error, canary, generation: outcome.generation() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kind(name: &str) -> Kind {
        Kind::new(name).unwrap()
    }

    fn ended<'a>(kind: &'a Kind, error: Option<&'a str>, generation: u64) -> End<'a> {
        End { kind, error, canary: false, generation }
    }

    #[test]
    fn an_earlier_generation_is_not_mixed_in() {
        let (mail, mut outcomes) = (kind("mail"), Outcomes::default());
        assert_eq!(
            outcomes.tell(clock::instant()),
            None,
            "before the first outcome there is nothing to tell"
        );
        outcomes.begin(4, Timestamp::from_ms(1));
        outcomes.count(&ended(&mail, Some("no route"), 4), 1);
        outcomes.begin(6, Timestamp::from_ms(2));
        outcomes.count(&ended(&mail, Some("late"), 4), 1);
        outcomes.count(&ended(&mail, None, 6), 3);
        let told = outcomes.tell(clock::instant()).unwrap();
        assert_eq!((told.generation, told.since), (6, Timestamp::from_ms(2)));
        assert_eq!((told.kinds[&mail].ok, told.kinds[&mail].failed), (3, 0));
        assert!(told.errors.is_empty());
    }

    #[test]
    fn canaries_are_counted_apart() {
        let (mail, mut outcomes) = (kind("mail"), Outcomes::default());
        outcomes.begin(4, Timestamp::from_ms(1));
        let canary = End { canary: true, ..ended(&mail, Some("no route"), 0) };
        outcomes.count(&canary, 2);
        let told = outcomes.tell(clock::instant()).unwrap();
        assert_eq!(<[u64; 6]>::from(told.kinds[&mail]), [0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn what_is_told_stays_small_and_names_failures_first() {
        let mut outcomes = Outcomes::default();
        let long = "é".repeat(4_000);
        let name = |n: u32| kind(&format!("{n}-{}", "k".repeat(50)));
        for n in 0..1_000 {
            let kind = name(n);
            outcomes.count(&ended(&kind, None, 0), 1_000_000);
            outcomes.count(&ended(&kind, (n >= 900).then_some(&long), 0), 1_000_000);
            let baseline = &mut outcomes.kinds.get_mut(&kind).unwrap().baseline;
            baseline.succeeded(1_000_000, clock::instant(), Timestamp::default());
            baseline.failed("no route", clock::instant(), Timestamp::default());
        }
        let told = outcomes.tell(clock::instant()).unwrap();
        assert_eq!((told.kinds.len(), told.errors.len()), (MAX_TALLIES, MAX_TALLY_ERRORS));
        assert!((900..1_000).all(|n| told.kinds[&name(n)].failed == 1_000_000));
        let all = told.kinds.values().map(|tally| tally.ok + tally.failed).sum::<u64>();
        assert_eq!(all + told.other.ok + told.other.failed, 2_000_000_000, "nothing is dropped");
        let size = serde_json::to_string(&told).unwrap().len();
        println!("{size} bytes");
        assert!(size < 25_000, "{size} bytes");
    }
}
