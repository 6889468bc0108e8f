//! `release register|list|show|verify|prune|pin|unpin`, and the hidden `describe` that a registration asks a program.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::config_cmd::check_handlers;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::out::Format;
use super::with_builtin;
use crate::clock::wall;
use crate::handlers::Delivery;
use crate::names::{Release, Tier, escaped};
use crate::release::description::Description;
use crate::release::manifest::What;
use crate::release::prune;
use crate::release::records::{self, RecordError, ReleaseRecord, short};
use crate::release::register::{self, RegisterError, Stop};
use crate::release::{Manifest, Shelf, ShelfError, ShelfErrorKind};
use crate::store::Store;

#[derive(Debug, Subcommand)]
pub(super) enum ReleaseCommand {
    /// Copy a release onto this host's shelf, and tell the store of it
    Register {
        /// Its folder, or its program
        path: PathBuf,
        /// Its name (default: the first 12 digits of its digest)
        #[arg(long, value_name = "R")]
        id: Option<String>,
        /// Why, for the ledger
        #[arg(long)]
        reason: Option<String>,
    },
    /// List releases, newest first
    #[command(visible_alias = "ls")]
    List,
    /// Everything about one release
    Show {
        /// The release
        release: String,
    },
    /// Compare every file on this host's shelf with what was registered: 0 the same, 3 not
    Verify {
        /// The release
        release: String,
    },
    /// Take old releases from this host's shelf; what is or may be needed stays
    Prune {
        /// How many of the newest stay, whatever they are
        #[arg(long, value_name = "N", default_value_t = 5)]
        keep: usize,
        /// Why, for the ledger
        #[arg(long)]
        reason: Option<String>,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
    },
    /// Keep a release from being pruned
    Pin {
        /// The release
        release: String,
        /// Why, for the ledger
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let it be pruned again
    Unpin {
        /// The release
        release: String,
        /// Why, for the ledger
        #[arg(long)]
        reason: Option<String>,
    },
    /// What this program runs
    #[command(hide = true)]
    Describe,
}

impl From<ShelfError> for CliError {
    fn from(error: ShelfError) -> Self {
        let exit = match error.kind {
            ShelfErrorKind::Refused | ShelfErrorKind::Newer => Exit::Usage,
            ShelfErrorKind::Conflict => Exit::Conflict,
            ShelfErrorKind::Unknown => Exit::NotFound,
            ShelfErrorKind::Damaged => Exit::Unhealthy,
            _ => Exit::Error,
        };
        let hints = error.hint.clone().into_iter().collect();
        Self { hints, ..Self::new(exit, error) }
    }
}

impl From<RecordError> for CliError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Store(error) => error.into(),
            RecordError::Unknown { .. } => Self::new(Exit::NotFound, error).hint(
                "`sluicegate release list` lists them; `sluicegate release register PATH --id R` adds one",
            ),
            RecordError::Conflict { ref there, .. } => Self::new(Exit::Conflict, &error)
                .hint(format!("see what it is: `sluicegate release show {}`", there.release))
                .hint("a release never changes: give this one another name with `--id`"),
            error => Self::new(Exit::Usage, error).hint("use the newest program that this tier has"),
        }
    }
}

impl From<RegisterError> for CliError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Shelf(error) => error.into(),
            RegisterError::Record(error) => error.into(),
        }
    }
}

pub(super) async fn run(ctx: &Context, command: ReleaseCommand) -> CliResult {
    match command {
        ReleaseCommand::Register { path, id, reason } => register(ctx, path, id, reason).await,
        ReleaseCommand::List => list(ctx).await,
        ReleaseCommand::Show { release } => show(ctx, &named(&release)?).await,
        ReleaseCommand::Verify { release } => verify(ctx, &named(&release)?).await,
        ReleaseCommand::Prune { keep, reason, dry_run } => prune(ctx, keep, reason, dry_run).await,
        ReleaseCommand::Pin { release, reason } => pin(ctx, &named(&release)?, true, reason).await,
        ReleaseCommand::Unpin { release, reason } => pin(ctx, &named(&release)?, false, reason).await,
        ReleaseCommand::Describe => describe(ctx),
    }
}

