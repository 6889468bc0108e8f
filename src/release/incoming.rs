//! A release on its way onto the shelf: copied beside the others under a name that nobody starts anything from, checked
//! there, and put in its place by one rename. Dropped before that, it leaves nothing behind; of a process that was killed
//! the next registration takes the rest away.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::description::Description;
use super::error::{ShelfError, ShelfErrorKind};
use super::manifest::{self, Digests, Entry, FORMAT, Manifest, What, artifact_digest};
use super::recipe::{self, Recipe};
use super::records::{SHORT, short};
use super::shelf::{CURRENT, Shelf, compare, read_beneath, read_manifest};
use super::tree::{Root, first_change, identity, open_folder};
use crate::clock::wall_time;
use crate::ids::Nonce;
use crate::names::{Release, escaped};

pub(super) const INCOMING: &str = ".incoming-";
/// What a killed registration left is taken away when it is older than this and nobody holds it.
const LEFT: Duration = Duration::from_secs(3600);

/// A copy that is not on the shelf yet.
#[derive(Debug)]
pub(super) struct Incoming {
    shelf: Shelf,
    shelf_folder: OwnedFd,
    name: String,
    path: PathBuf,
    /// Locked as long as this process works on it.
    folder: OwnedFd,
    files: Vec<Entry>,
    placed: bool,
}

/// How a release came to stand on the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Now,
    /// The same stood there already.
    Before,
}

