//! The rules: pure functions from facts to findings, and one table that says what each may do to each probe.

use std::time::Duration;

use serde_json::{Value, json};

use super::facts::Facts;
use super::verdict::{Check, Status, Verdict};
use crate::activation::WorkerState;
use crate::clock::human;

/// The question of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Would a restart help? Fails only then.
    Live,
    /// May this worker be given work? Fails whenever work would not move.
    Ready,
}

impl Probe {
    /// The path, without its slash.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }
}

/// What a probe was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The question.
    pub probe: Probe,
    /// The release that the asker expects.
    pub release: Option<String>,
}

impl From<Probe> for Ask {
    fn from(probe: Probe) -> Self {
        Self { probe, release: None }
    }
}

/// Where "late" begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Age of the runtime's last tick.
    pub runtime: Duration,
    /// Age of the last answered claim.
    pub claim: Duration,
    /// Waiting jobs, free slots, and nothing started or ended.
    pub progress: Duration,
    /// How long a store may be away before this worker is not ready.
    pub store: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { runtime: secs(5), claim: secs(15), progress: secs(30), store: secs(5) }
    }
}

/// What one rule found.
struct Finding {
    status: Status,
    observed: Value,
    unit: Option<&'static str>,
    limit: Option<Value>,
    output: Option<String>,
    hint: Option<&'static str>,
}

impl Finding {
    fn pass(observed: Value, unit: Option<&'static str>) -> Self {
        Self { status: Status::Pass, observed, unit, limit: None, output: None, hint: None }
    }

    fn limit(mut self, limit: Value) -> Self {
        self.limit = Some(limit);
        self
    }

    fn bad(mut self, status: Status, output: String, hint: &'static str) -> Self {
        (self.status, self.output, self.hint) = (status, Some(output), Some(hint));
        self
    }
}

/// One row: the worst that a rule may do to each probe (`None`: it is not asked).
struct Rule {
    name: &'static str,
    key: &'static str,
    live: Option<Status>,
    ready: Option<Status>,
    find: fn(&Facts, &Ask, &Thresholds) -> Option<Finding>,
}

const FAIL: Option<Status> = Some(Status::Fail);
const WARN: Option<Status> = Some(Status::Warn);

/// The truth table. `live` may fail only in rows that a restart fixes.
const TABLE: [Rule; 7] = [
    Rule { name: "runtime", key: "runtime:tick", live: FAIL, ready: FAIL, find: runtime },
    Rule { name: "slots", key: "slots:stuck", live: FAIL, ready: FAIL, find: slots },
    Rule { name: "activation", key: "worker:activation", live: None, ready: FAIL, find: activation },
    Rule { name: "release", key: "worker:release", live: None, ready: FAIL, find: release },
    Rule { name: "claim", key: "worker:claimAge", live: None, ready: FAIL, find: claim },
    Rule { name: "progress", key: "worker:progress", live: WARN, ready: FAIL, find: progress },
    Rule { name: "store", key: "store:away", live: WARN, ready: FAIL, find: store },
];

/// Judges. No facts are no evidence: that is never ready, and no reason for a restart either, since a worker that has
/// not started has nothing that a restart would free.
#[must_use]
pub fn judge(ask: &Ask, facts: Option<&Facts>, limits: &Thresholds) -> Verdict {
    let Some(facts) = facts else {
        return Verdict {
            probe: ask.probe.as_str(),
            status: if ask.probe == Probe::Live { Status::Warn } else { Status::Fail },
            output: "the worker has not started yet: there is no evidence that it works".to_owned(),
            worker: None,
            release: None,
            checks: Vec::new(),
        };
    };
    let checks: Vec<Check> = TABLE.iter().filter_map(|rule| rule.check(ask, facts, limits)).collect();
    let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Pass);
    let words: Vec<&str> = checks
        .iter()
        .filter(|check| status > Status::Pass && check.status == status)
        .filter_map(|check| check.output.as_deref())
        .collect();
    Verdict {
        probe: ask.probe.as_str(),
        status,
        output: words.join("; "),
        worker: Some(facts.worker.clone()),
        release: Some(facts.release.clone()),
        checks,
    }
}

impl Rule {
    fn check(&self, ask: &Ask, facts: &Facts, limits: &Thresholds) -> Option<Check> {
        let worst = match ask.probe {
            Probe::Live => self.live?,
            Probe::Ready => self.ready?,
        };
        let found = (self.find)(facts, ask, limits)?;
        Some(Check {
            name: self.name,
            key: self.key,
            component_id: facts.worker.clone(),
            observed_value: found.observed,
            observed_unit: found.unit,
            limit: found.limit,
            status: found.status.min(worst),
            time: facts.now,
            since: (self.key == "worker:activation").then(|| facts.now.minus(facts.state_age)),
            output: found.output,
            hint: found.hint,
        })
    }
}

fn secs(duration: Duration) -> Value {
    json!(duration.as_millis() as f64 / 1e3)
}

