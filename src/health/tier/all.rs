//! The verdict over all tiers of a store: one dead tier beside a healthy one is red.
//!
//! Every tier that the store knows is judged for the same release, by the same rules and with the same answer as if it were
//! asked alone; the whole is the worst of them: fail, then superseded, unknown, pending, pass.
//!
//! | a tier | counts |
//! |---|---|
//! | that has another release active | as alone, so never as a pass: superseded, unknown, or pending while the release stands by. An app's release spans its tiers; one that it has no part in must be left out by name |
//! | that was active once, and of which nobody lives | as alone, so never as a pass: that is the outage which nobody noticed. One that was given up must be left out by name |
//! | of which only a name is left: nothing was ever active, no worker is there, no job waits or runs | not; it is named as idle |
//! | that the asker leaves out | not; it is named |
//!
//! Without any tier that counts the whole is pending: no evidence is never a pass. A tier that the store does not know yet is
//! not waited for.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::rules::judge;
use super::verdict::{Decision, TierVerdict};
use super::{GateAsk, TierFacts, implied};
use crate::clock::{Timestamp, wall};
use crate::job::State;
use crate::names::{Release, Tier};
use crate::store::{Store, StoreError};

/// What a gate over all tiers is asked.
#[derive(Debug, Clone)]
pub struct AllAsk {
    /// What each tier is asked; its release and generation are those of the fields below.
    pub each: GateAsk,
    /// Which release; without one every tier must be unmanaged.
    pub release: Option<Release>,
    /// Tiers that are left out.
    pub exclude: Vec<Tier>,
    /// The generations that the asker knew.
    pub known: BTreeMap<Tier, u64>,
}

/// Tiers that are managed, and the release that is active in each: without a release they cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed(pub BTreeMap<Tier, Release>);

impl std::fmt::Display for Managed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tiers: Vec<String> =
            self.0.iter().map(|(tier, active)| format!("`{active}` in `{tier}`")).collect();
        write!(f, "tiers are managed, active is {}", tiers.join(", "))
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AllVerdict {
    /// The worst of the tiers.
    pub decision: Decision,
    /// Whether waiting cannot change it.
    pub terminal: bool,
    /// Whether nothing worse is known than that the store could not be asked.
    pub unreachable: bool,
    /// Which release, if one was named.
    pub release: Option<Release>,
    /// What was decided of each, by name.
    pub tiers: Vec<TierVerdict>,
    /// Of these only a name is left.
    pub idle: Vec<Tier>,
    /// These were left out.
    pub excluded: Vec<Tier>,
    /// The state in a line: which tiers block it and why, or which carry it.
    pub output: String,
    /// When this was judged (store time).
    pub time: Timestamp,
    /// When a wait for it ends (store time).
    pub deadline: Option<Timestamp>,
}

/// Asks a gate over all tiers. A store that cannot be read is an answer too.
///
/// # Errors
/// When no release was named and a tier is managed.
pub async fn look_all(store: &dyn Store, ask: &AllAsk) -> Result<AllVerdict, Managed> {
    let known = match store.tiers().await {
        Ok(known) => known,
        Err(error) => return Ok(AllVerdict::unreadable(ask, &error)),
    };
    let (mut tiers, mut idle, mut managed) = (Vec::new(), Vec::new(), BTreeMap::new());
    let (excluded, asked): (Vec<Tier>, Vec<Tier>) =
        known.into_iter().partition(|tier| ask.exclude.contains(tier));
    for tier in asked {
        match TierFacts::gather(store, &tier, ask.release.as_ref()).await {
            Ok(facts) if is_idle(&facts) => idle.push(tier),
            Ok(facts) => match (ask.release.clone().or_else(|| implied(facts.activation.as_ref())), &facts) {
                (Some(release), _) => {
                    let known = ask.known.get(&tier).copied().unwrap_or(0);
                    tiers.push(judge(&GateAsk { release, known, ..ask.each.clone() }, &facts));
                }
                (None, TierFacts { activation: Some(current), .. }) => {
                    managed.insert(tier, current.release.clone());
                }
                (None, _) => {} // cannot be: a tier without an activation is unmanaged
            },
            Err(error) => {
                tiers.push(TierVerdict::unreadable(&tier, &ask.release.clone().unwrap_or_default(), &error));
            }
        }
    }
    if managed.is_empty() {
        Ok(AllVerdict::of(ask.release.clone(), tiers, idle, excluded))
    } else {
        Err(Managed(managed))
    }
}

/// The generations of all tiers now: what was replaced before is no news to a wait that begins.
///
/// # Errors
/// When the store cannot be read.
pub async fn generations(store: &dyn Store) -> Result<BTreeMap<Tier, u64>, StoreError> {
    let mut known = BTreeMap::new();
    for tier in store.tiers().await? {
        if let Some(current) = store.activation(&tier).await? {
            known.insert(tier, current.generation);
        }
    }
    Ok(known)
}

/// Whether only a name is left of a tier. Once active it stays so, and stale workers are workers.
fn is_idle(facts: &TierFacts) -> bool {
    let open = |state: &State| !state.is_final();
    facts.activation.is_none()
        && facts.workers.is_empty()
        && facts.queues.iter().all(|queue| State::ALL.iter().filter(|s| open(s)).all(|s| queue.jobs(*s) == 0))
}

