//! The workers of the release that is judged: who counts, who may count soon, and what keeps the others from it.

use std::time::Duration;

use super::ask::{GateAsk, MinActive};
use super::facts::TierFacts;
use super::rules::{CRASH_LOOP, LOST, SETTLING, STARTING, is_simulated};
use super::verdict::Mark;
use crate::activation::{Activation, WorkerState};
use crate::clock::{Timestamp, human};
use crate::health::probe::{CANARY, CLAIM, LOOP, PROGRESS, RUNTIME};
use crate::job::State;
use crate::store::{FaultCode, Presence, QueueCensus, RESTARTS_KEPT, Seen};

/// Where a worker of the release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Living, and meant to work: starting, inactive or active.
    Here,
    /// Told not to claim: not counted.
    Quiet,
    /// On its way out: not counted.
    Leaving,
    /// Vanished without goodbye: counted as missing.
    Stale,
    /// The same, and others took its place, or it is too long ago, or it was told to be quiet: not counted.
    Lost,
}

/// What keeps a worker from counting.
pub(super) struct Trouble {
    pub(super) key: &'static str,
    pub(super) code: Option<&'static str>,
    pub(super) mark: Mark,
    /// Without ages: workers with the same reason are told of together, and a line is printed when it changes.
    pub(super) reason: String,
    pub(super) age: Duration,
}

pub(super) struct Member<'a> {
    pub(super) seen: &'a Seen,
    pub(super) place: Place,
    pub(super) trouble: Option<Trouble>,
    /// Active, by the store's answer to it under this activation.
    pub(super) serving: bool,
    /// In its place, without trouble, and its canary came back.
    pub(super) good: bool,
}

impl Member<'_> {
    pub(super) fn presence(&self) -> &Presence {
        &self.seen.presence
    }

    /// Not good yet, and nothing says that it will not be.
    pub(super) fn is_coming(&self) -> bool {
        self.place == Place::Here && self.trouble.is_none() && !self.good
    }

    pub(super) fn free(&self) -> u32 {
        self.presence().slots.saturating_sub(self.presence().busy)
    }
}

pub(super) struct Crew<'a> {
    pub(super) ask: &'a GateAsk,
    pub(super) facts: &'a TierFacts,
    /// The activation, if it is that of the release.
    pub(super) current: Option<&'a Activation>,
    pub(super) members: Vec<Member<'a>>,
    pub(super) required: u64,
    /// Members that count.
    pub(super) good: u64,
    /// Those that may count soon, and those that are expected and not there yet.
    pub(super) coming: u64,
}

impl<'a> Crew<'a> {
    pub(super) fn muster(ask: &'a GateAsk, facts: &'a TierFacts) -> Self {
        let current = facts.activation.as_ref().filter(|current| current.release == ask.release);
        let of_release: Vec<&Seen> =
            facts.workers.iter().filter(|seen| seen.presence.release == ask.release).collect();
        let members: Vec<Member<'_>> = of_release
            .iter()
            // Nothing of a simulation outlives it.
            .filter(|seen| !(is_simulated(seen) && seen.is_stale()))
            .map(|seen| enlist(seen, place(seen, &of_release), current, facts))
            .collect();
        let count =
            |wanted: &dyn Fn(&Member<'_>) -> bool| members.iter().filter(|m| wanted(m)).count() as u64;
        let there = count(&|m| matches!(m.place, Place::Here | Place::Stale));
        // A made-up worker shall be missed, so while there is one nobody makes up for it.
        let simulated = count(&|m| m.place == Place::Here && is_simulated(m.seen));
        let expected = ask.expect.map_or(there - simulated, u64::from);
        let required = match ask.min_active {
            MinActive::Count(n) => u64::from(n),
            MinActive::Percent(percent) => (expected * u64::from(percent)).div_ceil(100),
        };
        let required = match simulated {
            0 => required.max(1),
            n => required.max(there - simulated) + n,
        };
        let absent = ask.expect.map_or(required, |_| expected + simulated).saturating_sub(there);
        let (good, coming) = (count(&|m| m.good), count(&|m| m.is_coming()) + absent);
        Self { ask, facts, current, members, required, good, coming }
    }

    /// How heavy trouble of one worker weighs: others may make up for it, or may still come.
    pub(super) fn weigh(&self, mark: Mark) -> Mark {
        if self.good >= self.required {
            Mark::Warn
        } else if self.good + self.coming >= self.required {
            Mark::Pending
        } else {
            mark
        }
    }

    /// What is missing as long as somebody may still bring it.
    pub(super) fn unless_more_come(&self) -> Mark {
        if self.coming > 0 { Mark::Pending } else { Mark::Final }
    }

    pub(super) fn here(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.place == Place::Here)
    }

