//! `rollback`: one flip to a release that still runs. It can neither build, fetch, copy nor start anything.

use clap::Args;
use serde_json::json;

use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::clock::{human, instant};
use crate::health::tier::TierFacts;
use crate::names::{Release, escaped};
use crate::release::records;
use crate::release::rollback::{Refusal, Way, flip, proof, way};
use crate::store::Flipped;

#[derive(Debug, Clone, Args)]
pub(super) struct Rollback {
    /// To which release (default: the last verified one that is not active)
    #[arg(long, value_name = "R")]
    to: Option<String>,
    /// Only if what is active now became so within this time
    #[arg(long, value_name = "DUR")]
    within: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Why, for the ledger
    #[arg(long)]
    reason: Option<String>,
}

pub(super) async fn run(ctx: &Context, args: Rollback) -> CliResult {
    let to = args.to.as_deref().map(Release::new).transpose().map_err(CliError::usage)?;
    let within = args.within.as_deref().map(|text| span("--within", text)).transpose()?;
    let (store, tier) = ctx.open().await?;
    let facts = TierFacts::gather(&*store, &tier, to.as_ref()).await?;
    let known = records::list(&*store, &tier).await?;
    let way = way(&facts, &known.records, to.as_ref(), within).map_err(|refusal| refused(ctx, refusal))?;
    if args.dry_run {
        tell(ctx, &way, true, None)?;
        return Ok(Exit::Ok);
    }
    if ctx.out.is_for_people() {
        headline(ctx, &way, false)?;
    }
    let (began, by) = (instant(), Context::actor(args.reason.or_else(|| Some("rollback".to_owned()))));
    let now = match flip(&*store, &tier, &way.from, &way.to, None, &by).await? {
        Flipped::Now(now) => now,
        Flipped::Raced(_) | Flipped::Fenced => {
            let message = "nothing was changed: the tier was switched by somebody else meanwhile";
            return Err(CliError::new(Exit::Conflict, message)
                .hint(format!("see what happened: `{} events`", ctx.program)));
        }
    };
    match proof(&*store, &tier, &now).await? {
        Ok(proof) => {
            let all = began.elapsed();
            if !ctx.out.is_for_people() {
                tell(
                    ctx,
                    &way,
                    false,
                    Some(
                        json!({ "generation": now.generation, "active": proof.active, "of": proof.of, "after": proof.after.as_secs_f64() }),
                    ),
                )?;
                return Ok(Exit::Ok);
            }
            let (release, generation) = (&now.release, now.generation);
            let after = human(all);
            ctx.out.marked(
                true,
                format!("{release} is active again at generation {generation} after {after}: {proof}"),
            )?;
            ctx.out.next(format!("{} gate check --release {}", ctx.program, now.release));
            Ok(Exit::Ok)
        }
        Err(trouble) => {
            let message = format!(
                "✘ NOT HEALTHY: {} is active at generation {}, and {trouble}",
                now.release, now.generation
            );
            Err(CliError::new(Exit::RollbackFailed, message)
                .hint(format!("see why: `{} doctor`", ctx.program)))
        }
    }
}

fn refused(ctx: &Context, refusal: Refusal) -> CliError {
    let message = format!("nothing was changed: {refusal}");
    match refusal {
        Refusal::Already { .. } | Refusal::TooLate { .. } => CliError::new(Exit::Conflict, message),
        Refusal::NothingActive(_) | Refusal::NoTarget(_) => CliError::new(Exit::NoRollbackTarget, message)
            .hint(format!("see what there is: `{} release list`", ctx.program)),
        Refusal::Cold(release) => CliError::new(Exit::NoRollbackTarget, message)
            .hint(format!("start one: `{} work --release {release}`", ctx.program)),
    }
}

fn headline(ctx: &Context, way: &Way, dry_run: bool) -> Result<(), CliError> {
    let dry = if dry_run { " (dry run: nothing was changed)" } else { "" };
    ctx.out.line(escaped(&format!(
        "{} → {}   generation {}   {} warm workers{dry}",
        way.from.release, way.to, way.from.generation, way.warm
    )))?;
    for (kind, jobs) in &way.parked {
        let text = format!(
            "  {jobs} jobs of `{kind}` wait that {} cannot run: they are parked until a release that can is active",
            way.to
        );
        ctx.out.line(escaped(&text))?;
    }
    Ok(())
}

fn tell(ctx: &Context, way: &Way, dry_run: bool, done: Option<serde_json::Value>) -> Result<(), CliError> {
    if ctx.out.is_for_people() {
        return headline(ctx, way, dry_run);
    }
    let mut value = json!(way);
    if let Some(object) = value.as_object_mut() {
        object.insert("dry_run".into(), dry_run.into());
        object.insert("done".into(), done.unwrap_or_default());
    }
    ctx.out.json(&value)
}
