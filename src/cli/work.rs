//! `work`: a worker in the foreground, the entry point of systemd and of containers.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::Work;
use super::config_cmd::check_handlers;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::to_stderr;
use super::{systemd, with_builtin};
use crate::config::Config;
use crate::handlers::Delivery;
use crate::health::{Probe, Thresholds};
use crate::http::Health;
use crate::store::observed::Observed;
use crate::telemetry::{self, otel, otel::Otel};
use crate::worker::{Ended, Hook, Options, Worker};

/// A worker that a signal quiets claims again after so long: one that was forgotten must not stay so.
const QUIET: Duration = Duration::from_secs(30 * 60);

pub(super) fn run(mut ctx: Context, args: Work) -> CliResult {
    ctx.flag("worker.name", "--name", args.name);
    ctx.flag("worker.release", "--release", args.release);
    ctx.flag("worker.queues", "--queues", args.queues);
    ctx.flag("worker.slots", "--slots", args.slots);
    ctx.flag("health.listen", "--health-listen", args.health_listen);
    let config = ctx.config()?;
    let registry = with_builtin(std::mem::take(&mut ctx.registry), Delivery::Real)?;
    check_handlers(&config, &registry)?;
    let listener = bind(config.health_listen(), "--health-listen")?;
    let (level, json) = config.log();
    let logs = telemetry::logs(level, json);
    let runtime = Context::runtime()?;
    let mut options = options(&config, &listener);
    let otel = otel(&ctx, &config, &mut options);
    let result = runtime.block_on(async {
        let store = Arc::new(Observed::new(ctx.store(&config).await?));
        let worker = Worker::start(Arc::clone(&store) as _, registry, options).await?;
        if let Some(otel) = &otel {
            otel.watch(&worker);
        }
        let shutdown = CancellationToken::new();
        let probes = health(&config, &worker, store).serve(listener, shutdown.clone())?;
        tracing::info!(health = %probes.address(), "worker started");
        let telling = systemd::start(worker.clone(), thresholds(&config));
        let exit = until_ended(&worker).await;
        drop(telling);
        shutdown.cancel();
        exit
    });
    // A blocking handler that ignores its cancellation must not keep the process: its lease was given up already.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if let Some(otel) = otel {
        otel.shutdown();
    }
    drop(logs);
    result
}

/// The export of traces and metrics, if one is configured; the worker is told of it.
pub(super) fn otel(ctx: &Context, config: &Config, options: &mut Options) -> Option<Otel> {
    let otel = otel::start(&otel::Settings {
        endpoint: config.collector()?.to_owned(),
        metrics_every: config.span("telemetry.metrics_every"),
        service: ctx.name.clone(),
        tier: options.tier.clone(),
        worker: options.name.clone(),
        release: options.release.clone().unwrap_or_default(),
    })?;
    options.observer = Some(otel.observer());
    Some(otel)
}

/// What the configuration says of a worker.
pub(super) fn options(config: &Config, probes: &TcpListener) -> Options {
    let lease = config.span("worker.lease");
    let defaults = Options::default();
    Options {
        tier: config.tier(),
        name: config.worker_name().unwrap_or_else(|| defaults.name.clone()),
        release: config.release(),
        queues: config.queues(),
        slots: config.slots(),
        grace: config.span("worker.shutdown_timeout"),
        lease,
        renew_every: (lease / 4).min(defaults.renew_every),
        presence_every: (lease / 4).min(defaults.presence_every),
        cancel_grace: config.span("worker.cancel_grace"),
        hook: config.activation_hook().map(|(command, timeout)| Hook { command, timeout }),
        artifact: own_digest(),
        health: probes.local_addr().ok().map(|address| address.to_string()),
        settings: config.settings().collect(),
        ..defaults
    }
}

/// SHA-256 of the program that runs here, read on a thread of its own: a large one takes longer than a worker to start.
fn own_digest() -> Arc<OnceLock<String>> {
    let digest = Arc::new(OnceLock::new());
    let told = Arc::clone(&digest);
    let read = move || match File::open("/proc/self/exe").and_then(sha256) {
        Ok(known) => drop(told.set(known)),
        Err(error) => tracing::warn!(%error, "the digest of this program is not known"),
    };
    if let Err(error) = std::thread::Builder::new().name("digest".to_owned()).spawn(read) {
        tracing::warn!(%error, "the digest of this program is not known");
    }
    digest
}

fn sha256(mut file: File) -> std::io::Result<String> {
    let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(part.get(..read).unwrap_or_default());
    }
}

/// The probes of this worker, as they are configured.
pub(super) fn health(config: &Config, worker: &Worker, store: Arc<Observed>) -> Health {
    let healthz = config.healthz().map(|word| if word == "livez" { Probe::Live } else { Probe::Ready });
    Health::new(Arc::new(worker.clone()))
        .store(Arc::clone(&store) as _, config.tier())
        .observed(store)
        .slos(config.slos())
        .healthz(healthz)
        .limits(thresholds(config))
}

fn thresholds(config: &Config) -> Thresholds {
    Thresholds {
        claim: config.span("health.claim_age_limit"),
        progress: config.span("health.progress_limit"),
        ..Thresholds::default()
    }
}

/// A listener, or an error that says which flag moves it.
pub(super) fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, CliError> {
    let bound =
        TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|error| {
        CliError::new(Exit::Error, format!("cannot listen on {address}: {error}"))
            .hint(format!("choose another address with `{flag} 127.0.0.1:0` (0 takes a free port)"))
    })
}

/// Signals until the worker has ended: SIGTERM and SIGINT stop it (the second one cuts the grace), SIGTSTP quiets and
/// SIGCONT resumes it, SIGTTIN prints what runs.
pub(super) async fn until_ended(worker: &Worker) -> CliResult {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (mut quiet, mut resume) = (signal(SignalKind::from_raw(20))?, signal(SignalKind::from_raw(18))?);
    let mut dump = signal(SignalKind::from_raw(21))?;
    loop {
        tokio::select! {
            ended = worker.ended() => return report(ended),
            _ = term.recv() => stop(worker, "SIGTERM"),
            _ = int.recv() => stop(worker, "SIGINT"),
            _ = quiet.recv() => worker.quiet("a signal", "SIGTSTP; SIGCONT resumes", Some(QUIET)),
            _ = resume.recv() => worker.resume(),
            _ = dump.recv() => {
                let lines = worker.dump();
                to_stderr(&format!("{} jobs run now", lines.len()));
                lines.iter().for_each(|line| to_stderr(&crate::names::escaped(line)));
            }
        }
    }
}

fn stop(worker: &Worker, signal: &str) {
    tracing::info!(signal, "stopping");
    worker.stop();
}

fn report(ended: Ended) -> CliResult {
    match ended {
        Ended::Stopped { returned } => {
            tracing::info!(returned, "worker stopped");
            Ok(Exit::Ok)
        }
        Ended::Superseded => Err(CliError::new(
            Exit::Conflict,
            "another process registered under this worker's name, and took it over",
        )
        .hint("give each worker a name of its own with `--name`")),
        Ended::Broken(reason) => Err(CliError::new(Exit::Error, format!("the worker broke: {reason}"))),
    }
}