    /// Those who do the work, or would.
    pub(super) fn hands(&self) -> impl Iterator<Item = &Member<'a>> {
        self.here().filter(|member| self.current.is_none() || member.serving)
    }

    pub(super) fn serving(&self) -> u64 {
        self.members.iter().filter(|member| member.serving).count() as u64
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = (&QueueCensus, u64, Duration)> {
        let facts = self.facts;
        facts
            .queues
            .iter()
            .filter(|queue| !facts.held.iter().any(|held| held.queue == queue.queue))
            .filter_map(|queue| {
                let waiting = queue.jobs(State::Available);
                (waiting > 0).then(|| (queue, waiting, queue.oldest_wait.unwrap_or_default()))
            })
    }
}

fn place(seen: &Seen, all: &[&Seen]) -> Place {
    match seen.presence.state {
        WorkerState::Stopping | WorkerState::Stopped => Place::Leaving,
        WorkerState::Quiet if seen.is_stale() => Place::Lost,
        WorkerState::Quiet => Place::Quiet,
        _ if !seen.is_stale() => Place::Here,
        _ if seen.age >= LOST || is_replaced(seen, all) => Place::Lost,
        _ => Place::Stale,
    }
}

/// Whether one that joined later takes the place of a stale worker. Each can take one place only, so there must be more
/// of them than workers that vanished since.
fn is_replaced(stale: &Seen, all: &[&Seen]) -> bool {
    let meant = |seen: &&&Seen| {
        !matches!(seen.presence.state, WorkerState::Stopping | WorkerState::Stopped | WorkerState::Quiet)
            && !is_simulated(seen)
    };
    let joined = all.iter().filter(meant).filter(|seen| !seen.is_stale() && seen.since > stale.at).count();
    let vanished_later = all
        .iter()
        .filter(meant)
        .filter(|seen| {
            seen.is_stale() && (seen.at, &seen.presence.worker) > (stale.at, &stale.presence.worker)
        })
        .count();
    joined > vanished_later
}

fn enlist<'a>(seen: &'a Seen, place: Place, current: Option<&Activation>, facts: &TierFacts) -> Member<'a> {
    let presence = &seen.presence;
    // It may have become active under an earlier activation of the same release, and will hear of this one.
    let serving = place == Place::Here
        && presence.state == WorkerState::Active
        && current.is_some_and(|current| presence.generation >= current.generation);
    let trouble = match place {
        Place::Here => trouble(seen, current, facts),
        Place::Stale => Some(Trouble {
            key: "worker:presence",
            code: None,
            mark: Mark::Fail,
            reason: format!("vanished while {} and did not say goodbye", presence.state),
            age: seen.age,
        }),
        Place::Quiet | Place::Leaving | Place::Lost => None,
    };
    let in_place = match current {
        Some(_) => serving,
        None => matches!(presence.state, WorkerState::Inactive | WorkerState::Active),
    };
    let good = place == Place::Here && trouble.is_none() && in_place && presence.canary_age.is_some();
    Member { seen, place, trouble, serving, good }
}

/// The first thing that is wrong with a living worker.
fn trouble(seen: &Seen, current: Option<&Activation>, facts: &TierFacts) -> Option<Trouble> {
    let presence = &seen.presence;
    let found = |key, reason: String, age| Some(Trouble { key, code: None, mark: Mark::Final, reason, age });
    if let Some(fault) = &presence.fault {
        let key = match fault.code {
            FaultCode::SelfTestFailed => "canary:roundTrip",
            FaultCode::ActivationHookFailed => "hooks:integrity",
            FaultCode::StoreWentBack | FaultCode::Other => "worker:fault",
        };
        let reason = format!("{}: {}", fault.code.as_str(), fault.detail);
        let age = facts.now.since(fault.at);
        return Some(Trouble { key, code: Some(fault.code.as_str()), mark: Mark::Final, reason, age });
    }
    if presence.runtime_age >= RUNTIME {
        return found(
            "runtime:tick",
            "its job runtime does not tick: something blocks it".into(),
            presence.runtime_age,
        );
    }
    if presence.stuck > 0 && presence.stuck >= presence.slots {
        let reason = "all of its slots hold jobs that ignore their cancellation".into();
        return found("slots:stuck", reason, Duration::ZERO);
    }
    if presence.loop_age >= LOOP {
        return found("worker:claim", "its claim loop does not turn any more".into(), presence.loop_age);
    }
    if presence.state == WorkerState::Active {
        if let Some(age) = claim_overdue(presence) {
            return found("worker:claim", "it has free slots and no claim of it was answered".into(), age);
        }
        if let Some(age) = presence.stalled.filter(|age| *age >= PROGRESS) {
            let reason = "jobs wait for it, it has free slots, and it starts none".into();
            return found("tier:progress", reason, age);
        }
    }
    if let Some(error) = &presence.canary_error {
        let reason = format!("its canary failed: {error}");
        return found("canary:roundTrip", reason, presence.canary_age.unwrap_or_default());
    }
    if let Some(age) = presence.canary_age.filter(|age| *age > CANARY) {
        return found("canary:roundTrip", "its canaries do not return any more".into(), age);
    }
    if recent_restarts(seen, facts) >= CRASH_LOOP && !is_steady(seen, facts) {
        let reason = format!(
            "its process was replaced {CRASH_LOOP} times or more within {}, and never said goodbye",
            human(RESTARTS_KEPT)
        );
        let age = presence.restarted.first().map_or(Duration::ZERO, |at| facts.now.since(*at));
        return Some(Trouble { key: "worker:restarts", code: None, mark: Mark::Fail, reason, age });
    }
    idle(seen, current, facts)
}

