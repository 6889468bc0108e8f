//! Switches a tier by hand: one compare-and-set in the store. What a deploy does with evidence and a way back, a person
//! does here with both eyes open, so it says what it sees and refuses what would stop the tier.

use std::time::Duration;

use serde::Serialize;

use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::{human, instant};
use crate::health::tier::rules::{is_simulated, proven};
use crate::health::tier::{Change, TierFacts, ledger_tail};
use crate::names::{Release, Tier};
use crate::store::{Actor, FaultCode, Flip, Flipped, Seen, Store, StoreError};

/// The longest pause between two looks at the workers. A change of the activation wakes earlier; that a worker has become
/// active wakes nobody.
const PAUSE: Duration = Duration::from_millis(200);

/// A wait that takes so long says what it waits for; a warm worker takes over in a fraction of it.
const LONG: Duration = Duration::from_secs(3);
/// The change that ended a wait is among the last lines of the ledger.
const LATELY: u64 = 50;

/// What to switch to, and how.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The release.
    pub release: Release,
    /// Reverts by itself after so long, unless it is committed.
    pub provisional: Option<Duration>,
    /// To what it reverts; without it, to what is active now.
    pub fallback: Option<Release>,
    /// Lets the standing provisional activation of this release stand, instead.
    pub confirm: bool,
    /// The generation that is expected to be active.
    pub expect: Option<u64>,
    /// Also when no living, proven worker of the release is there.
    pub force: bool,
}

/// What will be, or was, done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What.
    pub action: Step,
    /// The tier.
    pub tier: Tier,
    /// The activation before.
    pub from: Option<Activation>,
    /// The activation after. In a dry run its times are estimates.
    pub to: Activation,
    /// Living workers of the release that have proved themselves.
    pub proven: usize,
    /// What a person should know first.
    pub warnings: Vec<String>,
    #[serde(skip)]
    flip: Option<Flip>,
}

/// What a plan does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Another activation, at the next generation.
    Activate,
    /// The standing one is committed, at its generation.
    Commit,
    /// It is so already.
    Unchanged,
}

