//! `status`: one screen.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::Status;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::{queue, tiers};
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::{Timestamp, human};
use crate::health::tier::{GateAsk, look};
use crate::job::State;
use crate::names::{Release, Tier, escaped};
use crate::store::{Census, Presence, Seen, Store};

pub(super) async fn run(ctx: &Context, args: &Status) -> CliResult {
    let (store, tier) = ctx.open().await?;
    if !args.all_tiers {
        let others = tiers::others(&*store, &tier).await?;
        let section = section(ctx, &*store, &tier, &others).await?;
        ctx.out.next(ctx.own(&section.help));
        return ctx.out.json_or_nothing(section.json);
    }
    let (mut all, mut help) = (serde_json::Map::new(), None);
    for tier in tiers::asked(&*store, tier, true).await? {
        let section = section(ctx, &*store, &tier, &[]).await?;
        match section.json {
            Some(json) => drop(all.insert(tier.to_string(), json)),
            None => ctx.out.line("")?,
        }
        if help.is_none() && section.trouble {
            help = Some(ctx.own_in(&tier, &section.help));
        }
    }
    if let Some(help) = help {
        ctx.out.next(help);
    }
    ctx.out.json_or_nothing((!ctx.out.is_for_people()).then(|| json!({ "tiers": all })))
}

/// What one tier came to.
struct Section {
    /// For programs; people were told.
    json: Option<Value>,
    trouble: bool,
    /// The command that helps, beginning with `sluicegate `.
    help: String,
}

async fn section(
    ctx: &Context,
    store: &dyn Store,
    tier: &Tier,
    others: &[Tier],
) -> Result<Section, CliError> {
    let about = store.about();
    let (activation, workers, census) =
        (store.activation(tier).await?, store.workers(tier).await?, store.census(tier).await?);
    let trouble = trouble(&workers, &census);
    let active = activation.as_ref().map_or_else(Release::default, |current| current.release.clone());
    let verdict = look(store, tier, &GateAsk::new(active)).await;
    let help = format!("sluicegate {}", advice(activation.as_ref(), &workers, &census));
    let mut section = Section { json: None, trouble: trouble.is_some(), help };
    if !ctx.out.is_for_people() {
        let workers: Vec<_> =
            workers.iter().map(|seen| json!({ "worker": seen, "stale": seen.is_stale() })).collect();
        let json = json!({ "tier": tier, "store": about, "activation": activation, "workers": workers, "queues": census.queues, "trouble": trouble,
            "verdict": verdict.decision, "output": verdict.output });
        section.json = Some(tiers::noted(json, others));
        return Ok(section);
    }
    let out = &ctx.out;
    out.line(format!(
        "{} tier {tier}   {}",
        out.mark(trouble.is_none()),
        trouble.as_deref().unwrap_or("ok")
    ))?;
    out.line(format!("store      {}   {}, survives: {}", about.location, about.detail, about.durability))?;
    out.line(format!("activation {}", activation_line(activation.as_ref(), census.now)))?;
    out.line(escaped(&format!("gate       {}: {}", verdict.decision.as_str(), verdict.output)))?;
    if let Some(hint) = tiers::hint(others) {
        out.line(format!("beside it  {hint}"))?;
    }
    out.line("")?;
    workers_table(ctx, &workers)?;
    out.line("")?;
    queue::table(ctx, &census.queues)?;
    Ok(section)
}

/// The command that helps most: a worker when there is none, a look at what failed, a first job.
fn advice(activation: Option<&Activation>, workers: &[Seen], census: &Census) -> String {
    let jobs = |state| -> u64 { census.queues.iter().map(|queue| queue.jobs(state)).sum() };
    if workers.iter().all(|seen| seen.is_stale() || seen.presence.state == WorkerState::Stopped) {
        return match activation.map(|current| &current.release) {
            Some(release) if !release.is_implicit() => format!("work --release {release}"),
            _ => "work".into(),
        };
    }
    if workers.iter().any(|seen| seen.presence.fault.is_some()) {
        return "doctor".into();
    }
    for state in [State::Dead, State::Parked, State::Retryable] {
        if jobs(state) > 0 {
            return format!("job list --state {state}");
        }
    }
    if census.queues.iter().all(|queue| queue.inserted_total == 0) {
        return "job enqueue echo '{}' --wait".into();
    }
    "job list".into()
}

/// What is wrong, as far as these facts tell.
fn trouble(workers: &[Seen], census: &Census) -> Option<String> {
    let living: Vec<&Seen> = workers.iter().filter(|seen| !seen.is_stale()).collect();
    if living.iter().any(|seen| seen.presence.state == WorkerState::Active) {
        let stuck: u32 = living.iter().map(|seen| seen.presence.stuck).sum();
        return (stuck > 0).then(|| format!("{stuck} jobs ignore their cancellation"));
    }
    let waiting: u64 = census.queues.iter().map(|queue| queue.jobs(State::Available)).sum();
    let why = living.iter().find_map(|seen| {
        Some(format!(
            ": {} is {}, {}",
            seen.presence.worker,
            seen.presence.state,
            seen.presence.reason.as_ref()?
        ))
    });
    Some(format!("no active worker, {waiting} jobs waiting{}", why.unwrap_or_default()))
}

fn activation_line(activation: Option<&Activation>, now: Timestamp) -> String {
    match activation {
        None => "none yet: the first worker without a release makes one".into(),
        Some(current) => {
            let managed = if current.release.is_implicit() { "unmanaged" } else { "managed" };
            let stands = match (current.mode, current.confirm_by) {
                (Mode::Provisional, Some(by)) => {
                    let back =
                        current.fallback.as_ref().map_or_else(|| "nothing".to_owned(), Release::to_string);
                    let when = match now > by {
                        true => format!("overdue for {}", human(now.since(by))),
                        false => format!("in {}", human(by.since(now))),
                    };
                    format!("provisional, reverts to {back} {when} unless it is committed")
                }
                (mode, _) => mode.to_string(),
            };
            format!(
                "release {}, generation {}, {stands}, since {}   ({managed})",
                current.release, current.generation, current.since
            )
        }
    }
}

/// Why it is in its state; a step that failed says more than the state that it is stuck in.
fn reason(presence: &Presence) -> String {
    match &presence.fault {
        Some(fault) => format!("{}: {}", fault.code.as_str(), fault.detail),
        None => presence.reason.clone().unwrap_or_default(),
    }
}

pub(super) fn workers_table(ctx: &Context, workers: &[Seen]) -> Result<(), CliError> {
    let row = |seen: &Seen| {
        let presence = &seen.presence;
        let state = if seen.is_stale() {
            format!("stale for {}", human(seen.age))
        } else {
            presence.state.to_string()
        };
        let ago = |age: Option<Duration>| {
            age.map_or_else(|| "-".into(), |age| format!("{} ago", human(age + seen.age)))
        };
        vec![
            presence.worker.to_string(),
            state,
            presence.release.to_string(),
            format!("{}/{}", presence.busy, presence.slots),
            ago(presence.claim_age),
            ago(presence.progress_age),
            presence.completed.to_string(),
            presence.failed.to_string(),
            reason(presence),
        ]
    };
    let headers =
        ["worker", "state", "release", "busy", "claimed", "progress", "completed", "failed", "reason"];
    ctx.out.table(&headers, workers.iter().map(row).collect())
}
