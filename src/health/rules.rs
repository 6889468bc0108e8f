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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// An idle active worker that was last busy an hour ago.
    fn idle() -> Facts {
        Facts {
            now: Timestamp::from_ms(1_768_036_445_000),
            worker: "w-1".into(),
            release: "r-2031".into(),
            state: WorkerState::Active,
            state_age: s(7_200),
            reason: None,
            slots: 8,
            busy: 0,
            stuck: 0,
            runtime_age: Duration::from_millis(2),
            claim_age: Some(s(1)),
            progress_age: Some(s(3_600)),
            loop_age: s(1),
            free_age: Some(s(3_600)),
            backlog_age: None,
            store_down: None,
        }
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = idle();
        change(&mut facts);
        facts
    }

    /// The rows of the truth table that are judged so far, with the expected answer of each probe.
    #[test]
    fn the_truth_table() {
        use Status::{Fail, Pass, Warn};
        use WorkerState as W;
        let down = |secs| Some(("connection refused".to_owned(), s(secs)));
        let stalled = |f: &mut Facts| (f.backlog_age, f.progress_age) = (Some(s(94)), Some(s(94)));
        let rows: Vec<(&str, Facts, Status, Status)> = vec![
            ("idle is healthy", idle(), Pass, Pass),
            ("runtime blocked", with(|f| f.runtime_age = s(5)), Fail, Fail),
            ("runtime late, not yet blocked", with(|f| f.runtime_age = s(4)), Pass, Pass),
            ("all slots stuck", with(|f| (f.busy, f.stuck, f.free_age) = (8, 8, None)), Fail, Fail),
            ("some slots stuck", with(|f| (f.busy, f.stuck) = (8, 7)), Warn, Warn),
            (
                "starting",
                with(|f| (f.state, f.state_age, f.claim_age) = (W::Starting, s(1), None)),
                Pass,
                Fail,
            ),
            ("inactive", with(|f| f.state = W::Inactive), Pass, Fail),
            ("quiet", with(|f| (f.state, f.claim_age) = (W::Quiet, Some(s(900)))), Pass, Fail),
            ("stopping", with(|f| f.state = W::Stopping), Pass, Fail),
            ("stopped", with(|f| f.state = W::Stopped), Pass, Fail),
            ("claims unanswered", with(|f| f.claim_age = Some(s(15))), Pass, Fail),
            ("never an answered claim", with(|f| f.claim_age = None), Pass, Fail),
            (
                "claim loop dead under full slots",
                with(|f| (f.busy, f.free_age, f.loop_age) = (8, None, s(60))),
                Pass,
                Fail,
            ),
            ("resumed a second ago", with(|f| (f.state_age, f.claim_age) = (s(1), Some(s(900)))), Pass, Pass),
            (
                "busy for two hours",
                with(|f| {
                    (f.busy, f.free_age, f.backlog_age) = (8, None, Some(s(7_200)));
                    (f.claim_age, f.progress_age) = (Some(s(7_200)), Some(s(7_200)));
                }),
                Pass,
                Pass,
            ),
            (
                "a slot came free a second ago",
                with(|f| {
                    (f.busy, f.free_age, f.backlog_age) = (7, Some(s(1)), Some(s(7_200)));
                    (f.claim_age, f.progress_age) = (Some(s(7_200)), Some(s(1)));
                }),
                Pass,
                Pass,
            ),
            ("no progress: the airflow case", with(stalled), Warn, Fail),
            ("first job after an idle hour", with(|f| f.backlog_age = Some(s(0))), Pass, Pass),
            (
                "a backlog that is being worked",
                with(|f| (f.backlog_age, f.progress_age) = (Some(s(9_000)), Some(s(0)))),
                Pass,
                Pass,
            ),
            (
                "no progress, but became active just now",
                with(|f| {
                    stalled(f);
                    f.state_age = s(3)
                }),
                Pass,
                Pass,
            ),
            (
                "no progress, but standing by",
                with(|f| {
                    stalled(f);
                    f.state = W::Inactive
                }),
                Pass,
                Fail,
            ),
            ("store away, within the grace", with(|f| f.store_down = down(4)), Warn, Warn),
            ("store away", with(|f| f.store_down = down(41)), Warn, Fail),
        ];
        for (name, facts, live, ready) in rows {
            for (probe, wanted) in [(Probe::Live, live), (Probe::Ready, ready)] {
                let verdict = judge(&probe.into(), Some(&facts), &Thresholds::default());
                assert_eq!(verdict.status, wanted, "{name}: {probe:?}: {verdict:?}");
                assert_eq!(verdict.output.is_empty(), wanted == Pass, "{name}: {probe:?}: {verdict:?}");
                assert_eq!(verdict.is_yes(), wanted != Fail);
            }
        }
    }

    #[test]
    fn no_facts_are_no_evidence() {
        let judged = |probe: Probe| judge(&probe.into(), None, &Thresholds::default());
        assert_eq!(judged(Probe::Live).status, Status::Warn);
        assert_eq!(judged(Probe::Ready).status, Status::Fail);
        assert!(judged(Probe::Ready).to_text(false).contains("not started"));
    }

    #[test]
    fn another_release_than_the_expected_one_is_not_ready() {
        let ask = |release: &str| Ask { probe: Probe::Ready, release: Some(release.to_owned()) };
        let judged = |release: &str| judge(&ask(release), Some(&idle()), &Thresholds::default());
        assert_eq!(judged("r-2031").status, Status::Pass);
        assert_eq!(judged("r-2032").status, Status::Fail);
        assert!(judged("r-2032").output.contains("`r-2031`, not `r-2032`"));
    }

    #[test]
    fn the_json_has_the_shape_of_health_json() -> serde_json::Result<()> {
        let facts = with(|f| {
            (f.state, f.state_age) = (WorkerState::Inactive, s(1));
            f.reason = Some("release `r-2030` is active".to_owned());
        });
        let verdict = judge(&Probe::Ready.into(), Some(&facts), &Thresholds::default());
        let body: Value = serde_json::from_str(&verdict.to_json()?)?;
        assert_eq!(body["status"], "fail");
        assert_eq!((&body["releaseId"], &body["serviceId"]), (&json!("r-2031"), &json!("worker/w-1")));
        assert_eq!(body["output"], "worker is inactive for 1.0 s: release `r-2030` is active");
        let check = &body["checks"]["worker:activation"][0];
        assert_eq!((&check["observedValue"], &check["status"]), (&json!("inactive"), &json!("fail")));
        assert_eq!(check["since"], "2026-01-10T09:14:04.000Z");
        assert_eq!(body["checks"]["runtime:tick"][0]["limit"], 5.0);
        Ok(())
    }

    #[test]
    fn text_is_short_when_all_is_well() {
        let verdict = |facts: &Facts| judge(&Probe::Ready.into(), Some(facts), &Thresholds::default());
        assert_eq!(verdict(&idle()).to_text(false), "ok\n");
        let text = verdict(&idle()).to_text(true);
        assert!(text.starts_with("[+]runtime ok\n") && text.ends_with("readyz check passed\n"), "{text}");
        let text = verdict(&with(|f| f.state = WorkerState::Quiet)).to_text(false);
        assert!(text.contains("[-]activation failed: worker is quiet for 2h 00m"), "{text}");
        assert!(text.ends_with("readyz check failed\n"), "{text}");
    }
}
