//! From the tests to findings and a verdict, in plain sentences.

use std::collections::BTreeSet;

use super::judge::{Blame, ENOUGH, Judge, Judged};
use super::observed::Observed;
use super::sprt::{Count, Step};
use super::verdict::{Decision, Finding, Stream, Verdict, bound, compared, number, some};
use crate::clock::human;
use crate::names::{Kind, WorkerName};

impl Judge {
    /// Takes in what is new, and judges. To be called at every change, or every second.
    pub fn look(&mut self, observed: &Observed) -> Verdict {
        self.take_in(observed);
        let mut findings = self.crew(observed);
        findings.extend(self.served(observed));
        findings.extend(self.kinds.keys().map(|kind| self.kind(kind, observed)));
        findings.extend(observed.workers.keys().map(|worker| self.worker(worker, observed)));
        let rest =
            self.streams().into_iter().filter(|stream| matches!(stream, Stream::All | Stream::Pair(..)));
        findings.extend(rest.filter_map(|stream| self.bad(&stream, observed)));
        self.conclude(findings, observed)
    }

    // ---- what is there

    fn crew(&self, observed: &Observed) -> Vec<Finding> {
        let (there, expected) = (observed.workers.len(), self.terms.workers.max(1));
        if there >= expected {
            return Vec::new();
        }
        let release = &self.terms.release;
        let output = format!("{there} of {expected} workers of {release} are there");
        vec![plain(Stream::Crew, Decision::Pending, output)]
    }

    /// What the stable release serves and this one does not would wait for ever.
    fn served(&self, observed: &Observed) -> Vec<Finding> {
        if observed.workers.is_empty() {
            return Vec::new(); // that nobody is there is told already
        }
        let release = &self.terms.release;
        let mut findings = Vec::new();
        for kind in observed.wanted.iter().filter(|kind| !self.terms.kinds.contains(*kind)) {
            let known = observed.stable.values().any(|hands| hands.kinds.contains(kind));
            if known || self.past(kind).all() > 0 {
                let output = format!("{kind} has jobs or a schedule, and {release} has no handler for it");
                findings.push(plain(Stream::Kind(kind.clone()), Decision::Fail, output));
            }
        }
        for queue in &observed.queues {
            let served = observed.workers.values().any(|hands| hands.serves(queue));
            if !served && observed.stable.values().any(|hands| hands.serves(queue)) {
                let output = format!("jobs wait in queue {queue}, and no worker of {release} serves it");
                findings.push(plain(Stream::Queue(queue.clone()), Decision::Fail, output));
            }
        }
        findings
    }

    // ---- streams

    fn kind(&self, kind: &Kind, observed: &Observed) -> Finding {
        let stream = Stream::Kind(kind.clone());
        let Some(judged) = self.kinds.get(kind) else {
            return plain(stream, Decision::Pending, String::new());
        };
        if let Some(bad) = self.bad(&stream, observed) {
            return bad;
        }
        let here = observed.workers.values().any(|hands| hands.kinds.contains(kind));
        let total = judged.test.total();
        if !here && !observed.workers.is_empty() && observed.workers.len() >= self.terms.workers {
            let output = format!("no worker of {} has a handler for {kind}", self.terms.release);
            return found(stream, Decision::Fail, total, output);
        }
        if judged.test.step() == Step::Passed {
            let missing = self.not_yet_on(kind, observed);
            let so_far = format!("{kind} {}", bound(total));
            return match missing.is_empty() {
                true => found(stream, Decision::Pass, total, so_far),
                false => found(
                    stream,
                    Decision::Pending,
                    total,
                    format!("{so_far}; not yet on {}", some(&missing, ", ")),
                ),
            };
        }
        let with_canary = self.terms.with_canary.contains(kind);
        let expected = observed.wanted.contains(kind) || total.all() > 0;
        let waived = self.terms.waived.contains(kind);
        if !with_canary && total.failed == 0 && (observed.left.is_zero() || !expected)
            || waived && total.failed == 0
        {
            let seen = match total.all() {
                0 => "no job ran".to_owned(),
                _ => format!("only {}", bound(total)),
            };
            let how = if waived { "waived" } else { "covered by decoding only" };
            return found(stream, Decision::Uncovered, total, format!("{kind} is {how}: {seen}"));
        }
        found(stream, Decision::Pending, total, so_far(kind.as_str(), total))
    }

