//! `worker list|show|quiet|resume|stop|dump`.

use std::time::Duration;

use serde_json::json;

use super::args::{QuietArgs, ResumeArgs, StopArgs, WhichWorkers, WorkerCommand};
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::Format;
use super::status::workers_table;
use crate::activation::WorkerState;
use crate::clock::{human, instant};
use crate::names::{Release, Tier, WorkerName, escaped};
use crate::store::orders::{self, Order, Target};
use crate::store::{Seen, Space, Store};

/// A worker beats every three seconds, and is woken when somebody orders something.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A living worker has obeyed by then.
const TWO_BEATS: Duration = Duration::from_secs(7);

pub(super) async fn run(ctx: &Context, command: WorkerCommand) -> CliResult {
    match command {
        WorkerCommand::List => list(ctx).await,
        WorkerCommand::Show { worker } => show(ctx, &worker).await,
        WorkerCommand::Quiet(args) => quiet(ctx, args).await,
        WorkerCommand::Resume(args) => resume(ctx, args).await,
        WorkerCommand::Stop(args) => stop(ctx, args).await,
        WorkerCommand::Dump { worker } => dump(ctx, &worker).await,
    }
}

async fn list(ctx: &Context) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let workers = store.workers(&tier).await?;
    match ctx.out.format {
        Format::Json => ctx.out.json(&workers)?,
        Format::Jsonl => workers.iter().try_for_each(|seen| ctx.out.json(seen))?,
        Format::Name => workers.iter().try_for_each(|seen| ctx.out.line(&seen.presence.worker))?,
        _ => workers_table(ctx, &workers)?,
    }
    if workers.is_empty() {
        ctx.out.next(format!("no worker in tier `{tier}`; {} work", ctx.program));
    }
    Ok(Exit::Ok)
}

async fn find(ctx: &Context, store: &dyn Store, tier: &Tier, name: &str) -> Result<Seen, CliError> {
    let name = WorkerName::new(name).map_err(CliError::usage)?;
    let found = store.workers(tier).await?.into_iter().find(|seen| seen.presence.worker == name);
    found.ok_or_else(|| {
        CliError::new(Exit::NotFound, format!("there is no worker `{name}` in tier `{tier}`"))
            .hint(format!("`{} worker list` lists them", ctx.program))
    })
}

async fn show(ctx: &Context, name: &str) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let seen = find(ctx, &*store, &tier, name).await?;
    if !ctx.out.is_for_people() {
        ctx.out.json(&seen)?;
        return Ok(Exit::Ok);
    }
    for (what, text) in story(&seen) {
        ctx.out.line(format!("{what:<10} {}", escaped(&text)))?;
    }
    Ok(Exit::Ok)
}

/// What there is to say of a worker, a line each.
fn story(seen: &Seen) -> Vec<(&'static str, String)> {
    let worker = &seen.presence;
    let ago = |age: Option<Duration>| {
        age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", human(age + seen.age)))
    };
    let mut state = format!("{} for {}", worker.state, human(worker.state_age + seen.age));
    if seen.is_stale() {
        state = format!("said nothing for {}; before that {}", human(seen.age), worker.state);
    }
    let mut lines = vec![
        (
            "worker",
            format!("{}   process {} on {}, since {}", worker.worker, worker.pid, worker.host, seen.since),
        ),
        ("state", state),
    ];
    lines.extend(worker.reason.clone().map(|reason| ("reason", reason)));
    lines.extend(
        worker
            .fault
            .as_ref()
            .map(|fault| ("fault", format!("{}, since {}: {}", fault.code.as_str(), fault.at, fault.detail))),
    );
    let artifact =
        worker.artifact.as_deref().map_or_else(String::new, |digest| format!(", program sha256:{digest}"));
    lines.push(("release", format!("{}, generation seen {}{artifact}", worker.release, worker.generation)));
    lines.push(("slots", format!("{} of {} busy, {} stuck", worker.busy, worker.slots, worker.stuck)));
    lines.push(("claimed", ago(worker.claim_age)));
    lines.push(("progress", ago(worker.progress_age)));
    let canary = worker.canary_error.as_ref().map_or_else(String::new, |error| format!("; now: {error}"));
    lines.push(("canary", format!("passed {}{canary}", ago(worker.canary_age))));
    for failing in &worker.failing {
        lines.push((
            "failing",
            format!(
                "{}: {} of {} first attempts failed since {} (usual: {:.0} %): {}",
                failing.kind,
                failing.failed,
                failing.attempts,
                failing.since,
                failing.baseline * 100.0,
                failing.error
            ),
        ));
    }
    let queues = worker.queues.as_ref().map_or_else(
        || "all".to_owned(),
        |queues| queues.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    );
    lines.push(("queues", queues));
    let kinds: Vec<String> =
        worker.kinds.iter().map(|(kind, version)| format!("{kind} v{version}")).collect();
    lines.push(("kinds", kinds.join(", ")));
    lines.push((
        "jobs",
        format!(
            "{} completed, {} attempts failed; restarted {} times",
            worker.completed, worker.failed, worker.restarts
        ),
    ));
    lines.extend(worker.health.clone().map(|health| ("health", format!("http://{health}/readyz"))));
    lines
}

