//! `gate check`, `gate wait` and `gate explain`: the verdict on a tier and a release.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{Gate, GateCommand};
use super::ci;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::Format;
use super::{gate_all, tiers};
use crate::activation::Activation;
use crate::clock::{Timestamp, human, instant, wall};
use crate::health::tier::all::generations;
use crate::health::tier::rules::{SLO, THRESHOLDS};
use crate::health::tier::wait::{Patience, PatienceOverAll};
use crate::health::tier::{AllAsk, Decision, GateAsk, MinActive, TierVerdict, implied, look};
use crate::names::{Queue, Release, Tier, escaped};
use crate::store::{ErrorKind, Store, StoreError};

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
    let asked = Asked::read(ctx, &args)?;
    let (store, tier) = ctx.open().await.map_err(unhealthy)?;
    if args.all_tiers {
        let verdict = gate_all::look(ctx, &*store, &asked.all(&args)?).await?;
        return checked(ctx, &verdict, &args);
    }
    let ask = asked.ask(ctx, store.activation(&tier).await?.as_ref(), &tier)?;
    let verdict = look(&*store, &tier, &ask).await;
    checked(ctx, &verdict, &args)
}

fn checked(ctx: &Context, verdict: &impl Answer, args: &Gate) -> CliResult {
    tell(ctx, verdict)?;
    verdict.report(ctx, args.junit.as_deref())?;
    Ok(exit(verdict))
}

/// What a gate answered, of one tier or of all.
pub(super) trait Answer {
    fn decision(&self) -> Decision;
    fn is_unreachable(&self) -> bool;
    /// The state in a line.
    fn output(&self) -> &str;
    /// A wait for it ends so long after it was judged.
    fn ends_in(&mut self, left: Duration);
    fn to_value(&self) -> serde_json::Result<serde_json::Value>;
    /// As lines for people.
    fn show(&self, ctx: &Context) -> Result<(), CliError>;
    /// The next useful command.
    fn next(&self, ctx: &Context);
    /// What the pipeline's own pages show of it.
    fn report(&self, ctx: &Context, junit: Option<&Path>) -> Result<(), CliError>;
}

impl Answer for TierVerdict {
    fn decision(&self) -> Decision {
        self.decision
    }

    fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    fn output(&self) -> &str {
        &self.output
    }

    fn ends_in(&mut self, left: Duration) {
        self.deadline = Some(self.time.plus(left));
    }

    fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        TierVerdict::to_value(self)
    }

    fn show(&self, ctx: &Context) -> Result<(), CliError> {
        let good = self.decision == Decision::Pass;
        let (word, release, tier) = (self.decision.as_str(), &self.release, &self.tier);
        ctx.out.marked(good, format!("{word}  release {release}, tier {tier}: {}", self.output))?;
        troubles(ctx, self, "  ")
    }

    fn next(&self, ctx: &Context) {
        if let Some(next) = &self.next {
            ctx.out.next(ctx.own(next));
        }
    }

    fn report(&self, ctx: &Context, junit: Option<&Path>) -> Result<(), CliError> {
        ci::report(ctx, self)?;
        junit.map_or(Ok(()), |file| ci::junit(self, file))
    }
}

/// What is not as it should be, a line each.
pub(super) fn troubles(ctx: &Context, verdict: &TierVerdict, indent: &str) -> Result<(), CliError> {
    for check in verdict.troubles() {
        let why = escaped(check.output.as_deref().unwrap_or_default());
        ctx.out.line(format!("{indent}[{}] {:<22} {why}", check.sign(), check.key()))?;
    }
    Ok(())
}

/// What was typed, read before anything is opened.
#[derive(Clone)]
struct Asked {
    release: Option<Release>,
    ask: GateAsk,
}