    /// The workers on which no job of a kind has succeeded yet. Without a payload for canaries that is left to chance.
    fn not_yet_on(&self, kind: &Kind, observed: &Observed) -> Vec<WorkerName> {
        if !self.terms.with_canary.contains(kind) || self.terms.waived.contains(kind) {
            return Vec::new();
        }
        let with = observed.workers.iter().filter(|(_, hands)| hands.kinds.contains(kind));
        with.filter(|(worker, _)| !self.has_succeeded(kind, worker))
            .map(|(worker, _)| worker.clone())
            .collect()
    }

    pub(super) fn has_succeeded(&self, kind: &Kind, worker: &WorkerName) -> bool {
        self.pair(kind, worker).is_some_and(|judged| judged.test.total().ok > 0)
    }

    pub(super) fn pair(&self, kind: &Kind, worker: &WorkerName) -> Option<&Judged> {
        self.pairs.get(worker)?.get(kind)
    }

    fn worker(&self, worker: &WorkerName, observed: &Observed) -> Finding {
        let stream = Stream::Worker(worker.clone());
        if let Some(bad) = self.bad(&stream, observed) {
            return bad;
        }
        let Some(judged) = self.workers.get(worker) else {
            return plain(stream, Decision::Pending, String::new());
        };
        let total = judged.test.total();
        match judged.test.step() {
            Step::Passed => found(stream, Decision::Pass, total, format!("{worker} {}", bound(total))),
            _ => found(stream, Decision::Pending, total, so_far(worker.as_str(), total)),
        }
    }

    /// What is wrong with a stream, if something is.
    fn bad(&self, stream: &Stream, observed: &Observed) -> Option<Finding> {
        let judged = self.judged(stream)?;
        if !judged.failed() {
            let needed = matches!(stream, Stream::Kind(_) | Stream::Worker(_));
            return (judged.held && needed).then(|| {
                let total = judged.test.total();
                let output = format!("{} after both releases had failed", so_far(&name(stream), total));
                found(stream.clone(), Decision::Environment, total, output)
            });
        }
        let stable = self.terms.stable.as_ref().map_or("the release before it", |stable| stable.as_str());
        let place = self.place(stream);
        let (subject, count, error) = (&place.subject, place.count, &place.error);
        let (all, failed) = (number(count.all()), number(count.failed));
        let (decision, mut output) = match self.blame(stream, observed) {
            Blame::Release => {
                let ill = place.kinds.iter().any(|kind| self.rates(kind).ill);
                let past =
                    place.kinds.iter().map(|kind| self.past(kind)).fold(Count::default(), |mut sum, past| {
                        sum += past;
                        sum
                    });
                (Decision::Fail, format!("{subject}: {}", compared(count, stable, past, ill)))
            }
            Blame::Environment(there) => {
                let there = format!("{} of {}", number(there.failed), number(there.all()));
                let output = format!(
                    "{subject}: {failed} of {all} first attempts failed, and {there} on {stable} at the same time"
                );
                (Decision::Environment, output)
            }
            Blame::IllBefore(past) => {
                let past = format!("{} of {}", number(past.failed), number(past.all()));
                let output = format!(
                    "{subject}: {failed} of {all} first attempts failed; {stable} is no better: {past}"
                );
                (Decision::Environment, output)
            }
            Blame::Unknown => {
                let output = format!(
                    "{subject}: {failed} of {all} first attempts failed; {stable} is asked whether it fails as well"
                );
                (Decision::Pending, output)
            }
        };
        if judged.test.changed() {
            output.push_str(", after it had passed");
        }
        if !error.is_empty() {
            output.push_str(&format!(": {error}"));
        }
        Some(found(stream.clone(), decision, count, output))
    }

