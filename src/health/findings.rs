//! What can be found out about one worker: pure functions from facts to findings.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::facts::Facts;
use super::probe::{Ask, LOOP, Probe, Thresholds};
use super::verdict::{Status, secs};
use crate::activation::WorkerState;
use crate::clock::{Timestamp, human};
use crate::store::FaultCode;

/// What one rule found.
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) observed: Value,
    pub(super) unit: Option<&'static str>,
    pub(super) limit: Option<Value>,
    pub(super) code: Option<&'static str>,
    pub(super) since: Option<Timestamp>,
    pub(super) output: Option<String>,
    pub(super) hint: Option<Cow<'static, str>>,
    pub(super) more: Map<String, Value>,
}

impl Finding {
    fn pass(observed: Value, unit: Option<&'static str>) -> Self {
        Self {
            status: Status::Pass,
            observed,
            unit,
            limit: None,
            code: None,
            since: None,
            output: None,
            hint: None,
            more: Map::new(),
        }
    }

    fn limit(mut self, limit: Value) -> Self {
        self.limit = Some(limit);
        self
    }

    fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    fn with(mut self, name: &str, value: Option<Value>) -> Self {
        self.more.extend(value.map(|value| (name.to_owned(), value)));
        self
    }

    fn bad(
        mut self,
        status: Status,
        code: &'static str,
        output: String,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        (self.status, self.code, self.output, self.hint) =
            (status, Some(code), Some(output), Some(hint.into()));
        self
    }
}

/// Once is enough: what comes after is for the other questions, and an answer that is taken back restarts containers.
pub(super) fn startup(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let found = Finding::pass(json!(facts.state.as_str()), None);
    if facts.started {
        return vec![found];
    }
    let (code, why) = match &facts.fault {
        Some(fault) => (fault.code.as_str(), fault.detail.as_str()),
        None => ("NOT_PROVEN", facts.reason.as_deref().unwrap_or_default()),
    };
    let output = said(format!("worker has not proved itself for {}", human(facts.state_age)), why);
    vec![found.bad(Status::Fail, code, output, "sluicegate doctor")]
}

fn said(what: String, why: &str) -> String {
    if why.is_empty() { what } else { format!("{what}: {why}") }
}

/// A blocked runtime runs nothing, renews nothing it owns, and only ends with its process.
pub(super) fn runtime(facts: &Facts, _: &Ask, limits: &Thresholds) -> Vec<Finding> {
    let found = Finding::pass(secs(facts.runtime_age), Some("s")).limit(secs(limits.runtime));
    if facts.runtime_age < limits.runtime {
        return vec![found];
    }
    vec![found.since(facts.now.minus(facts.runtime_age)).bad(
        Status::Fail,
        "RUNTIME_BLOCKED",
        format!("the job runtime has not ticked for {}: something blocks it", human(facts.runtime_age)),
        "mark kinds that burn CPU or block as `BLOCKING`; restart this worker",
    )]
}

/// While one slot is good, a restart would kill the good ones.
pub(super) fn slots(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let found = Finding::pass(json!(facts.stuck), Some("slots")).limit(json!(facts.slots));
    let output = format!(
        "{} of {} slots hold jobs that are past their time-out and ignore cancellation",
        facts.stuck, facts.slots
    );
    vec![match facts.stuck {
        0 => found,
        stuck if stuck >= facts.slots => {
            found.bad(Status::Fail, "ALL_SLOTS_STUCK", output, "restart this worker")
        }
        _ => {
            let hint = format!("sluicegate worker dump {} shows which jobs they are", facts.worker);
            found.bad(Status::Warn, "SLOTS_STUCK", output, hint)
        }
    }]
}

/// For people: a full worker, and one whose jobs take hours, are as they should be.
pub(super) fn utilization(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let share = f64::from(facts.busy) / f64::from(facts.slots.max(1));
    vec![Finding::pass(json!((share * 1e3).round() / 1e3), Some("ratio"))]
}

