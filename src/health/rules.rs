//! The rules: one table that says what each finding may do to each probe, and the judge that reads it.

use super::facts::Facts;
use super::findings::{self as find, Finding};
use super::probe::{Ask, Probe, Thresholds};
use super::verdict::{Check, Status, Verdict};

type Worst = Option<Status>;

/// One row: the worst that a rule may do to each probe (`None`: it is not asked).
struct Rule {
    name: &'static str,
    key: &'static str,
    live: Worst,
    ready: Worst,
    staged: Worst,
    deploy: Worst,
    find: fn(&Facts, &Ask, &Thresholds) -> Vec<Finding>,
}

const FAIL: Worst = Some(Status::Fail);
const WARN: Worst = Some(Status::Warn);
const NONE: Worst = None;

const fn row(
    name: &'static str,
    key: &'static str,
    [live, ready, staged, deploy]: [Worst; 4],
    find: fn(&Facts, &Ask, &Thresholds) -> Vec<Finding>,
) -> Rule {
    Rule { name, key, live, ready, staged, deploy, find }
}

/// The truth table: live, ready, staged, deploy. `live` may fail only in rows that a restart fixes. A long job is in no
/// row: it is nobody's fault.
#[rustfmt::skip]
const TABLE: [Rule; 15] = [
    row("startup",       "worker:startup",    [NONE, NONE, NONE, NONE], find::startup),
    row("runtime",       "runtime:tick",      [FAIL, FAIL, FAIL, FAIL], find::runtime),
    row("slots",         "slots:stuck",       [FAIL, FAIL, FAIL, FAIL], find::slots),
    row("utilization",   "slots:utilization", [WARN, WARN, NONE, NONE], find::utilization),
    row("activation",    "worker:activation", [NONE, FAIL, NONE, FAIL], find::activation),
    row("staged",        "worker:staged",     [NONE, NONE, FAIL, NONE], find::staged),
    row("quiet",         "worker:quiet",      [NONE, WARN, WARN, WARN], find::quiet),
    row("hook",          "worker:hook",       [NONE, FAIL, FAIL, FAIL], find::hook),
    row("release",       "worker:release",    [NONE, FAIL, FAIL, FAIL], find::release),
    row("canary",        "worker:canary",     [NONE, WARN, WARN, FAIL], find::canary),
    row("claim",         "worker:claimAge",   [NONE, FAIL, FAIL, FAIL], find::claim),
    row("progress",      "worker:progress",   [WARN, FAIL, FAIL, FAIL], find::progress),
    row("outcomes",      "worker:outcomes",   [NONE, WARN, WARN, FAIL], find::outcomes),
    row("store",         "store:away",        [WARN, FAIL, FAIL, FAIL], find::store),
    row("queue-latency", "queue:latency",     [NONE, WARN, WARN, WARN], find::latency),
];

/// Judges. No facts are no evidence: that is never ready, and no reason for a restart either, since a worker that has
/// not started has nothing that a restart would free.
#[must_use]
pub fn judge(ask: &Ask, facts: Option<&Facts>, limits: &Thresholds) -> Verdict {
    let Some(facts) = facts else {
        return Verdict {
            probe: ask.path(),
            question: ask.probe.question(),
            status: if ask.probe == Probe::Live { Status::Warn } else { Status::Fail },
            output: "the worker has not started yet: there is no evidence that it works".to_owned(),
            tier: None,
            worker: None,
            release: None,
            checks: Vec::new(),
        };
    };
    let asked = TABLE.iter().filter(|rule| ask.includes(rule.name));
    let checks: Vec<Check> = asked.flat_map(|rule| rule.check(ask, facts, limits)).collect();
    // Who leaves every check out has no evidence, and no reason for a restart.
    let nothing = if ask.probe == Probe::Live { Status::Warn } else { Status::Fail };
    let status = checks.iter().map(|check| check.status).max().unwrap_or(nothing);
    Verdict {
        probe: ask.path(),
        question: ask.probe.question(),
        status,
        output: match checks.is_empty() {
            true => "every check is left out: there is no evidence".to_owned(),
            false => in_words(status, &checks),
        },
        tier: facts.tier.clone(),
        worker: Some(facts.worker.clone()),
        release: Some(facts.release.clone()),
        checks,
    }
}

/// The worst findings, each said once.
fn in_words(status: Status, checks: &[Check]) -> String {
    let worst = checks.iter().filter(|check| status > Status::Pass && check.status == status);
    let mut words: Vec<&str> = Vec::new();
    for output in worst.filter_map(|check| check.output.as_deref()) {
        if !words.iter().any(|said| said.contains(output)) {
            words.push(output);
        }
    }
    words.join("; ")
}

impl Probe {
    /// The names of its checks.
    pub fn checks(self) -> impl Iterator<Item = &'static str> {
        TABLE.iter().filter(move |rule| rule.worst(self).is_some()).map(|rule| rule.name)
    }
}

impl Rule {
    fn worst(&self, probe: Probe) -> Worst {
        match probe {
            Probe::Live => self.live,
            Probe::Ready => self.ready,
            Probe::Staged => self.staged,
            Probe::Deploy => self.deploy,
            Probe::Startup => (self.name == "startup").then_some(Status::Fail),
        }
    }

    fn check(&self, ask: &Ask, facts: &Facts, limits: &Thresholds) -> Vec<Check> {
        let Some(worst) = self.worst(ask.probe) else { return Vec::new() };
        let check = |found: Finding| Check {
            name: self.name,
            key: self.key,
            component_id: facts.worker.clone(),
            observed_value: found.observed,
            observed_unit: found.unit,
            limit: found.limit,
            status: found.status.min(worst),
            time: facts.now,
            code: found.code,
            since: found.since,
            output: found.output,
            hint: found.hint,
            more: found.more,
        };
        (self.find)(facts, ask, limits).into_iter().map(check).collect()
    }
}
