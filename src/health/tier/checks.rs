//! The checks of a gate, one function each: from the crew and the facts to findings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::absence::{quiet_words, unattended};
use super::crew::{Crew, Group, Member, Place, groups, named, names, recent_restarts};
use super::facts::TierFacts;
use super::rules::{CRASH_LOOP, SETTLING, UNSERVED, proven, replaced};
use super::verdict::{Mark, TierCheck};
use crate::activation::Mode;
use crate::clock::human;
use crate::health::probe::{CANARY, PROGRESS};
use crate::health::verdict::secs;
use crate::job::State;
use crate::names::{Kind, Queue};
use crate::store::QueueCensus;

/// Whether the release is the active one, and stands.
pub(super) fn activation(crew: &Crew<'_>) -> TierCheck {
    const KEY: &str = "tier:activation";
    let (facts, release) = (crew.facts, &crew.ask.release);
    let hint = format!("sluicegate activate {release}");
    let Some(current) = crew.current else {
        let (observed, output) = match &facts.activation {
            None => (Value::Null, format!("nothing is active in tier `{}` yet", facts.tier)),
            Some(other) => {
                // To activate what was just replaced would take the new one back from production.
                if let Some(change) = replaced(facts, release) {
                    let (by, at) = (&change.to.release, change.to.generation);
                    let mut output = format!("replaced by `{by}` at generation {at}");
                    if other.generation > at {
                        output +=
                            &format!("; `{}` is active (generation {})", other.release, other.generation);
                    }
                    let check = TierCheck::pass(KEY, facts.now, json!(other.release));
                    return check.bad(Mark::Pending, output, "sluicegate events");
                }
                (
                    json!(other.release),
                    format!("release `{}` is active (generation {})", other.release, other.generation),
                )
            }
        };
        return TierCheck::pass(KEY, facts.now, observed).bad(Mark::Pending, output, hint);
    };
    let found =
        TierCheck { since: Some(current.since), ..TierCheck::pass(KEY, facts.now, json!(current.mode)) };
    if current.mode == Mode::Committed {
        return found;
    }
    let overdue = current.confirm_by.is_some_and(|by| facts.now > by.plus(SETTLING));
    let back = current.fallback.as_ref().map_or_else(|| "nothing".to_owned(), |to| format!("`{to}`"));
    let hint = format!("sluicegate activate {release} --confirm");
    if overdue {
        let output =
            format!("its provisional activation is overdue, and no living worker of {back} reverts it");
        return found.bad(Mark::Fail, output, hint);
    }
    if crew.ask.allow_provisional {
        return found;
    }
    let output =
        format!("provisional at generation {}, reverts to {back} unless it is committed", current.generation);
    found.bad(Mark::Pending, output, hint)
}

/// How many are active, of how many that must be.
pub(super) fn active(crew: &Crew<'_>) -> TierCheck {
    let release = &crew.ask.release;
    let mut found = TierCheck::pass("tier:active", crew.facts.now, crew.serving()).unit("workers");
    found.required = Some(json!(crew.required));
    found.by_state = Some(by_state(crew));
    if crew.current.is_none() {
        let output = format!("{}/{} inactive and proven on {release}", crew.good, crew.required);
        // That it is not active yet is told by the check before this one.
        let mark = if crew.good >= crew.required { Mark::Pending } else { crew.weigh(worst(crew)) };
        return found.bad(mark, output, "sluicegate status");
    }
    if crew.serving() >= crew.required {
        return found;
    }
    let mut output = format!("{}/{} active on {release}", crew.serving(), crew.required);
    let groups = groups(crew, "tier:active");
    if let Some(alone) = unattended(crew) {
        return found.bad(Mark::Fail, format!("{output}: {alone}"), "sluicegate doctor");
    }
    if crew.good + crew.coming >= crew.required {
        let coming: Vec<String> = by_state(crew)
            .into_iter()
            .filter(|(state, n)| *n > 0 && matches!(*state, "starting" | "inactive"))
            .map(|(state, n)| format!("{n} {state}"))
            .collect();
        if !coming.is_empty() {
            output += &format!(", {}", coming.join(", "));
        }
        return found.bad(Mark::Pending, output, "sluicegate status");
    }
    for group in &groups {
        output += &format!("; {}", group.words());
    }
    found.since = groups.iter().map(|group| crew.facts.now.minus(group.age)).min();
    found.bad(worst(crew), output, "sluicegate doctor")
}

