//! `doctor`: why is nothing running?

use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::Doctor;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::tiers;
use crate::clock::{human, instant};
use crate::config::Config;
use crate::health::Status;
use crate::health::tier::TierFacts;
use crate::health::tier::doctor::{Finding, diagnose, is_ill};
use crate::health::tier::simulate::{BEAT, Illness, Simulation};
use crate::location::StoreUrl;
use crate::names::{Tier, escaped};
use crate::store::{self, Beat, ErrorKind, StoreError};

pub(super) fn run(ctx: Context, args: &Doctor) -> CliResult {
    match args.simulate {
        None => ctx.block_on(async |ctx| examine(ctx, args.all_tiers).await),
        Some(illness) => {
            let span = span("--for", &args.span)?;
            // On a runtime of its own: Ctrl-C must still take the made-up worker away.
            Context::runtime()?.block_on(simulate(&ctx, illness, span))
        }
    }
}

async fn examine(ctx: &Context, all: bool) -> CliResult {
    let config = ctx.config()?; // a broken one is refused here, with the key and the way out
    let (url, why) = config.store()?;
    let tier = config.tier();
    let (mut patients, mut others, mut away) = (Vec::new(), Vec::new(), false);
    if url.path().is_some_and(|path| !path.exists()) {
        let missing = Finding {
            check: "store",
            status: Status::Fail,
            output: format!("store {url} does not exist yet ({why})"),
            fix: Some("sluicegate work".to_owned()),
        };
        patients.push((tier.clone(), vec![missing]));
        away = true;
    } else {
        match look(ctx, &config, &url, all).await {
            Ok((facts, beside)) => {
                patients.extend(facts.iter().map(|facts| (facts.tier.clone(), diagnose(facts))));
                others = beside;
            }
            Err(error) => {
                away = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Denied);
                patients.push((tier.clone(), vec![Finding::unreachable(&error)]));
            }
        }
    }
    let file =
        config.file.as_ref().map_or_else(|| "no file, defaults".into(), |path| path.display().to_string());
    let configuration = Finding {
        check: "configuration",
        status: Status::Pass,
        output: format!("{file}; tier {tier}; store {url} ({why})"),
        fix: None,
    };
    if !all {
        patients.iter_mut().for_each(|(_, findings)| findings.push(configuration.clone()));
    }
    let own = |tier: &Tier, fix: &str| if all { ctx.own_in(tier, fix) } else { ctx.own(fix) };
    let ill = patients.iter().find(|(_, findings)| is_ill(findings));
    if ctx.out.is_for_people() {
        patients.iter().try_for_each(|(tier, findings)| tell(ctx, tier, findings, &own))?;
        if all {
            line(ctx, &configuration)?;
        }
        if let Some(hint) = tiers::hint(&others) {
            ctx.out.line(hint)?;
        }
        if let Some((tier, fix)) =
            ill.and_then(|(tier, findings)| Some((tier, blocking(findings)?.fix.as_ref()?)))
        {
            ctx.out.next(own(tier, fix));
        }
    } else if all {
        let tiers: serde_json::Map<_, _> =
            patients.iter().map(|(tier, findings)| (tier.to_string(), json_of(tier, findings))).collect();
        ctx.out.json(&json!({ "healthy": ill.is_none(), "tiers": tiers, "configuration": configuration }))?;
    } else {
        for (tier, findings) in &patients {
            ctx.out.json(&tiers::noted(json_of(tier, findings), &others))?;
        }
    }
    // Nobody knows how a tier is whose store cannot be asked: that is not the same as ill.
    Ok(match ill {
        Some(_) if away => Exit::Unreachable,
        Some(_) => Exit::Unhealthy,
        None => Exit::Ok,
    })
}

/// The facts of the tiers that are asked about, and which others there are.
async fn look(
    ctx: &Context,
    config: &Config,
    url: &StoreUrl,
    all: bool,
) -> Result<(Vec<TierFacts>, Vec<Tier>), StoreError> {
    let store = store::open_wanting(url, config.durability()).await?;
    ctx.out.detail(format!("store {url}"));
    let mut facts = Vec::new();
    for tier in tiers::asked(&*store, config.tier(), all).await? {
        facts.push(TierFacts::gather(&*store, &tier, None).await?);
    }
    let others = if all { Vec::new() } else { tiers::others(&*store, &config.tier()).await? };
    Ok((facts, others))
}

/// What blocks comes first.
fn blocking(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|finding| finding.status == Status::Fail)
}

fn json_of(tier: &Tier, findings: &[Finding]) -> Value {
    json!({ "tier": tier, "healthy": !is_ill(findings), "blocking": blocking(findings), "findings": findings })
}

fn tell(
    ctx: &Context,
    tier: &Tier,
    findings: &[Finding],
    own: &impl Fn(&Tier, &str) -> String,
) -> Result<(), CliError> {
    let head = blocking(findings).map_or("nothing blocks it", |finding| finding.output.as_str());
    ctx.out.marked(!is_ill(findings), format!("tier {tier}: {head}"))?;
    for finding in findings {
        line(ctx, finding)?;
        if let Some(fix) = &finding.fix {
            ctx.out.line(escaped(&format!("      {:<22} fix: {}", "", own(tier, fix))))?;
        }
    }
    Ok(())
}

fn line(ctx: &Context, finding: &Finding) -> Result<(), CliError> {
    let sign = finding.status.sign();
    ctx.out.line(escaped(&format!("  [{sign}] {:<22} {}", finding.check, finding.output)))
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