/// How often the process behind a name was replaced lately, without goodbye. A restart that was meant says goodbye.
pub(super) fn recent_restarts(seen: &Seen, facts: &TierFacts) -> usize {
    let recent = |at: &&Timestamp| facts.now.since(**at) < RESTARTS_KEPT;
    seen.presence.restarted.iter().filter(recent).count()
}

/// Whether the process lives for so long that it does not go on: twice as long as any before it lived.
fn is_steady(seen: &Seen, facts: &TierFacts) -> bool {
    let at = &seen.presence.restarted;
    let longest = at.iter().zip(at.iter().skip(1)).map(|(before, after)| after.since(*before)).max();
    facts.now.since(seen.since) >= (2 * longest.unwrap_or_default()).max(STARTING)
}

/// A worker of the active release that does not become active.
fn idle(seen: &Seen, current: Option<&Activation>, facts: &TierFacts) -> Option<Trouble> {
    let presence = &seen.presence;
    let age = presence.state_age;
    let (limit, age) = match presence.state {
        WorkerState::Starting => (STARTING, age),
        // Before the flip it was inactive rightly.
        WorkerState::Inactive if is_simulated(seen) => (SETTLING, age),
        WorkerState::Inactive => (SETTLING, age.min(facts.now.since(current?.since))),
        _ => return None,
    };
    let why = presence.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let reason = format!("{}{why}", presence.state);
    (age >= limit).then_some(Trouble { key: "tier:active", code: None, mark: Mark::Final, reason, age })
}

/// Where every slot is busy nothing is claimed, rightly, and where one just came free a job just ended.
fn claim_overdue(presence: &Presence) -> Option<Duration> {
    let never = Duration::MAX;
    let age =
        [presence.claim_age.unwrap_or(never), presence.progress_age.unwrap_or(never), presence.state_age]
            .into_iter()
            .min()?;
    (presence.busy < presence.slots && age >= CLAIM).then_some(age)
}

/// Workers with the same trouble.
pub(super) struct Group<'a> {
    pub(super) reason: &'a str,
    pub(super) code: Option<&'static str>,
    pub(super) mark: Mark,
    pub(super) names: Vec<&'a str>,
    pub(super) age: Duration,
}

impl Group<'_> {
    pub(super) fn words(&self) -> String {
        format!("{}: {}", names(self.names.iter().copied()), self.reason)
    }
}

/// `w-1, w-2 and 4 more`.
pub(super) fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<&str> = names.collect();
    let more = all.len().saturating_sub(SHOWN);
    let first: Vec<&str> = all.into_iter().take(SHOWN).collect();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

/// The names of workers, as [`names`].
pub(super) fn named(members: &[&Member<'_>]) -> String {
    names(members.iter().map(|member| member.presence().worker.as_str()))
}

pub(super) fn groups<'a>(crew: &'a Crew<'_>, key: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for member in &crew.members {
        let Some(trouble) = member.trouble.as_ref().filter(|trouble| trouble.key == key) else { continue };
        let name = member.presence().worker.as_str();
        match groups.iter_mut().find(|group| group.reason == trouble.reason) {
            Some(group) => {
                group.names.push(name);
                group.age = group.age.max(trouble.age);
            }
            None => groups.push(Group {
                reason: &trouble.reason,
                code: trouble.code,
                mark: trouble.mark,
                names: vec![name],
                age: trouble.age,
            }),
        }
    }
    groups
}
