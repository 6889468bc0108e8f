//! The rules of a tier: pure, from facts to a verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ask::GateAsk;
use super::checks;
use super::crew::Crew;
use super::facts::{Change, TierFacts};
use super::outcomes;
use super::verdict::{Decision, Mark, TierCheck, TierVerdict};
use crate::activation::WorkerState;
use crate::clock::human;
use crate::health::probe::{CANARY, CLAIM, PROGRESS, RUNTIME};
use crate::names::Release;
use crate::store::{RESTARTS_KEPT, SIMULATED, STALE, Seen};

/// A worker of the active release may be inactive for so long after the flip, or after it came up: it learns of the
/// activation with its next poll, and runs its hook.
pub const SETTLING: Duration = Duration::from_secs(5);
/// A worker may be starting for so long.
pub const STARTING: Duration = Duration::from_secs(60);
/// Jobs have waited for so long in a queue that no active worker serves: waiting longer would not help.
pub const UNSERVED: Duration = Duration::from_secs(6);
/// For so long nobody may live of an active release, and jobs may wait meanwhile; a single worker that restarts takes less.
pub const UNATTENDED: Duration = Duration::from_secs(10);
/// A worker that vanished without goodbye counts as missing for so long, unless another one joined since.
pub const LOST: Duration = Duration::from_secs(600);
/// A name whose process was replaced so often lately, without goodbye, is in a crash loop.
pub const CRASH_LOOP: usize = 3;
/// What `slo=1` means for queues without a time of their own (`[queues.NAME] slo`).
pub const SLO: Duration = Duration::from_secs(60);

/// Judges.
#[must_use]
pub fn judge(ask: &GateAsk, facts: &TierFacts) -> TierVerdict {
    if let Some(verdict) = superseded(ask, facts).or_else(|| unknown(ask, facts)) {
        return verdict;
    }
    let crew = Crew::muster(ask, facts);
    let mut found = vec![checks::activation(&crew), checks::active(&crew)];
    found.extend(checks::canaries(&crew));
    for (key, unit) in checks::TROUBLES {
        found.extend(checks::troubles(&crew, key, unit));
    }
    found.extend(checks::restarts(&crew));
    found.extend(checks::some_stuck(&crew));
    found.extend(checks::progress(&crew));
    found.extend(checks::lost(&crew));
    found.extend(checks::forgotten(&crew));
    found.extend(outcomes::outcomes(&crew));
    found.extend(checks::queues_served(&crew));
    found.extend(checks::kinds_known(&crew));
    found.extend(outcomes::readable(&crew));
    found.extend(checks::latency(&crew));
    found.push(checks::store(facts));
    found.extend(checks::way_back(&crew));
    conclude(&crew, found)
}

/// Whether `doctor --simulate` made it up.
#[must_use]
pub fn is_simulated(seen: &Seen) -> bool {
    seen.presence.worker.as_str().starts_with(SIMULATED)
}

// ---- the release's place in the tier

/// It was active, and another one replaced it since the asker looked last.
fn superseded(ask: &GateAsk, facts: &TierFacts) -> Option<TierVerdict> {
    let current = facts.activation.as_ref().filter(|current| current.release != ask.release)?;
    let change = replaced(facts, &ask.release).filter(|change| change.to.generation > ask.known)?;
    let how = if change.event == "activation.reverted" {
        "was not confirmed in time and reverted to"
    } else {
        "was replaced by"
    };
    let why = change.by.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let output = format!(
        "release `{}` {how} `{}` at generation {}, {} by {}{why}",
        ask.release, change.to.release, change.to.generation, change.at, change.by.who
    );
    let next = format!("sluicegate gate check --release {}", current.release);
    Some(bare(ask, facts, Decision::Superseded, output, next))
}

/// The newest change that took the activation from a release.
pub(super) fn replaced<'f>(facts: &'f TierFacts, release: &Release) -> Option<&'f Change> {
    let left = |change: &&Change| {
        change.from.as_ref().is_some_and(|from| from.release == *release) && change.to.release != *release
    };
    facts.history.iter().find(left)
}

/// Nobody registered it, nothing of it lives, and it never was active.
fn unknown(ask: &GateAsk, facts: &TierFacts) -> Option<TierVerdict> {
    let release = &ask.release;
    let active = facts.activation.as_ref().is_some_and(|current| current.release == *release);
    let lives = facts.workers.iter().any(|seen| seen.presence.release == *release && !seen.is_stale());
    let was = facts.history.iter().any(|change| change.to.release == *release);
    // Every tier has the implicit one, until another is activated.
    let implicit = facts.activation.is_none() && release.is_implicit();
    if active || lives || was || implicit || facts.registered {
        return None;
    }
    let output = format!(
        "release `{release}` is unknown in tier `{}`: nobody registered it, no worker of it lives, it was never active",
        facts.tier
    );
    Some(bare(ask, facts, Decision::Unknown, output, format!("sluicegate work --release {release}")))
}

fn bare(ask: &GateAsk, facts: &TierFacts, decision: Decision, output: String, next: String) -> TierVerdict {
    TierVerdict {
        decision,
        terminal: decision == Decision::Superseded,
        unreachable: false,
        tier: facts.tier.clone(),
        release: ask.release.clone(),
        generation: facts.activation.as_ref().map(|current| current.generation),
        mode: None,
        confirm_by: None,
        deploy: None,
        output,
        next: Some(next),
        time: facts.now,
        deadline: None,
        checks: Vec::new(),
        left_out: BTreeMap::new(),
    }
}

