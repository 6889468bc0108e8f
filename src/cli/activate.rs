//! `activate`: switches a tier by hand.

use std::time::Duration;

use serde_json::json;

use super::args::Activate;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::activation::Mode;
use crate::clock::human;
use crate::health::tier::TierFacts;
use crate::names::{Release, escaped};
use crate::release::activate::{Arrival, Plan, Refusal, Step, Wish, arrived, carry_out, plan};
use crate::store::ErrorKind;

/// The least that a provisional activation may last: a worker needs a poll to hear of it, and a person to commit it.
const LEAST: Duration = Duration::from_secs(1);

pub(super) async fn run(ctx: &Context, args: Activate) -> CliResult {
    let wish = wish(&args)?;
    let (store, tier) = ctx.open().await?;
    let facts = TierFacts::gather(&*store, &tier, Some(&wish.release)).await?;
    let refused = |refusal| refusal_error(ctx, &wish, refusal);
    let planned = plan(&wish, &facts).map_err(refused)?;
    planned.warnings.iter().for_each(|warning| ctx.out.note(format!("warning: {warning}")));
    if args.dry_run {
        tell(ctx, &planned, true, None)?;
        return Ok(Exit::Ok);
    }
    let by = Context::actor(args.reason);
    let done = carry_out(&*store, planned, &by).await.map_err(refused)?;
    // Also when it is so already, or only committed: exit 0 says that it was seen.
    let waits = !args.no_wait;
    if ctx.out.is_for_people() {
        headline(ctx, &done, false)?;
    }
    let arrival = match waits {
        true => {
            let release = &done.to.release;
            let say = |why: &str| ctx.out.note(format!("waiting for a worker of {release}: {why}"));
            Some(arrived(&*store, &tier, &done.to, ctx.timeout()?, say).await?)
        }
        false => None,
    };
    if !ctx.out.is_for_people() {
        tell(ctx, &done, false, arrival.as_ref())?;
    }
    ended(ctx, &done, arrival)
}

fn wish(args: &Activate) -> Result<Wish, CliError> {
    let provisional = args.provisional.as_deref().map(|text| span("--provisional", text)).transpose()?;
    if let Some(short) = provisional.filter(|within| *within < LEAST) {
        return Err(CliError::usage(format!("--provisional: `{}` is too short: at least 1s", human(short))));
    }
    Ok(Wish {
        release: Release::new(&args.release).map_err(CliError::usage)?,
        provisional,
        fallback: args.fallback.as_deref().map(Release::new).transpose().map_err(CliError::usage)?,
        confirm: args.confirm,
        expect: args.expect_generation,
        force: args.force,
    })
}

fn refusal_error(ctx: &Context, wish: &Wish, refusal: Refusal) -> CliError {
    let message = format!("nothing was changed: {refusal}");
    let (exit, hint) = match refusal {
        Refusal::Store(error) => {
            let unknown = error.kind == ErrorKind::Timeout;
            let error = CliError::from(error);
            return match unknown {
                true => {
                    error.hint(format!("whether it was done is not known: `{} status` tells", ctx.program))
                }
                false => error,
            };
        }
        Refusal::Raced { .. } | Refusal::NothingToConfirm { .. } => {
            (Exit::Conflict, format!("see what happened: `{} events`", ctx.program))
        }
        Refusal::Provisional { ref release, .. } => {
            (Exit::Conflict, format!("commit it with `{} activate {release} --confirm`", ctx.program))
        }
        Refusal::NoFallback { .. } => {
            (Exit::NoRollbackTarget, "name another release with `--fallback`".to_owned())
        }
        Refusal::NobodyReady { .. } => (
            Exit::Unhealthy,
            format!(
                "start one with `{} work --release {}`; `--force` switches all the same",
                ctx.program, wish.release
            ),
        ),
    };
    CliError::new(exit, message).hint(hint)
}

fn tell(ctx: &Context, plan: &Plan, dry_run: bool, arrival: Option<&Arrival>) -> Result<(), CliError> {
    if ctx.out.is_for_people() {
        return headline(ctx, plan, dry_run);
    }
    let mut value = json!(plan);
    if let Some(object) = value.as_object_mut() {
        object.insert("dry_run".into(), dry_run.into());
        let active = match arrival {
            Some(Arrival::Active { worker, after }) => {
                json!({ "worker": worker, "after": after.as_secs_f64() })
            }
            _ => serde_json::Value::Null,
        };
        object.insert("active".into(), active);
    }
    ctx.out.json(&value)
}

fn headline(ctx: &Context, plan: &Plan, dry_run: bool) -> Result<(), CliError> {
    let (to, tier) = (&plan.to, &plan.tier);
    let mode = match (to.mode, &to.fallback, to.confirm_by) {
        (Mode::Provisional, Some(fallback), Some(by)) => {
            format!("provisional: reverts to {fallback} at {by} unless it is committed")
        }
        (mode, ..) => mode.to_string(),
    };
    let from = plan.from.as_ref().map_or_else(|| "nothing".to_owned(), |from| from.release.to_string());
    let what = match plan.action {
        Step::Activate => format!("{from} → {}, generation {}, {mode}", to.release, to.generation),
        Step::Commit => format!("{} committed at generation {}", to.release, to.generation),
        Step::Unchanged => {
            format!("{} is active at generation {} already, {mode}: unchanged", to.release, to.generation)
        }
    };
    let dry = if dry_run { " (dry run: nothing was changed)" } else { "" };
    ctx.out.line(escaped(&format!("tier {tier}: {what}{dry}")))
}

/// No word of success before it was seen.
fn ended(ctx: &Context, plan: &Plan, arrival: Option<Arrival>) -> CliResult {
    let to = &plan.to;
    match arrival {
        None => {}
        Some(Arrival::Active { worker, after }) if ctx.out.is_for_people() => {
            ctx.out.line(format!(
                "{} {worker} is active on {} after {}",
                ctx.out.mark(true),
                to.release,
                human(after)
            ))?;
        }
        Some(Arrival::Active { .. }) => {}
        Some(Arrival::Replaced { by, reverted, fault }) => {
            let why = fault.map(|fault| format!("; {fault}")).unwrap_or_default();
            let message = if reverted {
                format!("reverted to {} by itself: not confirmed in time{why}", by.release)
            } else {
                format!(
                    "release `{}` was activated over it, at generation {}{why}",
                    by.release, by.generation
                )
            };
            return Err(CliError::new(Exit::Conflict, message)
                .hint(format!("see what happened: `{} events`", ctx.program)));
        }
        Some(Arrival::Nobody) => {
            let message = format!(
                "release `{}` is active at generation {}, and no worker of it has taken over within {}",
                to.release,
                to.generation,
                human(ctx.timeout()?)
            );
            let mut error =
                CliError::new(Exit::Timeout, message).hint(format!("see why: `{} doctor`", ctx.program));
            if let Some(from) = &plan.from {
                error = error.hint(format!("go back: `{} activate {}`", ctx.program, from.release));
            }
            return Err(error);
        }
    }
    let next = match to.mode {
        Mode::Provisional => format!("activate {} --confirm", to.release),
        Mode::Committed => format!("gate check --release {}", to.release),
    };
    ctx.out.next(format!("{} {next}", ctx.program));
    Ok(Exit::Ok)
}
