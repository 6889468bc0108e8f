//! Workers of the release come up, inactive: started by a supervisor that read what is wanted, or by somebody else.

use std::time::Duration;

use super::lead::{Halt, Lead, Next};
use super::record::{Outcome, Step};
use super::{expected, members, names};
use crate::clock::{human, instant};

/// Without a number, those that are there are all when no other joined for so long.
const SETTLED: Duration = Duration::from_secs(3);
/// No worker of the release takes longer than this to come up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(lead: &mut Lead<'_>) -> Result<Next, Halt> {
    let (began, patience) = (instant(), PATIENCE.min(lead.left()));
    let (mut seen, mut since) = (0, instant());
    loop {
        let facts = lead.look().await?;
        let there = members(&facts, &lead.deploy.to);
        let wanted = expected(lead, there.len());
        if there.len() != seen {
            (seen, since) = (there.len(), instant());
        }
        let all = match lead.deploy.wishes.workers {
            Some(_) => there.len() >= wanted,
            None => !there.is_empty() && since.elapsed() >= SETTLED,
        };
        if all {
            let said =
                format!("{}/{wanted} workers are up on {}: {}", there.len(), lead.deploy.to, names(&there));
            // From here on this number is what "all of its workers" means.
            lead.deploy.wishes.workers = Some(u32::try_from(wanted).unwrap_or(u32::MAX));
            return Ok(Next::Step(Step::Preflight, said));
        }
        let standing = format!("{}/{wanted} workers of {} are up", there.len(), lead.deploy.to);
        if began.elapsed() >= patience {
            return Ok(Next::End(Outcome::Rejected, format!("{standing} after {}", human(patience))));
        }
        lead.standing(standing).await?;
        if let Some(end) = lead.aborted() {
            return Ok(end);
        }
        lead.pause().await;
    }
}
