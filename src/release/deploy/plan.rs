//! What a deploy would change, and whether it may: pure, and nothing is written. Its hash says that what was agreed to is still
//! what is there.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::preflight::way_back;
use super::record::{Controller, Deploy, Outcome, Pace, Read, Step, Wishes};
use super::{coverage, members};
use crate::activation::{Activation, Mode};
use crate::health::tier::TierFacts;
use crate::ids::Nonce;
use crate::names::{Kind, Release, Tier};
use crate::release::records::ReleaseRecord;
use crate::store::Actor;

/// What would happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The tier.
    pub tier: Tier,
    /// What is active now.
    pub from: Option<Activation>,
    /// What would be.
    pub to: Release,
    /// Jobs that wait, by kind.
    pub backlog: BTreeMap<Kind, u64>,
    /// Workers of the release that are up.
    pub staged: usize,
    /// The way back, in words.
    pub way_back: String,
    /// What a person should know first.
    pub warnings: Vec<String>,
    /// Of the above, and of what was asked for.
    pub hash: String,
    #[serde(skip)]
    wishes: Wishes,
}

/// Why there will be no deploy. Nothing was written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It is so already.
    #[error("no change: release `{release}` is active at generation {generation}")]
    NoChange {
        /// The release.
        release: Release,
        /// Its generation.
        generation: u64,
    },
    /// There would be no way back.
    #[error("{0}")]
    NoWayBack(String),
    /// The new release cannot do the tier's work.
    #[error("{0}")]
    Uncovered(String),
    /// Evidence spoke against it before.
    #[error("release `{release}` failed before ({why})")]
    Quarantined {
        /// The release.
        release: Release,
        /// Where.
        why: String,
    },
    /// Something else is under way.
    #[error("{0}")]
    Busy(String),
    /// What was agreed to is not what is there.
    #[error("the plan has changed: `{expected}` was agreed to, it is `{now}` now")]
    Changed {
        /// The hash that was agreed to.
        expected: String,
        /// The present one.
        now: String,
    },
}

/// Decides, without changing anything.
///
/// # Errors
/// When it is refused.
pub fn plan(
    to: &Release,
    wishes: Wishes,
    facts: &TierFacts,
    latest: Option<&Read>,
    record: Option<&ReleaseRecord>,
    by: &Actor,
) -> Result<Plan, Refusal> {
    if let Some(read) = latest.filter(|read| read.deploy.outcome.is_none()) {
        return Err(Refusal::Busy(busy(&read.deploy, facts)));
    }
    let from = facts.activation.clone();
    if let Some(now) = &from {
        if now.release == *to && now.mode == Mode::Committed {
            return Err(Refusal::NoChange { release: to.clone(), generation: now.generation });
        }
        if now.mode == Mode::Provisional {
            let text = "is active provisionally: commit it with `activate R --confirm`, or let it revert";
            return Err(Refusal::Busy(format!("release `{}` {text}", now.release)));
        }
    }
    if let Some(mark) = record.and_then(|record| record.quarantine.as_ref()).filter(|_| !wishes.again) {
        let why = mark.by.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
        return Err(Refusal::Quarantined { release: to.clone(), why });
    }
    let deploy = draft(to, wishes.clone(), facts, by);
    let way_back = way_back(&deploy, facts).map_err(Refusal::NoWayBack)?;
    let staged = members(facts, to).len();
    let mut warnings = Vec::new();
    if record.is_none() {
        warnings.push(format!(
            "`{to}` is not registered: what it runs is what its workers say, and no file is checked"
        ));
    }
    match coverage::check(&deploy, facts) {
        Err(why) if staged > 0 => return Err(Refusal::Uncovered(why)),
        _ => {}
    }
    warnings.extend(wishes.waived.iter().map(|(kind, why)| format!("`{kind}` needs no proof: {why}")));
    let backlog = facts.backlog();
    let kinds: Vec<&Kind> = backlog.keys().collect(); // how many there are changes all the time
    let hash = hash(&(from.as_ref().map(|from| (from.generation, &from.release)), to, kinds, &wishes));
    Ok(Plan {
        tier: facts.tier.clone(),
        from,
        to: to.clone(),
        backlog,
        staged,
        way_back,
        warnings,
        hash,
        wishes,
    })
}

/// Who deploys now, and what to do about it.
fn busy(deploy: &Deploy, facts: &TierFacts) -> String {
    let age = crate::clock::human(facts.now.since(deploy.began));
    let led = match &deploy.controller {
        Some(led) if led.until > facts.now => format!("led by {}", led.name),
        _ => format!("led by nobody: `deploy resume {}` or `deploy abort {}`", deploy.id, deploy.id),
    };
    format!(
        "deploy {} to {} is at step {}, begun {age} ago by {}, {led}",
        deploy.id, deploy.to, deploy.step, deploy.by.who
    )
}

fn hash(of: &impl Serialize) -> String {
    let text = serde_json::to_vec(of).unwrap_or_default();
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The deploy of a plan, before it is begun.
fn draft(to: &Release, wishes: Wishes, facts: &TierFacts, by: &Actor) -> Deploy {
    Deploy {
        id: String::new(),
        epoch: 1,
        tier: facts.tier.clone(),
        from: facts.activation.clone(),
        to: to.clone(),
        plan: String::new(),
        wishes,
        pace: Pace::default(),
        by: by.clone(),
        step: Step::Plan,
        controller: None,
        installed: None,
        back: None,
        abort: None,
        outcome: None::<Outcome>,
        why: None,
        began: facts.now,
        ended: None,
        back_after: None,
        journal: Vec::new(),
    }
}

impl Plan {
    /// The deploy that does it, to be begun; led by this process from its first moment, if it has a name.
    #[must_use]
    pub fn deploy(&self, facts: &TierFacts, by: &Actor, leader: Option<&str>) -> Deploy {
        let mut deploy = draft(&self.to, self.wishes.clone(), facts, by);
        deploy.plan.clone_from(&self.hash);
        deploy.from.clone_from(&self.from);
        deploy.controller = leader.map(|name| Controller {
            name: name.to_owned(),
            nonce: Nonce::new().to_string(),
            until: facts.now.plus(deploy.pace.lease),
        });
        deploy.note(facts.now, None, format!("plan {} · {}", self.hash, self.way_back));
        deploy
    }
}
