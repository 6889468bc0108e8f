//! The old release stays warm: it is the way back.

use super::lead::{Halt, Lead, Next};
use super::members;
use super::record::Outcome;
use crate::clock::human;
use crate::release::evidence::History;

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let facts = lead.look().await?;
    let took = human(facts.now.since(lead.deploy.began));
    let generation = lead.deploy.installed.as_ref().map_or(0, |installed| installed.generation);
    // What is usual for both from here on.
    History::keep(lead.store, &lead.deploy.tier, &lead.deploy.to, generation).await?;
    if let Some(from) = lead.deploy.from.clone() {
        History::keep(lead.store, &lead.deploy.tier, &from.release, from.generation).await?;
    }
    let back = match lead.deploy.replaced() {
        Some(back) => format!("way back {back}, {} workers warm", members(&facts, back).len()),
        None => "there is no way back yet".to_owned(),
    };
    let why = format!("{} is active at generation {generation} after {took} · {back}", lead.deploy.to);
    Ok(Next::End(Outcome::Committed, why))
}
