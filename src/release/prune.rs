//! Which releases may leave this host's shelf, and their way out. What is decided is a value; what is done has two phases:
//! marked by a rename, after which nobody starts it any more, looked at again, and removed. What can be gone back to stays.
//! After a prune that was killed the next one decides again about what was marked, and removes what was being removed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;
use serde::Serialize;

use super::error::{ShelfError, ShelfErrorKind};
use super::incoming::remove;
use super::records::{self, Listing, ReleaseRecord};
use super::register::{RegisterError, Stop};
use super::shelf::Shelf;
use crate::activation::Activation;
use crate::ids::Nonce;
use crate::names::{Release, Tier};
use crate::store::{Actor, Store};

const MARKED: &str = ".pruned-";
const LEAVING: &str = ".removing-";
/// So many verified releases stay, whatever else.
const KEEP_VERIFIED: usize = 3;

/// What is looked at before anything is decided.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The releases on this host's shelf.
    pub here: Vec<Release>,
    /// What the store knows of releases.
    pub listing: Listing,
    /// The activation of the tier.
    pub activation: Option<Activation>,
    /// Living workers by release: one of them each.
    pub workers: BTreeMap<Release, String>,
    /// Processes of this host that run from the shelf, by release: one each.
    pub processes: BTreeMap<Release, u32>,
}

/// What becomes of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// Which.
    pub release: Release,
    /// Why it stays; empty when it goes.
    pub kept: Vec<String>,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// By name.
    pub fates: Vec<Fate>,
    /// Bytes of what went, or would go.
    pub bytes: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
}

impl Facts {
    /// Gathers them.
    ///
    /// # Errors
    /// When the shelf or the store cannot be read.
    pub async fn gather(store: &dyn Store, tier: &Tier, shelf: &Shelf) -> Result<Self, RegisterError> {
        let failed = records::RecordError::from;
        let here = shelf.list()?;
        let workers = store.workers(tier).await.map_err(failed)?;
        let living = workers.iter().filter(|seen| !seen.is_stale()).map(|seen| &seen.presence);
        Ok(Self {
            listing: records::list(store, tier).await.map_err(failed)?,
            activation: store.activation(tier).await.map_err(failed)?,
            workers: living.map(|worker| (worker.release.clone(), worker.worker.to_string())).collect(),
            processes: processes(shelf.folder(), &here),
            here,
        })
    }
}

/// Decides, without changing anything: `keep` of the newest stay, and whatever is or may be needed.
#[must_use]
pub fn decide(facts: &Facts, keep: usize) -> Vec<Fate> {
    let known: BTreeMap<&Release, &ReleaseRecord> =
        facts.listing.records.iter().map(|record| (&record.release, record)).collect();
    let verified = records::verified(&facts.listing.records);
    let here = facts.here.iter();
    let mut newest: Vec<&ReleaseRecord> = here.filter_map(|release| known.get(release).copied()).collect();
    newest.sort_by_key(|record| std::cmp::Reverse(record.registered.as_ref().map(|mark| mark.at)));
    newest.truncate(keep);
    let fate = |release: &Release| {
        let mut kept = Vec::new();
        let mut because = |holds: bool, why: &str| {
            if holds {
                kept.push(why.to_owned());
            }
        };
        let active = facts.activation.as_ref();
        because(active.is_some_and(|active| active.release == *release), "active");
        because(
            active.is_some_and(|active| active.fallback.as_ref() == Some(release)),
            "the way back of what is active",
        );
        because(verified.first().is_some_and(|stable| stable.release == *release), "stable");
        because(
            verified.iter().skip(1).take(KEEP_VERIFIED - 1).any(|record| record.release == *release),
            "one of the last three verified",
        );
        match known.get(release) {
            Some(record) => {
                because(record.pinned.is_some(), "pinned");
                because(record.state.is_under_way(), "being deployed");
            }
            None if facts.listing.unreadable.iter().any(|(key, _)| key == release.as_str()) => {
                because(true, "its record cannot be read");
            }
            None => because(true, "not registered in this store"),
        }
        because(newest.iter().any(|record| record.release == *release), "among the newest");
        if let Some(worker) = facts.workers.get(release) {
            because(true, &format!("worker {worker} lives"));
        }
        if let Some(process) = facts.processes.get(release) {
            because(true, &format!("process {process} runs from it"));
        }
        Fate { release: release.clone(), kept }
    };
    facts.here.iter().map(fate).collect()
}