/// The worst that any worker tells: whether waiting heals it.
fn worst(crew: &Crew<'_>) -> Mark {
    crew.members
        .iter()
        .filter_map(|member| member.trouble.as_ref())
        .map(|t| t.mark)
        .max()
        .unwrap_or(Mark::Fail)
}

fn by_state(crew: &Crew<'_>) -> BTreeMap<&'static str, u64> {
    let mut counts: BTreeMap<&'static str, u64> =
        ["starting", "inactive", "active", "quiet", "stopping", "stale"]
            .into_iter()
            .map(|s| (s, 0))
            .collect();
    for member in &crew.members {
        let state = if member.seen.is_stale() { "stale" } else { member.presence().state.as_str() };
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// Checks of which each is one trouble that a worker can have.
pub(super) const TROUBLES: [(&str, &str); 7] = [
    ("hooks:integrity", "faults"),
    ("worker:fault", "faults"),
    ("worker:claim", "workers"),
    ("runtime:tick", "workers"),
    ("slots:stuck", "workers"),
    ("worker:presence", "workers"),
    ("worker:restarts", "workers"),
];

pub(super) fn troubles(crew: &Crew<'_>, key: &'static str, unit: &'static str) -> Vec<TierCheck> {
    let told = told(crew, key, unit);
    if told.is_empty() { vec![TierCheck::pass(key, crew.facts.now, 0).unit(unit)] } else { told }
}

/// What workers tell of one trouble.
fn told(crew: &Crew<'_>, key: &'static str, unit: &'static str) -> Vec<TierCheck> {
    let now = crew.facts.now;
    let check = |group: &Group<'_>| {
        let mut check = TierCheck::pass(key, now, group.names.len()).unit(unit);
        if let [name] = group.names.as_slice() {
            check = check.of(format!("worker/{name}"));
        }
        check.code = group.code;
        check.since = Some(now.minus(group.age));
        check.bad(crew.weigh(group.mark), group.words(), "sluicegate doctor")
    };
    groups(crew, key).iter().map(check).collect()
}

/// Each worker that counts proved itself with a job of its own.
pub(super) fn canaries(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "canary:roundTrip";
    let now = crew.facts.now;
    let mut checks = told(crew, KEY, "workers");
    let waiting = crew
        .hands()
        .filter(|member| member.trouble.is_none() && member.presence().canary_age.is_none())
        .map(|member| member.presence().worker.as_str());
    let waiting: Vec<&str> = waiting.collect();
    if !waiting.is_empty() && crew.good < crew.required {
        let output = format!("{}: the first canary has not returned yet", names(waiting.iter().copied()));
        let check = TierCheck::pass(KEY, now, waiting.len()).unit("workers");
        checks.push(check.bad(Mark::Pending, output, "sluicegate status"));
    }
    if checks.is_empty() && crew.good > 0 {
        let oldest =
            crew.members.iter().filter(|member| member.good).filter_map(|m| m.presence().canary_age).max();
        let oldest = oldest.unwrap_or_default();
        let mut check = TierCheck::pass(KEY, now, secs(oldest)).unit("s");
        (check.limit, check.verified_at) = (Some(secs(CANARY)), Some(now.minus(oldest)));
        checks.push(check);
    }
    checks
}

/// A process that was replaced twice may be on its way to a third time.
pub(super) fn restarts(crew: &Crew<'_>) -> Option<TierCheck> {
    let often = |member: &&Member<'_>| {
        recent_restarts(member.seen, crew.facts) + 1 >= CRASH_LOOP && member.trouble.is_none()
    };
    let with: Vec<&Member<'_>> = crew.here().filter(often).collect();
    (!with.is_empty()).then(|| {
        let most = with.iter().map(|member| recent_restarts(member.seen, crew.facts)).max().unwrap_or(0);
        let output = format!("{}: replaced {most} times lately, without goodbye", named(&with));
        TierCheck::pass("worker:restarts", crew.facts.now, most).unit("restarts").bad(
            Mark::Warn,
            output,
            "sluicegate worker list",
        )
    })
}

/// While one slot of a worker is good, its loss would cost more than the stuck ones do.
pub(super) fn some_stuck(crew: &Crew<'_>) -> Option<TierCheck> {
    let some = |member: &&Member<'_>| member.presence().stuck > 0 && member.trouble.is_none();
    let with: Vec<&Member<'_>> = crew.here().filter(some).collect();
    let stuck: u32 = with.iter().map(|member| member.presence().stuck).sum();
    (stuck > 0).then(|| {
        let names = named(&with);
        let output = format!("{names}: {stuck} jobs ignore their cancellation");
        TierCheck::pass("slots:stuck", crew.facts.now, stuck).unit("slots").bad(
            Mark::Warn,
            output,
            "sluicegate job list --state running",
        )
    })
}

/// Jobs wait and nothing happens: as a worker tells it, or as nobody does.
pub(super) fn progress(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "tier:progress";
    let now = crew.facts.now;
    let mut checks = told(crew, KEY, "workers");
    if crew.current.is_some() && crew.serving() > 0 {
        for (queue, waiting, oldest) in crew.waiting().filter(|(.., oldest)| *oldest >= UNSERVED) {
            let mut check =
                TierCheck::pass(KEY, now, secs(oldest)).unit("s").of(format!("queue/{}", queue.queue));
            check.limit = Some(secs(PROGRESS));
            if let Some((mark, output)) = standstill(crew, queue, oldest) {
                let output = format!("{waiting} jobs wait in queue `{}`, {output}", queue.queue);
                checks.push(check.bad(mark, output, "sluicegate doctor"));
            }
        }
    }
    if checks.is_empty() {
        let oldest = crew.waiting().map(|(.., oldest)| oldest).max().unwrap_or_default();
        checks.push(TierCheck::pass(KEY, now, secs(oldest)).unit("s"));
    }
    checks
}

/// Why jobs that have long waited in a queue do not start, if nothing good explains it.
fn standstill(crew: &Crew<'_>, queue: &QueueCensus, oldest: Duration) -> Option<(Mark, String)> {
    let serving: Vec<&Member<'_>> = crew
        .hands()
        .filter(|member| member.presence().serves(&queue.queue) && member.trouble.is_none())
        .collect();
    if serving.is_empty() {
        let any = crew.hands().any(|member| member.presence().serves(&queue.queue));
        // One that serves it and is in trouble is told of already.
        return (!any).then(|| (crew.unless_more_come(), "and no active worker serves it".to_owned()));
    }
    if oldest < PROGRESS {
        return None;
    }
    // A suspect waits for another one to end, so while anything of the queue runs only its worker can tell.
    if queue.jobs(State::Running) > 0 {
        return None;
    }
    let free: u32 = serving.iter().map(|member| member.free()).sum();
    let idle = |member: &&Member<'_>| {
        let presence = member.presence();
        presence.progress_age.unwrap_or(Duration::MAX).min(presence.state_age) >= PROGRESS
    };
    (free > 0 && serving.iter().all(idle))
        .then(|| (Mark::Final, format!("{free} slots are free, and none of them starts")))
}

