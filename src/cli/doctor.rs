//! `doctor`: why is nothing running?

use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Doctor;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::clock::{human, instant};
use crate::config::Config;
use crate::health::Status;
use crate::health::tier::TierFacts;
use crate::health::tier::doctor::{Finding, diagnose, is_ill};
use crate::health::tier::simulate::{BEAT, Illness, Simulation};
use crate::location::StoreUrl;
use crate::names::escaped;
use crate::store::{self, Beat, StoreError};

pub(super) fn run(ctx: Context, args: &Doctor) -> CliResult {
    match args.simulate {
        None => ctx.block_on(examine),
        Some(illness) => {
            let span = span("--for", &args.span)?;
            // On a runtime of its own: Ctrl-C must still take the made-up worker away.
            Context::runtime()?.block_on(simulate(&ctx, illness, span))
        }
    }
}

async fn examine(ctx: &Context) -> CliResult {
    let config = ctx.config()?; // a broken one is refused here, with the key and the way out
    let (url, why) = config.store()?;
    let tier = config.tier();
    let mut findings = Vec::new();
    if url.path().is_some_and(|path| !path.exists()) {
        findings.push(Finding {
            check: "store",
            status: Status::Fail,
            output: format!("store {url} does not exist yet ({why})"),
            fix: Some("sluicegate work".to_owned()),
        });
    } else {
        match look(ctx, &config, &url).await {
            Ok(facts) => findings.extend(diagnose(&facts)),
            Err(error) => findings.push(Finding::unreachable(&error)),
        }
    }
    let file =
        config.file.as_ref().map_or_else(|| "no file, defaults".into(), |path| path.display().to_string());
    findings.push(Finding {
        check: "configuration",
        status: Status::Pass,
        output: format!("{file}; tier {tier}; store {url} ({why})"),
        fix: None,
    });
    tell(ctx, tier.as_str(), &findings)?;
    Ok(if is_ill(&findings) { Exit::Unhealthy } else { Exit::Ok })
}

async fn look(ctx: &Context, config: &Config, url: &StoreUrl) -> Result<TierFacts, StoreError> {
    let store = store::open_wanting(url, config.durability()).await?;
    ctx.out.detail(format!("store {url}"));
    TierFacts::gather(&*store, &config.tier(), None).await
}

fn tell(ctx: &Context, tier: &str, findings: &[Finding]) -> Result<(), CliError> {
    let ill = is_ill(findings);
    let first = findings.iter().find(|finding| finding.status == Status::Fail);
    if !ctx.out.is_for_people() {
        return ctx
            .out
            .json(&json!({ "tier": tier, "healthy": !ill, "blocking": first, "findings": findings }));
    }
    let head = match first {
        Some(finding) => finding.output.as_str(),
        None => "nothing blocks it",
    };
    ctx.out.line(escaped(&format!("{} tier {tier}: {head}", ctx.out.mark(!ill))))?;
    for finding in findings {
        let sign = finding.status.sign();
        ctx.out.line(escaped(&format!("  [{sign}] {:<22} {}", finding.check, finding.output)))?;
        if let Some(fix) = &finding.fix {
            ctx.out.line(escaped(&format!("      {:<22} fix: {}", "", ctx.own(fix))))?;
        }
    }
    if let Some(fix) = first.and_then(|finding| finding.fix.as_ref()) {
        ctx.out.next(ctx.own(fix));
    }
    Ok(())
}

/// Beats until the time is over, or somebody has seen enough.
async fn simulate(ctx: &Context, illness: Illness, span: Duration) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let Some(current) = store.activation(&tier).await? else {
        return Err(CliError::new(Exit::NotFound, format!("nothing is active in tier `{tier}`"))
            .hint("a simulation is a sick worker of the active release"));
    };
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut simulation = Simulation::new(illness, &current).map_err(CliError::usage)?;
    let (worker, began) = (simulation.worker().clone(), instant());
    simulation.beat(&*store, &tier).await?;
    ctx.out.line(format!(
        "{worker} pretends to be a worker of {} that is {illness}, for {}; it takes no job",
        current.release,
        human(span)
    ))?;
    ctx.out.next(format!("{} gate check --release {}", ctx.program, current.release));
    let exit = loop {
        let left = span.saturating_sub(began.elapsed());
        if left.is_zero() {
            break Exit::Ok;
        }
        tokio::select! {
            _ = interrupted.recv() => break Exit::Interrupted,
            _ = terminated.recv() => break Exit::Terminated,
            () = tokio::time::sleep(BEAT.min(left)) => {}
        }
        if simulation.beat(&*store, &tier).await? == Beat::Superseded {
            return Err(CliError::new(Exit::Conflict, format!("another simulation took `{worker}` over")));
        }
    };
    simulation.end(&*store, &tier).await?;
    ctx.out.line(format!("{worker} is gone"))?;
    Ok(exit)
}
