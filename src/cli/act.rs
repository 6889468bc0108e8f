//! `job retry` and `job cancel`.

use serde::Serialize;

use super::args::Act;
use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::show::parse_id;
use crate::ids::JobId;
use crate::job::state::{Event, next};
use crate::names::Tier;
use crate::store::{Acted, Action, MAX_BATCH, Store};

#[derive(Debug, Serialize)]
struct Line {
    id: JobId,
    #[serde(flatten)]
    acted: Acted,
    dry_run: bool,
}

pub(super) async fn retry(ctx: &Context, args: Act) -> CliResult {
    act(ctx, args, Action::Retry).await
}

pub(super) async fn cancel(ctx: &Context, args: Act) -> CliResult {
    act(ctx, args, Action::Cancel).await
}

async fn act(ctx: &Context, args: Act, action: Action) -> CliResult {
    let ids: Vec<JobId> = args.ids.iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
    let (store, tier) = ctx.open().await?;
    let by = Context::actor(args.reason);
    let mut lines = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(MAX_BATCH) {
        let answers = if args.dry_run {
            foresee(&*store, &tier, chunk, action).await?
        } else {
            store.bulk(&tier, chunk.to_vec(), action, &by).await?
        };
        lines.extend(chunk.iter().zip(answers).map(|(id, acted)| Line {
            id: *id,
            acted,
            dry_run: args.dry_run,
        }));
    }
    for line in &lines {
        if ctx.out.is_for_people() {
            ctx.out.line(format!(
                "{}  {}{}",
                line.id,
                words(line.acted),
                if line.dry_run { " (dry run)" } else { "" }
            ))?;
        } else {
            ctx.out.json(line)?;
        }
    }
    Ok(exit(&lines))
}

/// What would happen, from where the jobs are now.
async fn foresee(
    store: &dyn Store,
    tier: &Tier,
    ids: &[JobId],
    action: Action,
) -> Result<Vec<Acted>, crate::store::StoreError> {
    let mut answers = Vec::with_capacity(ids.len());
    for id in ids {
        let event = if action == Action::Retry { Event::RunNow } else { Event::Cancel };
        answers.push(match store.get(tier, *id).await? {
            None => Acted::NotFound,
            Some(job) if job.state == crate::job::State::Running && action == Action::Cancel => Acted::Asked,
            Some(job) => next(job.state, event).map_or(Acted::Refused(job.state), Acted::Done),
        });
    }
    Ok(answers)
}

fn words(acted: Acted) -> String {
    match acted {
        Acted::Done(state) => state.to_string(),
        Acted::Unchanged(state) => format!("{state} already"),
        Acted::Asked => "running: its worker was asked to stop it".into(),
        Acted::Refused(state) => format!("refused: it is {state}"),
        Acted::NotFound => "not found".into(),
    }
}

fn exit(lines: &[Line]) -> Exit {
    let failed =
        lines.iter().filter(|line| matches!(line.acted, Acted::Refused(_) | Acted::NotFound)).count();
    match failed {
        0 => Exit::Ok,
        n if n < lines.len() => Exit::Partial,
        _ if lines.iter().all(|line| line.acted == Acted::NotFound) => Exit::NotFound,
        _ => Exit::Conflict,
    }
}