/// A blocked runtime runs nothing, renews nothing it owns, and only ends with its process.
fn runtime(facts: &Facts, _: &Ask, limits: &Thresholds) -> Option<Finding> {
    let found = Finding::pass(secs(facts.runtime_age), Some("s")).limit(secs(limits.runtime));
    Some(if facts.runtime_age < limits.runtime {
        found
    } else {
        found.bad(
            Status::Fail,
            format!("the job runtime has not ticked for {}: something blocks it", human(facts.runtime_age)),
            "mark kinds that burn CPU or block as `BLOCKING`; restart this worker",
        )
    })
}

/// While one slot is good, a restart would kill the good ones.
fn slots(facts: &Facts, _: &Ask, _: &Thresholds) -> Option<Finding> {
    let found = Finding::pass(json!(facts.stuck), Some("slots")).limit(json!(facts.slots));
    let output = format!(
        "{} of {} slots hold jobs that are past their time-out and ignore cancellation",
        facts.stuck, facts.slots
    );
    Some(match facts.stuck {
        0 => found,
        stuck if stuck >= facts.slots => found.bad(Status::Fail, output, "restart this worker"),
        _ => found.bad(Status::Warn, output, "sluicegate worker dump shows which jobs they are"),
    })
}

/// Only the store's answer makes a worker active, and only an active one moves work.
fn activation(facts: &Facts, _: &Ask, _: &Thresholds) -> Option<Finding> {
    let found = Finding::pass(json!(facts.state.as_str()), None);
    if facts.state == WorkerState::Active {
        return Some(found);
    }
    let why = facts.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    let output = format!("worker is {} for {}{why}", facts.state, human(facts.state_age));
    Some(found.bad(
        Status::Fail,
        output,
        match facts.state {
            WorkerState::Quiet => "sluicegate worker resume",
            WorkerState::Stopping | WorkerState::Stopped => "it ends by itself; start another one",
            _ => "sluicegate status shows which release is active",
        },
    ))
}

/// Only when the asker names a release: otherwise a stale "latest" would pass.
fn release(facts: &Facts, ask: &Ask, _: &Thresholds) -> Option<Finding> {
    let expected = ask.release.as_deref()?;
    let found = Finding::pass(json!(facts.release), None).limit(json!(expected));
    Some(if facts.release == expected {
        found
    } else {
        found.bad(
            Status::Fail,
            format!("worker is of release `{}`, not `{}`", facts.release, crate::names::shown(expected)),
            "ask a worker of that release, or leave `release` out",
        )
    })
}

/// The airflow case: everything answers, and the claim loop is dead. A worker whose slots are all busy does not claim,
/// however long its jobs take, and that is no fault: its loop still turns.
fn claim(facts: &Facts, _: &Ask, limits: &Thresholds) -> Option<Finding> {
    if !matches!(facts.state, WorkerState::Starting | WorkerState::Inactive | WorkerState::Active) {
        return None;
    }
    // Counted from when it could have claimed: quiet workers and full ones have not, for as long as they were so.
    let could = facts.state_age.min(facts.free_age.unwrap_or_default());
    let unanswered = facts.claim_age.unwrap_or(Duration::MAX).min(could);
    let stopped = facts.loop_age.min(facts.state_age);
    let age = unanswered.max(stopped);
    let found = Finding::pass(secs(age), Some("s")).limit(secs(limits.claim));
    Some(if age < limits.claim {
        found
    } else if stopped >= limits.claim {
        found.bad(
            Status::Fail,
            format!("the claim loop has not turned for {}", human(stopped)),
            "sluicegate doctor; if the store answers, restart this worker",
        )
    } else {
        found.bad(
            Status::Fail,
            format!("no claim was answered for {}", human(unanswered)),
            "sluicegate doctor; the store is slow or away",
        )
    })
}

/// Jobs wait, slots are free, and nothing moves. An idle worker, and one whose slots are all busy, are fine.
fn progress(facts: &Facts, _: &Ask, limits: &Thresholds) -> Option<Finding> {
    if facts.state != WorkerState::Active {
        return None;
    }
    let free = facts.slots.saturating_sub(facts.busy);
    let stalled = [facts.backlog_age, facts.free_age]
        .into_iter()
        .map(Option::unwrap_or_default)
        .chain([facts.progress_age.unwrap_or(Duration::MAX), facts.state_age])
        .min()
        .unwrap_or_default();
    let found = Finding::pass(secs(stalled), Some("s")).limit(secs(limits.progress));
    Some(if stalled < limits.progress {
        found
    } else {
        found.bad(
            Status::Fail,
            format!(
                "no job started or ended for {} although jobs are waiting and {free} of {} slots are free",
                human(stalled),
                facts.slots
            ),
            "sluicegate status; restart this worker if others of its release make progress",
        )
    })
}

/// A restart does not bring a store back, so this never fails `live`.
fn store(facts: &Facts, _: &Ask, limits: &Thresholds) -> Option<Finding> {
    let away = facts.store_down.as_ref().map_or(Duration::ZERO, |(_, away)| *away);
    let found = Finding::pass(secs(away), Some("s")).limit(secs(limits.store));
    Some(match &facts.store_down {
        None => found,
        Some((error, _)) => found.bad(
            if away < limits.store { Status::Warn } else { Status::Fail },
            format!(
                "store unreachable for {}; jobs keep running, results are buffered: {error}",
                human(away)
            ),
            "sluicegate doctor; the worker resumes by itself when the store is back",
        ),
    })
}