impl AllVerdict {
    /// The worst of some tiers.
    #[must_use]
    pub fn of(
        release: Option<Release>,
        tiers: Vec<TierVerdict>,
        idle: Vec<Tier>,
        excluded: Vec<Tier>,
    ) -> Self {
        let worst = tiers.iter().map(|tier| tier.decision).max_by_key(|decision| decision.severity());
        let decision = worst.unwrap_or(Decision::Pending);
        let terminal = tiers.iter().any(|tier| tier.decision == decision && tier.terminal);
        let output = match decision {
            Decision::Pass => {
                format!("{} pass: {}", count(tiers.len()), names(tiers.iter().map(|t| &t.tier)))
            }
            _ if tiers.is_empty() => nothing(&idle, &excluded),
            _ => blocked(&tiers),
        };
        Self {
            decision,
            terminal,
            unreachable: decision == Decision::Pending && tiers.iter().any(|tier| tier.unreachable),
            release,
            time: tiers.iter().map(|tier| tier.time).max().unwrap_or_else(wall),
            tiers,
            idle,
            excluded,
            output,
            deadline: None,
        }
    }

    fn unreadable(ask: &AllAsk, error: &StoreError) -> Self {
        let release = ask.release.clone().unwrap_or_default();
        let one = TierVerdict::unreadable(&Tier::default(), &release, error);
        Self {
            decision: one.decision,
            unreachable: one.unreachable,
            output: one.output,
            ..Self::of(ask.release.clone(), Vec::new(), Vec::new(), Vec::new())
        }
    }

    /// The tier that needs a look first.
    #[must_use]
    pub fn worst(&self) -> Option<&TierVerdict> {
        self.tiers.iter().find(|tier| tier.decision == self.decision)
    }

    /// The tiers that block it.
    pub fn red(&self) -> impl Iterator<Item = &TierVerdict> {
        self.tiers.iter().filter(|tier| tier.decision != Decision::Pass)
    }

    /// The next useful command, beginning with `sluicegate `, and for which tier.
    #[must_use]
    pub fn next(&self) -> Option<(&Tier, &str)> {
        let worst = self.worst()?;
        Some((&worst.tier, worst.next.as_deref()?))
    }

    /// Tiers that do not know the release: it may have no part in them.
    pub fn strangers(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.iter().filter(|tier| tier.decision == Decision::Unknown).map(|tier| &tier.tier)
    }

    /// As the body of `/v1/gate?all_tiers=1`.
    ///
    /// # Errors
    /// Never in practice: every part of it is representable.
    pub fn to_value(&self) -> serde_json::Result<Value> {
        let tiers: BTreeMap<&Tier, Value> = self
            .tiers
            .iter()
            .map(|tier| Ok((&tier.tier, tier.to_value()?)))
            .collect::<serde_json::Result<_>>()?;
        serde_json::to_value(Body {
            verdict: self.decision,
            gate: "default",
            release_id: self.release.as_ref(),
            terminal: self.terminal,
            unreachable: self.unreachable,
            deadline: self.deadline,
            output: &self.output,
            next: self.next().map(|(tier, next)| in_tier(next, tier)),
            time: self.time,
            tiers,
            idle: &self.idle,
            excluded: &self.excluded,
        })
    }
}

/// A command for another tier than the usual one.
#[must_use]
pub fn in_tier(command: &str, tier: &Tier) -> String {
    match command.strip_prefix("sluicegate ") {
        Some(rest) => format!("sluicegate --tier {tier} {rest}"),
        None => command.to_owned(),
    }
}

fn count(tiers: usize) -> String {
    if tiers == 1 { "1 tier".to_owned() } else { format!("{tiers} tiers") }
}

fn names<'a>(tiers: impl Iterator<Item = &'a Tier>) -> String {
    tiers.map(Tier::as_str).collect::<Vec<_>>().join(", ")
}

/// Which tiers block it, the worst first.
fn blocked(tiers: &[TierVerdict]) -> String {
    let mut red: Vec<&TierVerdict> = tiers.iter().filter(|tier| tier.decision != Decision::Pass).collect();
    red.sort_by_key(|tier| std::cmp::Reverse(tier.decision.severity()));
    let words = red.iter().map(|t| format!("tier {} {}: {}", t.tier, t.decision.as_str(), t.output));
    let of = format!("{} of {}", red.len(), count(tiers.len()));
    format!("{of}: {}", words.collect::<Vec<_>>().join(" · "))
}

fn nothing(idle: &[Tier], excluded: &[Tier]) -> String {
    match (idle, excluded) {
        ([], []) => "the store knows no tier yet".to_owned(),
        ([], _) => format!("every tier is left out: {}", names(excluded.iter())),
        (_, []) => format!("only names are left: {}", names(idle.iter())),
        _ => format!("only names are left: {}; left out: {}", names(idle.iter()), names(excluded.iter())),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    verdict: Decision,
    gate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_id: Option<&'a Release>,
    terminal: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    output: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    time: Timestamp,
    tiers: BTreeMap<&'a Tier, Value>,
    idle: &'a [Tier],
    excluded: &'a [Tier],
}