/// Only the store's answer makes a worker active, and only an active one moves work.
pub(super) fn activation(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let found = Finding::pass(json!(facts.state.as_str()), None).since(facts.now.minus(facts.state_age));
    vec![if facts.state == WorkerState::Active { found } else { inactive(facts, found) }]
}

fn inactive(facts: &Facts, found: Finding) -> Finding {
    let mut why = facts.reason.clone().unwrap_or_default();
    let found = match &facts.fault {
        Some(fault) => {
            // The reason may be about the state alone, and the fault is what a person must see.
            if !why.contains(&fault.detail) {
                why = said(why, &fault.detail).trim_start_matches(": ").to_owned();
            }
            found.since(fault.at)
        }
        None => found,
    };
    let output = said(format!("worker is {} for {}", facts.state, human(facts.state_age)), &why);
    found.bad(Status::Fail, inactive_code(facts), output, inactive_hint(facts))
}

fn inactive_code(facts: &Facts) -> &'static str {
    match facts.state {
        WorkerState::Quiet => "QUIET",
        WorkerState::Stopping | WorkerState::Stopped => "STOPPING",
        _ => match &facts.fault {
            Some(fault) => fault.code.as_str(),
            None if facts.state == WorkerState::Starting => "NOT_PROVEN",
            None => "NOT_ACTIVE",
        },
    }
}

fn inactive_hint(facts: &Facts) -> Cow<'static, str> {
    match facts.state {
        WorkerState::Quiet => format!("sluicegate worker resume {}", facts.worker).into(),
        WorkerState::Stopping | WorkerState::Stopped => "it ends by itself; start another one".into(),
        _ if stands_by(facts) => "it is proven and stands by: /readyz/staged passes".into(),
        _ => match facts.other.as_ref().and_then(|other| other.deploy.as_ref()) {
            Some(deploy) => format!("sluicegate deploy show {deploy}").into(),
            None => "sluicegate status shows which release is active".into(),
        },
    }
}

/// Inactive because another release is active, or because none is yet and it waits for its own; proven, without fault.
fn stands_by(facts: &Facts) -> bool {
    facts.state == WorkerState::Inactive
        && facts.fault.is_none()
        && facts.canary_age.is_some()
        && match &facts.other {
            Some(other) => other.release.as_str() != facts.release,
            None => facts.managed,
        }
}

/// A standby is not broken; one that never proved itself is no standby.
pub(super) fn staged(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let found = Finding::pass(json!(facts.state.as_str()), None).since(facts.now.minus(facts.state_age));
    if facts.state == WorkerState::Active || stands_by(facts) {
        return vec![found];
    }
    let unproven =
        facts.state == WorkerState::Inactive && facts.fault.is_none() && facts.canary_age.is_none();
    vec![if unproven {
        let output =
            format!("worker is inactive for {} and not proven: no canary came back", human(facts.state_age));
        found.bad(Status::Fail, "NOT_PROVEN", output, "sluicegate doctor")
    } else {
        inactive(facts, found)
    }]
}

/// A worker that was quieted and forgotten is an outage that has not begun yet.
pub(super) fn quiet(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let Some(quiet) = &facts.quiet else { return Vec::new() };
    let found = Finding::pass(json!(quiet.owner), None).since(facts.now.minus(facts.state_age));
    vec![match quiet.until {
        Some(until) => found.with("until", Some(json!(until))),
        None => found.bad(
            Status::Warn,
            "QUIET_WITHOUT_END",
            format!("quiet without a deadline: {} must resume it ({})", quiet.owner, quiet.reason),
            format!("sluicegate worker quiet {} --for 30m, or worker resume {}", facts.worker, facts.worker),
        ),
    }]
}

