//! `gate check`, `gate wait` and `gate explain`: the verdict on a tier and a release.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::args::{Gate, GateCommand};
use super::ci;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::Format;
use crate::activation::Activation;
use crate::clock::{Timestamp, human, instant, wall};
use crate::health::tier::rules::{SLO, THRESHOLDS};
use crate::health::tier::wait::Patience;
use crate::health::tier::{Decision, GateAsk, MinActive, TierVerdict, implied, look};
use crate::names::{Queue, Release, Tier, escaped};
use crate::store::Store;

/// Between two looks; a wake-up of the store makes it shorter, and never shorter than [`PAUSE`].
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wake-ups of a busy tier come without end.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(ctx: &Context, command: GateCommand) -> CliResult {
    match command {
        GateCommand::Check(args) => check(ctx, *args).await,
        GateCommand::Wait(args) => wait(ctx, *args).await,
        GateCommand::Explain { name, gate } => explain(ctx, &name, *gate).await,
    }
}

async fn check(ctx: &Context, args: Gate) -> CliResult {
    let asked = Asked::read(&args)?;
    let (store, tier) = ctx.open().await?;
    let ask = asked.ask(ctx, store.activation(&tier).await?.as_ref(), &tier)?;
    let verdict = look(&*store, &tier, &ask).await;
    tell(ctx, &verdict)?;
    report(ctx, &verdict, args.junit.as_ref(), exit(&verdict))
}

/// What was typed, read before anything is opened.
struct Asked {
    release: Option<Release>,
    ask: GateAsk,
}

impl Asked {
    fn read(args: &Gate) -> Result<Self, CliError> {
        let release = args.release.as_deref().map(Release::new).transpose().map_err(CliError::usage)?;
        let names = args.queues.iter().flat_map(|names| names.split(',')).map(str::trim);
        let queues = names.map(Queue::new).collect::<Result<_, _>>().map_err(CliError::usage)?;
        let min_active: Option<MinActive> = args
            .min_active
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error| CliError::usage(format!("--min-active: {error}")))?;
        let slo = match args.slo.as_deref() {
            None => None,
            Some("") => Some(SLO),
            Some(text) => Some(span("--slo", text)?),
        };
        let ask = GateAsk {
            min_active: min_active.unwrap_or(MinActive::Percent(100)),
            expect: args.expect,
            queues,
            allow_provisional: args.allow_provisional,
            slo,
            ..GateAsk::new(Release::default())
        };
        Ok(Self { release, ask })
    }

    /// A managed tier has no release that goes without saying.
    fn ask(self, ctx: &Context, current: Option<&Activation>, tier: &Tier) -> Result<GateAsk, CliError> {
        let release = self.release.or_else(|| implied(current)).ok_or_else(|| {
            let active = current.map_or("", |current| current.release.as_str());
            CliError::usage(format!(
                "`--release` is needed: tier `{tier}` is managed, `{active}` is active in it"
            ))
            .hint(format!("`{} gate check --release {active}`", ctx.program))
        })?;
        Ok(GateAsk { release, ..self.ask })
    }
}

// ---- waiting

async fn wait(ctx: &Context, args: Gate) -> CliResult {
    let asked = Asked::read(&args)?;
    let within = ctx.timeout()?;
    let began = instant();
    let left = || within.saturating_sub(began.elapsed());
    let (store, tier, current) = opened(ctx, &left).await?;
    let mut ask = asked.ask(ctx, current.as_ref(), &tier)?;
    // What was replaced before this wait began is no news to it: the same release may be activated again.
    ask.known = current.as_ref().map_or(0, |current| current.generation);
    let mut wake = store.subscribe(&tier).await.ok();
    let (mut patience, mut said) = (Patience::default(), String::new());
    loop {
        let mut verdict = look(&*store, &tier, &ask).await;
        verdict.deadline = Some(verdict.time.plus(left()));
        let line = format!("{:<10}  {}", verdict.decision.as_str(), verdict.output);
        if line != said {
            change(ctx, &verdict, &line)?;
            said = line;
        }
        if patience.ends(&verdict, instant()) || left().is_zero() {
            return finish(ctx, &verdict, within, args.junit.as_ref());
        }
        tokio::time::sleep(PAUSE.min(left())).await;
        match &mut wake {
            Some(wake) => drop(wake.woken((LOOK_EVERY - PAUSE).min(left())).await),
            None => {
                tokio::time::sleep((LOOK_EVERY - PAUSE).min(left())).await;
                wake = store.subscribe(&tier).await.ok();
            }
        }
    }
}