/// The living workers of a release that could take over now, or have: no fault, and a canary that came back lately.
pub fn proven<'f>(facts: &'f TierFacts, release: &Release) -> impl Iterator<Item = &'f Seen> {
    let release = release.clone();
    facts.workers.iter().filter(move |seen| {
        let presence = &seen.presence;
        presence.release == release
            && !seen.is_stale()
            && !is_simulated(seen)
            && matches!(presence.state, WorkerState::Inactive | WorkerState::Active)
            && presence.fault.is_none()
            && presence.canary_error.is_none()
            && presence.canary_age.is_some_and(|age| age <= CANARY)
    })
}

// ---- the verdict

fn conclude(crew: &Crew<'_>, checks: Vec<TierCheck>) -> TierVerdict {
    let (worst, decision, terminal) = worst(&checks);
    let output = match decision {
        Decision::Pass => carried(crew, &checks),
        _ => blocked(&checks, worst),
    };
    let next = checks.iter().filter(|check| decision != Decision::Pass && check.mark == worst);
    let next = next.filter_map(|check| check.hint.clone()).find(|hint| hint.starts_with("sluicegate "));
    let mut verdict = bare(crew.ask, crew.facts, decision, output, String::new());
    (verdict.terminal, verdict.next) = (terminal, next);
    verdict.keep(checks);
    if let Some(current) = crew.current {
        (verdict.mode, verdict.confirm_by) = (Some(current.mode), current.confirm_by);
        verdict.deploy.clone_from(&current.deploy);
    }
    verdict
}

fn worst(checks: &[TierCheck]) -> (Mark, Decision, bool) {
    let worst = checks.iter().map(|check| check.mark).max().unwrap_or(Mark::Pending);
    let (decision, terminal) = match worst {
        Mark::Pass | Mark::Warn => (Decision::Pass, true),
        Mark::Pending => (Decision::Pending, false),
        Mark::Fail => (Decision::Fail, false),
        Mark::Final => (Decision::Fail, true),
    };
    (worst, decision, terminal)
}

impl TierVerdict {
    /// The same without what these checks say: whoever knows better leaves them out. They are named by key and component.
    #[must_use]
    pub fn without(mut self, known_better: impl Fn(&str, &str) -> bool) -> Self {
        let before = self.checks.len();
        self.checks
            .retain(|check| !known_better(check.key, check.component_id.as_deref().unwrap_or_default()));
        if self.checks.len() < before {
            let (worst, decision, terminal) = worst(&self.checks);
            (self.decision, self.terminal) = (decision, terminal);
            self.output = match decision {
                Decision::Pass => "everything else passes".to_owned(),
                _ => blocked(&self.checks, worst),
            };
        }
        self
    }
}

/// What blocks it, as far as it is of the worst sort.
fn blocked(checks: &[TierCheck], worst: Mark) -> String {
    // What will not heal explains; what may is its effect.
    told(checks, worst).join(" · ")
}

/// What the checks of one mark say, key by key; of each key the first few, as with workers.
fn told(checks: &[TierCheck], mark: Mark) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut keys: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for check in checks.iter().filter(|check| check.mark == mark) {
        let Some(output) = check.output.as_deref() else { continue };
        match keys.iter_mut().find(|(key, _)| *key == check.key) {
            Some((_, words)) => words.push(output),
            None => keys.push((check.key, vec![output])),
        }
    }
    let shorten = |(key, words): (&str, Vec<&str>)| {
        let more = words.len().saturating_sub(SHOWN);
        let mut shown: Vec<String> = words.into_iter().take(SHOWN).map(ToOwned::to_owned).collect();
        if more > 0 {
            shown.push(format!("and {more} more of {key}"));
        }
        shown
    };
    keys.into_iter().flat_map(shorten).collect()
}

/// What carries it.
fn carried(crew: &Crew<'_>, checks: &[TierCheck]) -> String {
    let mut words = Vec::new();
    if let Some(current) = crew.current {
        words.push(format!("{} at generation {}", current.mode, current.generation));
    }
    words.push(format!("{}/{} active on {}", crew.serving(), crew.required, crew.ask.release));
    if let Some(oldest) = crew.waiting().map(|(.., oldest)| oldest).max() {
        words.push(format!("oldest job {}", human(oldest)));
    }
    let back = checks.iter().find(|check| check.key == "rollback:target" && check.mark == Mark::Pass);
    words.extend(
        back.and_then(|check| check.observed_value.as_str()).map(|back| format!("way back {back} warm")),
    );
    words.extend(told(checks, Mark::Warn).into_iter().map(|output| format!("warning: {output}")));
    words.join(" · ")
}

/// Every threshold, for `gate explain`: name, value, what it means.
pub const THRESHOLDS: [(&str, Duration, &str); 10] = [
    ("silence", STALE, "a worker that says nothing for so long is stale: three beats"),
    ("settling", SETTLING, "a worker of the active release may be inactive for so long"),
    ("starting", STARTING, "a worker may be starting for so long"),
    ("canary", CANARY, "the last canary of a worker came back within this"),
    ("claim", CLAIM, "with free slots, the last claim was answered within this"),
    ("progress", PROGRESS, "jobs wait, slots are free, and nothing starts for so long"),
    ("runtime", RUNTIME, "the job runtime ticks within this"),
    ("unattended", UNATTENDED, "no worker lives for so long, or jobs wait for so long and none does"),
    (
        "restarts",
        RESTARTS_KEPT,
        "a process that is replaced three times within this, without goodbye, is in a crash loop",
    ),
    ("lost", LOST, "a worker that vanished is missed for so long, unless another joined since"),
];