/// The script that must run before the first claim.
pub(super) fn hook(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let failed = facts.fault.as_ref().filter(|fault| fault.code == FaultCode::ActivationHookFailed);
    let Some(fault) = failed else { return vec![Finding::pass(json!("ok"), None)] };
    let hint = match facts.other.as_ref().and_then(|other| other.deploy.as_ref()) {
        Some(deploy) => format!("sluicegate deploy show {deploy}").into(),
        None => Cow::Borrowed("`worker.activation_hook` names it; it is tried again by itself"),
    };
    let found = Finding::pass(json!("failed"), None).since(fault.at);
    vec![found.bad(Status::Fail, fault.code.as_str(), fault.detail.clone(), hint)]
}

/// Only when the asker names a release: otherwise a stale "latest" would pass.
pub(super) fn release(facts: &Facts, ask: &Ask, _: &Thresholds) -> Vec<Finding> {
    let Some(expected) = ask.release.as_deref() else { return Vec::new() };
    let found = Finding::pass(json!(facts.release), None).limit(json!(expected));
    if facts.release == expected {
        return vec![found];
    }
    vec![found.bad(
        Status::Fail,
        "WRONG_RELEASE",
        format!("worker is of release `{}`, not `{}`", facts.release, crate::names::shown(expected)),
        "ask a worker of that release, or leave `release` out",
    )]
}

/// The worker's own heartbeat through the real path. Only a deploy fails for it: to others it is a warning that comes
/// before the rest.
pub(super) fn canary(facts: &Facts, ask: &Ask, limits: &Thresholds) -> Vec<Finding> {
    let Some(age) = facts.canary_age else {
        let none = Finding::pass(Value::Null, None).bad(
            Status::Fail,
            "NO_CANARY",
            said("no canary came back yet".to_owned(), facts.canary_error.as_deref().unwrap_or_default()),
            "sluicegate doctor",
        );
        // A worker that has just started owes nobody an alarm; to a deploy, no evidence is never a pass.
        let owed = ask.probe == Probe::Deploy || facts.canary_error.is_some();
        return if owed { vec![none] } else { Vec::new() };
    };
    let found = Finding::pass(secs(age), Some("s")).limit(secs(limits.canary));
    vec![match &facts.canary_error {
        Some(error) => found.bad(
            Status::Fail,
            "CANARY_FAILED",
            format!("the last canary failed; the last good one was {} ago: {error}", human(age)),
            "sluicegate doctor",
        ),
        None if age > limits.canary => found.since(facts.now.minus(age)).bad(
            Status::Fail,
            "CANARY_LATE",
            format!("no canary came back for {}", human(age)),
            "sluicegate doctor; the store is slow, or jobs do not start",
        ),
        None => found,
    }]
}

/// The airflow case: everything answers, and the claim loop is dead. A worker whose slots are all busy does not claim,
/// however long its jobs take, and that is no fault: its loop still turns.
pub(super) fn claim(facts: &Facts, _: &Ask, limits: &Thresholds) -> Vec<Finding> {
    if !matches!(facts.state, WorkerState::Inactive | WorkerState::Active) {
        return Vec::new();
    }
    // Counted from when it could have claimed: quiet workers and full ones have not, for as long as they were so.
    let could = facts.state_age.min(facts.free_age.unwrap_or_default());
    let unanswered = facts.claim_age.unwrap_or(Duration::MAX).min(could);
    let stopped = facts.loop_age.min(facts.state_age);
    let age = unanswered.max(stopped);
    let found = Finding::pass(secs(age), Some("s")).limit(secs(limits.claim));
    vec![if unanswered < limits.claim && stopped < LOOP {
        found
    } else if stopped >= LOOP {
        found.bad(
            Status::Fail,
            "CLAIM_LOOP_STOPPED",
            format!("the claim loop has not turned for {}", human(stopped)),
            "sluicegate doctor; if the store answers, restart this worker",
        )
    } else {
        found.bad(
            Status::Fail,
            "CLAIMS_UNANSWERED",
            format!("no claim was answered for {}", human(unanswered)),
            "sluicegate doctor; the store is slow or away",
        )
    }]
}

