//! What a release is, as one value: every file with its digest, what starts it, what it runs. Two hosts hold the same
//! release exactly when the digests of their manifests are equal.

use std::fs::File;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::description::Description;
use super::error::{ShelfError, ShelfErrorKind};
use super::records::ReleaseRecord;
use super::tree::hashed;
use crate::names::{Release, shown};

/// The version of manifests that this program reads and writes.
pub const FORMAT: u32 = 1;
/// The manifest of a release stands in its own folder, so that both appear by one rename; a release may not have a file of
/// this name.
pub const FILE: &str = ".sluicegate.json";

/// A release: what it is made of, what starts it, what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// Its name. Not part of its digest: the same content under two names has one digest.
    pub release: Release,
    /// The program, as a path inside.
    pub program: String,
    /// Arguments for `work`, beyond those of whoever starts it.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its part of the configuration, as a path inside.
    #[serde(default)]
    pub config: Option<String>,
    /// The activation hook: a path inside, and arguments; empty when there is none.
    #[serde(default)]
    pub hook: Vec<String>,
    /// Of what must be what it was whenever it is started.
    pub digests: Digests,
    /// What it runs.
    pub description: Description,
    /// Everything in it, by path.
    pub files: Vec<Entry>,
}

/// SHA-256, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Of all files together: paths, executable bits, links and contents.
    pub artifact: String,
    /// Of the program: what a worker of this release says of itself.
    pub program: String,
    /// Of its part of the configuration.
    #[serde(default)]
    pub config: Option<String>,
    /// Of the activation hook's file.
    #[serde(default)]
    pub hook: Option<String>,
}

/// One file, link or folder of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the release's folder, with `/` between.
    pub path: String,
    /// What is there.
    #[serde(flatten)]
    pub what: What,
}

/// What an entry is. Owners, times and all bits of the mode but the executable one do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// A file.
    File {
        /// Bytes.
        size: u64,
        /// Whether it can be executed.
        executable: bool,
        /// SHA-256 of its content, in hex.
        sha256: String,
    },
    /// A symbolic link to something inside.
    Link {
        /// As it is written.
        target: String,
    },
    /// A folder.
    Folder,
}

impl Manifest {
    /// SHA-256 of what the release is, in hex: of its JSON without the name, with sorted keys and no spaces.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut value = serde_json::json!(self);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("release");
        }
        sha256(value.to_string().as_bytes())
    }

    /// Its entry of a path.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&Entry> {
        let at = self.files.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.files.get(at)
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn size(&self) -> u64 {
        let size = |entry: &Entry| match entry.what {
            What::File { size, .. } => size,
            What::Link { .. } | What::Folder => 0,
        };
        self.files.iter().map(size).sum()
    }

    /// What the store keeps of it.
    #[must_use]
    pub fn record(&self) -> ReleaseRecord {
        let mut record = ReleaseRecord::new(self.release.clone(), self.digest(), self.description.clone());
        record.program = Some(self.digests.program.clone());
        record.config.clone_from(&self.digests.config);
        record.hook.clone_from(&self.digests.hook);
        record
    }

    pub(super) fn read(bytes: &[u8], of: &str) -> Result<Self, ShelfError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged =
            |why: String| ShelfError::damaged(format!("the manifest of {of} cannot be read: {why}"));
        let Version { format } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if format != FORMAT {
            let message = format!("the manifest of {of} has format {format}, this program reads {FORMAT}");
            return Err(
                ShelfError::new(ShelfErrorKind::Newer, message).hint("use the program that registered it")
            );
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if !read.files.is_sorted_by(|a, b| a.path < b.path) {
            return Err(damaged("its files are not sorted".to_owned()));
        }
        for path in [Some(&read.program), read.config.as_ref(), read.hook.first()].into_iter().flatten() {
            inside(path).map_err(|why| damaged(format!("`{}` {why}", shown(path))))?;
        }
        Ok(read)
    }
}

/// A path below a release's folder: relative, without detours, so that it cannot lead out.
pub(super) fn inside(path: &str) -> Result<(), &'static str> {
    if path.starts_with('/') {
        return Err("is an absolute path: name it from the release's own folder, such as `bin/app`");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(
            "must be a plain path inside of the release, such as `bin/app`, without `..`, `.` or `//`",
        );
    }
    if path.contains('\0') { Err("has a NUL byte") } else { Ok(()) }
}

/// SHA-256 of all entries together.
pub(super) fn artifact_digest(files: &[Entry]) -> String {
    sha256(serde_json::json!(files).to_string().as_bytes())
}

/// SHA-256, in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of what is left of a file, in hex.
///
/// # Errors
/// When it cannot be read.
pub fn digest_of(mut file: File) -> std::io::Result<String> {
    hashed(&mut file, &AtomicBool::new(false), |_| Ok(())).map(|(_, digest)| digest)
}

pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_inside_is_plain() {
        for good in ["bin/app", "app", "a b/ü", ".hidden/x", "a..b"] {
            assert_eq!(inside(good), Ok(()), "{good}");
        }
        for bad in ["", "/bin/ls", "..", "../x", "a/../x", "a/./x", "./x", "a//x", "a/", "a\0b"] {
            assert!(inside(bad).is_err(), "{bad:?}");
        }
    }
}
