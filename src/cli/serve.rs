//! `serve`: the API, without a worker.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::Listen;
use super::bypass;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::work::bind;
use crate::client::Client;
use crate::config::Config;
use crate::http;
use crate::telemetry;

pub(super) fn run(mut ctx: Context, args: Listen) -> CliResult {
    if args.health_listen.is_some() {
        return Err(CliError::usage("`serve` runs no worker, so it has no probes")
            .hint("`work` and `dev` take `--health-listen`"));
    }
    ctx.listen(args);
    let config = ctx.config()?;
    let listener = bind(config.api_listen(), "--api-listen")?;
    let (level, json) = config.log();
    let _logs = telemetry::logs(level, json);
    Context::runtime()?.block_on(async {
        let store = ctx.store(&config).await?;
        let api = api(&config, bypass::client(store, config.tier(), bypass::handlers(&ctx, &config)?))?;
        tracing::info!(api = %listener.local_addr()?, "serving");
        let shutdown = CancellationToken::new();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
            told.cancel();
        });
        http::serve_api(listener, api, shutdown).await?;
        Ok(Exit::Ok)
    })
}

/// The API as it is configured.
pub(super) fn api(config: &Config, client: Client) -> Result<http::Api, CliError> {
    let api = http::Api::new(client).slos(config.slos());
    match config.api_token()? {
        Some(token) => {
            api.token(&token).map_err(|error| CliError::usage(format!("`api.token_file`: {error}")))
        }
        None => Ok(api),
    }
}