/// Why a wish is refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another generation than the expected one.
    #[error("generation {expected} was expected, {there}")]
    Raced {
        /// The expected one.
        expected: u64,
        /// What is there, who did it and when.
        there: String,
    },
    /// Nobody could take over.
    #[error("no living, proven worker of release `{release}` in tier `{tier}`: {why}")]
    NobodyReady {
        /// The release.
        release: Release,
        /// The tier.
        tier: Tier,
        /// What is there instead.
        why: String,
    },
    /// It is active, and reverts by itself unless it is committed.
    #[error("release `{release}` is active provisionally, and reverts by itself{by}")]
    Provisional {
        /// The release.
        release: Release,
        /// When, in words.
        by: String,
    },
    /// There is nothing provisional to commit.
    #[error("nothing to confirm: {there}")]
    NothingToConfirm {
        /// What is there.
        there: String,
    },
    /// A provisional activation needs something to revert to.
    #[error("a provisional activation needs a way back: nothing else is active in tier `{tier}`")]
    NoFallback {
        /// The tier.
        tier: Tier,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Decides, without changing anything.
///
/// # Errors
/// When the wish is refused.
pub fn plan(wish: &Wish, facts: &TierFacts) -> Result<Plan, Refusal> {
    let from = facts.activation.clone();
    if let Some(expected) = wish.expect.filter(|expected| *expected != generation(from.as_ref())) {
        return Err(Refusal::Raced { expected, there: present(facts) });
    }
    let ready = proven(facts, &wish.release).count();
    let plan = |action, to, flip, warnings| {
        Ok(Plan { action, tier: facts.tier.clone(), from: from.clone(), to, proven: ready, warnings, flip })
    };
    match from.as_ref().filter(|current| current.release == wish.release) {
        Some(current) if wish.confirm && current.mode == Mode::Provisional => {
            let warnings = nobody_ready(wish, facts, ready)?;
            return plan(Step::Commit, current.committed(), None, warnings);
        }
        // It is there, and will not stay.
        Some(current) if wish.provisional.is_none() && current.mode == Mode::Provisional => {
            let by = current.confirm_by.map_or_else(String::new, |by| format!(" at {by}"));
            return Err(Refusal::Provisional { release: wish.release.clone(), by });
        }
        Some(current) if wish.confirm || is_so_already(wish, current) => {
            let warning = format!("release `{}` is active already", wish.release);
            return plan(Step::Unchanged, current.clone(), None, vec![warning]);
        }
        None if wish.confirm => return Err(Refusal::NothingToConfirm { there: present(facts) }),
        _ => {}
    }
    let flip = flip(wish, facts)?;
    let mut warnings = nobody_ready(wish, facts, ready)?;
    if let Some(back) = flip.fallback.as_ref().filter(|back| proven(facts, back).next().is_none()) {
        let why = who_is_there(&facts.workers, back);
        warnings.push(format!("no living, proven worker of the way back `{back}` would revert it: {why}"));
    }
    let to = Activation {
        generation: flip.generation(from.as_ref().map(|from| from.generation)),
        release: wish.release.clone(),
        mode: flip.mode,
        confirm_by: flip.confirm_within.map(|within| facts.now.plus(within)),
        fallback: flip.fallback.clone(),
        deploy: None,
        since: facts.now,
    };
    plan(Step::Activate, to, Some(flip), warnings)
}

/// Whether there is anybody to do the work; who forces it is told.
fn nobody_ready(wish: &Wish, facts: &TierFacts, ready: usize) -> Result<Vec<String>, Refusal> {
    if ready > 0 {
        return Ok(Vec::new());
    }
    let (release, tier) = (wish.release.clone(), facts.tier.clone());
    let why = who_is_there(&facts.workers, &release);
    match wish.force {
        true => Ok(vec![format!("no living, proven worker of `{release}`: {why}")]),
        false => Err(Refusal::NobodyReady { release, tier, why }),
    }
}

/// A provisional one can be prolonged; else the same release again changes nothing, and a committed one has no way back to
/// itself.
fn is_so_already(wish: &Wish, current: &Activation) -> bool {
    wish.provisional.is_none() || current.mode == Mode::Committed && wish.fallback.is_none()
}

fn flip(wish: &Wish, facts: &TierFacts) -> Result<Flip, Refusal> {
    // A store that lost its memory would begin at 1 again, which workers that have seen more do not believe.
    let went_back = |seen: &&Seen| {
        seen.presence.fault.as_ref().is_some_and(|fault| fault.code == FaultCode::StoreWentBack)
    };
    let seen = facts.workers.iter().filter(went_back).map(|seen| seen.presence.generation).max();
    let least = seen.map_or(0, |seen| seen + 1);
    let mut flip = Flip { least, ..Flip::committed(wish.release.clone()) };
    if let Some(within) = wish.provisional {
        let current = facts.activation.as_ref();
        // Prolonged, it keeps its way back: the release itself is none.
        // Nor is one that nobody has confirmed: what it would have reverted to is.
        let standing = current.map(|current| match &current.fallback {
            Some(fallback) => fallback.clone(),
            None => current.release.clone(),
        });
        let fallback = wish.fallback.clone().or(standing).filter(|fallback| *fallback != wish.release);
        flip.fallback = Some(fallback.ok_or_else(|| Refusal::NoFallback { tier: facts.tier.clone() })?);
        (flip.mode, flip.confirm_within) = (Mode::Provisional, Some(within));
    }
    Ok(flip)
}

fn generation(activation: Option<&Activation>) -> u64 {
    activation.map_or(0, |current| current.generation)
}

/// What is active, by whom, since when.
fn present(facts: &TierFacts) -> String {
    let Some(current) = &facts.activation else {
        return format!("nothing is active in tier `{}` yet", facts.tier);
    };
    let change = facts.history.iter().find(|change: &&Change| change.to.generation == current.generation);
    let by = change.map_or_else(String::new, |change| {
        let why = change.by.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!(", by {}{why} {} ago", change.by.who, human(facts.now.since(change.at)))
    });
    format!("release `{}` is {} at generation {}{by}", current.release, current.mode, current.generation)
}

/// What there is of a release that nobody of is ready.
fn who_is_there(workers: &[Seen], release: &Release) -> String {
    let of_release: Vec<&Seen> = workers.iter().filter(|seen| seen.presence.release == *release).collect();
    let Some(one) = of_release.first() else { return "none was ever seen".to_owned() };
    let presence = &one.presence;
    let why = match (&presence.fault, &presence.canary_error) {
        _ if one.is_stale() => format!("stale for {}", human(one.age)),
        (Some(fault), _) => format!("{}: {}", fault.code.as_str(), fault.detail),
        (None, Some(error)) => format!("its canary failed: {error}"),
        (None, None) if presence.canary_age.is_none() => {
            format!("{}, and no canary of it has returned yet", presence.state)
        }
        (None, None) => format!("{}, and its last canary is too long ago", presence.state),
    };
    let more = of_release.len() - 1;
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    format!("{} is {why}{more}", presence.worker)
}

/// Does what was planned, if nothing has changed since.
///
/// # Errors
/// When something has, or when the store could not answer.
pub async fn carry_out(store: &dyn Store, mut plan: Plan, by: &Actor) -> Result<Plan, Refusal> {
    let expected = generation(plan.from.as_ref());
    let answer = match (plan.action, plan.flip.take()) {
        (Step::Commit, _) => store.commit(&plan.tier, expected, None, by).await?,
        (Step::Activate, Some(flip)) => {
            let expect = plan.from.as_ref().map(|current| current.generation);
            store.flip(&plan.tier, expect, flip, by).await?
        }
        _ => return Ok(plan),
    };
    match answer {
        Flipped::Now(activation) => {
            plan.to = activation;
            Ok(plan)
        }
        Flipped::Raced(_) | Flipped::Fenced => {
            let facts = TierFacts::gather(store, &plan.tier, None).await?;
            Err(Refusal::Raced { expected, there: present(&facts) })
        }
    }
}

/// What a living worker of a release says is wrong with it.
fn faulty(workers: &[Seen], release: &Release) -> Option<String> {
    let living = workers.iter().filter(|seen| seen.presence.release == *release && !seen.is_stale());
    living.map(|seen| &seen.presence).find_map(|presence| {
        let fault = presence.fault.as_ref()?;
        Some(format!("{}: {}: {}", presence.worker, fault.code.as_str(), fault.detail))
    })
}

/// What came of the wait for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// The store told this worker that it may claim, under this activation.
    Active {
        /// Which.
        worker: String,
        /// How long after the wait began.
        after: Duration,
    },
    /// Another activation came first.
    Replaced {
        /// Which.
        by: Activation,
        /// Whether that is the way back: nobody confirmed it in time.
        reverted: bool,
        /// The last fault that a worker of the release told.
        fault: Option<String>,
    },
    /// Nobody came in time.
    Nobody,
}

