//! `tier set|show`: how many workers every host keeps, and which hosts do.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::names::escaped;
use crate::release::supervise::report::{Report, supervisors};
use crate::release::supervise::wanted::{Counts, MOST, Own, counts, set_counts};

#[derive(Debug, Subcommand)]
pub(super) enum TierCommand {
    /// How many workers each supervised host keeps; what is not given stays
    Set {
        /// Workers of the active release, and of one that is deployed
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
        workers: Option<u32>,
        /// Warm workers of the way back; without any, a rollback has nothing to go to
        #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST)))]
        standby: Option<u32>,
        /// Why, for the ledger
        #[arg(long)]
        reason: Option<String>,
    },
    /// The same as it stands, and what each supervised host keeps
    Show,
}

pub(super) async fn run(ctx: &Context, command: TierCommand) -> CliResult {
    match command {
        TierCommand::Set { workers, standby, reason } => set(ctx, Own { workers, standby }, reason).await,
        TierCommand::Show => show(ctx).await,
    }
}

async fn set(ctx: &Context, own: Own, reason: Option<String>) -> CliResult {
    if own == Own::default() {
        return Err(CliError::usage("nothing to set: give `--workers N`, `--standby M`, or both"));
    }
    let config = ctx.config()?;
    let (store, tier) = (ctx.store(&config).await?, config.tier());
    let (before, after) = set_counts(&*store, &tier, own, &Context::actor(reason)).await?;
    if !ctx.out.is_for_people() {
        ctx.out.json(&json!({ "tier": tier, "from": before, "to": after }))?;
        return Ok(Exit::Ok);
    }
    let was = if before == after { "as before".to_owned() } else { format!("before: {}", said(before)) };
    ctx.out.line(format!(
        "{} tier {tier}: {} on each supervised host ({was})",
        ctx.out.mark(true),
        said(after)
    ))?;
    Ok(Exit::Ok)
}

fn said(counts: Counts) -> String {
    format!("{} workers, {} warm", counts.workers, counts.standby)
}

async fn show(ctx: &Context) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let (counts, hosts) = (counts(&*store, &tier).await?, supervisors(&*store, &tier).await?);
    if !ctx.out.is_for_people() {
        let hosts: Vec<_> =
            hosts.iter().map(|(report, lives)| json!({ "lives": lives, "supervisor": report })).collect();
        ctx.out.json(&json!({ "tier": tier, "counts": counts, "supervisors": hosts }))?;
        return Ok(Exit::Ok);
    }
    ctx.out.line(format!("tier {tier}: {} on each supervised host", said(counts)))?;
    if hosts.is_empty() {
        ctx.out.next(format!("no host is supervised; {} supervise", ctx.program));
        return Ok(Exit::Ok);
    }
    let rows = hosts.iter().flat_map(|(report, lives)| rows(report, *lives)).collect();
    ctx.out.table(&["host", "pid", "release", "for", "up", "wanted", "why not"], rows)?;
    Ok(Exit::Ok)
}

fn rows(report: &Report, lives: bool) -> Vec<Vec<String>> {
    let host = if lives { report.host.clone() } else { format!("{} (silent)", report.host) };
    let row = |rest: [String; 5]| {
        let mut row = vec![host.clone(), report.pid.to_string()];
        row.extend(rest);
        row
    };
    if report.releases.is_empty() {
        return vec![row(Default::default())];
    }
    let of = report.releases.iter().map(|(release, running)| {
        let blocked = running.blocked.as_ref().map(|blocked| format!("{}: {}", blocked.code, blocked.why));
        let why = blocked.or_else(|| running.last.clone()).unwrap_or_default();
        let role = running.role.map_or("nothing", |role| role.as_str());
        row([
            release.to_string(),
            role.to_owned(),
            running.up.to_string(),
            running.wanted.to_string(),
            escaped(&why),
        ])
    });
    of.collect()
}
