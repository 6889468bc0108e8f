//! Watched while it works: the deadline is extended as long as nothing fails. Jobs that really ran decide.

use super::lead::{Halt, Lead, Next};
use super::record::{Back, Outcome, Step};
use super::trial::Trial;
use crate::activation::{Activation, Mode};
use crate::clock::{human, instant};
use crate::health::tier::checks::{KINDS, OUTCOMES};
use crate::health::tier::wait::Patience;
use crate::health::tier::{Decision, GateAsk, MinActive, judge};
use crate::names::Kind;
use crate::release::evidence::Decision as Shown;
use crate::release::rollback;
use crate::store::Flipped;

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let Some(installed) = lead.deploy.installed.clone() else {
        return Ok(Next::Step(Step::Activate, "what was switched is not known".to_owned()));
    };
    let mut trial = match lead.trial.take() {
        Some(trial) => trial,
        None => {
            let facts = lead.look().await?;
            Trial::open(lead, &facts).await? // another process led it until now
        }
    };
    let mut patience = Patience::default();
    loop {
        let facts = lead.look().await?;
        let watched = facts.now.since(installed.since);
        let standing = match &facts.activation {
            Some(now) if now.generation == installed.generation => now,
            other => return gone(lead, other.clone()).await,
        };
        if let Some(Back { why, guilty }) = lead.deploy.back.clone() {
            return back(lead, &why, guilty).await; // whoever led before had decided it
        }
        if let Some(by) = &lead.deploy.abort {
            let why = format!("aborted by {}", by.who);
            return back(lead, &why, false).await;
        }
        let waived = |key: &str, of: &str| {
            let kind = of.strip_prefix("kind/").and_then(|kind| Kind::new(kind).ok());
            key == KINDS && kind.is_some_and(|kind| lead.deploy.wishes.waived.contains_key(&kind))
        };
        let verdict = judge(&ask(lead), &facts).without(waived);
        // Jobs that fail are the evidence's to judge: it knows whether the old release fails as well.
        let broken = verdict.clone().without(|key, _| key == OUTCOMES);
        if broken.decision == Decision::Fail && patience.ends(&broken, instant()) {
            return back(lead, &broken.output, true).await;
        }
        let left = lead.deploy.wishes.verify.saturating_sub(watched);
        let evidence = trial.look(lead, &facts, installed.generation, left).await?;
        if evidence.decision == Shown::Fail {
            return back(lead, &evidence.output, true).await;
        }
        if standing.mode == Mode::Provisional {
            let guard = lead.guard();
            let within = lead.deploy.pace.confirm;
            match lead.store.extend(&lead.deploy.tier, standing, within, Some(&guard)).await? {
                Flipped::Now(_) => {}
                Flipped::Fenced => lead.save().await?, // says who leads it now
                Flipped::Raced(_) => continue,         // the next look tells
            }
        }
        let shown = matches!(evidence.decision, Shown::Pass | Shown::Uncovered);
        if left.is_zero() && verdict.decision == Decision::Pass && shown {
            return Ok(Next::Step(Step::Commit, format!("{} · {}", verdict.output, evidence.output)));
        }
        if left.is_zero() && lead.left().is_zero() {
            if evidence.decision == Shown::Environment {
                return hold(lead, Outcome::Environment, evidence.output).await;
            }
            let missing = if shown { verdict.output } else { evidence.output };
            return undecided(lead, &missing).await;
        }
        let state = match verdict.decision {
            Decision::Pass => still(&evidence.output),
            _ => verdict.output,
        };
        lead.standing(state).await?;
        lead.pause().await;
    }
}

/// Without what is left of the time: a line is written when something changes.
fn still(output: &str) -> String {
    output.split("; watched for another").next().unwrap_or(output).to_owned()
}

fn ask(lead: &Lead<'_>) -> GateAsk {
    GateAsk {
        min_active: MinActive::Percent(100),
        expect: lead.deploy.wishes.workers,
        allow_provisional: true,
        known: lead.deploy.installed.as_ref().map_or(0, |installed| installed.generation),
        ..GateAsk::new(lead.deploy.to.clone())
    }
}

