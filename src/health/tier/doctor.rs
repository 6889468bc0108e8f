//! "Why is nothing running?" The clause that blocks comes first, and each finding brings the command that helps. What the
//! gate knows, the doctor knows from the gate; what a gate must not judge (no activation, a full house, clocks, settings)
//! is added here.

use std::time::Duration;

use serde::Serialize;

use super::absence::{absence, overdue};
use super::checks::TROUBLES;
use super::crew::{Crew, names};
use super::rules::{judge, proven};
use super::{GateAsk, TierFacts};
use crate::activation::WorkerState;
use crate::clock::human;
use crate::health::Status;
use crate::health::probe::PROGRESS;
use crate::job::State;
use crate::names::Release;
use crate::store::{Durability, Paused, Seen, StoreError};

/// Clocks of hosts may be off by so much. Leases use the store's; logs, and what a handler signs or expires, do not.
pub const SKEW: Duration = Duration::from_secs(2);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// In words.
    pub output: String,
    /// What to do, as a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, status: Status, output: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = fix.into();
        Self { check, status, output: output.into(), fix: (!fix.is_empty()).then_some(fix) }
    }

    /// A store that cannot even be opened.
    #[must_use]
    pub fn unreachable(error: &StoreError) -> Self {
        let fix = error.hint.clone().unwrap_or_default();
        Self::new("store", Status::Fail, error.to_string(), fix)
    }
}

/// Looks at a tier. What blocks comes first; without a failure, nothing does.
#[must_use]
pub fn diagnose(facts: &TierFacts) -> Vec<Finding> {
    let mut findings = vec![store(facts)];
    // What keeps the workers of a tier from their first activation is the cause, that nothing is active is its effect.
    findings.extend(unready(facts));
    findings.push(activation(facts));
    findings.extend(facts.held.iter().map(|held| paused(facts, held)));
    findings.extend(workers(facts));
    findings.extend(full_house(facts));
    findings.push(clocks(facts));
    findings.push(settings(facts));
    findings.push(backlog(facts));
    // Of the same weight, the first clause is the one that blocks the others.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.status));
    findings
}

/// Whether something is broken, and not merely worth a look.
#[must_use]
pub fn is_ill(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.status == Status::Fail)
}

fn store(facts: &TierFacts) -> Finding {
    match &facts.unwritable {
        Some(error) => Finding::unreachable(error),
        None => Finding::new("store", Status::Pass, format!("{} takes writes", facts.about.location), ""),
    }
}

/// Those that are due wait as well: only a living worker makes them available.
fn waiting(facts: &TierFacts) -> u64 {
    facts.queues.iter().map(|queue| queue.jobs(State::Available)).sum::<u64>() + facts.overdue
}

fn activation(facts: &TierFacts) -> Finding {
    const CHECK: &str = "activation";
    if let Some(current) = &facts.activation {
        let managed = if current.release.is_implicit() { "unmanaged" } else { "managed" };
        let output =
            format!("release {} is active at generation {} ({managed})", current.release, current.generation);
        return Finding::new(CHECK, Status::Pass, output, "");
    }
    let ready = facts.workers.iter().map(|seen| &seen.presence.release);
    let ready = ready.collect::<std::collections::BTreeSet<_>>().into_iter();
    let ready: Vec<&Release> = ready.filter(|release| proven(facts, release).next().is_some()).collect();
    let (why, fix) = match ready.first() {
        Some(release) => {
            ("workers stand by, and nobody activated them", format!("sluicegate activate {release}"))
        }
        // Another worker beside one that does not get ready would take the tier as unmanaged.
        None if facts.workers.iter().any(is_there) => {
            ("workers are there, and none of them is ready", "sluicegate worker list".to_owned())
        }
        None => ("no worker without a release has come yet", "sluicegate work".to_owned()),
    };
    let waiting = waiting(facts);
    let (status, jobs) = match waiting {
        0 => (Status::Warn, String::new()),
        n => (Status::Fail, format!("; {n} jobs wait")),
    };
    Finding::new(CHECK, status, format!("nothing is active in tier `{}`: {why}{jobs}", facts.tier), fix)
}

/// Somebody holds a queue back: that is meant, and it is why its jobs wait.
fn paused(facts: &TierFacts, held: &Paused) -> Finding {
    let queue = facts.queues.iter().find(|queue| queue.queue == held.queue);
    let waiting = queue.map_or(0, |queue| queue.jobs(State::Available));
    let why = held.by.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let until = held.until.map_or_else(|| "until somebody resumes it".to_owned(), |at| format!("until {at}"));
    let output = format!(
        "queue `{}` is paused by {}{why}, {until}; {waiting} jobs wait in it",
        held.queue, held.by.who
    );
    // Nothing is broken, but with no end in sight it is forgotten.
    let status = if waiting > 0 && held.until.is_none() { Status::Fail } else { Status::Warn };
    Finding::new("pauses", status, output, String::new())
}

/// Living, and not on its way out.
fn is_there(seen: &Seen) -> bool {
    !seen.is_stale() && !matches!(seen.presence.state, WorkerState::Stopping | WorkerState::Stopped)
}

/// What keeps workers from being ready while nothing is active yet. It blocks only as long as nobody else is.
fn unready(facts: &TierFacts) -> Vec<Finding> {
    if facts.activation.is_some() {
        return Vec::new();
    }
    let releases: std::collections::BTreeSet<&Release> =
        facts.workers.iter().filter(|seen| is_there(seen)).map(|seen| &seen.presence.release).collect();
    let ready = releases.iter().any(|release| proven(facts, release).next().is_some());
    let status = if ready { Status::Warn } else { Status::Fail };
    let of_a_worker =
        |key: &str| key == "canary:roundTrip" || TROUBLES.iter().any(|(known, _)| *known == key);
    let mut findings = Vec::new();
    for release in releases {
        let verdict = judge(&GateAsk::new(release.clone()), facts);
        let bad = verdict.checks.iter().filter(|check| check.status == Status::Fail && !check.pending);
        findings.extend(bad.filter(|check| of_a_worker(check.key())).map(|check| {
            let output = check.output.clone().unwrap_or_default();
            let worker = check.component_id.as_ref().and_then(|of| of.strip_prefix("worker/"));
            let fix = worker.map(|worker| format!("sluicegate worker show {worker}"));
            Finding { check: check.key(), status, output, fix }
        }));
    }
    findings
}

