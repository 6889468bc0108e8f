//! `job wait`: until jobs have ended.

use std::time::Duration;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::show::parse_id;
use super::story;
use crate::clock::{instant, wall};
use crate::ids::JobId;
use crate::job::{JobRecord, State};
use crate::names::Tier;
use crate::store::Store;

/// The longest pause between two looks at a job. A look is one read by id.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(ctx: &Context, ids: Vec<String>) -> CliResult {
    let ids: Vec<JobId> = ids.iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
    let (store, tier) = ctx.open().await?;
    let deadline = ctx.timeout()?;
    let began = instant();
    let mut worst = Exit::Ok;
    for id in ids {
        let left = deadline.saturating_sub(began.elapsed());
        let job = until_ended(ctx, &*store, &tier, id, left).await?;
        let exit = verdict(job.as_ref().map(|job| job.state));
        if let (Some(job), false) = (&job, ctx.out.is_for_people()) {
            ctx.out.json(job)?;
        }
        if worst == Exit::Ok {
            worst = exit;
        }
    }
    if worst == Exit::Timeout {
        return Err(CliError::new(worst, format!("no end within {}", crate::clock::human(deadline)))
            .hint("wait longer with `--timeout 1h`"));
    }
    Ok(worst)
}

/// The exit code of a job that was waited for; `None`: it had not ended.
pub(super) fn verdict(state: Option<State>) -> Exit {
    match state {
        Some(State::Completed) => Exit::Ok,
        Some(state) if state.is_final() => Exit::Unhealthy,
        _ => Exit::Timeout,
    }
}

/// Prints each change, for people. `None` after the deadline.
pub(super) async fn until_ended(
    ctx: &Context,
    store: &dyn Store,
    tier: &Tier,
    id: JobId,
    deadline: Duration,
) -> Result<Option<JobRecord>, CliError> {
    let began = instant();
    let mut wake = store.subscribe(tier).await?;
    let mut pause = Duration::from_millis(5);
    let mut last: Option<(State, u32, usize)> = None;
    loop {
        let Some(job) = store.get(tier, id).await? else {
            return Err(CliError::new(Exit::NotFound, format!("no job {id} in tier `{tier}`")));
        };
        let seen = Some((job.state, job.failures, job.history.len()));
        if seen != last {
            last = seen;
            pause = Duration::from_millis(5);
            if ctx.out.is_for_people() {
                ctx.out.line(crate::names::escaped(&story::now_line(&job, wall())))?;
            }
        }
        if job.state.is_final() {
            return Ok(Some(job));
        }
        if began.elapsed() >= deadline {
            return Ok(None);
        }
        // Something new wakes this early; the end of a job wakes nobody, so it is looked at in any case.
        wake.woken(pause.min(deadline.saturating_sub(began.elapsed()))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
