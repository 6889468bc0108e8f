//! `dev`: everything on this machine, with no set-up. No word of success is printed before it was seen.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio_util::sync::CancellationToken;

use super::args::Listen;
use super::config_cmd::check_handlers;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::{bypass, serve, with_builtin, work};
use crate::activation::WorkerState;
use crate::client::Client;
use crate::clock::{human, instant};
use crate::config::{Config, data_folder};
use crate::handlers::Delivery;
use crate::http::inbox::{FileInbox, KEEP};
use crate::http::{self, HealthServer};
use crate::job::{Args, NewJob, State};
use crate::location::StoreUrl;
use crate::names::{Kind, WorkerName};
use crate::store::Store;
use crate::store::observed::Observed;
use crate::telemetry;
use crate::worker::{Options, Worker};

/// How long the first start may take before it is called failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(mut ctx: Context, args: Listen) -> CliResult {
    ctx.listen(args);
    let config = ctx.config()?;
    let url = ctx.store_url(&config)?;
    let folder = folder_of(&url)?;
    let _lock = lock(&folder, &ctx.name)?;
    let inbox = Arc::new(FileInbox::open(folder.join("inbox"), KEEP)?);
    let delivery = if config.dev_inbox() { Delivery::Inbox(Arc::clone(&inbox) as _) } else { Delivery::Real };
    let registry = with_builtin(std::mem::take(&mut ctx.registry), delivery)?;
    check_handlers(&config, &registry)?;
    let (api, health) = (bind(&config)?, work::bind(config.health_listen(), "--health-listen")?);
    let (level, json) = config.log();
    // The screen belongs to the lines below; what goes wrong is logged, what goes well is not.
    let logs = telemetry::logs(if level == "info" { "warn" } else { level }, json);
    let file = config.file.as_ref().map_or_else(
        || "No config found; using defaults".to_owned(),
        |path| format!("Config {}", path.display()),
    );
    ctx.out.line(format!(
        "{file} (store {}, 1 worker, {} slots)",
        url.path().map_or_else(|| url.to_string(), |path| path.display().to_string()),
        config.slots()
    ))?;
    let runtime = Context::runtime()?;
    let mut options = options(&config, &health)?;
    let otel = work::otel(&ctx, &config, &mut options);
    let (handlers, known) = (bypass::of(&config, registry.clone()), registry.clone());
    let client = |store| {
        let kinds = known.infos().map(|info| (&info.queue, &info.kind));
        Client::new(store, config.tier()).with_handlers(handlers).counting(kinds)
    };
    let worker = async |store| {
        let worker = Worker::start(store, registry, options).await?;
        if let Some(otel) = &otel {
            otel.watch(&worker);
        }
        Ok(worker)
    };
    let result = runtime.block_on(everything(&ctx, &config, (worker, client), inbox, api, health));
    runtime.shutdown_timeout(Duration::from_millis(100));
    if let Some(otel) = otel {
        otel.shutdown();
    }
    drop(logs);
    result
}

fn bind(config: &Config) -> Result<TcpListener, CliError> {
    work::bind(config.api_listen(), "--api-listen")
}

/// Where `dev` keeps what is not in the store.
fn folder_of(url: &StoreUrl) -> Result<PathBuf, CliError> {
    Ok(match url.path() {
        Some(path) => {
            path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).to_owned()
        }
        None => data_folder()?, // of a store that is no file
    })
}

/// Whether a `dev` runs on this store; none does for a user who has no folder for it. Touches nothing.
pub(super) fn is_running(url: &StoreUrl) -> bool {
    let Some(path) = folder_of(url).ok().map(|folder| folder.join("dev.lock")) else { return false };
    // The lock is tried only where that process lives: even a moment of it would refuse a `dev` that starts just now.
    let pid = std::fs::read_to_string(&path).unwrap_or_default();
    if pid.parse::<u32>().is_ok_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
        return false;
    }
    File::open(path).is_ok_and(|file| flock(file.as_fd(), FlockOperation::NonBlockingLockShared).is_err())
}