/// Another activation stands: the dead-man's, or a person's.
async fn gone(lead: &mut Lead<'_>, now: Option<Activation>) -> Result<Next, Halt> {
    let Some(now) = now else {
        return Ok(Next::End(
            Outcome::Superseded,
            "the store has no activation of this tier any more".to_owned(),
        ));
    };
    if Some(&now.release) == lead.deploy.replaced() {
        if let Some(Back { why, guilty }) = lead.deploy.back.clone() {
            lead.guilty |= guilty;
            return settled(lead, &now, why).await;
        }
        let facts = lead.look().await?;
        let change = facts.history.iter().find(|change| change.to.generation == now.generation);
        if let Some(change) = change.filter(|change| change.event != "activation.reverted") {
            let why = format!("rolled back to {} by {}", now.release, change.by.who);
            return settled(lead, &now, why).await;
        }
        let why = format!(
            "reverted to {} at generation {}: it was not confirmed in time",
            now.release, now.generation
        );
        return settled(lead, &now, why).await;
    }
    let why = format!("somebody else switched the tier to {} at generation {}", now.release, now.generation);
    Ok(Next::End(Outcome::Superseded, why))
}

/// Not enough evidence at the end.
async fn undecided(lead: &mut Lead<'_>, missing: &str) -> Result<Next, Halt> {
    let why = format!("not enough evidence within {}: {missing}", human(lead.deploy.wishes.timeout));
    match lead.deploy.wishes.hold_undecided {
        true => hold(lead, Outcome::Undecided, format!("{why}; held as asked")).await,
        false => back(lead, &why, false).await,
    }
}

/// Going back would not help, or is not wanted: it stands, and nobody calls it good.
async fn hold(lead: &mut Lead<'_>, outcome: Outcome, why: String) -> Result<Next, Halt> {
    let generation = lead.deploy.installed.as_ref().map_or(0, |installed| installed.generation);
    let (guard, by) = (lead.guard(), lead.actor(&why));
    match lead.store.commit(&lead.deploy.tier, generation, Some(&guard), &by).await? {
        Flipped::Now(_) => Ok(Next::End(outcome, why)),
        Flipped::Raced(now) => gone(lead, now).await,
        Flipped::Fenced => {
            lead.save().await?;
            Ok(Next::Step(Step::Verify, "the hold is tried again".to_owned()))
        }
    }
}

/// One flip to the release that is still running, and a look whether it works.
async fn back(lead: &mut Lead<'_>, why: &str, guilty: bool) -> Result<Next, Halt> {
    lead.guilty |= guilty;
    match &lead.deploy.back {
        None => {
            lead.deploy.back = Some(Back { why: why.to_owned(), guilty });
            lead.say(Some(false), why).await?;
        }
        Some(_) => lead.save().await?, // it may not have been written down
    }
    let Some(installed) = lead.deploy.installed.clone() else {
        return Ok(Next::End(Outcome::Rejected, why.to_owned()));
    };
    let Some(to) = lead.deploy.replaced().cloned() else {
        let why = format!("{why}; there is no release to go back to: it stands");
        return Ok(Next::End(Outcome::RollbackFailed, why));
    };
    let (guard, by) = (lead.guard(), lead.actor(why));
    match rollback::flip(lead.store, &lead.deploy.tier, &installed, &to, Some(guard), &by).await? {
        Flipped::Now(now) => settled(lead, &now, why.to_owned()).await,
        Flipped::Fenced => {
            lead.save().await?;
            Ok(Next::Step(Step::Verify, "the way back is tried again".to_owned()))
        }
        Flipped::Raced(now) => Box::pin(gone(lead, now)).await,
    }
}

/// Whether the former release works again.
async fn settled(lead: &mut Lead<'_>, now: &Activation, why: String) -> Result<Next, Halt> {
    match rollback::proof(lead.store, &lead.deploy.tier, now).await? {
        Ok(proof) => {
            lead.deploy.back_after = Some(proof.after);
            lead.say(Some(true), format!("generation {} → {}: {proof}", now.generation, now.release)).await?;
            Ok(Next::End(Outcome::RolledBack, why))
        }
        Err(trouble) => {
            let why = format!("{why}; and {} does not work: {trouble}", now.release);
            Ok(Next::End(Outcome::RollbackFailed, why))
        }
    }
}
