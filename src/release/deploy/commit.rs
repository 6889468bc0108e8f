//! It stands: one compare-and-set at the same generation. Either it reverts or it stands; nothing is between.

use super::lead::{Halt, Lead, Next};
use super::record::{Outcome, Step};
use crate::store::Flipped;

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let Some(installed) = lead.deploy.installed.clone() else {
        return Ok(Next::Step(Step::Activate, "what was switched is not known".to_owned()));
    };
    lead.say(None, format!("committing generation {}", installed.generation)).await?;
    let (guard, by) = (lead.guard(), lead.actor("commit"));
    let tier = lead.deploy.tier.clone();
    match lead.store.commit(&tier, installed.generation, Some(&guard), &by).await? {
        Flipped::Now(now) => {
            let said = format!("{} is committed at generation {}", now.release, now.generation);
            Ok(Next::Step(Step::Retain, said))
        }
        // The dead-man was first, or a person: the watch says which, and whether the tier works.
        Flipped::Raced(Some(_)) => Ok(Next::Step(Step::Verify, "it does not stand any more".to_owned())),
        Flipped::Raced(None) => {
            Ok(Next::End(Outcome::Superseded, "the store has no activation of this tier any more".to_owned()))
        }
        Flipped::Fenced => {
            lead.save().await?;
            Ok(Next::Step(Step::Commit, "the commit is tried again".to_owned()))
        }
    }
}