/// Workers that vanished and are not missed any more.
pub(super) fn lost(crew: &Crew<'_>) -> Option<TierCheck> {
    let lost: Vec<&Member<'_>> = crew.members.iter().filter(|member| member.place == Place::Lost).collect();
    (!lost.is_empty()).then(|| {
        let names = named(&lost);
        let output = format!("{names} vanished without goodbye; not counted any more");
        TierCheck::pass("worker:presence", crew.facts.now, lost.len()).unit("workers").bad(
            Mark::Warn,
            output,
            "sluicegate status",
        )
    })
}

/// Quiet without an end is how workers are forgotten.
pub(super) fn forgotten(crew: &Crew<'_>) -> Option<TierCheck> {
    let endless = |member: &&Member<'_>| {
        member.place == Place::Quiet
            && member.presence().quiet.as_ref().is_some_and(|quiet| quiet.until.is_none())
    };
    let endless: Vec<&Member<'_>> = crew.members.iter().filter(endless).collect();
    endless.first().map(|one| {
        let names = named(&endless);
        let output = format!("{names} told to be quiet {}", quiet_words(one.presence()));
        let check = TierCheck::pass("worker:quiet", crew.facts.now, endless.len()).unit("workers");
        check.bad(Mark::Warn, output, "sluicegate worker resume --all")
    })
}

/// Checks that a deploy has better evidence of: what fails, and kinds that somebody waived.
pub(crate) const OUTCOMES: &str = "outcomes:firstAttempts";
pub(crate) const KINDS: &str = "kinds:known";

/// Each queue that was asked for is served.
pub(super) fn queues_served(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "queues:served";
    let now = crew.facts.now;
    let check = |queue: &Queue| {
        let by = crew.hands().filter(|member| member.presence().serves(queue)).count();
        let check = TierCheck::pass(KEY, now, by).unit("workers").of(format!("queue/{queue}"));
        if by > 0 {
            return check;
        }
        let output = format!("no active worker of {} serves queue `{queue}`", crew.ask.release);
        check.bad(crew.unless_more_come(), output, "sluicegate status")
    };
    crew.ask.queues.iter().map(check).collect()
}