/// The store and what is active in the tier, as soon as it is there: a pipeline may have started it a moment ago.
async fn opened(
    ctx: &Context,
    left: &impl Fn() -> Duration,
) -> Result<(Arc<dyn Store>, Tier, Option<Activation>), CliError> {
    let mut said = false;
    let open = async || {
        let (store, tier) = ctx.open().await?;
        let current = store.activation(&tier).await?;
        Ok::<_, CliError>((store, tier, current))
    };
    loop {
        match open().await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.exit == Exit::Unreachable && !left().is_zero() => {
                if !std::mem::replace(&mut said, true) && ctx.out.is_for_people() {
                    ctx.out.line(format!(
                        "{}  pending     {}",
                        clock_time(wall()),
                        escaped(&error.message)
                    ))?;
                }
                tokio::time::sleep(LOOK_EVERY.min(left())).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The time of day of a line.
fn clock_time(at: Timestamp) -> String {
    at.to_string().get(11..19).unwrap_or_default().to_owned()
}

fn change(ctx: &Context, verdict: &TierVerdict, line: &str) -> Result<(), CliError> {
    match ctx.out.format {
        Format::Jsonl => ctx.out.json(&value(verdict)?),
        _ if ctx.out.is_for_people() => ctx.out.line(format!("{}  {}", clock_time(wall()), escaped(line))),
        _ => Ok(()),
    }
}

fn finish(ctx: &Context, verdict: &TierVerdict, within: Duration, junit: Option<&PathBuf>) -> CliResult {
    if !ctx.out.is_for_people() && ctx.out.format != Format::Jsonl {
        tell(ctx, verdict)?;
    } else if ctx.out.is_for_people() {
        next(ctx, verdict);
    }
    // A failure that may heal ends a wait only here, and stays one.
    let exit = match exit(verdict) {
        Exit::Pending => Exit::Timeout,
        other => other,
    };
    if exit == Exit::Timeout {
        ctx.out.note(format!("no verdict within {}: wait longer with `--timeout 15m`", human(within)));
    }
    report(ctx, verdict, junit, exit)
}

// ---- telling

fn exit(verdict: &TierVerdict) -> Exit {
    match verdict.decision {
        _ if verdict.unreachable => Exit::Unreachable,
        Decision::Pass => Exit::Ok,
        Decision::Pending => Exit::Pending,
        Decision::Fail => Exit::Unhealthy,
        Decision::Superseded => Exit::Conflict,
        Decision::Unknown => Exit::NotFound,
    }
}

fn value(verdict: &TierVerdict) -> Result<serde_json::Value, CliError> {
    verdict.to_value().map_err(|error| CliError::new(Exit::Error, error))
}

fn tell(ctx: &Context, verdict: &TierVerdict) -> Result<(), CliError> {
    if !ctx.out.is_for_people() {
        return match ctx.out.format {
            Format::Name => ctx.out.line(verdict.decision.as_str()),
            _ => ctx.out.json(&value(verdict)?),
        };
    }
    let good = verdict.decision == Decision::Pass;
    ctx.out.line(escaped(&format!(
        "{} {}  release {}, tier {}: {}",
        ctx.out.mark(good),
        verdict.decision.as_str(),
        verdict.release,
        verdict.tier,
        verdict.output
    )))?;
    for check in verdict.troubles() {
        let why = escaped(check.output.as_deref().unwrap_or_default());
        ctx.out.line(format!("  [{}] {:<22} {why}", check.sign(), check.key()))?;
    }
    next(ctx, verdict);
    Ok(())
}

fn next(ctx: &Context, verdict: &TierVerdict) {
    if let Some(next) = &verdict.next {
        ctx.out.next(ctx.own(next));
    }
}

/// What the pipeline shows of it.
fn report(ctx: &Context, verdict: &TierVerdict, junit: Option<&PathBuf>, exit: Exit) -> CliResult {
    ci::report(ctx, verdict)?;
    if let Some(file) = junit {
        ci::junit(verdict, file)?;
    }
    Ok(exit)
}

// ---- explaining

/// Members, thresholds and current values, whatever the verdict.
async fn explain(ctx: &Context, name: &str, args: Gate) -> CliResult {
    if name != "default" {
        return Err(CliError::new(Exit::NotFound, format!("no gate `{}`", crate::names::shown(name)))
            .hint("there is one gate: `default`"));
    }
    let asked = Asked::read(&args)?;
    let (store, tier) = ctx.open().await?;
    let current = store.activation(&tier).await?;
    // Nobody acts on an explanation, so here the active release may go without saying.
    let active = current.as_ref().map(|current| current.release.clone());
    let asked = Asked { release: asked.release.or(active), ..asked };
    let ask = asked.ask(ctx, current.as_ref(), &tier)?;
    let verdict = look(&*store, &tier, &ask).await;
    let members: Vec<_> =
        store.workers(&tier).await?.into_iter().filter(|seen| seen.presence.release == ask.release).collect();
    if !ctx.out.is_for_people() {
        let thresholds: serde_json::Map<_, _> = THRESHOLDS
            .iter()
            .map(|(name, limit, _)| ((*name).to_owned(), json!(limit.as_secs_f64())))
            .collect();
        let members: Vec<_> =
            members.iter().map(|seen| json!({ "worker": seen, "stale": seen.is_stale() })).collect();
        ctx.out.json(&json!({
            "gate": name, "minActive": ask.min_active.to_string(), "members": members,
            "thresholds": thresholds, "verdict": value(&verdict)?,
        }))?;
        return Ok(Exit::Ok);
    }
    ctx.out.line(format!(
        "gate {name}: release {}, tier {tier}, at least {} of its workers active",
        ask.release, ask.min_active
    ))?;
    let checks = verdict.checks.iter().map(|check| {
        let unit = check.observed_unit.map(|unit| format!(" {unit}")).unwrap_or_default();
        let needed = check.required.as_ref().map(|n| format!("at least {n}"));
        let limit = check.limit.as_ref().map(|n| format!("at most {n}"));
        vec![
            format!("[{}]", check.sign()),
            check.key().to_owned(),
            check.component_id.clone().unwrap_or_default(),
            format!("{}{unit}", text(&check.observed_value)),
            needed.or(limit).unwrap_or_default(),
            check.output.clone().unwrap_or_default(),
        ]
    });
    ctx.out.table(&["", "check", "of", "observed", "needed", "why"], checks.collect())?;
    ctx.out.line("")?;
    super::status::workers_table(ctx, &members)?;
    ctx.out.line("")?;
    let limits = THRESHOLDS
        .iter()
        .map(|(name, limit, what)| vec![(*name).to_owned(), human(*limit), (*what).to_owned()]);
    ctx.out.table(&["threshold", "value", "meaning"], limits.collect())?;
    ctx.out.line("")?;
    ctx.out.line(escaped(&format!("verdict {}: {}", verdict.decision.as_str(), verdict.output)))?;
    next(ctx, &verdict);
    Ok(Exit::Ok)
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