impl Incoming {
    /// Copies a folder, or one program, beside the releases of a shelf.
    pub(super) fn copy(shelf: &Shelf, source: &Path, stop: &AtomicBool) -> Result<Self, ShelfError> {
        let opened = fs::open(source, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.map_err(|error| match error {
            Errno::NOENT => {
                ShelfError::refused(format!("there is no `{}`", escaped(&source.to_string_lossy())))
                    .hint("name the folder of a release, or its program")
            }
            Errno::ACCESS => ShelfError::refused(format!("cannot read `{}`: {error}", source.display())),
            error => ShelfError::disk("read", source, error),
        })?;
        let stat = fs::fstat(&opened).map_err(|error| ShelfError::disk("read", source, error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            let message = format!("`{}` is neither a folder nor a file", escaped(&source.to_string_lossy()));
            return Err(ShelfError::refused(message).hint("name the folder of a release, or its program"));
        }
        let shelf_folder = shelf.make()?;
        sweep(shelf, &shelf_folder)?;
        let itself =
            identity(&shelf_folder).map_err(|error| ShelfError::disk("read", shelf.folder(), error))?;
        let from = Root { path: source, folder: opened.as_fd(), shelf: Some(itself) };
        // Refused before anything is written, if it can be seen from outside.
        let before = if kind == FileType::Directory {
            check_manifest(source, &opened)?;
            Some(from.look()?)
        } else {
            None
        };
        let mut incoming = Self::begin(shelf, shelf_folder)?;
        let to = Root { path: &incoming.path, folder: incoming.folder.as_fd(), shelf: None };
        let files = match before {
            Some(before) => {
                let files = from.copy(&to, stop)?;
                // One file may be older than a change and the next one newer: such a mix was never anybody's release.
                if let Some(path) = first_change(&before, &from.look()?) {
                    return Err(from.changed(path));
                }
                files
            }
            None => one_program(source, File::from(opened), &to, stop)?,
        };
        incoming.files = files;
        Ok(incoming)
    }

    fn begin(shelf: &Shelf, shelf_folder: OwnedFd) -> Result<Self, ShelfError> {
        let name = format!("{INCOMING}{}", Nonce::new());
        let path = shelf.folder().join(&name);
        let failed = |error: Errno| ShelfError::disk("make", &path, error);
        fs::mkdirat(&shelf_folder, &name, Mode::from_raw_mode(0o700)).map_err(failed)?;
        let folder = open_folder(&shelf_folder, &name).map_err(failed)?;
        let incoming = Self {
            shelf: shelf.clone(),
            shelf_folder,
            name,
            folder,
            path: path.clone(),
            files: Vec::new(),
            placed: false,
        };
        fs::flock(&incoming.folder, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        Ok(incoming)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the release says of itself.
    pub(super) fn recipe(&self) -> Result<Recipe, ShelfError> {
        let text = read_beneath(&self.folder, recipe::FILE, recipe::MAX_FILE)
            .map_err(|why| ShelfError::refused(format!("{}: {why}", recipe::FILE)))?;
        Recipe::read(text.as_deref(), &self.files)
    }

    /// Reads the copy back, compares it with what was read from the source, and writes its manifest. The program has run by
    /// then: it must not have changed anything.
    pub(super) fn complete(
        &self,
        recipe: Recipe,
        description: Description,
        name: Option<Release>,
        stop: &AtomicBool,
    ) -> Result<Manifest, ShelfError> {
        let root = Root { path: &self.path, folder: self.folder.as_fd(), shelf: None };
        let files = root.read(stop)?;
        if let Some(first) = compare(&self.files, &files).first() {
            return Err(ShelfError::damaged(format!(
                "the copy on the shelf is not what was copied: `{}` {}",
                escaped(&first.path),
                first.what
            ))
            .hint(
                "the disk is failing, or the program changes its own folder when it is asked what it runs",
            ));
        }
        let digest = |path: &String| match files.iter().find(|entry| entry.path == *path) {
            Some(Entry { what: What::File { sha256, .. }, .. }) => Some(sha256.clone()),
            _ => None,
        };
        let program = digest(&recipe.program)
            .ok_or_else(|| ShelfError::refused(format!("`{}` is not in the release", recipe.program)))?;
        let mut manifest = Manifest {
            format: FORMAT,
            release: name.clone().unwrap_or_default(),
            digests: Digests {
                artifact: artifact_digest(&files),
                program,
                config: recipe.config.as_ref().and_then(digest),
                hook: recipe.hook.first().and_then(digest),
            },
            program: recipe.program,
            args: recipe.args,
            config: recipe.config,
            hook: recipe.hook,
            description,
            files,
        };
        if name.is_none() {
            // Not part of the digest, so that it can be taken from it.
            let digest = manifest.digest();
            manifest.release = Release::new(digest.get(..SHORT).unwrap_or_default())
                .map_err(|error| ShelfError::refused(error.to_string()))?;
        }
        self.write(&manifest)?;
        Ok(manifest)
    }

    fn write(&self, manifest: &Manifest) -> Result<(), ShelfError> {
        let path = self.path.join(manifest::FILE);
        let failed = |error: std::io::Error| ShelfError::disk("write", &path, error);
        let mut text = serde_json::to_vec(manifest).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.folder, manifest::FILE, new, Mode::from_raw_mode(0o444));
        let mut file = File::from(file.map_err(|error| failed(error.into()))?);
        file.write_all(&text).map_err(failed)
    }

    /// Puts it in its place: afterwards it is whole and there, or not there.
    pub(super) fn place(mut self, manifest: &Manifest, stop: &AtomicBool) -> Result<Placed, ShelfError> {
        self.seal()?;
        let release = &manifest.release;
        match fs::renameat(&self.shelf_folder, &self.name, &self.shelf_folder, release.as_str()) {
            Ok(()) => self.placed = true,
            Err(Errno::NOTEMPTY | Errno::EXIST) => return self.compare(manifest, stop),
            Err(error) => return Err(ShelfError::disk("make", &self.shelf.path(release), error)),
        }
        fs::fsync(&self.shelf_folder)
            .map_err(|error| ShelfError::disk("write", self.shelf.folder(), error))?;
        Ok(Placed::Now)
    }

    /// Nobody writes there any more, and all of it is on the disk: by one flush, since one for each of ten thousand files takes
    /// half a minute.
    fn seal(&self) -> Result<(), ShelfError> {
        let folders = self.files.iter().rev().filter(|entry| entry.what == What::Folder);
        for path in folders.map(|entry| entry.path.as_str()).chain(["."]) {
            let failed = |error: Errno| ShelfError::disk("write", &self.path.join(path), error);
            let folder = open_folder(&self.folder, path).map_err(failed)?;
            fs::fchmod(&folder, Mode::from_raw_mode(0o555)).map_err(failed)?;
        }
        fs::syncfs(&self.folder).map_err(|error| ShelfError::disk("write", &self.path, error))
    }

    /// Something of that name stands there.
    fn compare(&self, manifest: &Manifest, stop: &AtomicBool) -> Result<Placed, ShelfError> {
        let release = &manifest.release;
        let digest = manifest.digest();
        let (there, differences) = self.shelf.verify(release, None, stop)?;
        if there.digest() != digest {
            return Err(ShelfError::new(
                ShelfErrorKind::Conflict,
                format!(
                    "release `{release}` is on this host's shelf already, with other content: its digest is {}, not {}",
                    short(&there.digest()),
                    short(&digest)
                ),
            )
            .hint("a release never changes: give this one another name with `--id`"));
        }
        match differences.first() {
            None => Ok(Placed::Before),
            Some(first) => Err(ShelfError::damaged(format!(
                "release `{release}` is on this host's shelf already, and damaged: `{}` {}",
                escaped(&first.path),
                first.what
            ))
            .hint(format!("move `{}` away and register it again", self.shelf.path(release).display()))),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot take away what was copied; the next registration will");
        }
    }
}

/// A release that is one program: `bin/NAME`.
fn one_program(
    source: &Path,
    mut file: File,
    to: &Root<'_>,
    stop: &AtomicBool,
) -> Result<Vec<Entry>, ShelfError> {
    let failed = |error: std::io::Error| ShelfError::disk("read", source, error);
    let from = Root { path: source, folder: to.folder, shelf: None };
    let before = file.metadata().map_err(failed)?;
    let shown = escaped(&source.to_string_lossy());
    if before.mode() & 0o111 == 0 {
        return Err(
            ShelfError::refused(format!("`{shown}` cannot be executed")).hint(format!("chmod +x {shown}"))
        );
    }
    if before.mode() & 0o6000 != 0 {
        return Err(ShelfError::refused(format!("`{shown}` is setuid or setgid"))
            .hint(format!("chmod u-s,g-s {shown}")));
    }
    let Some(name) = source.file_name().and_then(|name| name.to_str()) else {
        return Err(ShelfError::refused(format!("the name of `{shown}` is not UTF-8")).hint("rename it"));
    };
    let path = format!("bin/{name}");
    fs::mkdirat(to.folder, "bin", Mode::from_raw_mode(0o700))
        .map_err(|error| ShelfError::disk("make", &to.path.join("bin"), error))?;
    let what = to.write(&path, &mut file, true, &from, stop)?;
    let after = file.metadata().map_err(failed)?;
    let stamp = |of: &std::fs::Metadata| (of.size(), of.ctime(), of.ctime_nsec());
    if stamp(&before) != stamp(&after) {
        return Err(from.changed(""));
    }
    Ok(vec![Entry { path: "bin".to_owned(), what: What::Folder }, Entry { path, what }])
}

/// Takes away what killed registrations left.
fn sweep(shelf: &Shelf, folder: &OwnedFd) -> Result<(), ShelfError> {
    for (name, kind) in shelf.names()? {
        let path = shelf.folder().join(&name);
        let is_link = kind == FileType::Symlink && name.starts_with(&format!(".{CURRENT}-"));
        let is_copy = kind == FileType::Directory && name.starts_with(INCOMING);
        if !(is_link || is_copy) {
            continue;
        }
        let failed = |error: std::io::Error| ShelfError::disk("take away", &path, error);
        let Ok(meta) = path.symlink_metadata() else { continue }; // another one was faster
        let age = meta.modified().ok().and_then(|at| wall_time().duration_since(at).ok()).unwrap_or_default();
        if age < LEFT {
            continue;
        }
        if is_link {
            fs::unlinkat(folder, &name, AtFlags::empty()).map_err(|error| failed(error.into()))?;
            continue;
        }
        let Ok(left) = open_folder(folder, &name) else { continue };
        if fs::flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&path).map_err(failed)?;
            tracing::info!(path = %path.display(), "took away what a killed registration left");
        }
    }
    Ok(())
}

/// Removes a folder of ours, whose folders may be read-only. Follows no link.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    fn unlock(path: &Path) -> std::io::Result<()> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                unlock(&entry.path())?;
            }
        }
        Ok(())
    }
    match unlock(path).and_then(|()| std::fs::remove_dir_all(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A folder that was a release on another shelf has a manifest, which is not part of its content. Any other file of that name
/// would be lost.
fn check_manifest(source: &Path, folder: &OwnedFd) -> Result<(), ShelfError> {
    match fs::statat(folder, manifest::FILE, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        _ => read_manifest(folder, "the source").map(drop).map_err(|error| {
            let path = escaped(&source.join(manifest::FILE).to_string_lossy());
            ShelfError::refused(format!("`{path}` has the name of a shelf's manifest, and is none: {error}"))
                .hint("rename it")
        }),
    }
}
