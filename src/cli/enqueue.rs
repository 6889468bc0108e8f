//! `job enqueue`.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use super::args::Enqueue;
use super::bypass;
use super::context::{Context, span};
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::list::parse_tag;
use super::out::Format;
use super::{from_file, wait};
use crate::client::{Enqueued, Handlers, Way};
use crate::clock::{Timestamp, human};
use crate::config::Config;
use crate::ids::JobId;
use crate::job::args::MAX_ARGS;
use crate::job::new::Extras;
use crate::job::{Args, Bypass, Expiry, InvalidJob, NewJob, Unique, When};
use crate::names::{Kind, Tier};
use crate::retry::RetryPolicy;
use crate::store::{self, ErrorKind, Store, StoreError};

/// A job that can run here waits no longer for the store to open: its page is to be fresh within two seconds.
const OPEN: Duration = Duration::from_secs(1);

pub(super) async fn run(ctx: &Context, args: Box<Enqueue>) -> CliResult {
    if let Some(path) = &args.from_file {
        return from_file::run(ctx, path).await;
    }
    let wait = args.wait;
    let config = ctx.config()?;
    let tier = config.tier();
    let job = build(*args, &tier)?;
    let handlers = bypass::handlers(ctx, &config)?;
    let (store, done) = enqueue(ctx, &config, handlers, job).await?;
    // What ran here and is not in the store is over, and nobody else can be asked about it.
    let Some(store) = store.filter(|_| wait && !matches!(done.way, Way::InlineUnrecorded { .. })) else {
        match ctx.out.format {
            Format::Name => ctx.out.line(done.id)?,
            Format::Table | Format::Wide => {
                let told = crate::names::escaped(&bypass::told(&done));
                ctx.out.line(format!("{}  {}  {told}", done.id, done.state))?;
                if !matches!(done.way, Way::InlineUnrecorded { .. }) {
                    ctx.out.next(format!("{} job show {}", ctx.program, done.id));
                }
            }
            _ => ctx.out.json(&done)?,
        }
        return Ok(Exit::Ok);
    };
    let timeout = ctx.timeout()?;
    let job = wait::until_ended(ctx, &*store, &tier, done.id, timeout).await?;
    if let (Some(job), false) = (&job, ctx.out.is_for_people()) {
        ctx.out.json(job)?;
    }
    match wait::verdict(job.as_ref().map(|job| job.state)) {
        Exit::Timeout => Err(CliError::new(
            Exit::Timeout,
            format!("job {} has not ended within {}", done.id, crate::clock::human(timeout)),
        )
        .hint(format!(
            "it goes on; `{} status` shows whether a worker is active, `{} job wait {}` waits again",
            ctx.program, ctx.program, done.id
        ))),
        exit => Ok(exit),
    }
}

/// Enqueues it, or runs it here. A job with a bypass does not wait long for a store that cannot be opened.
async fn enqueue(
    ctx: &Context,
    config: &Config,
    handlers: Option<Handlers>,
    job: NewJob,
) -> Result<(Option<Arc<dyn Store>>, Enqueued), CliError> {
    let (url, tier) = (ctx.store_url(config)?, config.tier());
    let open = store::open_wanting(&url, config.durability());
    let here = handlers.as_ref().filter(|handlers| handlers.wanted(&job) != Bypass::Never);
    let opened = match here {
        None => open.await,
        Some(_) => tokio::time::timeout(OPEN, open).await.unwrap_or_else(|_| {
            let late = format!("not open within {}", human(OPEN));
            Err(StoreError::new("open", &url, ErrorKind::Unavailable, late))
        }),
    };
    match (opened, here) {
        (Ok(store), _) => {
            let client = bypass::client(Arc::clone(&store), tier, handlers);
            Ok((Some(store), client.insert(job).await?))
        }
        (Err(error), Some(handlers)) => Ok((None, handlers.run_without_store(&tier, job, error).await?)),
        (Err(error), None) => Err(error.into()),
    }
}

fn build(args: Enqueue, tier: &Tier) -> Result<NewJob, CliError> {
    let span = |flag: &str, text: Option<String>| text.map(|text| span(flag, &text)).transpose();
    let time = |flag: &str, text: Option<String>| -> Result<Option<Timestamp>, CliError> {
        text.map(|text| text.parse().map_err(|error| CliError::usage(format!("{flag}: {error}")))).transpose()
    };
    let kind = Kind::new(args.kind.as_deref().unwrap_or_default()).map_err(InvalidJob::from)?;
    let mut job = NewJob::raw(kind, read_args(args.args.as_deref())?);
    if let Some(queue) = &args.queue {
        job = job.queue(queue)?;
    }
    if let Some(id) = &args.id {
        job.id = super::show::parse_id(id)?;
    }
    job.when = match (span("--in", args.delay)?, time("--at", args.at)?) {
        (Some(delay), _) => When::After(delay),
        (None, Some(at)) => When::At(at),
        (None, None) => When::Now,
    };
    job.expiry = match (span("--expires-in", args.expires_in)?, time("--expires-at", args.expires_at)?) {
        (Some(span), _) => Some(Expiry::After(span)),
        (None, Some(at)) => Some(Expiry::At(at)),
        (None, None) => None,
    };
    if let Some(priority) = args.priority {
        job.priority = i8::try_from(priority)
            .map_err(|_| CliError::usage(format!("--priority `{priority}` is out of range: -9 to 9")))?;
    }
    job.bypass = args.bypass;
    let unique = span("--unique", args.unique)?;
    job.extras = Extras {
        retry: args.retry.map(RetryPolicy::attempts),
        timeout: span("--job-timeout", args.job_timeout)?,
        unique: (unique.is_some() || args.unique_key.is_some()).then(|| Unique {
            key: args.unique_key.unwrap_or_else(|| same_work(&job)),
            window: unique,
            states: None,
        }),
        tags: args.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?,
        ..Extras::default()
    };
    if let Some(key) = &args.idempotency_key {
        job = job.idempotency_key(tier, key);
    }
    Ok(job.check()?)
}

/// A key that names this kind with these arguments.
fn same_work(job: &NewJob) -> String {
    format!("{}:{}", job.kind, JobId::from_key(job.queue.as_str(), job.args.as_str()))
}

fn read_args(given: Option<&str>) -> Result<Args, CliError> {
    match given {
        None => Ok(Args::default()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(MAX_ARGS as u64 + 1).read_to_end(&mut bytes)?;
            Ok(Args::parse(&bytes).map_err(InvalidJob::from)?)
        }
        Some(text) => Ok(Args::parse(text.as_bytes()).map_err(|error| {
            CliError::from(InvalidJob::from(error))
                .hint("quote JSON for the shell: '{\"to\":\"ada@example.org\"}'")
        })?),
    }
}
