//! Why the shelf or a record could not do what was asked.

use std::fmt;
use std::path::Path;

/// The class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShelfErrorKind {
    /// What was given is not fit to be a release, or a name is refused.
    Refused,
    /// The name belongs to other content, or somebody else is at it.
    Conflict,
    /// It is not there.
    Unknown,
    /// It is there, and is not what was registered.
    Damaged,
    /// A newer version wrote it.
    Newer,
    /// The file system could not do it.
    Disk,
    /// The caller gave up.
    Stopped,
}

/// What could not be done, with which file, why, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ShelfError {
    /// The class.
    pub kind: ShelfErrorKind,
    /// What, which value, which limit.
    pub message: String,
    /// The way out, if there is a known one.
    pub hint: Option<String>,
}

impl ShelfError {
    pub(super) fn new(kind: ShelfErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), hint: None }
    }

    pub(super) fn refused(message: impl fmt::Display) -> Self {
        Self::new(ShelfErrorKind::Refused, message)
    }

    pub(super) fn damaged(message: impl fmt::Display) -> Self {
        Self::new(ShelfErrorKind::Damaged, message)
    }

    /// The file system could not do `what` with a path.
    pub(super) fn disk(what: &str, path: &Path, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let full = matches!(error.raw_os_error(), Some(28 | 122)); // ENOSPC, EDQUOT
        let said = Self::new(
            ShelfErrorKind::Disk,
            format!("cannot {what} `{}`: {error}", crate::names::escaped(&path.to_string_lossy())),
        );
        if full {
            said.hint("free some space (`sluicegate release prune`), or move the shelf: `releases.root`")
        } else {
            said
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