/// One `dev` per folder; the second is told of the first. The lock goes with the process, however it ends.
fn lock(folder: &Path, program: &str) -> Result<File, CliError> {
    std::fs::create_dir_all(folder).map_err(|error| {
        CliError::new(Exit::Error, format!("cannot create `{}`: {error}", folder.display()))
    })?;
    let path = folder.join("dev.lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
    if flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid)?;
        return Err(CliError::new(
            Exit::Conflict,
            format!("`{program} dev` runs already in {} (process {})", folder.display(), pid.trim()),
        )
        .hint("use that one, or name another store with `--store sqlite:PATH`"));
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

async fn everything(
    ctx: &Context,
    config: &Config,
    (worker, client): (
        impl AsyncFnOnce(Arc<dyn Store>) -> Result<Worker, CliError>,
        impl FnOnce(Arc<dyn Store>) -> Client,
    ),
    inbox: Arc<FileInbox>,
    api: TcpListener,
    health: TcpListener,
) -> CliResult {
    let observed = Arc::new(Observed::new(ctx.store(config).await?));
    let store: Arc<dyn Store> = Arc::clone(&observed) as _;
    store.probe(&config.tier()).await?;
    ok(ctx, "store", &store.about().detail)?;
    let worker = worker(Arc::clone(&store)).await?;
    let name = worker.facts().map(|facts| facts.presence.worker.to_string()).unwrap_or_default();
    let shutdown = CancellationToken::new();
    let client = client(Arc::clone(&store));
    let probes =
        work::health(config, &worker, observed).client(client.clone()).serve(health, shutdown.clone())?;
    let (mut interrupted, mut terminated) = (signal(2)?, signal(15)?);
    let ready = async {
        worker.until(WorkerState::Active).await;
        ok(ctx, "worker", &format!("{name}   starting → inactive → active"))?;
        canary(ctx, config, &store).await
    };
    tokio::select! {
        done = tokio::time::timeout(PATIENCE, ready) => done.unwrap_or_else(|_| Err(not_ready(&worker)))?,
        ended = worker.ended() => return Err(CliError::new(Exit::Error, format!("the worker ended while it started: {ended:?}"))),
        _ = interrupted.recv() => worker.stop(),
        _ = terminated.recv() => worker.stop(),
    }
    let address = api.local_addr()?;
    let served = serve::api(config, client)?.inbox(inbox);
    let serving = tokio::spawn(http::serve_api(api, served, shutdown.clone()));
    invite(ctx, config, address, &probes)?;
    let exit = work::until_ended(&worker).await;
    shutdown.cancel();
    serving.await.map_err(|error| CliError::new(Exit::Error, error))??;
    ctx.out.note("stopped; the next start goes on from here");
    exit
}

fn signal(number: i32) -> std::io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(number))
}

fn options(config: &Config, probes: &TcpListener) -> Result<Options, CliError> {
    let mut options = work::options(config, probes);
    if config.worker_name().is_none() {
        // Always the same name: after a crash the next start takes over at once what the last one held.
        options.name = WorkerName::new("dev").map_err(CliError::usage)?;
    }
    Ok(options)
}

fn ok(ctx: &Context, what: &str, text: &str) -> Result<(), CliError> {
    ctx.out.line(format!("{} {what:<10} {text}", ctx.out.mark(true)))
}

fn not_ready(worker: &Worker) -> CliError {
    let reason = worker.facts().map_or_else(String::new, |facts| {
        format!(": {} {}", facts.presence.state, facts.presence.reason.unwrap_or_default())
    });
    CliError::new(Exit::Unhealthy, format!("no job ran within {}{reason}", human(PATIENCE)))
}

/// A job through the whole way: enqueue, claim, run, settle.
async fn canary(ctx: &Context, config: &Config, store: &Arc<dyn Store>) -> Result<(), CliError> {
    let mut job =
        NewJob::raw(Kind::new("echo").map_err(CliError::usage)?, Args::default()).tag("sluicegate", "canary");
    job.priority = crate::job::new::MAX_PRIORITY;
    let queue = config.queues().and_then(|queues| queues.first().cloned()).unwrap_or_default();
    job.queue = queue.clone();
    let began = instant();
    let id = Client::new(Arc::clone(store), config.tier()).insert(job).await?.id;
    let mut wake = store.subscribe(&config.tier()).await?;
    loop {
        match store.get(&config.tier(), id).await?.map(|job| job.state) {
            Some(State::Completed) => break,
            Some(state) if state.is_final() => {
                return Err(CliError::new(Exit::Unhealthy, format!("the first job {id} ended as {state}")));
            }
            _ => wake.woken(Duration::from_millis(5)).await,
        };
    }
    ok(ctx, "canary", &format!("job ran end to end on queue \"{queue}\" in {}", human(began.elapsed())))
}

fn invite(
    ctx: &Context,
    config: &Config,
    api: std::net::SocketAddr,
    probes: &HealthServer,
) -> Result<(), CliError> {
    if config.dev_inbox() {
        ok(
            ctx,
            "inbox",
            &format!(
                "http://{api}/dev/inbox   what jobs send lands here, except to receivers that the configuration names"
            ),
        )?;
    }
    ctx.out.line(format!("  {:<10} http://{api}/v1", "API"))?;
    ctx.out.line(format!("  {:<10} http://{}/readyz", "health", probes.address()))?;
    ctx.out.line(format!("Try:  {} job enqueue echo '{{\"hello\":\"world\"}}' --wait", ctx.program))?;
    ctx.out.line("Ctrl-C finishes running jobs; a second Ctrl-C gives them back at once.")
}
