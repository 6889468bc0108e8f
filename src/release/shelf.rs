//! The shelf: the releases that stand ready on this host, one read-only folder each. What stands here was copied whole, is
//! what its manifest says, and appeared by one rename.
//!
//! ```text
//! <releases.root>/<tier>/
//!   r-2030/                 bin/app …, .sluicegate.json (the manifest)
//!   r-2031/
//!   current -> r-2031       for people and unit files; what is active stands in the store
//!   .incoming-…  .pruned-…  on their way in and out: nobody starts anything from them
//! ```

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{ShelfError, ShelfErrorKind};
use super::manifest::{self, Entry, Manifest, What};
use super::records::{ReleaseRecord, short};
use super::tree::{Root, open_folder};
use crate::ids::Nonce;
use crate::names::{DEFAULT_RELEASE, Release, Tier, escaped};

/// The link that people and unit files follow.
pub const CURRENT: &str = "current";
/// A manifest of the most files there may be is smaller, in bytes.
const MAX_MANIFEST: u64 = 256 * 1024 * 1024;

/// The releases of one tier on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    folder: PathBuf,
}

/// What to start, and where it is. Its digests were right a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Its own folder.
    pub folder: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// Arguments for `work`, beyond those of whoever starts it.
    pub args: Vec<String>,
    /// Its part of the configuration.
    pub config: Option<PathBuf>,
    /// The activation hook: the path of its file, and arguments; empty when there is none.
    pub hook: Vec<String>,
    /// All there is to know of it.
    pub manifest: Manifest,
}

/// What is not as it was registered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Where, below the release's folder.
    pub path: String,
    /// How.
    pub what: String,
}

impl Shelf {
    /// The shelf of a tier below a root. Nothing is opened or made yet.
    ///
    /// # Errors
    /// When the path is relative, and there is no working folder.
    pub fn at(root: &Path, tier: &Tier) -> Result<Self, ShelfError> {
        let folder = std::path::absolute(root).map_err(|error| ShelfError::disk("find", root, error))?;
        Ok(Self { folder: folder.join(tier.as_str()) })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a release, whether it is there or not.
    #[must_use]
    pub fn path(&self, release: &Release) -> PathBuf {
        self.folder.join(release.as_str())
    }

    /// The releases that stand here, by name.
    ///
    /// # Errors
    /// When the folder cannot be read. One that does not exist holds nothing.
    pub fn list(&self) -> Result<Vec<Release>, ShelfError> {
        let mut found: Vec<Release> = self
            .names()?
            .into_iter()
            .filter(|(_, kind)| *kind == FileType::Directory)
            .filter_map(|(name, _)| Release::new(&name).ok())
            .collect();
        found.sort();
        Ok(found)
    }

    /// The manifest of a release, if it stands here.
    ///
    /// # Errors
    /// When there is a folder and no manifest that can be read.
    pub fn manifest(&self, release: &Release) -> Result<Option<Manifest>, ShelfError> {
        Ok(self.open(release)?.map(|(_, manifest)| manifest))
    }

    /// Compares every file with the manifest, and the manifest with a digest if one is given. An empty answer is a good one.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn verify(
        &self,
        release: &Release,
        digest: Option<&str>,
        stop: &AtomicBool,
    ) -> Result<(Manifest, Vec<Difference>), ShelfError> {
        let (folder, manifest) = self.open(release)?.ok_or_else(|| self.unknown(release))?;
        let mut differences = Vec::new();
        if let Some(registered) = digest.filter(|registered| *registered != manifest.digest()) {
            let (here, registered) = (manifest.digest(), short(registered));
            let what = format!("the manifest has digest {}, registered is {registered}", short(&here));
            differences.push(Difference { path: manifest::FILE.to_owned(), what });
        }
        let path = self.path(release);
        let root = Root { path: &path, folder: folder.as_fd(), shelf: None };
        match root.read(stop) {
            Ok(files) => differences.extend(compare(&manifest.files, &files)),
            // What could not have been registered was put there since.
            Err(error) if error.kind == ShelfErrorKind::Refused => {
                differences.push(Difference { path: String::new(), what: error.message });
            }
            Err(error) => return Err(error),
        }
        Ok((manifest, differences))
    }

