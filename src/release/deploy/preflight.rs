//! Every worker of the release is proven, and so is the way back: nothing has been switched yet.

use std::time::Duration;

use super::lead::{Halt, Lead, Next};
use super::record::{Deploy, Outcome, Step};
use super::{coverage, expected, members};
use crate::clock::human;
use crate::health::tier::TierFacts;
use crate::health::tier::rules::proven;
use crate::release::records::ReleaseState;
use crate::store::{FaultCode, Seen};

/// Clocks of hosts may differ by so much: leases go by the store's, but what people read does not.
const SKEW: Duration = Duration::from_secs(2);
/// A fault stands for so long before it counts: a hook is rehearsed again and again.
const STANDS: Duration = Duration::from_secs(2);

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    loop {
        let facts = lead.look().await?;
        let found = judge(&lead.deploy, &facts, expected(lead, 0));
        match found {
            Found::Ready(said) => {
                lead.mark(ReleaseState::Standby).await?;
                return Ok(Next::Step(Step::Canary, said));
            }
            Found::Refused(why) => return Ok(Next::End(Outcome::Rejected, why)),
            Found::Waits(why) if lead.left().is_zero() => {
                return Ok(Next::End(Outcome::Rejected, format!("undecided in time: {why}")));
            }
            Found::Waits(why) => lead.standing(why).await?,
        }
        if let Some(end) = lead.aborted() {
            return Ok(end);
        }
        lead.pause().await;
    }
}

/// What a look shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Ready(String),
    Waits(String),
    Refused(String),
}

/// Pure: from facts to what they show.
pub(super) fn judge(deploy: &Deploy, facts: &TierFacts, wanted: usize) -> Found {
    let there = members(facts, &deploy.to);
    for seen in &there {
        if let Some(fault) = &seen.presence.fault
            && facts.now.since(fault.at) >= STANDS
        {
            let what = match fault.code {
                FaultCode::ActivationHookFailed => String::new(),
                code => format!("{}: ", code.as_str()),
            };
            return Found::Refused(format!("{}: {what}{}", seen.presence.worker, fault.detail));
        }
        if let Some(skew) = skew(seen).filter(|skew| *skew > SKEW) {
            let why = format!("the clock of its host differs by {}", human(skew));
            return Found::Refused(format!(
                "{}: {why}, at most {} is allowed",
                seen.presence.worker,
                human(SKEW)
            ));
        }
    }
    if let Err(why) = coverage::check(deploy, facts) {
        return Found::Refused(why);
    }
    let back = match way_back(deploy, facts) {
        Ok(back) => back,
        Err(why) => return Found::Refused(why),
    };
    let ready: Vec<&Seen> = proven(facts, &deploy.to).collect();
    if ready.len() < wanted {
        return Found::Waits(format!("{}/{wanted} workers of {} are proven", ready.len(), deploy.to));
    }
    Found::Ready(format!(
        "{}/{wanted} workers of {} are proven and inactive · {back}",
        ready.len(),
        deploy.to
    ))
}

fn skew(seen: &Seen) -> Option<Duration> {
    let (host, store) = (seen.presence.clock, seen.at);
    (host.ms() > 0).then(|| host.since(store).max(store.since(host)))
}

/// Whether a rollback would work now.
pub(super) fn way_back(deploy: &Deploy, facts: &TierFacts) -> Result<String, String> {
    let Some(back) = deploy.replaced() else {
        return match deploy.wishes.first {
            true => Ok("first release: no way back".to_owned()),
            false => {
                Err("there is no release to go back to: `--first` for the first one of a tier".to_owned())
            }
        };
    };
    let warm: Vec<&Seen> = proven(facts, back).collect();
    let all = members(facts, back).len();
    match warm.iter().filter_map(|seen| Some(seen.presence.canary_age? + seen.age)).min() {
        Some(age) => Ok(format!("way back {back} warm {}/{all}, proven {} ago", warm.len(), human(age))),
        None if deploy.wishes.first => Ok(format!("way back {back} is not proven, and `--first` was given")),
        None => Err(format!("no living, proven worker of the way back `{back}`: a rollback would not work")),
    }
}