fn named(text: &str) -> Result<Release, CliError> {
    Release::new(text).map_err(CliError::usage)
}

fn shelf(ctx: &Context, tier: &Tier) -> Result<Shelf, CliError> {
    let shelf = Shelf::at(&ctx.config()?.releases_root()?, tier)?;
    ctx.out.detail(format!("shelf {}", shelf.folder().display()));
    Ok(shelf)
}

/// What this program runs, with the configuration that is named: no store, no files of the host.
fn describe(ctx: &Context) -> CliResult {
    let config = ctx.named_config()?;
    let registry = with_builtin(ctx.registry.clone(), Delivery::Real)?;
    if let Some(config) = &config {
        check_handlers(config, &registry)?;
    }
    ctx.out.json(&Description::of(&registry, config.and_then(|config| config.queues())))?;
    Ok(Exit::Ok)
}

async fn register(ctx: &Context, path: PathBuf, id: Option<String>, reason: Option<String>) -> CliResult {
    let id = id.as_deref().map(named).transpose()?;
    let config = ctx.config()?;
    let tier = config.tier();
    let shelf = shelf(ctx, &tier)?;
    let store = ctx.store(&config).await?;
    let done = register::register(&*store, &tier, &shelf, &path, id, &Context::actor(reason)).await?;
    let release = &done.record.release;
    if !ctx.out.is_for_people() {
        if ctx.out.format == Format::Name {
            ctx.out.line(release)?;
            return Ok(Exit::Ok);
        }
        ctx.out.json(&json!({
            "release": release, "digest": done.record.digest, "path": done.path, "new_here": done.new_here,
            "new_in_store": done.new_in_store, "state": done.record.state, "description": done.record.description,
        }))?;
        return Ok(Exit::Ok);
    }
    let what = match (done.new_here, done.new_in_store) {
        (true, true) => "registered",
        (true, false) => "registered before, and now on this host's shelf too",
        (false, true) => "on this host's shelf already, and now registered",
        (false, false) => "there already, with the same content",
    };
    let kinds = done.record.description.kinds.len();
    ctx.out.line(format!(
        "{} {release} is {what}: digest {}, {kinds} kinds, {} in {} files",
        ctx.out.mark(true),
        short(&done.record.digest),
        bytes(done.manifest.size()),
        files(&done.manifest)
    ))?;
    ctx.out.next(format!("{} release show {release}", ctx.program));
    Ok(Exit::Ok)
}

fn files(manifest: &Manifest) -> usize {
    manifest.files.iter().filter(|entry| matches!(entry.what, What::File { .. })).count()
}

fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    match count {
        0..KIB => format!("{count} B"),
        _ if count < KIB * KIB => format!("{:.1} KiB", count as f64 / KIB as f64),
        _ => format!("{:.1} MiB", count as f64 / (KIB * KIB) as f64),
    }
}

/// What is said of a release beside its record.
async fn marks(
    store: &dyn Store,
    tier: &Tier,
    records: &[ReleaseRecord],
) -> Result<impl Fn(&Release) -> Vec<&'static str>, CliError> {
    let activation = store.activation(tier).await?;
    let stable = records::verified(records).first().map(|record| record.release.clone());
    let pinned: Vec<Release> = records
        .iter()
        .filter(|record| record.pinned.is_some())
        .map(|record| record.release.clone())
        .collect();
    let quarantined: Vec<Release> = records
        .iter()
        .filter(|record| record.quarantine.is_some())
        .map(|record| record.release.clone())
        .collect();
    Ok(move |release: &Release| {
        let active = activation.as_ref();
        let all = [
            ("active", active.is_some_and(|active| active.release == *release)),
            ("fallback", active.is_some_and(|active| active.fallback.as_ref() == Some(release))),
            ("stable", stable.as_ref() == Some(release)),
            ("pinned", pinned.contains(release)),
            ("quarantined", quarantined.contains(release)),
        ];
        all.into_iter().filter(|(_, holds)| *holds).map(|(word, _)| word).collect()
    })
}

