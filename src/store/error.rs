//! A store that could not answer.

use std::fmt;

/// Why a store could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It cannot be reached, or is locked by another process. Nothing is known to have happened.
    Unavailable,
    /// It did not answer in time. A write may or may not have happened.
    Timeout,
    /// Its settings put jobs at risk: nobody works on it until they are right.
    Unsafe,
    /// No room left.
    Full,
    /// It may not be written.
    ReadOnly,
    /// What it holds is damaged, or is not a store.
    Corrupt,
    /// It was written by a newer version.
    Newer,
    /// This engine or build cannot do that.
    Unsupported,
    /// A limit of the call was broken by the caller.
    Refused,
    /// Credentials are missing, wrong, or do not allow what is needed.
    Denied,
}

/// A store that could not answer: what was tried, where, why, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {op} in store {store}: {detail}")]
pub struct StoreError {
    /// The operation.
    pub op: &'static str,
    /// Where, without passwords.
    pub store: String,
    /// The class.
    pub kind: ErrorKind,
    /// The cause.
    pub detail: String,
    /// The way out, if there is a known one.
    pub hint: Option<String>,
}

impl StoreError {
    /// A new error.
    #[must_use]
    pub fn new(
        op: &'static str,
        store: impl fmt::Display,
        kind: ErrorKind,
        detail: impl fmt::Display,
    ) -> Self {
        Self { op, store: store.to_string(), kind, detail: detail.to_string(), hint: None }
    }

    /// With the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same after a part of the operation was done: nobody knows what became of it, even if nothing could be reached now.
    #[must_use]
    pub fn after_a_part(self) -> Self {
        match self.kind {
            ErrorKind::Unavailable => Self { kind: ErrorKind::Timeout, ..self },
            _ => self,
        }
    }

    /// Whether trying again later can help by itself.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::Full
                | ErrorKind::ReadOnly
                | ErrorKind::Unsafe
        )
    }
}
