//! `events`: the ledger.

use std::time::Duration;

use super::args::Events;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::health::tier::{Change, ledger_tail};
use crate::names::escaped;
use crate::store::{LedgerEntry, MAX_BATCH};

/// Between two looks for new events; the change of an activation wakes earlier.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(ctx: &Context, args: Events) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let mut wake = store.subscribe(&tier).await?;
    let entries = ledger_tail(&*store, &tier, u64::from(args.limit)).await?;
    let mut after = entries.last().map_or(0, |entry| entry.seq);
    if !ctx.out.is_for_people() && !args.follow && ctx.out.format != super::out::Format::Jsonl {
        let rows: Vec<_> = entries.iter().map(row).collect();
        ctx.out.json(&rows)?;
        return Ok(Exit::Ok);
    }
    entries.iter().try_for_each(|entry| line(ctx, entry))?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    loop {
        wake.woken(LOOK_EVERY).await;
        let entries = store.ledger(&tier, after, MAX_BATCH).await?;
        after = entries.last().map_or(after, |entry| entry.seq);
        entries.iter().try_for_each(|entry| line(ctx, entry))?;
    }
}

/// The detail as JSON, where it is some.
fn row(entry: &LedgerEntry) -> serde_json::Value {
    let mut value = serde_json::json!(entry);
    if let (Some(object), Ok(detail)) = (value.as_object_mut(), serde_json::from_str(&entry.detail)) {
        object.insert("detail".into(), detail);
    }
    value
}

fn line(ctx: &Context, entry: &LedgerEntry) -> Result<(), CliError> {
    if !ctx.out.is_for_people() {
        return ctx.out.json_line(&row(entry));
    }
    let why = entry.by.reason.as_ref().map(|why| format!("   ({why})")).unwrap_or_default();
    let text = format!(
        "{}  {:>4}  {:<22} {}   by {}{why}",
        entry.at,
        entry.seq,
        entry.event,
        what(entry),
        entry.by.who
    );
    ctx.out.line(escaped(&text))
}

/// What happened, in words; as it was written where there are none.
fn what(entry: &LedgerEntry) -> String {
    let Some(change) = Change::read(entry) else { return other(entry) };
    let from = change.from.as_ref().map_or("nothing", |from| from.release.as_str());
    let to = &change.to;
    format!("{from} → {}, generation {}, {}", to.release, to.generation, to.mode)
}

/// What is no change of the activation: releases and deploys in words, and the rest as it was written.
fn other(entry: &LedgerEntry) -> String {
    let Ok(detail) = serde_json::from_str::<serde_json::Value>(&entry.detail) else {
        return entry.detail.clone();
    };
    let text =
        |key: &str| detail.get(key).and_then(serde_json::Value::as_str).unwrap_or("nothing").to_owned();
    match entry.event.as_str() {
        "deploy.ended" => format!(
            "{} {} → {}: {}, {}",
            text("deploy"),
            text("from"),
            text("to"),
            text("outcome"),
            text("why")
        ),
        event if event.starts_with("release.") => text("release"),
        _ => entry.detail.clone(),
    }
}
