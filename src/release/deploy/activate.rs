//! The switch: one compare-and-set, provisional, with the way back in it. From here on the tier reverts by itself unless somebody
//! watches.

use std::time::Duration;

use super::lead::{Halt, Lead, Next};
use super::preflight::way_back;
use super::record::{Outcome, Step};
use crate::activation::{Activation, Mode};
use crate::health::tier::Change;
use crate::release::activate::{Arrival, arrived};
use crate::release::records::ReleaseState;
use crate::store::{Flip, Flipped};

/// A worker hears of the switch within this, or its trouble is told by what watches it next.
const TAKES_OVER: Duration = Duration::from_secs(5);

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let facts = lead.look().await?;
    let mine =
        |now: &&Activation| now.deploy.as_ref() == Some(&lead.deploy.id) && now.release == lead.deploy.to;
    let installed = match facts.activation.as_ref().filter(mine) {
        Some(now) => now.clone(), // whoever led before did it, and did not live to write it down
        None => {
            // It did, and it is over already: the dead-man's work, or a person's. The watch says whose.
            let id = &lead.deploy.id;
            let ours = |change: &&Change| {
                change.to.deploy.as_ref() == Some(id)
                    && change.to.release == lead.deploy.to
                    && change.event == "activation.flipped"
            };
            if let Some(change) = facts.history.iter().find(ours) {
                let said = format!(
                    "generation {} was switched to, and is not active any more",
                    change.to.generation
                );
                lead.deploy.installed = Some(change.to.clone());
                return Ok(Next::Step(Step::Verify, said));
            }
            if let Some(end) = lead.aborted() {
                return Ok(end);
            }
            if let Err(why) = way_back(&lead.deploy, &facts) {
                return Ok(Next::End(Outcome::Rejected, why));
            }
            lead.say(None, format!("switching to {}", lead.deploy.to)).await?;
            let expect = lead.deploy.from.as_ref().map(|from| from.generation);
            let fallback = lead.deploy.replaced().cloned();
            let provisional = fallback.is_some();
            let flip = Flip {
                release: lead.deploy.to.clone(),
                mode: if provisional { Mode::Provisional } else { Mode::Committed },
                confirm_within: provisional.then_some(lead.deploy.pace.confirm),
                fallback,
                deploy: Some(lead.deploy.id.clone()),
                guard: Some(lead.guard()),
                least: 0,
            };
            let by = lead.actor("activate");
            match lead.store.flip(&lead.deploy.tier, expect, flip, &by).await? {
                Flipped::Now(activation) => activation,
                Flipped::Fenced => {
                    lead.save().await?; // says who leads it now
                    return Ok(Next::Step(Step::Activate, "the switch is tried again".to_owned()));
                }
                Flipped::Raced(there) => {
                    let there = there.map_or_else(
                        || "nothing".to_owned(),
                        |now| format!("{} at generation {}", now.release, now.generation),
                    );
                    let why =
                        format!("the tier was switched by somebody else since the plan: {there} is active");
                    return Ok(Next::End(Outcome::Superseded, why));
                }
            }
        }
    };
    lead.deploy.installed = Some(installed.clone());
    lead.save().await?;
    lead.mark(ReleaseState::Provisional).await?;
    let mode = match installed.confirm_by {
        Some(by) => format!("provisional, reverts by itself at {by} unless confirmed"),
        None => "committed: there is no way back".to_owned(),
    };
    let pace = lead.deploy.pace;
    // Nobody extends it meanwhile, nor is the lease renewed.
    let within = TAKES_OVER.min(pace.lease / 2).min(pace.confirm / 2);
    let first = match Box::pin(arrived(lead.store, &lead.deploy.tier, &installed, within, |_| {})).await? {
        Arrival::Active { worker, after } => {
            format!("{worker} is active after {}", crate::clock::human(after))
        }
        Arrival::Replaced { .. } | Arrival::Nobody => "no worker has taken over yet".to_owned(),
    };
    Ok(Next::Step(Step::Verify, format!("generation {}, {mode} · {first}", installed.generation)))
}