/// Jobs wait, slots are free, and nothing moves. An idle worker, and one whose slots are all busy, are fine.
pub(super) fn progress(facts: &Facts, _: &Ask, limits: &Thresholds) -> Vec<Finding> {
    if facts.state != WorkerState::Active {
        return Vec::new();
    }
    let free = facts.slots.saturating_sub(facts.busy);
    let stalled = [facts.backlog_age, facts.free_age]
        .into_iter()
        .map(Option::unwrap_or_default)
        .chain([facts.progress_age.unwrap_or(Duration::MAX), facts.state_age])
        .min()
        .unwrap_or_default();
    let found = Finding::pass(secs(stalled), Some("s"))
        .limit(secs(limits.progress))
        .with("eligible", facts.eligible.map(|jobs| json!(jobs)))
        .with("slotsFree", Some(json!(free)));
    if stalled < limits.progress {
        return vec![found];
    }
    let waiting = facts.eligible.filter(|&jobs| jobs > 0).map_or_else(
        || "jobs are waiting".to_owned(),
        |jobs| format!("{jobs} {} eligible", if jobs == 1 { "job is" } else { "jobs are" }),
    );
    vec![found.bad(
        Status::Fail,
        "NO_PROGRESS",
        format!(
            "no job started or ended for {} although {waiting} and {free} of {} slots are free",
            human(stalled),
            facts.slots
        ),
        "sluicegate status; restart this worker if others of its release make progress",
    )]
}

/// All jobs failing is not progress. One finding per kind.
pub(super) fn outcomes(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    if facts.failing.is_empty() {
        return vec![Finding::pass(json!(0), Some("kinds"))];
    }
    let told = facts.failing.iter().map(|failing| {
        let found = Finding::pass(json!(failing.failed), Some("attempts"))
            .since(failing.since)
            .with("kind", Some(json!(failing.kind)))
            .with("attempts", Some(json!(failing.attempts)))
            .with("baseline", Some(json!((failing.baseline * 1e4).round() / 1e4)));
        let output = format!(
            "{}: {} of {} first attempts failed since {} (usually {:.1} %): {}",
            failing.kind,
            failing.failed,
            failing.attempts,
            failing.since,
            failing.baseline * 100.0,
            crate::names::shown_long(&failing.error)
        );
        let hint = format!("sluicegate job list --kind {} --state retryable", failing.kind);
        found.bad(Status::Fail, "KIND_FAILING", output, hint)
    });
    told.collect()
}

/// A restart does not bring a store back, so this never fails `live`.
pub(super) fn store(facts: &Facts, _: &Ask, limits: &Thresholds) -> Vec<Finding> {
    let away = facts.store_down.as_ref().map_or(Duration::ZERO, |(_, away)| *away);
    let found = Finding::pass(secs(away), Some("s")).limit(secs(limits.store));
    vec![match &facts.store_down {
        None => found,
        Some((error, _)) => found.since(facts.now.minus(away)).bad(
            if away < limits.store { Status::Warn } else { Status::Fail },
            "STORE_UNREACHABLE",
            format!(
                "store unreachable for {}; jobs keep running, results are buffered: {error}",
                human(away)
            ),
            "sluicegate doctor; the worker resumes by itself when the store is back",
        ),
    }]
}

/// A backlog is for operators: a probe that failed for it would kill the workers that work it off.
pub(super) fn latency(facts: &Facts, _: &Ask, _: &Thresholds) -> Vec<Finding> {
    let told = facts.slow_queues.iter().map(|slow| {
        let (queue, wait, slo) = (&slow.queue, human(slow.wait), human(slow.slo));
        Finding::pass(secs(slow.wait), Some("s")).limit(secs(slow.slo)).with("queue", Some(json!(queue))).bad(
            Status::Warn,
            "QUEUE_OVER_SLO",
            format!("{queue} {wait} > slo {slo} (does not affect readiness)"),
            format!("sluicegate queue show {queue}"),
        )
    });
    told.collect()
}