impl Asked {
    fn read(ctx: &Context, args: &Gate) -> Result<Self, CliError> {
        let release = args.release.as_deref().map(Release::new).transpose().map_err(CliError::usage)?;
        let names = args.queues.iter().flat_map(|names| names.split(',')).map(str::trim);
        let queues = names.map(Queue::new).collect::<Result<_, _>>().map_err(CliError::usage)?;
        let min_active: Option<MinActive> = args
            .min_active
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error| CliError::usage(format!("--min-active: {error}")))?;
        let (slo, slos) = match args.slo.as_deref() {
            None => (None, BTreeMap::new()),
            Some("") => (Some(SLO), ctx.config()?.slos()),
            Some(text) => (Some(span("--slo", text)?), BTreeMap::new()),
        };
        let ask = GateAsk {
            min_active: min_active.unwrap_or(MinActive::Percent(100)),
            expect: args.expect,
            queues,
            allow_provisional: args.allow_provisional,
            slo,
            slos,
            ..GateAsk::new(Release::default())
        };
        Ok(Self { release, ask })
    }

    /// The same about all tiers.
    fn all(self, args: &Gate) -> Result<AllAsk, CliError> {
        let names = args.exclude.iter().flat_map(|names| names.split(',')).map(str::trim);
        let exclude = names.map(Tier::new).collect::<Result<_, _>>().map_err(CliError::usage)?;
        Ok(AllAsk { each: self.ask, release: self.release, exclude, known: BTreeMap::new() })
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
    let asked = Asked::read(ctx, &args)?;
    let within = ctx.timeout()?;
    let began = instant();
    let left = || within.saturating_sub(began.elapsed());
    // What is typed wrong is said now, and not when the store is there.
    let all = if args.all_tiers { Some(asked.clone().all(&args)?) } else { None };
    if let Some(mut all) = all {
        let (store, tier, known) = opened(ctx, &left, async |store, _| generations(store).await).await?;
        all.known = known;
        let mut patience = PatienceOverAll::default();
        let look = async || gate_all::look(ctx, &*store, &all).await;
        let verdict =
            until(ctx, &*store, &tier, left, look, |verdict, now| patience.ends(verdict, now)).await?;
        return finish(ctx, &verdict, within, &args);
    }
    let active = async |store: &dyn Store, tier: &Tier| store.activation(tier).await;
    let (store, tier, current) = opened(ctx, &left, active).await?;
    let mut ask = asked.ask(ctx, current.as_ref(), &tier)?;
    // What was replaced before this wait began is no news to it: the same release may be activated again.
    ask.known = current.as_ref().map_or(0, |current| current.generation);
    let mut patience = Patience::default();
    let look = async || Ok(look(&*store, &tier, &ask).await);
    let verdict = until(ctx, &*store, &tier, left, look, |verdict, now| patience.ends(verdict, now)).await?;
    finish(ctx, &verdict, within, &args)
}

/// Looks until it is decided, or the time is over. A wake-up of the tier makes it quicker.
async fn until<A: Answer>(
    ctx: &Context,
    store: &dyn Store,
    tier: &Tier,
    left: impl Fn() -> Duration,
    look: impl AsyncFn() -> Result<A, CliError>,
    mut ends: impl FnMut(&A, Instant) -> bool,
) -> Result<A, CliError> {
    let mut wake = store.subscribe(tier).await.ok();
    let mut said = String::new();
    loop {
        let mut verdict = look().await?;
        verdict.ends_in(left());
        let line = format!("{:<10}  {}", verdict.decision().as_str(), verdict.output());
        if line != said {
            change(ctx, &verdict, &line)?;
            said = line;
        }
        if ends(&verdict, instant()) || left().is_zero() {
            return Ok(verdict);
        }
        tokio::time::sleep(PAUSE.min(left())).await;
        match &mut wake {
            Some(wake) => drop(wake.woken((LOOK_EVERY - PAUSE).min(left())).await),
            None => {
                tokio::time::sleep((LOOK_EVERY - PAUSE).min(left())).await;
                wake = store.subscribe(tier).await.ok();
            }
        }
    }
}