    /// What to start for a registered release: program, configuration and hook, if they are what was registered. Called
    /// before every start: what stood here for weeks may have been changed.
    ///
    /// # Errors
    /// When it is not there, or not what was registered.
    pub fn verified(&self, record: &ReleaseRecord) -> Result<Staged, ShelfError> {
        let release = &record.release;
        let (folder, manifest) = self.open(release)?.ok_or_else(|| self.unknown(release))?;
        let damaged = |why: String| {
            ShelfError::damaged(format!("release `{release}` on this host is not what was registered: {why}"))
                .hint(format!("`sluicegate release verify {release}` compares every file"))
        };
        if manifest.digest() != record.digest {
            let (here, wanted) = (manifest.digest(), short(&record.digest));
            return Err(damaged(format!("its manifest has digest {}, registered is {wanted}", short(&here))));
        }
        let hook = manifest.hook.first();
        let digests = &manifest.digests;
        for (path, digest) in [
            (Some(&manifest.program), Some(&digests.program)),
            (manifest.config.as_ref(), digests.config.as_ref()),
            (hook, digests.hook.as_ref()),
        ] {
            let Some(path) = path else { continue };
            let found = digest_beneath(&folder, path)
                .map_err(|error| damaged(format!("`{path}` cannot be read: {error}")))?;
            if Some(&found) != digest {
                return Err(damaged(format!("`{path}` has another content")));
            }
        }
        let at = self.path(release);
        let file = |path: &String| at.join(path);
        let mut command: Vec<String> = manifest.hook.clone();
        if let Some(first) = command.first_mut() {
            *first = utf8(file(first))?;
        }
        Ok(Staged {
            program: file(&manifest.program),
            args: manifest.args.clone(),
            config: manifest.config.as_ref().map(file),
            hook: command,
            folder: at.clone(),
            manifest,
        })
    }

    /// Lets `current` lead to a release that stands here. It never leads nowhere meanwhile.
    ///
    /// # Errors
    /// When it is not here, or `current` is something else than a link.
    pub fn point(&self, release: &Release) -> Result<(), ShelfError> {
        let shelf = self.handle()?.filter(|shelf| open_folder(shelf, release.as_str()).is_ok());
        let Some(shelf) = shelf else { return Err(self.unknown(release)) };
        let new = format!(".{CURRENT}-{}", Nonce::new());
        let link = self.folder.join(CURRENT);
        let failed = |error: Errno| ShelfError::disk("change", &link, error);
        fs::symlinkat(release.as_str(), &shelf, &new).map_err(failed)?;
        let renamed = fs::renameat(&shelf, &new, &shelf, CURRENT);
        if let Err(error) = renamed {
            // The error that is told is the first one.
            fs::unlinkat(&shelf, &new, AtFlags::empty()).ok();
            return Err(failed(error));
        }
        fs::fsync(&shelf).map_err(failed)
    }

    /// Where `current` leads.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn current(&self) -> Result<Option<Release>, ShelfError> {
        let Some(shelf) = self.handle()? else { return Ok(None) };
        match fs::readlinkat(&shelf, CURRENT, Vec::new()) {
            Ok(target) => Ok(target.to_str().ok().and_then(|name| Release::new(name).ok())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(ShelfError::disk("read", &self.folder.join(CURRENT), error)),
        }
    }

    /// A name that a release may have here.
    pub(super) fn check_name(release: &Release) -> Result<(), ShelfError> {
        let why = match release.as_str() {
            CURRENT => "is the link to the active one",
            DEFAULT_RELEASE => "belongs to workers that name no release",
            _ => return Ok(()),
        };
        Err(ShelfError::refused(format!("a release cannot be called `{release}`: that {why}"))
            .hint("give it another name with `--id`"))
    }

    /// The folder, made if it is not there, and safe to start programs from.
    pub(super) fn make(&self) -> Result<OwnedFd, ShelfError> {
        let failed = |error: std::io::Error| ShelfError::disk("make", &self.folder, error);
        DirBuilder::new().recursive(true).mode(0o755).create(&self.folder).map_err(failed)?;
        let folder = self.handle()?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        for part in [self.folder.as_path(), self.folder.parent().unwrap_or(&self.folder)] {
            let stat = fs::stat(part).map_err(|error| ShelfError::disk("read", part, error))?;
            if stat.st_mode & 0o002 != 0 {
                return Err(ShelfError::refused(format!(
                    "`{}` has mode {:04o}: anybody could put programs there that run as the worker",
                    escaped(&part.to_string_lossy()),
                    stat.st_mode & 0o7777
                ))
                .hint(format!("chmod o-w {}", part.display())));
            }
        }
        Ok(folder)
    }

    /// The folder, if it is there.
    pub(super) fn handle(&self) -> Result<Option<OwnedFd>, ShelfError> {
        match fs::open(&self.folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(ShelfError::disk("open the shelf", &self.folder, error)),
        }
    }

