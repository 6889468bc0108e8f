//! A deploy of a tier: may this release take over, and if it goes wrong, are we back at once?
//!
//! | step | what it does | when it fails |
//! |---|---|---|
//! | [`plan`] | says what changes, and refuses what cannot end well | nothing was written |
//! | `stage` | waits for workers of the release, which come up inactive | rejected |
//! | `preflight` | every one of them is proven, and so is the way back | rejected |
//! | `canary` | each kind that declares a payload runs on each of them | rejected |
//! | `activate` | one compare-and-set, provisional: unless somebody confirms, it reverts by itself | rejected |
//! | `verify` | watched while it works, by jobs that really ran | rolled back |
//! | `commit` | one compare-and-set: it stands | rolled back |
//! | `retain` | the old one stays warm: the way back | – |
//!
//! A deploy is a [`record`] in the store. [`lead`] is the lease of whoever advances it: the process that began it, or, when that
//! falls silent, any other. When nobody is left, the dead-man reverts.

mod activate;
mod canary;
mod commit;
mod coverage;
pub mod lead;
pub mod plan;
mod preflight;
pub mod record;
mod retain;
mod stage;
mod trial;
mod verify;

use std::time::Duration;

use lead::{Halt, Lead, Next};
use record::{Deploy, Read, Step};

use crate::health::tier::TierFacts;
use crate::health::tier::rules::is_simulated;
use crate::names::{Release, Tier};
use crate::store::{Actor, Put, Seen, Space, Store, StoreError};

/// A store that is away for so long after the time for the deploy is over is not waited for.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Between tries while the store is away.
const AGAIN: Duration = Duration::from_millis(500);

/// Advances a deploy to its end, or until another process does.
///
/// # Errors
/// When another process took it over, or the store was away for too long.
pub async fn advance(mut lead: Lead<'_>) -> Result<Deploy, Halt> {
    while !lead.is_closed() {
        let over = lead.deploy.began.plus(lead.deploy.wishes.timeout + GIVE_UP);
        let done = match lead.deploy.outcome {
            None => step(&mut lead).await,
            Some(_) => lead.close().await,
        };
        match done {
            Ok(()) => {}
            // What was begun is gone on with: every step looks at what is there before it acts.
            Err(Halt::Store(error)) if error.is_transient() && lead.now() < over => {
                tracing::warn!(deploy = lead.deploy.id, step = %lead.deploy.step, %error, "the store is away");
                tokio::time::sleep(AGAIN).await;
            }
            Err(halt) => return Err(halt),
        }
    }
    Ok(lead.deploy)
}

async fn step(lead: &mut Lead<'_>) -> Result<(), Halt> {
    let next = match (lead.deploy.step, lead.aborted()) {
        (step, Some(end)) if step < Step::Activate => end,
        (Step::Plan, _) => Next::Step(Step::Stage, format!("plan {}", lead.deploy.plan)),
        (Step::Stage, _) => stage::run(lead).await?,
        (Step::Preflight, _) => preflight::run(lead).await?,
        (Step::Canary, _) => canary::run(lead).await?,
        (Step::Activate, _) => activate::run(lead).await?,
        (Step::Verify, _) => verify::run(lead).await?,
        (Step::Commit, _) => commit::run(lead).await?,
        (Step::Retain, _) => retain::run(lead).await?,
    };
    lead.go(next).await
}

/// Asks for the end of a deploy, whoever leads it; `false` when it has ended, or is another one by now.
///
/// # Errors
/// When the store could not answer.
pub async fn abort(store: &dyn Store, tier: &Tier, id: &str, by: &Actor) -> Result<bool, StoreError> {
    let mut tries = 0;
    while let Some(Read { mut deploy, version }) = record::latest(store, tier).await? {
        if deploy.id != id || deploy.outcome.is_some() {
            return Ok(false);
        }
        deploy.abort = Some(by.clone());
        let value = record::text(store, &deploy)?;
        match store.put(tier, Space::Deploy, record::LATEST, version, &value, None).await {
            Ok(Put::Done(_)) => return Ok(true),
            Ok(Put::Raced(_)) => {} // it goes on meanwhile
            // To ask twice does no harm.
            Err(error) if error.is_transient() && tries < record::TRIES => {
                tries += 1;
                tokio::time::sleep(record::AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The living workers of a release, those that `doctor --simulate` made up left out.
fn members<'f>(facts: &'f TierFacts, release: &Release) -> Vec<&'f Seen> {
    let of = |seen: &&Seen| seen.presence.release == *release && !seen.is_stale() && !is_simulated(seen);
    facts.workers.iter().filter(of).collect()
}

/// How many workers there must be: what was asked for, or those that are there.
fn expected(lead: &Lead<'_>, there: usize) -> usize {
    lead.deploy.wishes.workers.map_or(there.max(1), |workers| workers as usize)
}

/// `w-1, w-2 and 4 more`.
fn names(of: &[&Seen]) -> String {
    const SHOWN: usize = 3;
    let first: Vec<&str> = of.iter().take(SHOWN).map(|seen| seen.presence.worker.as_str()).collect();
    match of.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