async fn list(ctx: &Context) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let shelf = shelf(ctx, &tier)?;
    let here = shelf.list()?;
    let mut listing = records::list(&*store, &tier).await?;
    listing.records.sort_by_key(|record| std::cmp::Reverse(record.registered.as_ref().map(|mark| mark.at)));
    let marks = marks(&*store, &tier, &listing.records).await?;
    let known = |release: &Release| listing.records.iter().any(|record| record.release == *release);
    let only_here: Vec<&Release> = here.iter().filter(|release| !known(release)).collect();
    for (release, why) in &listing.unreadable {
        ctx.out.note(format!("warning: the record of release `{release}` cannot be read: {why}"));
    }
    let row = |record: &ReleaseRecord| {
        json!({ "release": record.release, "state": record.state, "digest": record.digest,
            "kinds": record.description.kinds.len(), "here": here.contains(&record.release),
            "registered": record.registered, "verified_at": record.verified_at, "marks": marks(&record.release) })
    };
    let stray = |release: &&Release| json!({ "release": release, "state": null, "here": true, "marks": marks(release) });
    let rows = listing.records.iter().map(row).chain(only_here.iter().map(stray));
    match ctx.out.format {
        Format::Json => ctx.out.json(&rows.collect::<Vec<_>>())?,
        Format::Jsonl => rows.into_iter().try_for_each(|row| ctx.out.json(&row))?,
        Format::Name => listing.records.iter().try_for_each(|record| ctx.out.line(&record.release))?,
        _ => {
            let line = |record: &ReleaseRecord| {
                let at = record.registered.as_ref().map(|mark| ctx.out.time(mark.at, wall()));
                vec![
                    record.release.to_string(),
                    record.state.to_string(),
                    marks(&record.release).join(", "),
                    short(&record.digest).to_owned(),
                    record.description.kinds.len().to_string(),
                    if here.contains(&record.release) { "yes" } else { "no" }.to_owned(),
                    at.unwrap_or_default(),
                ]
            };
            let stray = |release: &&Release| {
                let mut row =
                    vec![release.to_string(), "not in the store".to_owned(), marks(release).join(", ")];
                row.extend(["", "", "yes", ""].map(str::to_owned));
                row
            };
            let rows = listing.records.iter().map(line).chain(only_here.iter().map(stray)).collect();
            ctx.out.table(&["release", "state", "marks", "digest", "kinds", "here", "registered"], rows)?;
        }
    }
    if listing.records.is_empty() {
        ctx.out.next(format!("no release in tier `{tier}`; {} release register PATH --id R", ctx.program));
    }
    Ok(Exit::Ok)
}

async fn show(ctx: &Context, release: &Release) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let listing = records::list(&*store, &tier).await?;
    let record = records::read(&*store, &tier, release)
        .await?
        .ok_or_else(|| RecordError::Unknown { release: release.clone(), tier: tier.clone() })?;
    let marks = marks(&*store, &tier, &listing.records).await?(release);
    let shelf = shelf(ctx, &tier)?;
    let manifest = shelf.manifest(release)?;
    let path = manifest.is_some().then(|| shelf.path(release));
    if !ctx.out.is_for_people() {
        ctx.out.json(&json!({ "record": record, "marks": marks, "path": path, "manifest": manifest }))?;
        return Ok(Exit::Ok);
    }
    for (what, text) in story(ctx, &record, &marks, manifest.as_ref(), path) {
        ctx.out.line(format!("{what:<10} {}", escaped(&text)))?;
    }
    Ok(Exit::Ok)
}

