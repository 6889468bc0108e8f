//! The way back: one compare-and-set to a release that still runs. What is here can flip and look, and nothing else: it holds a
//! store and no shelf, so it cannot build, fetch, copy or start anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::records::{self, ReleaseRecord};
use crate::activation::{Activation, WorkerState};
use crate::clock::{human, instant};
use crate::health::tier::TierFacts;
use crate::health::tier::rules::{is_simulated, proven};
use crate::names::{Kind, Release, Tier};
use crate::store::{Actor, Flip, Flipped, Guard, Seen, Store, StoreError};

/// A warm worker hears of a flip by the push that wakes an idle one; what takes longer than this does not work.
const WITHIN: Duration = Duration::from_secs(5);
/// Between looks; a wake-up makes it shorter.
const LOOK: Duration = Duration::from_millis(20);

/// Where to go back to, and what that means: decided without changing anything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Way {
    /// What is active now.
    pub from: Activation,
    /// What would be.
    pub to: Release,
    /// Living workers of it that have proved themselves lately.
    pub warm: usize,
    /// Jobs that wait and that none of them can run, by kind: they stay parked until a release that can is active.
    pub parked: BTreeMap<Kind, u64>,
}

/// Why there is no way back. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is active.
    #[error("nothing is active in tier `{0}`")]
    NothingActive(Tier),
    /// It is active already.
    #[error("release `{release}` is active already, at generation {generation}")]
    Already {
        /// The release.
        release: Release,
        /// Its generation.
        generation: u64,
    },
    /// No release was ever verified in this tier, or none but the active one.
    #[error("no verified release but the active one is known in tier `{0}`: there is nothing to go back to")]
    NoTarget(Tier),
    /// What is to be undone happened too long ago.
    #[error("`{release}` has been active for {age}, which is longer than {within}")]
    TooLate {
        /// The active release.
        release: Release,
        /// For how long.
        age: String,
        /// What was allowed.
        within: String,
    },
    /// Nobody of it is warm.
    #[error("no living, proven worker of `{0}`: a flip to it would stop the tier")]
    Cold(Release),
}

/// Looks where to go back to: to the release that is named, or the last verified one that is not active, or without records the one
/// that was active before.
///
/// # Errors
/// Says why there is no way.
pub fn way(
    facts: &TierFacts,
    records: &[ReleaseRecord],
    to: Option<&Release>,
    within: Option<Duration>,
) -> Result<Way, Refusal> {
    let Some(from) = facts.activation.clone() else {
        return Err(Refusal::NothingActive(facts.tier.clone()));
    };
    let age = facts.now.since(from.since);
    if let Some(within) = within.filter(|within| age > *within) {
        let (age, within) = (human(age), human(within));
        return Err(Refusal::TooLate { release: from.release, age, within });
    }
    let last = || {
        records::verified(records).into_iter().map(|record| &record.release).find(|of| **of != from.release)
    };
    let before = || {
        let left = facts.history.iter().filter_map(|change| change.from.as_ref()).map(|from| &from.release);
        left.into_iter().find(|of| **of != from.release)
    };
    let Some(to) = to.or_else(last).or_else(before).cloned() else {
        return Err(Refusal::NoTarget(facts.tier.clone()));
    };
    if to == from.release {
        return Err(Refusal::Already { release: to, generation: from.generation });
    }
    let warm: Vec<&Seen> = proven(facts, &to).collect();
    if warm.is_empty() {
        return Err(Refusal::Cold(to));
    }
    let runs = |kind: &Kind| warm.iter().any(|seen| seen.presence.kinds.iter().any(|(of, _)| of == kind));
    let mut parked = BTreeMap::new();
    for (kind, jobs) in facts.backlog() {
        if !runs(&kind) {
            parked.insert(kind, jobs);
        }
    }
    Ok(Way { from, to, warm: warm.len(), parked })
}

/// Makes another release active, for good, if the activation is still of this generation.
///
/// # Errors
/// When the store could not answer.
pub async fn flip(
    store: &dyn Store,
    tier: &Tier,
    from: &Activation,
    to: &Release,
    guard: Option<Guard>,
    by: &Actor,
) -> Result<Flipped, StoreError> {
    let flip = Flip { deploy: from.deploy.clone(), guard, ..Flip::committed(to.clone()) };
    store.flip(tier, Some(from.generation), flip, by).await
}

/// That it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Workers that the store told that they may claim, under this activation.
    pub active: usize,
    /// Living workers of the release.
    pub of: usize,
    /// Until the first of them was, since this began to look.
    pub after: Duration,
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{} workers active, the first after {}; nothing was built, copied or restarted",
            self.active,
            self.of,
            human(self.after)
        )
    }
}

/// Waits until the workers of what is active now are active, and says what is wrong when none is.
///
/// # Errors
/// When the store could not answer.
pub async fn proof(
    store: &dyn Store,
    tier: &Tier,
    now: &Activation,
) -> Result<Result<Proof, String>, StoreError> {
    let began = instant();
    let mut wake = store.subscribe(tier).await?;
    let mut first = None;
    loop {
        let workers = store.workers(tier).await?;
        let of: Vec<&Seen> = workers
            .iter()
            .filter(|seen| seen.presence.release == now.release && !seen.is_stale() && !is_simulated(seen))
            .collect();
        let serves = |seen: &&&Seen| {
            seen.presence.state == WorkerState::Active && seen.presence.generation >= now.generation
        };
        let active = of.iter().filter(serves).count();
        if active > 0 {
            let after = *first.get_or_insert_with(|| began.elapsed());
            if active == of.len() || began.elapsed() >= WITHIN {
                return Ok(Ok(Proof { active, of: of.len(), after }));
            }
        }
        if began.elapsed() >= WITHIN {
            let why = match of.first() {
                None => format!("no living worker of {} is there", now.release),
                Some(seen) => {
                    let presence = &seen.presence;
                    let why = presence.reason.clone().unwrap_or_default();
                    format!("{} is {} {why}", presence.worker, presence.state)
                }
            };
            return Ok(Err(format!("none of its workers is active after {}: {why}", human(WITHIN))));
        }
        wake.woken(LOOK).await;
    }
}
