//! Trees of files by handles: every step down opens one name of a folder that is held open, and follows no link, so that
//! nobody can swap what was checked for something else before it is read.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::{ShelfError, ShelfErrorKind};
use super::manifest::{Entry, FILE, What, hex};
use crate::names::shown;

/// Most files, links and folders of a release.
pub(super) const MAX_ENTRIES: usize = 100_000;
/// Most folders within each other.
const MAX_DEPTH: usize = 64;
/// Longest path inside of a release, in bytes.
const MAX_PATH: usize = 1_024;
const PART: usize = 1 << 17;

/// What may not be opened in passing: links, devices that act when they are opened, pipes that wait for a writer.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A folder that is read: where it is, for messages, and its handle.
pub(super) struct Root<'a> {
    pub(super) path: &'a Path,
    pub(super) folder: BorrowedFd<'a>,
    /// A folder that may not be within: copied into itself, a shelf would never end.
    pub(super) shelf: Option<(u64, u64)>,
}

/// What a walk meets.
struct Met<'a> {
    path: &'a str,
    name: &'a CStr,
    folder: BorrowedFd<'a>,
    stat: Stat,
    kind: FileType,
}

/// What tells whether a file was touched between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    path: String,
    kind: FileType,
    inode: u64,
    size: i64,
    changed: (i64, u64),
}

