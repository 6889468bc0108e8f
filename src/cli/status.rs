//! `status`: one screen.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::Status;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::{queue, tiers};
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::{Timestamp, human};
use crate::health::tier::{Decision, GateAsk, TierFacts, TierVerdict, judge};
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
    let active = activation.as_ref().map_or_else(Release::default, |current| current.release.clone());
    let ask = GateAsk::new(active);
    // The headline and the gate's line come from the same facts: they must tell one story.
    let (verdict, works) = match TierFacts::gather(store, tier, Some(&ask.release)).await {
        Ok(facts) => {
            (judge(&ask, &facts), judge(&GateAsk { allow_provisional: true, ..ask.clone() }, &facts))
        }
        Err(error) => {
            let unreadable = TierVerdict::unreadable(tier, &ask.release, &error);
            (unreadable.clone(), unreadable)
        }
    };
    let trouble = trouble(activation.as_ref(), &workers, &census, &works);
    let help = format!("sluicegate {}", advice(activation.as_ref(), &workers, &census, &works));
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
    let provisional = activation.as_ref().is_some_and(|current| current.mode == Mode::Provisional);
    let ok = if provisional { "ok, provisional" } else { "ok" };
    out.marked(trouble.is_none(), format!("tier {tier}   {}", trouble.as_deref().unwrap_or(ok)))?;
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
fn advice(activation: Option<&Activation>, workers: &[Seen], census: &Census, works: &TierVerdict) -> String {
    let jobs = |state| -> u64 { census.queues.iter().map(|queue| queue.jobs(state)).sum() };
    if living(activation, workers).is_empty() {
        return match activation.map(|current| &current.release) {
            Some(release) if !release.is_implicit() => format!("work --release {release}"),
            _ => "work".into(),
        };
    }
    if works.decision == Decision::Fail || workers.iter().any(|seen| seen.presence.fault.is_some()) {
        return "doctor".into();
    }
    if let Some(current) = activation.filter(|current| current.mode == Mode::Provisional)
        && works.decision == Decision::Pass
    {
        return format!("activate {} --confirm", current.release);
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

/// The living workers that are meant to work: those of the active release, or all while there is none.
fn living<'w>(activation: Option<&Activation>, workers: &'w [Seen]) -> Vec<&'w Seen> {
    let meant = |seen: &&Seen| activation.is_none_or(|current| current.release == seen.presence.release);
    let lives = |seen: &&Seen| !seen.is_stale() && seen.presence.state != WorkerState::Stopped;
    workers.iter().filter(meant).filter(lives).collect()
}

/// What is wrong, as the gate judges it; a provisional activation is no trouble.
fn trouble(
    activation: Option<&Activation>,
    workers: &[Seen],
    census: &Census,
    works: &TierVerdict,
) -> Option<String> {
    if works.decision == Decision::Pass {
        return None;
    }
    let living = living(activation, workers);
    if living.iter().any(|seen| seen.presence.state == WorkerState::Active) {
        return Some(works.output.clone());
    }
    let waiting: u64 = census.queues.iter().map(|queue| queue.jobs(State::Available)).sum();
    let why = match (living.first(), activation) {
        (None, Some(current)) => format!(": no worker of the active release `{}` lives", current.release),
        _ => living
            .iter()
            .map(|seen| &seen.presence)
            .max_by_key(|presence| presence.fault.is_some())
            .map(|presence| format!(": {} is {}, {}", presence.worker, presence.state, reason(presence)))
            .unwrap_or_default(),
    };
    let jobs = if waiting == 1 { "job waits" } else { "jobs wait" };
    Some(format!("no active worker, {waiting} {jobs}{why}"))
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