    /// What is in the folder, with its type. A name of no UTF-8 is not ours.
    pub(super) fn names(&self) -> Result<Vec<(String, FileType)>, ShelfError> {
        let Some(shelf) = self.handle()? else { return Ok(Vec::new()) };
        let failed = |error: Errno| ShelfError::disk("read", &self.folder, error);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&shelf).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_owned();
            let Ok(text) = name.to_str() else { continue };
            match fs::statat(&shelf, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => names.push((text.to_owned(), FileType::from_raw_mode(stat.st_mode))),
                Err(Errno::NOENT) => {} // another process took it away
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(names)
    }

    fn open(&self, release: &Release) -> Result<Option<(OwnedFd, Manifest)>, ShelfError> {
        let Some(shelf) = self.handle()? else { return Ok(None) };
        let folder = match open_folder(&shelf, release.as_str()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(ShelfError::disk("open", &self.path(release), error)),
        };
        let manifest = read_manifest(&folder, &format!("release `{release}`"))?;
        if manifest.release != *release {
            return Err(ShelfError::damaged(format!(
                "`{}` holds the manifest of release `{}`",
                self.path(release).display(),
                manifest.release
            )));
        }
        Ok(Some((folder, manifest)))
    }

    pub(super) fn unknown(&self, release: &Release) -> ShelfError {
        ShelfError::new(
            ShelfErrorKind::Unknown,
            format!("release `{release}` is not on this host's shelf `{}`", self.folder.display()),
        )
        .hint(
            "`sluicegate release list` lists them; `sluicegate release register PATH --id R` puts one there",
        )
    }
}

/// A file below a folder, opened a name at a time: no part of its path may be a link.
fn open_beneath(folder: &OwnedFd, path: &str) -> Result<File, Errno> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at: Option<OwnedFd> = None;
    for part in above.split('/').filter(|part| !part.is_empty()) {
        at = Some(open_folder(at.as_ref().unwrap_or(folder), part)?);
    }
    let careful = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(at.as_ref().unwrap_or(folder), name, careful, Mode::empty()).map(File::from)
}

fn digest_beneath(folder: &OwnedFd, path: &str) -> std::io::Result<String> {
    let file = open_beneath(folder, path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    manifest::digest_of(file)
}

/// A small file below a folder; `None` when there is none.
pub(super) fn read_beneath(folder: &OwnedFd, path: &str, most: u64) -> Result<Option<Vec<u8>>, String> {
    let file = match open_beneath(folder, path) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("it is larger than {most} bytes"));
    }
    Ok(Some(bytes))
}

pub(super) fn read_manifest(folder: &OwnedFd, of: &str) -> Result<Manifest, ShelfError> {
    let unreadable = |why: String| ShelfError::damaged(format!("the manifest of {of} cannot be read: {why}"));
    let bytes = read_beneath(folder, manifest::FILE, MAX_MANIFEST).map_err(unreadable)?;
    let bytes =
        bytes.ok_or_else(|| ShelfError::damaged(format!("{of} has no manifest ({})", manifest::FILE)))?;
    Manifest::read(&bytes, of)
}

fn utf8(path: PathBuf) -> Result<String, ShelfError> {
    path.into_os_string().into_string().map_err(|path| {
        ShelfError::refused(format!("the shelf's path `{}` is not UTF-8", path.to_string_lossy()))
            .hint("move it: `releases.root`")
    })
}

/// How two lists of files differ.
pub(super) fn compare(registered: &[Entry], here: &[Entry]) -> Vec<Difference> {
    let (registered, here) = (by_path(registered), by_path(here));
    let lost = registered.iter().filter_map(|(path, was)| {
        let what = here.get(path).map_or(Some("is missing"), |is| differs(was, is))?;
        Some((path, what))
    });
    let extra = here.keys().filter(|path| !registered.contains_key(*path));
    let extra = extra.map(|path| (path, "is extra: it was not registered"));
    lost.chain(extra)
        .map(|(path, what)| Difference { path: (*path).to_owned(), what: what.to_owned() })
        .collect()
}

fn by_path(entries: &[Entry]) -> BTreeMap<&str, &What> {
    entries.iter().map(|entry| (entry.path.as_str(), &entry.what)).collect()
}

fn differs(registered: &What, here: &What) -> Option<&'static str> {
    match (registered, here) {
        (a, b) if a == b => None,
        (What::File { sha256: a, executable, .. }, What::File { sha256: b, .. }) if a == b => {
            Some(if *executable { "cannot be executed any more" } else { "can be executed now" })
        }
        (What::File { .. }, What::File { .. }) => Some("has another content"),
        (What::Link { .. }, What::Link { .. }) => Some("leads elsewhere"),
        _ => Some("is something else: a file, a link or a folder"),
    }
}