fn target(which: &WhichWorkers) -> Result<Target, CliError> {
    match (&which.worker, &which.release, which.all) {
        (Some(worker), None, false) => Ok(Target::Worker(WorkerName::new(worker).map_err(CliError::usage)?)),
        (None, Some(release), false) => Ok(Target::Release(Release::new(release).map_err(CliError::usage)?)),
        (None, None, true) => Ok(Target::All),
        _ => Err(CliError::usage("name one worker, or `--release R`, or `--all`")),
    }
}

/// The workers that a target means now. One that is named must exist: a slip in its name would quiet nobody.
async fn meant(
    ctx: &Context,
    store: &dyn Store,
    tier: &Tier,
    target: &Target,
) -> Result<Vec<WorkerName>, CliError> {
    if let Target::Worker(worker) = target {
        return Ok(vec![find(ctx, store, tier, worker.as_str()).await?.presence.worker]);
    }
    let workers = store.workers(tier).await?;
    let living = workers.iter().filter(|seen| !seen.is_stale()).map(|seen| &seen.presence);
    Ok(living
        .filter(|worker| target.means(&worker.worker, &worker.release))
        .map(|worker| worker.worker.clone())
        .collect())
}

async fn quiet(ctx: &Context, args: QuietArgs) -> CliResult {
    let target = target(&args.which)?;
    let span = if args.indefinitely { None } else { Some(span("--for", &args.span)?) };
    let (store, tier) = ctx.open().await?;
    let workers = meant(ctx, &*store, &tier, &target).await?;
    let by = Context::actor(args.reason);
    let until = match span {
        Some(span) => format!("for {}", human(span)),
        None => "until somebody resumes them".to_owned(),
    };
    if args.dry_run {
        return told(
            ctx,
            &format!("would quiet {target} {until}"),
            json!({ "dry_run": true, "target": target, "workers": workers }),
        );
    }
    let quieting = orders::quiet(&*store, &tier, target, span, &by).await?;
    let obeyed = obeyed(&*store, &tier, &workers).await?;
    told(
        ctx,
        &format!("{} quiet {until}: {obeyed} of {} living workers are", quieting.target, workers.len()),
        json!({ "dry_run": false, "quieting": quieting, "workers": workers, "obeyed": obeyed }),
    )?;
    ctx.out.next(format!("{} worker list", ctx.program));
    Ok(Exit::Ok)
}

/// How many of these are quiet, once all are or two beats have passed.
async fn obeyed(store: &dyn Store, tier: &Tier, workers: &[WorkerName]) -> Result<usize, CliError> {
    let mut wake = store.subscribe(tier).await?;
    let end = instant() + TWO_BEATS;
    loop {
        let seen = store.workers(tier).await?;
        let quiet = seen
            .iter()
            .filter(|seen| seen.presence.quiet.is_some() && workers.contains(&seen.presence.worker));
        let quiet = quiet.count();
        if quiet == workers.len() || instant() >= end {
            return Ok(quiet);
        }
        wake.woken(LOOK_AGAIN / 4).await;
    }
}

