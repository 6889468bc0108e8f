//! Why nobody of a release is there who would work, and from when on that is an outage and no restart.

use std::time::Duration;

use super::crew::{Crew, Member, Place, named};
use super::facts::{Gone, TierFacts};
use super::rules::{STARTING, UNATTENDED};
use crate::activation::WorkerState;
use crate::clock::Timestamp;
use crate::store::Presence;

/// Nobody is there who would work, and that hurts.
pub(super) fn unattended(crew: &Crew<'_>) -> Option<String> {
    if crew.members.iter().any(|member| matches!(member.place, Place::Here | Place::Stale)) {
        return None;
    }
    let quiet: Vec<&Member<'_>> = crew.members.iter().filter(|m| m.place == Place::Quiet).collect();
    if let Some(one) = quiet.first() {
        let names = named(&quiet);
        return Some(format!("{names} told to be quiet {}", quiet_words(one.presence())));
    }
    let why = absence(crew);
    let (waiting, oldest) = waiting(crew);
    if oldest >= UNATTENDED {
        let why = why.map(|why| format!("; {why}")).unwrap_or_default();
        return Some(format!("no worker of it lives, and {waiting} jobs wait{why}"));
    }
    why.map(|why| format!("no worker of it lives: {why}"))
}

/// Jobs that wait, and for how long. While nobody lives nobody makes those available that are due, so they count.
fn waiting(crew: &Crew<'_>) -> (u64, Duration) {
    let late = overdue(crew.facts);
    let began = if late.is_some() { crew.facts.overdue } else { 0 };
    crew.waiting()
        .map(|(_, waiting, oldest)| (waiting, oldest))
        .fold((began, late.unwrap_or_default()), |(n, worst), (waiting, oldest)| {
            (n + waiting, worst.max(oldest))
        })
}

/// For how long the first scheduled or retryable job has been due, if one is.
pub(super) fn overdue(facts: &TierFacts) -> Option<Duration> {
    facts.next_due.filter(|at| facts.overdue > 0 && *at <= facts.now).map(|at| facts.now.since(at))
}

/// Where the workers of the active release are, once that is no restart any more.
pub(super) fn absence(crew: &Crew<'_>) -> Option<String> {
    let (now, current) = (crew.facts.now, crew.current?);
    let left = |member: &Member<'_>| {
        let (name, presence) = (&member.presence().worker, member.presence());
        let how = match (presence.state, &presence.quiet) {
            (WorkerState::Stopping | WorkerState::Stopped, _) => format!("{name} vanished while it stopped"),
            (_, Some(_)) => format!("{name} was told to be quiet {}, and vanished", quiet_words(presence)),
            _ => format!("{name} vanished while {} and did not say goodbye", presence.state),
        };
        (member.seen.at, how)
    };
    if crew.members.iter().any(|member| !member.seen.is_stale()) {
        return None; // on its way out, and another one in
    }
    let vanished = crew.members.iter().map(left);
    let last: Option<(Timestamp, String)> =
        vanished.chain(crew.facts.gone.as_ref().map(goodbye)).max_by_key(|(at, _)| *at);
    match last {
        Some((at, how)) if at >= current.since => {
            (now.since(at) >= UNATTENDED).then(|| format!("{how}, and nobody took its place"))
        }
        // It was activated ahead of its workers, or again after they had gone.
        _ => {
            (now.since(current.since) >= STARTING).then(|| "none has come since it was activated".to_owned())
        }
    }
}

fn goodbye(gone: &Gone) -> (Timestamp, String) {
    let by = gone.by.as_ref().map(|by| {
        let why = by.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!(", told so by {}{why}", by.who)
    });
    (gone.at, format!("{} stopped{}", gone.worker, by.unwrap_or_default()))
}

/// By whom a worker was told to be quiet, why, and until when.
pub(super) fn quiet_words(presence: &Presence) -> String {
    match &presence.quiet {
        None => presence.reason.clone().unwrap_or_default(),
        Some(quiet) => {
            let until = quiet.until.map_or_else(|| "until resumed".to_owned(), |at| format!("until {at}"));
            format!("by {} ({}), {until}", quiet.owner, quiet.reason)
        }
    }
}
