//! `queue list` and `queue show`.

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::Format;
use crate::clock::human;
use crate::job::State;
use crate::names::Queue;
use crate::store::QueueCensus;

/// States with a column of their own.
const COLUMNS: [State; 6] =
    [State::Available, State::Running, State::Scheduled, State::Retryable, State::Parked, State::Dead];

pub(super) async fn list(ctx: &Context) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let census = store.census(&tier).await?;
    match ctx.out.format {
        Format::Json => ctx.out.json(&census)?,
        Format::Jsonl => census.queues.iter().try_for_each(|queue| ctx.out.json(queue))?,
        Format::Name => census.queues.iter().try_for_each(|queue| ctx.out.line(&queue.queue))?,
        _ => table(ctx, &census.queues)?,
    }
    if census.queues.is_empty() {
        ctx.out.next(format!("no queue yet; {} job enqueue echo '{{}}'", ctx.program));
    }
    Ok(Exit::Ok)
}

/// Depth by state, and how long the oldest has waited.
pub(super) fn table(ctx: &Context, queues: &[QueueCensus]) -> Result<(), CliError> {
    let mut headers = vec!["queue"];
    headers.extend(COLUMNS.iter().map(|state| state.as_str()));
    headers.extend(["oldest", "completed"]);
    let row = |queue: &QueueCensus| {
        let mut row = vec![queue.queue.to_string()];
        row.extend(COLUMNS.iter().map(|state| queue.jobs(*state).to_string()));
        row.push(queue.oldest_wait.map_or_else(|| "-".into(), human));
        row.push(queue.completed_total.to_string());
        row
    };
    ctx.out.table(&headers, queues.iter().map(row).collect())
}

pub(super) async fn show(ctx: &Context, queue: String) -> CliResult {
    let queue = Queue::new(&queue).map_err(CliError::usage)?;
    let (store, tier) = ctx.open().await?;
    let census = store.census(&tier).await?;
    let Some(found) = census.queues.into_iter().find(|known| known.queue == queue) else {
        return Err(CliError::new(
            Exit::NotFound,
            format!("no job was ever enqueued on queue `{queue}` in tier `{tier}`"),
        )
        .hint(format!("`{} queue list` lists the queues", ctx.program)));
    };
    if !ctx.out.is_for_people() {
        ctx.out.json(&found)?;
        return Ok(Exit::Ok);
    }
    ctx.out.line(format!(
        "queue {}   {} enqueued, {} completed, {} attempts failed",
        found.queue, found.inserted_total, found.completed_total, found.failed_total
    ))?;
    if let Some(oldest) = found.oldest_wait {
        ctx.out.line(format!("the oldest available job has waited {}", human(oldest)))?;
    }
    let mut rows = Vec::new();
    for (kind, states) in &found.kinds {
        rows.extend(states.iter().map(|(state, n)| vec![kind.to_string(), state.to_string(), n.to_string()]));
    }
    ctx.out.table(&["kind", "state", "jobs"], rows)?;
    ctx.out.next(format!("{} job list --queue {queue}", ctx.program));
    Ok(Exit::Ok)
}