fn story(
    ctx: &Context,
    record: &ReleaseRecord,
    marks: &[&str],
    manifest: Option<&Manifest>,
    path: Option<PathBuf>,
) -> Vec<(&'static str, String)> {
    let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
    let by = |mark: &records::Mark| {
        let why = mark.by.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{}, by {}{why}", ctx.out.time(mark.at, wall()), mark.by.who)
    };
    let mut lines =
        vec![("release", record.release.to_string()), ("state", format!("{}{marks}", record.state))];
    lines.extend(record.registered.as_ref().map(|mark| ("registered", by(mark))));
    lines.extend(record.verified_at.map(|at| ("verified", ctx.out.time(at, wall()))));
    lines.extend(record.pinned.as_ref().map(|mark| ("pinned", by(mark))));
    lines.extend(record.quarantine.as_ref().map(|mark| ("quarantine", by(mark))));
    lines.push(("digest", record.digest.clone()));
    match (manifest, path) {
        (Some(manifest), Some(path)) => {
            let size = format!("{} in {} files", bytes(manifest.size()), files(manifest));
            lines.push(("here", format!("{}   {size}", path.display())));
            let command = std::iter::once(&manifest.program).chain(&manifest.args);
            lines.push(("program", command.map(String::as_str).collect::<Vec<_>>().join(" ")));
            lines.extend(manifest.config.clone().map(|config| ("config", config)));
            if !manifest.hook.is_empty() {
                lines.push(("hook", manifest.hook.join(" ")));
            }
        }
        _ => lines.push(("here", "not on this host's shelf".to_owned())),
    }
    let queues = record.description.queues.as_ref().map_or_else(
        || "all".to_owned(),
        |queues| queues.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    );
    lines.push(("queues", queues));
    for kind in &record.description.kinds {
        let canary = if kind.canary { ", with a canary" } else { "" };
        lines.push(("kind", format!("{} v{} in {}{canary}", kind.name, kind.version, kind.queue)));
    }
    lines
}

async fn verify(ctx: &Context, release: &Release) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let shelf = shelf(ctx, &tier)?;
    let record = records::read(&*store, &tier, release).await?;
    let digest = record.as_ref().map(|record| record.digest.clone());
    let (on, of) = (shelf.clone(), release.clone());
    let stop = Stop::default();
    let (manifest, differences) = stop.blocking(move |stop| on.verify(&of, digest.as_deref(), stop)).await?;
    let good = differences.is_empty() && record.is_some();
    if !ctx.out.is_for_people() {
        ctx.out.json(&json!({ "release": release, "verified": good, "registered": record.is_some(),
            "digest": manifest.digest(), "differences": differences }))?;
    } else if good {
        let (files, digest) = (files(&manifest), manifest.digest());
        ctx.out.line(format!(
            "{} {release} is what was registered: digest {}, {files} files",
            ctx.out.mark(true),
            short(&digest)
        ))?;
    } else {
        for difference in &differences {
            let path = shelf.path(release).join(&difference.path);
            let line = format!("`{}` {}", path.display(), difference.what);
            ctx.out.line(format!("{} {}", ctx.out.mark(false), escaped(&line)))?;
        }
        if record.is_none() {
            let line = format!("it is not registered in tier `{tier}`");
            ctx.out.line(format!("{} {line}", ctx.out.mark(false)))?;
        }
    }
    if !good {
        ctx.out.next("register what it should be under another name; nothing is started from this one");
    }
    Ok(if good { Exit::Ok } else { Exit::Unhealthy })
}

async fn prune(ctx: &Context, keep: usize, reason: Option<String>, dry_run: bool) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let shelf = shelf(ctx, &tier)?;
    let done = prune::prune(&*store, &tier, &shelf, keep, dry_run, &Context::actor(reason)).await?;
    if !ctx.out.is_for_people() {
        ctx.out.json(&done)?;
        return Ok(Exit::Ok);
    }
    let gone = if dry_run { "would go" } else { "removed" };
    let row = |fate: &prune::Fate| {
        let what = if fate.kept.is_empty() { gone } else { "kept" };
        vec![fate.release.to_string(), what.to_owned(), fate.kept.join(", ")]
    };
    ctx.out.table(&["release", "", "why"], done.fates.iter().map(row).collect())?;
    let count = done.fates.iter().filter(|fate| fate.kept.is_empty()).count();
    ctx.out.note(format!("{count} {gone}, {}", bytes(done.bytes)));
    Ok(Exit::Ok)
}

async fn pin(ctx: &Context, release: &Release, pinned: bool, reason: Option<String>) -> CliResult {
    let (store, tier) = ctx.open().await?;
    let changed = records::pin(&*store, &tier, release, pinned, &Context::actor(reason)).await?;
    let word = if pinned { "pinned" } else { "not pinned" };
    if ctx.out.is_for_people() {
        let already = if changed { "" } else { " already" };
        ctx.out.line(format!("{release} is {word}{already}"))?;
    } else {
        ctx.out.json(&json!({ "release": release, "pinned": pinned, "changed": changed }))?;
    }
    Ok(Exit::Ok)
}