/// The store and what is first asked of it, as soon as it is there: a pipeline may have started it a moment ago.
async fn opened<T>(
    ctx: &Context,
    left: &impl Fn() -> Duration,
    first: impl AsyncFn(&dyn Store, &Tier) -> Result<T, StoreError>,
) -> Result<(Arc<dyn Store>, Tier, T), CliError> {
    let mut said = false;
    let open = async || {
        let (store, tier) = ctx.open().await?;
        let answer = first(&*store, &tier).await?;
        Ok::<_, CliError>((store, tier, answer))
    };
    loop {
        match open().await.map_err(unhealthy) {
            Ok(opened) => return Ok(opened),
            Err(error) if matches!(error.exit, Exit::Unreachable | Exit::Unhealthy) && !left().is_zero() => {
                if !std::mem::replace(&mut said, true) && ctx.out.is_for_people() {
                    let word = if error.exit == Exit::Unhealthy { "fail" } else { "pending" };
                    let line = format!("{}  {word:<10}  {}", clock_time(wall()), escaped(&error.message));
                    ctx.out.line(line)?;
                }
                tokio::time::sleep(LOOK_EVERY.min(left())).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A store that is there and must not be worked with is a verdict, and not a fault of the command.
fn unhealthy(error: CliError) -> CliError {
    use ErrorKind::{Corrupt, Full, ReadOnly, Unsafe};
    match error.store {
        Some(Unsafe | ReadOnly | Full | Corrupt) => CliError { exit: Exit::Unhealthy, ..error },
        _ => error,
    }
}

/// The time of day of a line.
fn clock_time(at: Timestamp) -> String {
    at.to_string().get(11..19).unwrap_or_default().to_owned()
}

fn change(ctx: &Context, verdict: &impl Answer, line: &str) -> Result<(), CliError> {
    match ctx.out.format {
        Format::Jsonl => ctx.out.json(&value(verdict)?),
        _ if ctx.out.is_for_people() => ctx.out.line(format!("{}  {}", clock_time(wall()), escaped(line))),
        _ => Ok(()),
    }
}

fn finish(ctx: &Context, verdict: &impl Answer, within: Duration, args: &Gate) -> CliResult {
    if !ctx.out.is_for_people() && ctx.out.format != Format::Jsonl {
        tell(ctx, verdict)?;
    } else if ctx.out.is_for_people() {
        verdict.next(ctx);
    }
    // A failure that may heal ends a wait only here, and stays one.
    let exit = match exit(verdict) {
        Exit::Pending => Exit::Timeout,
        other => other,
    };
    if exit == Exit::Timeout {
        ctx.out.note(format!("no verdict within {}: wait longer with `--timeout 15m`", human(within)));
    }
    verdict.report(ctx, args.junit.as_deref())?;
    Ok(exit)
}

// ---- telling

fn exit(verdict: &impl Answer) -> Exit {
    match verdict.decision() {
        _ if verdict.is_unreachable() => Exit::Unreachable,
        Decision::Pass => Exit::Ok,
        Decision::Pending => Exit::Pending,
        Decision::Fail => Exit::Unhealthy,
        Decision::Superseded => Exit::Conflict,
        Decision::Unknown => Exit::NotFound,
    }
}

fn value(verdict: &impl Answer) -> Result<serde_json::Value, CliError> {
    verdict.to_value().map_err(|error| CliError::new(Exit::Error, error))
}

fn tell(ctx: &Context, verdict: &impl Answer) -> Result<(), CliError> {
    if ctx.out.is_for_people() {
        verdict.show(ctx)?;
        verdict.next(ctx);
        return Ok(());
    }
    match ctx.out.format {
        Format::Name => ctx.out.line(verdict.decision().as_str()),
        _ => ctx.out.json(&value(verdict)?),
    }
}

// ---- explaining

/// Members, thresholds and current values, whatever the verdict.
async fn explain(ctx: &Context, name: &str, args: Gate) -> CliResult {
    if name != "default" {
        return Err(CliError::new(Exit::NotFound, format!("no gate `{}`", crate::names::shown(name)))
            .hint("there is one gate: `default`"));
    }
    let asked = Asked::read(ctx, &args)?;
    let (store, tier) = ctx.open().await?;
    if !args.all_tiers {
        let told = explained(ctx, &*store, &tier, asked, false).await?;
        return ctx.out.json_or_nothing(told);
    }
    let exclude = asked.clone().all(&args)?.exclude;
    let mut sections = serde_json::Map::new();
    for tier in tiers::asked(&*store, tier, true).await?.iter().filter(|tier| !exclude.contains(tier)) {
        let told = explained(ctx, &*store, tier, asked.clone(), true).await?;
        if told.is_none() {
            ctx.out.line("")?;
        }
        sections.extend(told.map(|told| (tier.to_string(), told)));
    }
    ctx.out.json_or_nothing((!ctx.out.is_for_people()).then(|| json!({ "tiers": sections })))
}

/// One tier: told to people, or answered for programs.
async fn explained(
    ctx: &Context,
    store: &dyn Store,
    tier: &Tier,
    asked: Asked,
    among_others: bool,
) -> Result<Option<serde_json::Value>, CliError> {
    let name = "default";
    let current = store.activation(tier).await?;
    // Nobody acts on an explanation, so here the active release may go without saying.
    let active = current.as_ref().map(|current| current.release.clone());
    let asked = Asked { release: asked.release.or(active), ..asked };
    let ask = asked.ask(ctx, current.as_ref(), tier)?;
    let verdict = look(store, tier, &ask).await;
    let members: Vec<_> =
        store.workers(tier).await?.into_iter().filter(|seen| seen.presence.release == ask.release).collect();
    if !ctx.out.is_for_people() {
        let thresholds: serde_json::Map<_, _> = THRESHOLDS
            .iter()
            .map(|(name, limit, _)| ((*name).to_owned(), json!(limit.as_secs_f64())))
            .collect();
        let members: Vec<_> =
            members.iter().map(|seen| json!({ "worker": seen, "stale": seen.is_stale() })).collect();
        return Ok(Some(json!({
            "gate": name, "minActive": ask.min_active.to_string(), "members": members,
            "thresholds": thresholds, "verdict": value(&verdict)?,
        })));
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
    if let Some(next) = &verdict.next {
        ctx.out.next(if among_others { ctx.own_in(tier, next) } else { ctx.own(next) });
    }
    Ok(None)
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