    /// Where exactly it fails: a kind that fails on one of several workers, or a worker that fails one of its kinds, is
    /// that kind on that worker.
    fn place(&self, stream: &Stream) -> Place {
        let judged = self.judged(stream);
        let mut place = Place {
            subject: name(stream),
            kinds: self.culprits(stream).into_iter().map(|(kind, _)| kind).collect(),
            count: judged.map(|judged| judged.test.run()).unwrap_or_default(),
            error: judged.map(|judged| judged.error.clone()).unwrap_or_default(),
        };
        let narrower = match stream {
            Stream::Kind(kind) => self.only_worker(kind).map(|worker| (kind.clone(), worker)),
            Stream::Worker(worker) => match place.kinds.as_slice() {
                [kind] => Some((kind.clone(), worker.clone())),
                _ => None,
            },
            _ => None,
        };
        if let Some((kind, worker)) = narrower
            && let Some(pair) = self.pair(&kind, &worker)
        {
            place.subject = name(&Stream::Pair(kind, worker));
            (place.count, place.error) = (pair.test.run(), pair.error.clone());
        }
        place
    }

    /// The one worker on which a kind fails, while it succeeds on another.
    fn only_worker(&self, kind: &Kind) -> Option<WorkerName> {
        let runs = self.pairs.iter().filter_map(|(worker, kinds)| Some((worker, kinds.get(kind)?)));
        let (bad, good): (Vec<_>, Vec<_>) = runs.partition(|(_, judged)| judged.test.run().failed > 0);
        match bad.as_slice() {
            [(worker, _)] if good.iter().any(|(_, judged)| judged.test.total().ok > 0) => {
                Some((*worker).clone())
            }
            _ => None,
        }
    }

    // ---- the verdict

    fn conclude(&self, findings: Vec<Finding>, observed: &Observed) -> Verdict {
        let mut verdict = Verdict {
            decision: Decision::Pending,
            output: String::new(),
            findings,
            uncovered: Vec::new(),
            waived: Vec::new(),
        };
        for finding in verdict.findings.iter().filter(|finding| finding.decision == Decision::Uncovered) {
            if let Stream::Kind(kind) = &finding.stream {
                let list = match self.terms.waived.contains(kind) {
                    true => &mut verdict.waived,
                    false => &mut verdict.uncovered,
                };
                list.push(kind.clone());
            }
        }
        let worst =
            verdict.findings.iter().map(|finding| finding.decision).max().unwrap_or(Decision::Pending);
        (verdict.decision, verdict.output) = match worst {
            Decision::Pass | Decision::Uncovered => self.good(&verdict, observed),
            bad => (bad, self.what_is(bad, &verdict.findings)),
        };
        verdict
    }

    fn good(&self, verdict: &Verdict, observed: &Observed) -> (Decision, String) {
        let kinds = |finding: &&Finding| {
            matches!(finding.stream, Stream::Kind(_)) && finding.decision == Decision::Pass
        };
        let passed = verdict.findings.iter().filter(kinds);
        let least = passed.clone().min_by_key(|finding| finding.attempts);
        let without = |kinds: &[Kind]| some(kinds, ", ");
        if least.is_none() && verdict.waived.len() < self.terms.kinds.len() {
            let kinds = without(&verdict.uncovered);
            return (Decision::Pending, format!("no kind has been proved by a job: {kinds}"));
        }
        if self.terms.strict && !verdict.uncovered.is_empty() {
            let kinds = without(&verdict.uncovered);
            return (Decision::Pending, format!("not covered by any job, and not waived: {kinds}"));
        }
        let (kinds, workers) = (passed.count(), observed.workers.len());
        let mut output = format!("{kinds} kinds and {workers} workers passed");
        if let Some(least) = least {
            output.push_str(&format!("; known least: {}", least.output));
        }
        if !verdict.uncovered.is_empty() {
            output.push_str(&format!("; covered by decoding only: {}", without(&verdict.uncovered)));
        }
        if !verdict.waived.is_empty() {
            output.push_str(&format!("; waived: {}", without(&verdict.waived)));
        }
        if observed.left.is_zero() {
            return (Decision::Pass, output);
        }
        (Decision::Pending, format!("{output}; watched for another {}", human(observed.left)))
    }