/// What the gate says of the active release.
fn workers(facts: &TierFacts) -> Vec<Finding> {
    let Some(current) = &facts.activation else { return Vec::new() };
    let ask = GateAsk { allow_provisional: true, ..GateAsk::new(current.release.clone()) };
    let verdict = judge(&ask, facts);
    let living = facts.workers.iter().any(|seen| seen.presence.release == current.release && is_there(seen));
    let mut findings = Vec::new();
    if !living {
        findings.push(nobody(facts, &ask));
    }
    for check in verdict.troubles() {
        // The store was told of, and that nobody lives explains that nobody is active.
        if check.key() == "store:probe" || !living && check.key() == "tier:active" {
            continue;
        }
        let status = if check.pending { Status::Warn } else { check.status };
        let output = check.output.clone().unwrap_or_default();
        let fix = check.hint.clone().filter(|hint| hint != "sluicegate doctor");
        findings.push(Finding { check: check.key(), status, output, fix });
    }
    findings
}

fn nobody(facts: &TierFacts, ask: &GateAsk) -> Finding {
    let active = &ask.release;
    let why = absence(&Crew::muster(ask, facts));
    let others: Vec<&Seen> =
        facts.workers.iter().filter(|seen| seen.presence.release != *active && !seen.is_stale()).collect();
    let ready = others.iter().map(|seen| &seen.presence.release);
    let ready = ready.into_iter().find(|release| proven(facts, release).next().is_some());
    let start = if active.is_implicit() { String::new() } else { format!(" --release {active}") };
    let (more, fix) = match ready {
        Some(release) => {
            (format!("; workers of `{release}` stand by"), format!("sluicegate activate {release}"))
        }
        None => (String::new(), format!("sluicegate work{start}")),
    };
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    // Jobs need not wait yet: the next one will, and nothing is there to take it.
    Finding::new(
        "workers",
        Status::Fail,
        format!("no worker of the active release `{active}` lives{why}{more}"),
        fix,
    )
}

/// Every slot is busy: nothing is wrong, and it is why jobs wait.
fn full_house(facts: &TierFacts) -> Option<Finding> {
    let current = facts.activation.as_ref()?;
    let active: Vec<&Seen> = facts
        .workers
        .iter()
        .filter(|seen| !seen.is_stale() && seen.presence.release == current.release)
        .filter(|seen| seen.presence.state == WorkerState::Active)
        .collect();
    let sum = |of: fn(&Seen) -> u32| active.iter().map(|seen| of(seen)).sum::<u32>();
    let (slots, busy) = (sum(|seen| seen.presence.slots), sum(|seen| seen.presence.busy));
    let jobs = waiting(facts);
    (slots > 0 && busy >= slots && jobs > 0).then(|| {
        let output = format!("all {slots} slots are busy, and {jobs} jobs wait for one");
        Finding::new("slots", Status::Warn, output, "sluicegate job list --state running")
    })
}

/// A worker's clock against the store's, at its last beat.
fn clocks(facts: &TierFacts) -> Finding {
    let off = |seen: &Seen| seen.presence.clock.since(seen.at).max(seen.at.since(seen.presence.clock));
    let told = |seen: &&Seen| seen.presence.clock.ms() != 0 && !seen.is_stale();
    let wrong: Vec<&Seen> = facts.workers.iter().filter(told).filter(|seen| off(seen) > SKEW).collect();
    let Some(worst) = wrong.iter().map(|seen| off(seen)).max() else {
        return Finding::new("clocks", Status::Pass, format!("within {} of the store's", human(SKEW)), "");
    };
    let names = names(wrong.iter().map(|seen| seen.presence.worker.as_str()));
    let hosts: std::collections::BTreeSet<&str> =
        wrong.iter().map(|seen| seen.presence.host.as_str()).collect();
    let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
    let output = format!("{names}: the clock of {hosts} is off by {} against the store's", human(worst));
    Finding::new(
        "clocks",
        Status::Warn,
        output,
        "set the clock there: `chronyc makestep`, or `timedatectl set-ntp true`",
    )
}

fn settings(facts: &TierFacts) -> Finding {
    let about = &facts.about;
    let output = format!("{}; an acknowledged job survives: {}", about.detail, about.durability);
    match about.durability {
        Durability::Memory => {
            let fix = "redis-cli config set appendonly yes; redis-cli config set appendfsync always";
            Finding::new("settings", Status::Warn, output, fix)
        }
        _ => Finding::new("settings", Status::Pass, output, ""),
    }
}

fn backlog(facts: &TierFacts) -> Finding {
    let waits = facts.queues.iter().filter_map(|queue| queue.oldest_wait);
    let oldest = waits.chain(overdue(facts)).max().unwrap_or_default();
    let (jobs, output) = match waiting(facts) {
        0 => (0, "no job waits".to_owned()),
        n => (n, format!("{n} jobs wait, the oldest for {}", human(oldest))),
    };
    let late = jobs > 0 && oldest >= PROGRESS;
    let (status, fix) = if late { (Status::Warn, "sluicegate queue list") } else { (Status::Pass, "") };
    Finding::new("backlog", status, output, fix)
}