fn told(ctx: &Context, text: &str, value: serde_json::Value) -> CliResult {
    if ctx.out.is_for_people() {
        ctx.out.line(text)?;
    } else {
        ctx.out.json(&value)?;
    }
    Ok(Exit::Ok)
}

async fn resume(ctx: &Context, args: ResumeArgs) -> CliResult {
    let target = target(&args.which)?;
    let (store, tier) = ctx.open().await?;
    let workers = meant(ctx, &*store, &tier, &target).await?;
    let stood = orders::resume(&*store, &tier, &target, &workers, &Context::actor(args.reason)).await?;
    told(
        ctx,
        &format!("{target} may claim again: {} workers", workers.len()),
        json!({ "target": target, "stood": stood, "workers": workers }),
    )
}

async fn stop(ctx: &Context, args: StopArgs) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let worker = find(ctx, &*store, &tier, &args.worker).await?.presence;
    orders::order(&*store, &tier, &worker.worker, Order::Stop, &Context::actor(args.reason)).await?;
    let mut wake = store.subscribe(&tier).await?;
    let gone = async {
        loop {
            let now = store
                .workers(&tier)
                .await?
                .into_iter()
                .find(|seen| seen.presence.worker == worker.worker && seen.presence.pid == worker.pid);
            if now.is_none_or(|seen| seen.presence.state == WorkerState::Stopped) {
                return Ok::<_, CliError>(());
            }
            wake.woken(LOOK_AGAIN).await;
        }
    };
    let patience = ctx.timeout()?;
    tokio::time::timeout(patience, gone).await.map_err(|_| {
        CliError::new(
            Exit::Timeout,
            format!("worker `{}` still runs after {}", worker.worker, human(patience)),
        )
        .hint("it finishes what runs first; a stop on its host (SIGTERM, then again) is faster")
    })??;
    told(
        ctx,
        &format!("worker `{}` has stopped", worker.worker),
        json!({ "worker": worker.worker, "stopped": true }),
    )
}

async fn dump(ctx: &Context, name: &str) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let worker = find(ctx, &*store, &tier, name).await?.presence.worker;
    let key = orders::dump_key(&worker);
    let before = store.record(&tier, Space::Receipt, &key).await?.map_or(0, |record| record.version);
    let mut wake = store.subscribe(&tier).await?;
    orders::order(&*store, &tier, &worker, Order::Dump, &Context::actor(None)).await?;
    let written = async {
        loop {
            let now = store.record(&tier, Space::Receipt, &key).await?;
            if let Some(record) = now.filter(|record| record.version > before) {
                return Ok::<_, CliError>(record.value);
            }
            wake.woken(LOOK_AGAIN / 4).await;
        }
    };
    let patience = ctx.timeout()?.min(Duration::from_secs(30));
    let value = tokio::time::timeout(patience, written).await.map_err(|_| {
        CliError::new(Exit::Timeout, format!("worker `{worker}` did not answer within {}", human(patience)))
            .hint("its process may be stopped or gone: `kill -TTIN PID` on its host asks it directly")
    })??;
    let value: serde_json::Value =
        serde_json::from_str(&value).map_err(|error| CliError::new(Exit::Error, error))?;
    if !ctx.out.is_for_people() {
        ctx.out.json(&value)?;
        return Ok(Exit::Ok);
    }
    let jobs = value.get("jobs").and_then(|jobs| jobs.as_array()).cloned().unwrap_or_default();
    ctx.out.note(format!("{} jobs run now", jobs.len()));
    jobs.iter().filter_map(|job| job.as_str()).try_for_each(|job| ctx.out.line(escaped(job)))?;
    Ok(Exit::Ok)
}