/// Prunes this host's shelf of a tier.
///
/// # Errors
/// When another prune is at it, or the shelf or the store cannot do it. What was marked then is no release any more.
pub async fn prune(
    store: &dyn Store,
    tier: &Tier,
    shelf: &Shelf,
    keep: usize,
    dry_run: bool,
    by: &Actor,
) -> Result<Pruned, RegisterError> {
    let Some(folder) = shelf.handle()? else { return Ok(Pruned { fates: Vec::new(), bytes: 0, dry_run }) };
    match fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let message = format!("another prune of `{}` is under way", shelf.folder().display());
            return Err(ShelfError::new(ShelfErrorKind::Conflict, message).into());
        }
        Err(error) => return Err(ShelfError::disk("lock", shelf.folder(), error).into()),
    }
    let rename = |from: &str, to: &str| {
        let path = shelf.folder().join(from);
        fs::renameat(&folder, from, &folder, to).map_err(|error| ShelfError::disk("move", &path, error))
    };
    let leaving = |release: &str| format!("{LEAVING}{release}-{}", Nonce::new());
    let back = |marked: &str, release: &str| match fs::renameat(&folder, marked, &folder, release) {
        Ok(()) => Ok(()),
        // It was registered again meanwhile: one of it is enough.
        Err(Errno::NOTEMPTY | Errno::EXIST) => rename(marked, &leaving(release)),
        Err(error) => Err(ShelfError::disk("move", &shelf.folder().join(marked), error)),
    };
    for name in left(shelf, MARKED)? {
        back(&name, name.trim_start_matches(MARKED))?;
    }
    let mut fates = decide(&Facts::gather(store, tier, shelf).await?, keep);
    let mut bytes = 0;
    for fate in fates.iter().filter(|fate| fate.kept.is_empty()) {
        // One without a manifest can go as well.
        bytes += shelf.manifest(&fate.release).ok().flatten().map_or(0, |manifest| manifest.size());
    }
    if dry_run {
        return Ok(Pruned { fates, bytes, dry_run });
    }
    let away = |release: &Release| format!("{MARKED}{release}");
    let marked: Vec<Release> =
        fates.iter().filter(|fate| fate.kept.is_empty()).map(|fate| fate.release.clone()).collect();
    for release in &marked {
        rename(release.as_str(), &away(release))?;
    }
    // Nobody can start it from now on. Who did so, or switched to it, a moment ago is seen here.
    let mut facts = Facts::gather(store, tier, shelf).await?;
    facts.processes.extend(processes(shelf.folder(), &marked));
    facts.processes.extend(processes_of(shelf.folder(), &marked, away));
    facts.here.clone_from(&marked);
    for fate in decide(&facts, 0).into_iter().filter(|fate| !fate.kept.is_empty()) {
        back(&away(&fate.release), fate.release.as_str())?;
        fates.retain(|other| other.release != fate.release);
        fates.push(fate);
    }
    fates.sort_by(|a, b| a.release.cmp(&b.release));
    let gone: Vec<&Release> =
        fates.iter().filter(|fate| fate.kept.is_empty()).map(|fate| &fate.release).collect();
    if !gone.is_empty() {
        let detail = serde_json::json!({ "releases": gone, "shelf": shelf.folder() }).to_string();
        store.append(tier, "release.pruned", by, &detail).await.map_err(records::RecordError::from)?;
    }
    for release in gone {
        rename(&away(release), &leaving(release.as_str()))?;
    }
    let on = shelf.clone();
    Stop::default().blocking(move |stop| remove_leaving(&on, stop)).await?;
    drop(folder); // and with it the lock
    Ok(Pruned { fates, bytes, dry_run })
}

fn left(shelf: &Shelf, prefix: &str) -> Result<Vec<String>, ShelfError> {
    Ok(shelf.names()?.into_iter().map(|(name, _)| name).filter(|name| name.starts_with(prefix)).collect())
}

fn remove_leaving(shelf: &Shelf, stop: &AtomicBool) -> Result<(), ShelfError> {
    for name in left(shelf, LEAVING)? {
        if stop.load(Ordering::Relaxed) {
            return Err(ShelfError::new(ShelfErrorKind::Stopped, "stopped; the next prune removes the rest"));
        }
        let path = shelf.folder().join(&name);
        remove(&path).map_err(|error| ShelfError::disk("remove", &path, error))?;
    }
    Ok(())
}

fn processes(shelf: &Path, releases: &[Release]) -> BTreeMap<Release, u32> {
    processes_of(shelf, releases, |release| release.to_string())
}

/// Processes of this host whose program, folder or arguments are within a release. Those of other users may not tell.
fn processes_of(
    shelf: &Path,
    releases: &[Release],
    called: impl Fn(&Release) -> String,
) -> BTreeMap<Release, u32> {
    let mut found = BTreeMap::new();
    let folders: Vec<(&Release, String)> = releases
        .iter()
        .map(|release| (release, format!("{}/", shelf.join(called(release)).display())))
        .collect();
    let Ok(all) = std::fs::read_dir("/proc") else { return found };
    for entry in all.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let mut places: Vec<String> = ["exe", "cwd"]
            .iter()
            .filter_map(|link| std::fs::read_link(entry.path().join(link)).ok())
            .map(|path| format!("{}/", path.to_string_lossy()))
            .collect();
        // A script's path is an argument of its interpreter.
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        places.extend(
            arguments.split(|byte| *byte == 0).take(3).map(|word| String::from_utf8_lossy(word).into_owned()),
        );
        for (release, folder) in &folders {
            if places.iter().any(|place| place.starts_with(folder.as_str())) {
                found.insert((*release).clone(), process);
            }
        }
    }
    found
}
