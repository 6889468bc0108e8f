//! Each kind that declares a payload for it runs on each worker of the release, through the real path, before the switch.

use super::lead::{Halt, Lead, Next};
use super::record::{Outcome, Step};
use super::trial::Trial;
use crate::release::evidence::{Decision, Finding};
use crate::release::records::ReleaseState;

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let mut facts = lead.look().await?;
    let mut trial = Trial::open(lead, &facts).await?;
    loop {
        let left = lead.left();
        let verdict = trial.look(lead, &facts, 0, std::time::Duration::ZERO).await?;
        // Before the switch no other job can prove a kind that declares no payload: that is for the watch after it.
        let proven = |finding: &Finding| matches!(finding.decision, Decision::Pass | Decision::Uncovered);
        let decision = match verdict.decision {
            Decision::Pending if !verdict.findings.is_empty() && verdict.findings.iter().all(proven) => {
                Decision::Uncovered
            }
            other => other,
        };
        match decision {
            Decision::Pass | Decision::Uncovered => {
                lead.trial = Some(trial);
                lead.mark(ReleaseState::CanaryPassed).await?;
                return Ok(Next::Step(Step::Activate, verdict.output));
            }
            Decision::Fail => {
                lead.guilty = true;
                return Ok(Next::End(Outcome::Rejected, verdict.output));
            }
            // Nothing was switched: going on would not help, and there is nothing to go back from.
            Decision::Environment => return Ok(Next::End(Outcome::Environment, verdict.output)),
            Decision::Pending if left.is_zero() => {
                let why = format!("undecided in time: {}", verdict.output);
                return Ok(Next::End(Outcome::Rejected, why));
            }
            Decision::Pending => lead.standing(verdict.output).await?,
        }
        if let Some(end) = lead.aborted() {
            return Ok(end);
        }
        lead.pause().await;
        facts = lead.look().await?;
    }
}