/// Waits until a worker of the release is active at that generation, or a later one of the same release. What it waits for
/// is told once: as soon as a worker has a fault, or when it takes long.
///
/// # Errors
/// When the store could not answer.
pub async fn arrived(
    store: &dyn Store,
    tier: &Tier,
    activation: &Activation,
    within: Duration,
    waits: impl Fn(&str),
) -> Result<Arrival, StoreError> {
    let began = instant();
    let mut wake = store.subscribe(tier).await?;
    let mut pause = Duration::from_millis(5);
    let (mut fault, mut told) = (None, false);
    loop {
        let here = |seen: &&Seen| {
            let presence = &seen.presence;
            presence.release == activation.release
                && presence.state == WorkerState::Active
                && presence.generation >= activation.generation
                && !seen.is_stale()
                && !is_simulated(seen)
        };
        let workers = store.workers(tier).await?;
        if let Some(seen) = workers.iter().find(here) {
            return Ok(Arrival::Active { worker: seen.presence.worker.to_string(), after: began.elapsed() });
        }
        match store.activation(tier).await? {
            Some(by) if by.release != activation.release => {
                let changes = Box::pin(ledger_tail(store, tier, LATELY)).await?;
                let reverted = changes.iter().filter_map(Change::read).any(|change| {
                    change.event == "activation.reverted" && change.to.generation == by.generation
                });
                return Ok(Arrival::Replaced { by, reverted, fault });
            }
            _ => {}
        }
        fault = faulty(&workers, &activation.release).or(fault);
        if !told && (fault.is_some() || began.elapsed() >= LONG) {
            told = true;
            waits(&fault.clone().unwrap_or_else(|| who_is_there(&workers, &activation.release)));
        }
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(Arrival::Nobody);
        }
        wake.woken(pause.min(left)).await;
        pause = (pause * 2).min(PAUSE);
    }
}
