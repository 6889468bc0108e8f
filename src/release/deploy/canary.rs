//! Each kind that declares a payload for it runs on each worker of the release, through the real path, before the switch.

use super::lead::{Halt, Lead, Next};
use super::record::{Outcome, Step};
use super::trial::Trial;
use crate::release::evidence::Decision;

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let mut trial = Trial::open(lead).await?;
    loop {
        let facts = lead.look().await?;
        let left = lead.left();
        let verdict = trial.look(lead, &facts, 0, std::time::Duration::ZERO).await?;
        match verdict.decision {
            Decision::Pass | Decision::Uncovered => {
                lead.trial = Some(trial);
                return Ok(Next::Step(Step::Activate, verdict.output));
            }
            Decision::Fail => return Ok(Next::End(Outcome::Rejected, verdict.output)),
            // Nothing was switched: going on would not help, and there is nothing to go back from.
            Decision::Environment => return Ok(Next::End(Outcome::Environment, verdict.output)),
            Decision::Pending if left.is_zero() => {
                let why = format!("undecided in time: {}", verdict.output);
                return Ok(Next::End(Outcome::Rejected, why));
            }
            Decision::Pending => lead.standing(verdict.output).await?,
        }
        if lead.deploy.abort.is_some() {
            return Ok(Next::End(Outcome::Aborted, "aborted".to_owned()));
        }
        lead.pause().await;
    }
}
