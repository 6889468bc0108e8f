//! Whether the new release can do the tier's work: every kind that waits or that the active release runs, in a version that reads
//! what waits and writes what the way back reads, and every queue where jobs wait. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Deploy;
use super::{members, names};
use crate::health::tier::TierFacts;
use crate::job::State;
use crate::names::Kind;
use crate::store::Seen;

/// Says what is missing.
pub(super) fn check(deploy: &Deploy, facts: &TierFacts) -> Result<(), String> {
    let new = members(facts, &deploy.to);
    let old = deploy.replaced().map(|back| members(facts, back)).unwrap_or_default();
    let (reads, written, waiting) = (versions(&new), versions(&old), waiting(facts));
    for kind in waiting.iter().chain(written.keys().filter(|kind| !waiting.contains(*kind))) {
        if deploy.wishes.waived.contains_key(kind) {
            continue;
        }
        let (Some(reads), written) = (reads.get(kind), written.get(kind)) else {
            match waiting.contains(kind) {
                true => return Err(missing(deploy, kind)),
                false => continue, // retired, and nothing of it waits
            }
        };
        fits(deploy, kind, reads, written)?;
        let without: Vec<&Seen> = new
            .iter()
            .filter(|seen| !seen.presence.kinds.iter().any(|(of, _)| of == kind))
            .copied()
            .collect();
        if !without.is_empty() {
            return Err(format!(
                "{} cannot run `{kind}`, which others of {} can",
                names(&without),
                deploy.to
            ));
        }
    }
    let unserved = facts.queues.iter().find(|queue| {
        let serves = |seen: &&Seen| seen.presence.serves(&queue.queue);
        queue.kinds.values().any(is_open) && !new.iter().any(&serves) && old.iter().any(serves)
    });
    match unserved {
        Some(queue) => {
            Err(format!("no worker of {} serves queue `{}`, where jobs wait", deploy.to, queue.queue))
        }
        None => Ok(()),
    }
}

fn missing(deploy: &Deploy, kind: &Kind) -> String {
    format!(
        "no worker of {} runs `{kind}`, and jobs of it wait: add it, or `--waive {kind}=REASON`",
        deploy.to
    )
}

/// The least and the highest version of its arguments that workers know, by kind.
type Versions = BTreeMap<Kind, (u32, u32)>;

fn versions(of: &[&Seen]) -> Versions {
    let mut all = Versions::new();
    for (kind, version) in of.iter().flat_map(|seen| &seen.presence.kinds) {
        let (least, most) = all.entry(kind.clone()).or_insert((*version, *version));
        (*least, *most) = ((*least).min(*version), (*most).max(*version));
    }
    all
}

fn fits(
    deploy: &Deploy,
    kind: &Kind,
    reads: &(u32, u32),
    written: Option<&(u32, u32)>,
) -> Result<(), String> {
    let Some((_, written)) = written else { return Ok(()) };
    let least = reads.0;
    if least < *written {
        return Err(format!(
            "{} reads `{kind}` up to version {least}, and jobs of version {written} are written",
            deploy.to
        ));
    }
    if least > *written {
        let back = deploy.replaced().map(ToString::to_string).unwrap_or_default();
        return Err(format!(
            "{} writes `{kind}` in version {least}, which the way back {back} cannot read (it knows {written}): after a rollback those jobs would wait for the next roll-forward; `--waive {kind}=REASON` accepts that",
            deploy.to
        ));
    }
    Ok(())
}

fn is_open(states: &BTreeMap<State, u64>) -> bool {
    let open = [State::Available, State::Running, State::Scheduled, State::Retryable, State::Parked];
    open.iter().any(|state| states.get(state).is_some_and(|jobs| *jobs > 0))
}

/// Kinds of which jobs are not over.
pub(super) fn waiting(facts: &TierFacts) -> BTreeSet<Kind> {
    let of = facts.queues.iter().flat_map(|queue| &queue.kinds).filter(|(_, states)| is_open(states));
    of.map(|(kind, _)| kind.clone()).filter(|kind| !kind.as_str().starts_with("sluicegate.")).collect()
}
