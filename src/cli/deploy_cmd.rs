//! `deploy`: judges a release by jobs that it really ran, and switches the tier to it; `deploy plan|status|wait|list|show|resume|abort`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::clock::human;
use crate::config::person;
use crate::health::tier::TierFacts;
use crate::names::{Kind, Release, Tier, escaped};
use crate::release::deploy::lead::{Halt, Lead};
use crate::release::deploy::plan::{Plan, Refusal, plan};
use crate::release::deploy::record::{self, Begun, Deploy, Line, Outcome, Wishes};
use crate::release::deploy::{abort, advance};
use crate::release::records;
use crate::store::{Actor, Store};

/// Between two looks of a watcher.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct DeployArgs {
    #[command(subcommand)]
    command: Option<DeployCommand>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Start {
    /// The release
    #[arg(required = true)]
    release: Option<String>,
    #[command(flatten)]
    asked: Asked,
    /// Only if the plan still has this hash
    #[arg(long, value_name = "HASH")]
    plan: Option<String>,
    /// Leave it to a process near the store, and do not wait
    #[arg(long)]
    detach: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Why, for the ledger
    #[arg(long)]
    reason: Option<String>,
}

/// What is asked of a deploy, and decides its plan.
#[derive(Debug, Clone, Args)]
pub(super) struct Asked {
    /// Workers of the release that must be there (default: those that come)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    workers: Option<u32>,
    /// How long it is watched after the switch
    #[arg(long, default_value = "60s", value_name = "DUR")]
    verify: String,
    /// There is no way back, and that is right: the first release of a tier
    #[arg(long)]
    first: bool,
    /// Also when evidence spoke against this release before
    #[arg(long)]
    unquarantine: bool,
    /// A kind that needs no proof, and why
    #[arg(long, value_name = "KIND=REASON")]
    waive: Vec<String>,
    /// What to do without enough evidence at the end
    #[arg(long, value_enum, default_value = "revert", value_name = "WHAT")]
    on_inconclusive: Inconclusive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Inconclusive {
    /// Go back
    Revert,
    /// Let it stand
    Hold,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeployCommand {
    /// What would change, and whether it may: nothing is written
    Plan {
        /// The release
        release: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// The running deploy, or the last one
    Status,
    /// Wait for the end of a deploy; the exit code is its outcome
    Wait {
        /// Which (default: the running one)
        id: Option<String>,
    },
    /// Deploys, newest first
    #[command(visible_alias = "ls")]
    List {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Everything about one deploy
    Show {
        /// Which
        id: String,
    },
    /// Go on with a deploy that nobody leads any more
    Resume {
        /// Which (default: the running one)
        id: Option<String>,
    },
    /// End a deploy: before the switch nothing was changed, after it the former release is active again
    Abort {
        /// Which (default: the running one)
        id: Option<String>,
        /// Why, for the ledger
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(super) async fn run(ctx: &Context, args: DeployArgs) -> CliResult {
    match (args.command, args.start) {
        (Some(DeployCommand::Plan { release, asked }), _) => show_plan(ctx, &release, &asked).await,
        (Some(DeployCommand::Status), _) => status(ctx).await,
        (Some(DeployCommand::Wait { id }), _) => wait(ctx, id.as_deref()).await,
        (Some(DeployCommand::List { limit }), _) => list(ctx, limit).await,
        (Some(DeployCommand::Show { id }), _) => show(ctx, &id).await,
        (Some(DeployCommand::Resume { id }), _) => Box::pin(resume(ctx, id.as_deref())).await,
        (Some(DeployCommand::Abort { id, reason }), _) => Box::pin(end(ctx, id.as_deref(), reason)).await,
        (None, start) => begin(ctx, start).await,
    }
}

/// Who leads, for people: this very process.
fn me() -> String {
    format!("cli/{}", person())
}

fn wishes(ctx: &Context, asked: &Asked) -> Result<Wishes, CliError> {
    let mut waived = BTreeMap::new();
    for text in &asked.waive {
        let (kind, why) =
            text.split_once('=').filter(|(_, why)| !why.trim().is_empty()).ok_or_else(|| {
                CliError::usage(format!("--waive: `{}` is not KIND=REASON", crate::names::shown(text)))
            })?;
        waived.insert(Kind::new(kind).map_err(CliError::usage)?, why.trim().to_owned());
    }
    Ok(Wishes {
        workers: asked.workers,
        verify: span("--verify", &asked.verify)?,
        timeout: ctx.timeout()?,
        first: asked.first,
        again: asked.unquarantine,
        waived,
        hold_undecided: asked.on_inconclusive == Inconclusive::Hold,
    })
}

// ---- beginning

async fn planned(
    ctx: &Context,
    store: &dyn Store,
    tier: &Tier,
    release: &str,
    asked: &Asked,
    by: &Actor,
) -> Result<(Plan, TierFacts), CliError> {
    let (to, wishes) = (Release::new(release).map_err(CliError::usage)?, wishes(ctx, asked)?);
    let facts = TierFacts::gather(store, tier, Some(&to)).await?;
    let latest = record::latest(store, tier).await?;
    let known = records::read(store, tier, &to).await?;
    let plan = plan(&to, wishes, &facts, latest.as_ref(), known.as_ref(), by)
        .map_err(|refusal| refused(ctx, refusal))?;
    Ok((plan, facts))
}

fn refused(ctx: &Context, refusal: Refusal) -> CliError {
    let message = format!("nothing was changed: {refusal}");
    let program = &ctx.program;
    match refusal {
        Refusal::NoChange { .. } => CliError::new(Exit::Ok, refusal),
        Refusal::NoWayBack(_) => CliError::new(Exit::NoRollbackTarget, message)
            .hint(format!("see who lives: `{program} worker list`")),
        Refusal::Quarantined { .. } => {
            CliError::new(Exit::Unhealthy, message).hint("`--unquarantine` tries it all the same")
        }
        Refusal::Uncovered(_) => CliError::new(Exit::Unhealthy, message),
        Refusal::Busy(_) => {
            CliError::new(Exit::Conflict, message).hint(format!("watch it: `{program} deploy wait`"))
        }
        Refusal::Changed { .. } => {
            CliError::new(Exit::Conflict, message).hint(format!("look again: `{program} deploy plan R`"))
        }
    }
}

async fn show_plan(ctx: &Context, release: &str, asked: &Asked) -> CliResult {
    let (store, tier) = ctx.open().await?;
    match planned(ctx, &*store, &tier, release, asked, &Context::actor(None)).await {
        Ok((plan, _)) => tell_plan(ctx, &plan, true).map(|()| Exit::Ok),
        Err(same) if same.exit == Exit::Ok => ctx.out.line(same.message).map(|()| Exit::Ok),
        Err(error) => Err(error),
    }
}

fn tell_plan(ctx: &Context, plan: &Plan, dry_run: bool) -> Result<(), CliError> {
    if !ctx.out.is_for_people() {
        let mut value = json!(plan);
        if let Some(object) = value.as_object_mut() {
            object.insert("dry_run".into(), dry_run.into());
        }
        return ctx.out.json(&value);
    }
    let from = plan.from.as_ref().map_or_else(|| "nothing".to_owned(), |from| from.release.to_string());
    ctx.out.line(escaped(&format!("{from} → {}   tier {}   plan {}", plan.to, plan.tier, plan.hash)))?;
    ctx.out.line(escaped(&format!("  {}", plan.way_back)))?;
    ctx.out.line(format!("  {} workers of {} are up", plan.staged, plan.to))?;
    for (kind, jobs) in &plan.backlog {
        ctx.out.line(format!("  {jobs} jobs of `{kind}` wait"))?;
    }
    plan.warnings.iter().try_for_each(|warning| ctx.out.line(escaped(&format!("  warning: {warning}"))))
}

async fn begin(ctx: &Context, start: Start) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let by = Context::actor(start.reason.clone());
    let release = start.release.as_deref().ok_or_else(|| CliError::usage("name a release: `deploy R`"))?;
    let planned = planned(ctx, &*store, &tier, release, &start.asked, &by).await;
    let (plan, facts) = match planned {
        Ok(planned) => planned,
        Err(same) if same.exit == Exit::Ok => {
            ctx.out.line(same.message)?;
            return Ok(Exit::Ok);
        }
        Err(error) => return Err(error),
    };
    if let Some(expected) = start.plan.filter(|expected| *expected != plan.hash) {
        return Err(refused(ctx, Refusal::Changed { expected, now: plan.hash }));
    }
    if start.dry_run {
        tell_plan(ctx, &plan, true)?;
        return Ok(Exit::Ok);
    }
    let name = me();
    let draft = plan.deploy(&facts, &by, (!start.detach).then_some(&name));
    let read = match record::begin(&*store, draft).await? {
        Begun::Now(read) => read,
        Begun::Busy(other) => {
            let text = format!("deploy {} to {} was begun by {} meanwhile", other.id, other.to, other.by.who);
            return Err(refused(ctx, Refusal::Busy(text)));
        }
    };
    let deploy = read.deploy.clone();
    headline(ctx, &deploy)?;
    if start.detach {
        ctx.out.next(format!("{} deploy wait {}", ctx.program, deploy.id));
        return Ok(Exit::Ok);
    }
    let lead =
        Lead::of(&*store, read).ok_or_else(|| CliError::new(Exit::Error, "the deploy has no leader"))?;
    led(ctx, &store, &tier, lead).await
}

fn headline(ctx: &Context, deploy: &Deploy) -> Result<(), CliError> {
    if !ctx.out.is_for_people() {
        return Ok(());
    }
    let from = deploy.replaced().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let generation = deploy.from.as_ref().map_or(0, |from| from.generation);
    ctx.out.line(escaped(&format!(
        "deploy {}  {from} → {}   generation {generation}   plan {}   by {}",
        deploy.id, deploy.to, deploy.plan, deploy.by.who
    )))
}

/// Leads it here, and shows what happens, until it has ended, or another process leads it.
async fn led(ctx: &Context, store: &Arc<dyn Store>, tier: &Tier, lead: Lead<'_>) -> CliResult {
    let (id, seen) = (lead.deploy().id.clone(), lead.deploy().journal.len().saturating_sub(1) as u64);
    let watching = watch(ctx, &**store, tier, &id, seen);
    let leading = advance(lead);
    tokio::pin!(watching, leading);
    tokio::select! {
        ended = &mut watching => ended,
        halted = &mut leading => match halted {
            Ok(_) | Err(Halt::Fenced(_)) => watching.await,
            Err(Halt::Store(error)) => Err(CliError::from(error)
                .hint(format!("it goes on with `{} deploy resume {id}`; without anybody it reverts by itself", ctx.program))),
        },
    }
}

// ---- watching

/// Prints the journal as it grows, to the end.
async fn watch(ctx: &Context, store: &dyn Store, tier: &Tier, id: &str, mut seen: u64) -> CliResult {
    let mut wake = store.subscribe(tier).await.ok();
    loop {
        match record::find(store, tier, id).await {
            Ok(Some(deploy)) => {
                for line in deploy.journal.iter().filter(|line| line.seq > seen) {
                    told(ctx, line)?;
                }
                seen = deploy.journal.last().map_or(seen, |line| line.seq);
                if deploy.outcome.is_some() {
                    return ended(ctx, &deploy);
                }
            }
            Ok(None) => return Err(unknown(ctx, id)),
            Err(error) if error.is_transient() => tracing::debug!(%error, "the deploy cannot be read now"),
            Err(error) => return Err(error.into()),
        }
        match &mut wake {
            Some(wake) => drop(wake.woken(LOOK).await),
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

fn told(ctx: &Context, line: &Line) -> Result<(), CliError> {
    if ctx.out.format == super::out::Format::Jsonl {
        return ctx.out.json_line(&json!(line));
    }
    if !ctx.out.is_for_people() {
        return Ok(());
    }
    let mark = match line.ok {
        Some(good) => ctx.out.mark(good),
        None => " ",
    };
    let at = line.at.to_string();
    let time = at.get(11..19).unwrap_or_default().to_owned();
    // The mark brings its own colour, which must not be escaped.
    ctx.out.line(format!("{time}  {} {mark} {}", escaped(&format!("{:<10}", line.step)), escaped(&line.text)))
}

/// The last word, and the exit code.
fn ended(ctx: &Context, deploy: &Deploy) -> CliResult {
    let outcome = deploy.outcome.unwrap_or(Outcome::Superseded);
    let exit = exit(outcome);
    if !ctx.out.is_for_people() {
        if ctx.out.format != super::out::Format::Jsonl {
            ctx.out.json(deploy)?;
        }
        return Ok(exit);
    }
    let from = deploy.replaced().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let took =
        deploy.ended.map_or_else(String::new, |at| format!(" after {}", human(at.since(deploy.began))));
    let back = deploy.back_after.map_or_else(String::new, |after| format!(" in {}", human(after)));
    let text = match outcome {
        Outcome::Committed => format!("{} committed{took}: {} is active", deploy.id, deploy.to),
        Outcome::Rejected => {
            format!(
                "{} rejected before activation. Nothing changed: {from} is active, 0 jobs affected",
                deploy.id
            )
        }
        Outcome::RolledBack => format!("{} failed and was rolled back to {from}{back}", deploy.id),
        Outcome::RollbackFailed => {
            format!("✘ NOT HEALTHY: {} failed, and {from} was not seen working again", deploy.id)
        }
        Outcome::Environment => format!("{} held: both releases fail in the same way", deploy.id),
        Outcome::Aborted => format!("{} aborted. Nothing changed: {from} is active", deploy.id),
        Outcome::Superseded => format!("{} superseded: somebody else switched the tier", deploy.id),
    };
    ctx.out.marked(exit == Exit::Ok, text)?;
    let next = match outcome {
        Outcome::Committed => format!("gate check --release {}", deploy.to),
        _ => format!("deploy show {}", deploy.id),
    };
    ctx.out.next(format!("{} {next}", ctx.program));
    Ok(exit)
}

const fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Committed => Exit::Ok,
        Outcome::Rejected | Outcome::Aborted => Exit::Unhealthy,
        Outcome::RolledBack => Exit::RolledBack,
        Outcome::RollbackFailed => Exit::RollbackFailed,
        Outcome::Environment => Exit::Environment,
        Outcome::Superseded => Exit::Conflict,
    }
}

fn unknown(ctx: &Context, id: &str) -> CliError {
    CliError::new(Exit::NotFound, format!("no deploy `{}`", crate::names::shown(id)))
        .hint(format!("see them: `{} deploy list`", ctx.program))
}

/// The one that is named, or the running one, or the last one.
async fn which(ctx: &Context, store: &dyn Store, tier: &Tier, id: Option<&str>) -> Result<Deploy, CliError> {
    let found = match id {
        Some(id) => record::find(store, tier, id).await?,
        None => record::latest(store, tier).await?.map(|read| read.deploy),
    };
    found.ok_or_else(|| match id {
        Some(id) => unknown(ctx, id),
        None => CliError::new(Exit::NotFound, format!("there was no deploy in tier `{tier}` yet")),
    })
}

async fn wait(ctx: &Context, id: Option<&str>) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let deploy = which(ctx, &*store, &tier, id).await?;
    headline(ctx, &deploy)?;
    let within = ctx.timeout()?;
    match tokio::time::timeout(within, watch(ctx, &*store, &tier, &deploy.id, 0)).await {
        Ok(ended) => ended,
        Err(_) => Err(CliError::new(
            Exit::Timeout,
            format!("deploy {} has not ended within {}", deploy.id, human(within)),
        )),
    }
}

async fn status(ctx: &Context) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let deploy = which(ctx, &*store, &tier, None).await?;
    tell(ctx, &deploy)
}

async fn show(ctx: &Context, id: &str) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let deploy = which(ctx, &*store, &tier, Some(id)).await?;
    tell(ctx, &deploy)
}

fn tell(ctx: &Context, deploy: &Deploy) -> CliResult {
    if !ctx.out.is_for_people() {
        ctx.out.json(deploy)?;
        return Ok(Exit::Ok);
    }
    headline(ctx, deploy)?;
    deploy.journal.iter().try_for_each(|line| told(ctx, line))?;
    match (deploy.outcome, &deploy.controller) {
        (Some(outcome), _) => {
            let why = deploy.why.clone().unwrap_or_default();
            ctx.out.line(escaped(&format!("{}: {why}", outcome.as_str())))?;
        }
        (None, Some(led)) => ctx.out.line(escaped(&format!("led by {} until {}", led.name, led.until)))?,
        (None, None) => ctx.out.line("nobody leads it yet")?,
    }
    Ok(Exit::Ok)
}

async fn list(ctx: &Context, limit: usize) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let deploys = record::list(&*store, &tier, limit).await?;
    if !ctx.out.is_for_people() {
        ctx.out.json(&deploys)?;
        return Ok(Exit::Ok);
    }
    let now = store.census(&tier).await?.now;
    let rows = deploys.iter().map(|deploy| {
        let from = deploy.replaced().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let state =
            deploy.outcome.map_or_else(|| deploy.step.to_string(), |outcome| outcome.as_str().to_owned());
        vec![
            deploy.id.clone(),
            format!("{from} → {}", deploy.to),
            state,
            ctx.out.time(deploy.began, now),
            deploy.by.who.clone(),
            deploy.why.clone().unwrap_or_default(),
        ]
    });
    ctx.out.table(&["deploy", "what", "state", "begun", "by", "why"], rows.collect())?;
    Ok(Exit::Ok)
}

// ---- going on, and ending

async fn resume(ctx: &Context, id: Option<&str>) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let deploy = which(ctx, &*store, &tier, id).await?;
    if deploy.outcome.is_some() {
        ctx.out.note(format!("deploy {} has ended already", deploy.id));
        return ended(ctx, &deploy);
    }
    match Lead::take(&*store, &tier, &me()).await? {
        Some(lead) => {
            headline(ctx, lead.deploy())?;
            led(ctx, &store, &tier, lead).await
        }
        None => {
            let leader = deploy.controller.map_or_else(|| "another process".to_owned(), |led| led.name);
            Err(CliError::new(Exit::Conflict, format!("deploy {} is led by {leader}", deploy.id))
                .hint(format!("watch it: `{} deploy wait {}`", ctx.program, deploy.id)))
        }
    }
}

async fn end(ctx: &Context, id: Option<&str>, reason: Option<String>) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let deploy = which(ctx, &*store, &tier, id).await?;
    if deploy.outcome.is_some() {
        return Err(CliError::new(Exit::Conflict, format!("deploy {} has ended already", deploy.id))
            .hint(format!("see how: `{} deploy show {}`", ctx.program, deploy.id)));
    }
    if !abort(&*store, &tier, &deploy.id, &Context::actor(reason)).await? {
        return Err(CliError::new(Exit::Conflict, format!("deploy {} has ended meanwhile", deploy.id)));
    }
    // Whoever leads it ends it; if nobody does, this process.
    if let Some(lead) = Lead::take(&*store, &tier, &me()).await? {
        let seen = lead.deploy().journal.len() as u64;
        tracing::debug!(seen, "nobody led it: it is ended here");
        return led(ctx, &store, &tier, lead).await;
    }
    watch(ctx, &*store, &tier, &deploy.id, deploy.journal.last().map_or(0, |line| line.seq)).await
}