pub(super) fn open_folder(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    fs::openat(
        at,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Device and inode: what a folder is, whatever it is called.
pub(super) fn identity(folder: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = fs::fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Root<'_> {
    /// Everything there is, without reading any content: what cannot be in a release is found before anything is copied.
    pub(super) fn look(&self) -> Result<Vec<Stamp>, ShelfError> {
        let mut stamps = Vec::new();
        self.walk(&mut |met| {
            stamps.push(Stamp {
                path: met.path.to_owned(),
                kind: met.kind,
                inode: met.stat.st_ino,
                size: met.stat.st_size,
                changed: (met.stat.st_ctime, met.stat.st_ctime_nsec),
            });
            Ok(())
        })?;
        Ok(stamps)
    }

    /// Every file with its digest, by path.
    pub(super) fn read(&self, stop: &AtomicBool) -> Result<Vec<Entry>, ShelfError> {
        let mut entries = Vec::new();
        self.walk(&mut |met| {
            if met.path == FILE {
                return Ok(());
            }
            let what = match met.kind {
                FileType::Directory => What::Folder,
                FileType::Symlink => What::Link { target: self.target(met)? },
                _ => {
                    let (mut file, executable) = self.open(met)?;
                    let (size, sha256) = hashed(&mut file, stop, |_| Ok(()))
                        .map_err(|error| self.failed("read", met.path, error))?;
                    What::File { size, executable, sha256 }
                }
            };
            entries.push(Entry { path: met.path.to_owned(), what });
            Ok(())
        })?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Copies everything into an empty folder of ours. The digests are of what was read, byte by byte.
    pub(super) fn copy(&self, to: &Root<'_>, stop: &AtomicBool) -> Result<Vec<Entry>, ShelfError> {
        let mut entries = Vec::new();
        let mut links = Vec::new();
        self.walk(&mut |met| {
            if met.path == FILE {
                return Ok(());
            }
            let what = match met.kind {
                FileType::Directory => {
                    fs::mkdirat(to.folder, met.path, Mode::from_raw_mode(0o700))
                        .map_err(|error| to.failed("make", met.path, error.into()))?;
                    What::Folder
                }
                FileType::Symlink => {
                    let target = self.target(met)?;
                    links.push((met.path.to_owned(), target.clone()));
                    What::Link { target }
                }
                _ => {
                    let (mut file, executable) = self.open(met)?;
                    to.write(met.path, &mut file, executable, self, stop)?
                }
            };
            entries.push(Entry { path: met.path.to_owned(), what });
            Ok(())
        })?;
        // Last, so that nothing is ever written through one.
        for (path, target) in links {
            fs::symlinkat(&target, to.folder, &path)
                .map_err(|error| to.failed("make", &path, error.into()))?;
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Copies one file into this folder of ours.
    pub(super) fn write(
        &self,
        path: &str,
        from: &mut File,
        executable: bool,
        source: &Root<'_>,
        stop: &AtomicBool,
    ) -> Result<What, ShelfError> {
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |error| self.failed("write", path, error);
        let file = fs::openat(self.folder, path, new, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.map_err(|error| failed(error.into()))?);
        let mut broken = None;
        let copied = hashed(from, stop, |part| {
            file.write_all(part).inspect_err(|error| broken = Some(error.raw_os_error()))
        });
        let (size, sha256) = match (copied, broken) {
            (Ok(copied), _) => copied,
            (Err(error), Some(_)) => return Err(failed(error)),
            (Err(error), None) => return Err(source.failed("read", path, error)),
        };
        fs::fchmod(&file, Mode::from_raw_mode(if executable { 0o555 } else { 0o444 }))
            .map_err(|error| failed(error.into()))?;
        Ok(What::File { size, executable, sha256 })
    }

    /// Opens what the walk met, if it still is a plain file.
    fn open(&self, met: &Met<'_>) -> Result<(File, bool), ShelfError> {
        let opened = fs::openat(met.folder, met.name, OFlags::RDONLY | CAREFUL, Mode::empty());
        let file = opened.map_err(|error| self.failed("read", met.path, error.into()))?;
        let stat = fs::fstat(&file).map_err(|error| self.failed("read", met.path, error.into()))?;
        self.fit(met.path, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.changed(met.path));
        }
        Ok((File::from(file), stat.st_mode & 0o111 != 0))
    }

    /// Where a link leads, if that is certainly inside: up at most to the root, and only then down. What it goes down through
    /// are folders, and links for which the same holds.
    fn target(&self, met: &Met<'_>) -> Result<String, ShelfError> {
        let read = fs::readlinkat(met.folder, met.name, Vec::new());
        let target = read.map_err(|error| self.failed("read", met.path, error.into()))?;
        let bad = |why: &str| {
            let target = shown(&target.to_string_lossy());
            let message = format!("`{}` is a link to `{target}`, which {why}", self.of(met.path));
            Err(ShelfError::refused(message)
                .hint("put the file itself into the release, or a link to it inside"))
        };
        let Ok(text) = target.to_str() else { return bad("is not UTF-8") };
        if text.starts_with('/') {
            return bad("is an absolute path");
        }
        let up = text.split('/').take_while(|part| matches!(*part, ".." | ".")).collect::<Vec<_>>();
        if text.split('/').skip(up.len()).any(|part| part == "..") {
            return bad("goes down and up again, so that nobody can tell where it leads");
        }
        if up.iter().filter(|part| **part == "..").count() > met.path.matches('/').count() {
            return bad("leads out of the release");
        }
        Ok(text.to_owned())
    }

    fn walk(&self, visit: &mut dyn FnMut(&Met<'_>) -> Result<(), ShelfError>) -> Result<(), ShelfError> {
        let mut count = 0;
        self.walk_folder(self.folder, "", 1, &mut count, visit)
    }

    fn walk_folder(
        &self,
        folder: BorrowedFd<'_>,
        prefix: &str,
        depth: usize,
        count: &mut usize,
        visit: &mut dyn FnMut(&Met<'_>) -> Result<(), ShelfError>,
    ) -> Result<(), ShelfError> {
        let failed = |error: Errno| self.failed("read", prefix, error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
                *count += 1;
            }
            if *count > MAX_ENTRIES {
                return Err(ShelfError::refused(format!(
                    "`{}` has more than {MAX_ENTRIES} files and folders",
                    self.path.display()
                ))
                .hint("register the folder that holds the release, and nothing else"));
            }
        }
        names.sort();
        for name in names {
            let Ok(text) = name.to_str() else {
                let path = self.of(&format!("{prefix}{}", name.to_string_lossy()));
                return Err(
                    ShelfError::refused(format!("the name of `{path}` is not UTF-8")).hint("rename it")
                );
            };
            let path = format!("{prefix}{text}");
            let stat = fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("read", &path, error.into()))?;
            if path.len() > MAX_PATH || depth > MAX_DEPTH {
                return Err(ShelfError::refused(format!(
                    "`{}` is too deep: at most {MAX_DEPTH} folders within each other, and {MAX_PATH} bytes of path",
                    self.of(&path)
                )));
            }
            self.fit(&path, &stat)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            visit(&Met { path: &path, name: &name, folder, stat, kind })?;
            if kind == FileType::Directory {
                let inner =
                    open_folder(folder, &name).map_err(|error| self.failed("read", &path, error.into()))?;
                if self.shelf.is_some() && self.shelf == identity(&inner).ok() {
                    return Err(ShelfError::refused(format!(
                        "`{}` is the shelf itself: a release cannot hold the shelf it is put on",
                        self.of(&path)
                    ))
                    .hint("register the folder that holds the release alone, or move the shelf: `releases.root`"));
                }
                self.walk_folder(inner.as_fd(), &format!("{path}/"), depth + 1, count, visit)?;
            }
        }
        Ok(())
    }

    /// Only files, folders and links can be in a release; none that runs as somebody else.
    fn fit(&self, path: &str, stat: &Stat) -> Result<(), ShelfError> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_mode & 0o6000 != 0 => {
                return Err(ShelfError::refused(format!(
                    "`{}` is setuid or setgid (mode {:04o})",
                    self.of(path),
                    stat.st_mode & 0o7777
                ))
                .hint(format!("chmod u-s,g-s {}", self.of(path))));
            }
            FileType::RegularFile | FileType::Directory | FileType::Symlink => return Ok(()),
            FileType::Fifo => "a named pipe",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "no file that could be copied",
        };
        Err(ShelfError::refused(format!("`{}` is {what}", self.of(path)))
            .hint("a release holds files, folders, and links within itself"))
    }

    fn of(&self, path: &str) -> String {
        crate::names::escaped(&self.path.join(path.trim_end_matches('/')).to_string_lossy())
    }

    pub(super) fn changed(&self, path: &str) -> ShelfError {
        ShelfError::refused(format!("`{}` changed while it was copied", self.of(path)))
            .hint("register it when nothing writes there any more")
    }

    pub(super) fn failed(&self, what: &str, path: &str, error: std::io::Error) -> ShelfError {
        match (error.kind(), error.raw_os_error().map(Errno::from_raw_os_error)) {
            (std::io::ErrorKind::Interrupted, None) => {
                ShelfError::new(ShelfErrorKind::Stopped, "stopped before it was done")
            }
            // It was there when its folder was read.
            (_, Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) if what == "read" && !path.is_empty() => {
                self.changed(path)
            }
            (_, Some(Errno::ACCESS | Errno::PERM)) if what == "read" => {
                ShelfError::refused(format!("cannot read `{}`: {error}", self.of(path)))
                    .hint("a release is read as a whole: make every file of it readable")
            }
            _ => {
                let path: PathBuf = self.path.join(path.trim_end_matches('/'));
                ShelfError::disk(what, &path, error)
            }
        }
    }
}

/// The path of the first thing that differs between two looks.
pub(super) fn first_change<'a>(before: &'a [Stamp], after: &'a [Stamp]) -> Option<&'a str> {
    let differs = before.iter().zip(after).find(|(a, b)| a != b).map(|(a, b)| a.path.as_str().min(&b.path));
    let longer = if before.len() > after.len() { before } else { after };
    differs.or_else(|| longer.get(before.len().min(after.len())).map(|stamp| stamp.path.as_str()))
}

/// Reads to the end, gives every part away, and answers size and digest.
pub(super) fn hashed(
    file: &mut File,
    stop: &AtomicBool,
    mut also: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(u64, String)> {
    let (mut hash, mut size, mut part) = (Sha256::new(), 0, vec![0; PART]);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let read = match file.read(&mut part) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            return Ok((size, hex(&hash.finalize())));
        }
        let read = part.get(..read).unwrap_or_default();
        hash.update(read);
        also(read)?;
        size += read.len() as u64;
    }
}
