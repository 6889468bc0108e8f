//! `supervise`: keeps this host's worker processes as the store wants them.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::config::data_folder;
use crate::release::Shelf;
use crate::release::supervise::wanted::{MOST, Own};
use crate::release::supervise::{End, Options, SuperviseError, run as supervise};
use crate::telemetry;

#[derive(Debug, Clone, Args)]
pub(super) struct Supervise {
    /// Workers of the active release on this host (default: what `tier set` says, else 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST)))]
    workers: Option<u32>,
    /// Warm workers of the way back on this host (default: what `tier set` says, else 1)
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST)))]
    standby: Option<u32>,
    /// When it is stopped, leave its workers running: the next one adopts them
    #[arg(long)]
    leave: bool,
}

impl From<SuperviseError> for CliError {
    fn from(error: SuperviseError) -> Self {
        match error {
            SuperviseError::Held { .. } => Self::new(Exit::Conflict, &error)
                .hint("stop that one first; its workers go on if it was started with `--leave`"),
            error => Self::new(Exit::Error, error),
        }
    }
}

pub(super) fn run(ctx: &Context, args: &Supervise) -> CliResult {
    let config = ctx.config()?;
    let tier = config.tier();
    let options = Options {
        shelf: Shelf::at(&config.releases_root()?, &tier)?,
        data: data_folder()?,
        variables: config.host_variables()?,
        config: config.file.as_ref().map(std::path::absolute).transpose()?,
        own: Own { workers: args.workers, standby: args.standby },
        tier,
    };
    let (level, json) = config.log();
    let logs = telemetry::logs(level, json);
    let runtime = Context::runtime()?;
    let result = runtime.block_on(async {
        let end = End::default();
        let told = end.clone();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let store = ctx.store(&config).await?;
        let leave = args.leave;
        tokio::spawn(async move {
            // The first one ends it, every other one hurries.
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                match (leave, told.stop.is_cancelled()) {
                    (true, _) => told.leave.cancel(),
                    (false, false) => told.stop.cancel(),
                    (false, true) => told.hurry.cancel(),
                }
            }
        });
        supervise(store, options, end).await?;
        Ok(Exit::Ok)
    });
    drop(logs);
    result
}
