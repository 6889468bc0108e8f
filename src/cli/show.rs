//! `job show`: a job's story.

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::story;
use crate::clock::wall;
use crate::ids::JobId;
use crate::job::{Parked, State};
use crate::names::Tier;

pub(super) async fn run(ctx: &Context, id: String) -> CliResult {
    let id = parse_id(&id)?;
    let (store, tier) = ctx.open().await?;
    let Some(job) = store.get(&tier, id).await? else { return Err(not_found(id, &tier)) };
    if ctx.out.is_for_people() {
        story::tell(&ctx.out, &job, wall())?;
        match job.state {
            State::Dead | State::Cancelled | State::Expired => {
                ctx.out.next(format!("{} job retry {id}", ctx.program))
            }
            // Nobody can know whether it was sent: a person looks at the receiver, and lets it be or calls it off.
            State::Parked if job.parked == Some(Parked::Uncertain) => {
                ctx.out.next(format!("look whether it arrived, then {} job cancel {id}", ctx.program))
            }
            State::Parked if job.parked == Some(Parked::Asked) => {
                ctx.out.next(format!("{} job retry {id}", ctx.program))
            }
            State::Completed => {}
            _ => ctx.out.next(format!("{} job wait {id}", ctx.program)),
        }
    } else if ctx.out.format == super::out::Format::Name {
        ctx.out.line(job.id)?;
    } else {
        ctx.out.json(&job)?;
    }
    Ok(Exit::Ok)
}

pub(super) fn parse_id(text: &str) -> Result<JobId, CliError> {
    text.parse().map_err(CliError::usage)
}

pub(super) fn not_found(id: JobId, tier: &Tier) -> CliError {
    CliError::new(Exit::NotFound, format!("no job {id} in tier `{tier}`"))
        .hint("completed jobs are kept for an hour and at most 10,000 per queue; dead, cancelled and expired ones for 30 days")
}