/// Every kind that waits is one that a living worker of the release can run.
pub(super) fn kinds_known(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = KINDS;
    const WAITING: [State; 4] = [State::Available, State::Scheduled, State::Retryable, State::Parked];
    let now = crew.facts.now;
    let known = |kind: &Kind| {
        let living = crew.members.iter().filter(|member| matches!(member.place, Place::Here | Place::Quiet));
        living.flat_map(|member| &member.presence().kinds).any(|(other, _)| other == kind)
    };
    if crew.here().next().is_none() {
        return Vec::new(); // that nobody is there is told already
    }
    let mut waiting: BTreeMap<&Kind, u64> = BTreeMap::new();
    for (kind, states) in crew.facts.queues.iter().flat_map(|queue| &queue.kinds) {
        let n: u64 = WAITING.iter().filter_map(|state| states.get(state)).sum();
        if n > 0 && !known(kind) {
            *waiting.entry(kind).or_default() += n;
        }
    }
    if waiting.is_empty() {
        return vec![TierCheck::pass(KEY, now, 0).unit("kinds")];
    }
    let check = |(kind, n): (&Kind, u64)| {
        let output =
            format!("jobs of kind `{kind}` wait, and no living worker of {} knows it", crew.ask.release);
        TierCheck::pass(KEY, now, n).unit("jobs").of(format!("kind/{kind}")).bad(
            crew.unless_more_come(),
            output,
            format!("sluicegate job list --kind {kind}"),
        )
    };
    waiting.into_iter().map(check).collect()
}

/// A backlog is no fault of a worker, so it counts only for who asks.
pub(super) fn latency(crew: &Crew<'_>) -> Vec<TierCheck> {
    let Some(slo) = crew.ask.slo else { return Vec::new() };
    let now = crew.facts.now;
    let asked = |queue: &Queue| crew.ask.queues.is_empty() || crew.ask.queues.contains(queue);
    let check = |(queue, _, oldest): (&QueueCensus, u64, Duration)| {
        let slo = crew.ask.slos.get(&queue.queue).copied().unwrap_or(slo);
        let mut check = TierCheck::pass("queue:latency", now, secs(oldest))
            .unit("s")
            .of(format!("queue/{}", queue.queue));
        check.limit = Some(secs(slo));
        if oldest <= slo {
            return check;
        }
        let output = format!("the oldest job of queue `{}` waits longer than {}", queue.queue, human(slo));
        check.bad(Mark::Fail, output, format!("sluicegate queue show {}", queue.queue))
    };
    crew.waiting().filter(|(queue, ..)| asked(&queue.queue)).map(check).collect()
}

pub(super) fn store(facts: &TierFacts) -> TierCheck {
    const KEY: &str = "store:probe";
    let survives = facts.about.durability.to_string();
    match &facts.unwritable {
        None => TierCheck::pass(KEY, facts.now, survives),
        Some(error) => {
            let hint = error.hint.clone().unwrap_or_else(|| "sluicegate doctor".to_owned());
            TierCheck::pass(KEY, facts.now, survives).bad(Mark::Fail, error.to_string(), hint)
        }
    }
}

/// Where a rollback would go. It informs: a first release has no way back, and must still pass.
pub(super) fn way_back(crew: &Crew<'_>) -> Option<TierCheck> {
    const KEY: &str = "rollback:target";
    let (facts, release) = (crew.facts, &crew.ask.release);
    let target = match crew.current {
        None => facts.activation.as_ref().map(|other| &other.release),
        Some(current) => current.fallback.as_ref().or_else(|| {
            let before = facts.history.iter().filter_map(|change| change.from.as_ref());
            before.map(|from| &from.release).find(|from| *from != release)
        }),
    };
    let Some(target) = target else {
        let first = "there is no release to go back to yet";
        return (!release.is_implicit())
            .then(|| TierCheck::pass(KEY, facts.now, Value::Null).bad(Mark::Warn, first, ""));
    };
    let check = TierCheck::pass(KEY, facts.now, json!(target));
    match proven(facts, target).map(|seen| seen.presence.canary_age.unwrap_or_default() + seen.age).min() {
        Some(age) => Some(TierCheck { verified_at: Some(facts.now.minus(age)), ..check }),
        None => {
            let output = format!("way back `{target}`: no living, proven worker of it");
            Some(check.bad(Mark::Warn, output, format!("sluicegate work --release {target}")))
        }
    }
}