    /// What blocks it. What explains several findings is told once.
    fn what_is(&self, worst: Decision, findings: &[Finding]) -> String {
        let of_it: Vec<&Finding> = findings.iter().filter(|finding| finding.decision == worst).collect();
        let broad: BTreeSet<&Kind> = of_it
            .iter()
            .filter_map(|finding| match &finding.stream {
                Stream::Kind(kind) if self.only_worker(kind).is_none() => Some(kind),
                _ => None,
            })
            .collect();
        // A worker is told for itself when what fails there is not what fails everywhere.
        let everywhere =
            of_it.iter().find(|finding| finding.stream == Stream::All).map_or(0, |all| all.failed);
        let own = |worker: &WorkerName| {
            let culprits = self.culprits(&Stream::Worker(worker.clone()));
            let all: u64 = culprits.iter().map(|(_, count)| count.failed).sum();
            let own = culprits.iter().filter(|(kind, _)| !broad.contains(kind));
            let own: u64 = own.map(|(_, count)| count.failed).sum();
            culprits.len() > 1 && 2 * own > all && 2 * all > everywhere
        };
        let workers: BTreeSet<&WorkerName> = of_it
            .iter()
            .filter_map(|finding| match &finding.stream {
                Stream::Worker(worker) if worst == Decision::Pending || own(worker) => Some(worker),
                _ => None,
            })
            .collect();
        let mut told: Vec<&Finding> = Vec::new();
        let mut places: BTreeSet<String> = BTreeSet::new();
        for finding in &of_it {
            let fresh = places.insert(self.place(&finding.stream).subject);
            let explains = match &finding.stream {
                Stream::Crew | Stream::Queue(_) => true,
                Stream::Kind(kind) => self.only_worker(kind).is_none_or(|worker| !workers.contains(&worker)),
                Stream::Worker(worker) => {
                    workers.contains(worker) || fresh && broad.is_empty() && everywhere == 0
                }
                Stream::Pair(kind, worker) => fresh && !broad.contains(kind) && !workers.contains(worker),
                Stream::All => finding.failed > 0 && broad.is_empty() && workers.is_empty(),
            };
            if explains {
                told.push(finding);
            }
        }
        if told.is_empty() {
            told = of_it;
        }
        let words: Vec<&str> = told.iter().map(|finding| finding.output.as_str()).collect();
        some(&words, " · ")
    }
}

/// Where something fails.
struct Place {
    subject: String,
    kinds: Vec<Kind>,
    count: Count,
    error: String,
}

fn name(stream: &Stream) -> String {
    match stream {
        Stream::All => "all kinds".to_owned(),
        Stream::Crew => "workers".to_owned(),
        Stream::Queue(queue) => queue.to_string(),
        Stream::Kind(kind) => kind.to_string(),
        Stream::Worker(worker) => worker.to_string(),
        Stream::Pair(kind, worker) => format!("{kind} on {worker}"),
    }
}

/// `metric.refresh 9 of 15`
fn so_far(name: &str, total: Count) -> String {
    match total.failed {
        0 => format!("{name} {} of {ENOUGH}", number(total.all())),
        failed => format!("{name} {} of {} failed, not decided", number(failed), number(total.all())),
    }
}

fn plain(stream: Stream, decision: Decision, output: String) -> Finding {
    found(stream, decision, Count::default(), output)
}

fn found(stream: Stream, decision: Decision, count: Count, output: String) -> Finding {
    Finding { stream, decision, attempts: count.all(), failed: count.failed, output }
}
