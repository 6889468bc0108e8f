//! Which canaries are still missing: each kind once on every worker, and as many as a kind and a worker need.

use std::collections::BTreeMap;

use super::judge::{ENOUGH, Judge, SECOND_OPINION};
use super::observed::{Canaries, Hands, Observed};
use super::sprt::Step;
use crate::names::{Kind, WorkerName};

/// A kind or worker that is not decided by then gets no more of them. With 40, ten kinds on six workers that fail 1 % by
/// nature leave 35 % of good deploys undecided: two failures of 40 are one job short of a pass.
pub const MOST: u64 = 100;
/// An undecided one gets so many at a time.
const MORE: u64 = 10;
/// A kind that has never succeeded on a worker is tried there so often, until the tests decide.
const TRIES: u64 = 8;

/// Canaries to send: how many of which kind to which worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// To workers of the release that is judged.
    pub here: BTreeMap<(Kind, WorkerName), u64>,
    /// To those of the stable release: the same kinds, so that failures of both are told from failures of one.
    pub there: BTreeMap<(Kind, WorkerName), u64>,
}

impl Judge {
    /// The canaries that are missing, by what was seen at the last look and is on its way.
    #[must_use]
    pub fn wanted(&self, observed: &Observed) -> Wanted {
        let mut plan = Plan { judge: self, observed, here: BTreeMap::new() };
        plan.cover();
        plan.kinds();
        plan.workers();
        let here = plan.here;
        let there = self.second_opinions(observed, &here);
        Wanted { here, there }
    }

    /// The stable release runs as many of each kind as this one, up to what a second opinion takes; and what failed here
    /// is asked again, until both sides have healed.
    fn second_opinions(
        &self,
        observed: &Observed,
        here: &BTreeMap<(Kind, WorkerName), u64>,
    ) -> BTreeMap<(Kind, WorkerName), u64> {
        let mut there = BTreeMap::new();
        let streams = self.streams();
        let failed = streams.iter().filter_map(|stream| self.judged(stream).filter(|judged| judged.failed()));
        let asked: Vec<Kind> = failed.flat_map(|judged| judged.asks().cloned()).collect();
        let mut kinds: BTreeMap<Kind, bool> = here.keys().map(|(kind, _)| (kind.clone(), false)).collect();
        kinds.extend(asked.into_iter().map(|kind| (kind, true)));
        for (kind, failed) in kinds.into_iter().filter(|(kind, _)| self.terms.with_canary.contains(kind)) {
            let able = observed.stable.iter().filter(|(_, hands)| hands.kinds.contains(&kind));
            let load = |hands: &Hands| hands.canaries.get(&kind).map_or(0, |canaries| canaries.sent);
            let (sent, under_way) = observed.stable.values().fold((0, 0), |sum, hands| {
                let canaries = hands.canaries.get(&kind);
                (sum.0 + load(hands), sum.1 + canaries.map_or(0, Canaries::under_way))
            });
            let missing = if failed {
                SECOND_OPINION.saturating_sub(under_way)
            } else {
                SECOND_OPINION.saturating_sub(sent)
            };
            if let Some((worker, _)) = able.min_by_key(|(_, hands)| load(hands))
                && missing > 0
            {
                there.insert((kind.clone(), worker.clone()), missing);
            }
        }
        there
    }
}

struct Plan<'a> {
    judge: &'a Judge,
    observed: &'a Observed,
    here: BTreeMap<(Kind, WorkerName), u64>,
}

impl Plan<'_> {
    fn can(&self, kind: &Kind, hands: &Hands) -> bool {
        self.judge.terms.with_canary.contains(kind) && hands.kinds.contains(kind)
    }

    /// Canaries of a kind on a worker that are on their way or planned.
    fn coming(&self, kind: &Kind, worker: &WorkerName) -> u64 {
        let hands = self.observed.workers.get(worker);
        let under_way = hands.and_then(|hands| hands.canaries.get(kind)).map_or(0, Canaries::under_way);
        under_way + self.here.get(&(kind.clone(), worker.clone())).copied().unwrap_or_default()
    }

    fn add(&mut self, kind: &Kind, worker: &WorkerName, n: u64) {
        *self.here.entry((kind.clone(), worker.clone())).or_default() += n;
    }

    /// Each kind once on each worker.
    fn cover(&mut self) {
        for kind in &self.judge.terms.with_canary {
            for (worker, hands) in &self.observed.workers {
                let tried = self.judge.pair(kind, worker).map_or(0, |judged| judged.test.total().all());
                let missing = !self.judge.has_succeeded(kind, worker) && tried < TRIES;
                if self.can(kind, hands) && missing && self.coming(kind, worker) == 0 {
                    self.add(kind, worker, 1);
                }
            }
        }
    }

    /// As many as each kind needs, where there were fewest.
    fn kinds(&mut self) {
        for kind in &self.judge.terms.with_canary {
            let able = self.observed.workers.iter().filter(|(_, hands)| self.can(kind, hands));
            let able: Vec<&WorkerName> = able.map(|(worker, _)| worker).collect();
            let Some(judged) = self.judge.kinds.get(kind) else { continue };
            let coming = able.iter().map(|worker| self.coming(kind, worker)).sum();
            for _ in 0..missing(judged.test.step(), judged.test.total().all(), coming) {
                let load = |worker: &&&WorkerName| {
                    let ended = self.judge.pair(kind, worker).map_or(0, |judged| judged.test.total().all());
                    ended + self.coming(kind, worker)
                };
                let Some(worker) = able.iter().min_by_key(load) else { break };
                self.add(kind, worker, 1);
            }
        }
    }

    /// As many as each worker needs, of the kinds of which it had fewest.
    fn workers(&mut self) {
        for (worker, hands) in &self.observed.workers {
            let able: Vec<&Kind> =
                self.judge.terms.with_canary.iter().filter(|kind| self.can(kind, hands)).collect();
            let judged = self.judge.workers.get(worker);
            let (step, had) =
                judged.map_or((Step::Open, 0), |judged| (judged.test.step(), judged.test.total().all()));
            let coming = able.iter().map(|kind| self.coming(kind, worker)).sum();
            for _ in 0..missing(step, had, coming) {
                let load = |kind: &&&Kind| {
                    let ended = self.judge.pair(kind, worker).map_or(0, |judged| judged.test.total().all());
                    ended + self.coming(kind, worker)
                };
                let Some(kind) = able.iter().min_by_key(load) else { break };
                self.add(kind, worker, 1);
            }
        }
    }
}

/// How many more a stream needs that has had so many, with so many on their way.
fn missing(step: Step, had: u64, coming: u64) -> u64 {
    match step {
        Step::Passed => 0,
        // Only to see when it heals.
        Step::Failed => 1_u64.saturating_sub(coming),
        Step::Open if had + coming < ENOUGH => ENOUGH - had - coming,
        Step::Open if coming == 0 && had < MOST => MORE.min(MOST - had),
        Step::Open => 0,
    }
}
