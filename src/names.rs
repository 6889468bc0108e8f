//! Names that people and programs give: queues, kinds, tiers, workers, releases. One rule for all of them, so that a
//! name can never be a path, a key separator, a glob or a terminal escape.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The rule, as errors print it.
pub const PATTERN: &str = "[a-z0-9][a-z0-9._-]{0,63}";
/// Longest name, in characters (all ASCII, so bytes as well).
pub const MAX_NAME: usize = 64;

/// The tier that commands use when none is named.
pub const DEFAULT_TIER: &str = "default";
/// The queue of a kind that names none.
pub const DEFAULT_QUEUE: &str = "default";
/// The kind that stands, in metrics, for all that a process does not know: what others enqueue must not make new series.
pub const OTHER: &str = "other";
/// The queue of canary jobs. It breaks the rule for names, so that nobody but this program can name it.
const CANARY_QUEUE: &str = "~canary";
/// The implicit release of a worker that names none: it activates itself when the tier has no activation yet.
pub const DEFAULT_RELEASE: &str = "default";

/// A name that breaks the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad {what} name `{given}`: it must match `{PATTERN}` (at most {MAX_NAME} characters)")]
pub struct BadName {
    /// What was to be named: `queue`, `kind`, …
    pub what: &'static str,
    /// What was given, escaped and shortened.
    pub given: String,
}

/// Escapes control characters and cuts a text to 80 characters, for error messages: an offending value must be
/// recognisable without being able to reach the reader's terminal.
#[must_use]
pub fn shown(text: &str) -> String {
    shortened(text, 80)
}

/// The same for a text that may be longer: the answer of a program.
#[must_use]
pub fn shown_long(text: &str) -> String {
    shortened(text, 300)
}

fn shortened(text: &str, most: usize) -> String {
    let mut out = escaped(text);
    if out.chars().count() > most {
        out = out.chars().take(most - 1).collect();
        out.push('…');
    }
    out
}

/// Escapes control characters (C0, DEL, C1, and bidirectional overrides) so that a stored text can be printed.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) {
            let code = c as u32;
            if code <= 0xff {
                out.push_str(&format!("\\x{code:02x}"))
            } else {
                out.push_str(&format!("\\u{{{code:x}}}"))
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// What a terminal obeys instead of printing it.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check(what: &'static str, text: &str) -> Result<(), BadName> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && text.len() <= MAX_NAME { Ok(()) } else { Err(BadName { what, given: shown(text) }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks a name against the rule.
            ///
            /// # Errors
            /// When it does not match [`PATTERN`].
            pub fn new(text: &str) -> Result<Self, BadName> {
                check($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(/** The workers that are deployed together, and the queues they serve. */ Tier, "tier");
name!(/** Where a job waits. */ Queue, "queue");
name!(/** What a job is: it picks the handler, by exact name from a static table. */ Kind, "kind");
name!(/** One worker process, by name. Registering a name again takes it over. */ WorkerName, "worker");
name!(/** One release of a tier. */ Release, "release");

impl Default for Tier {
    fn default() -> Self {
        Self(Arc::from(DEFAULT_TIER))
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self(Arc::from(DEFAULT_QUEUE))
    }
}

impl Queue {
    /// The queue of every tier's canary jobs: `~canary`, a name that [`Queue::new`] refuses. No app sees it: it is not in
    /// a census, and in a page only when it is asked for.
    #[must_use]
    pub fn canaries() -> Self {
        Self(Arc::from(CANARY_QUEUE))
    }

    /// Whether this is the queue of canary jobs.
    #[must_use]
    pub fn is_canaries(&self) -> bool {
        &*self.0 == CANARY_QUEUE
    }

    /// A name that a store gave back: one of ours is among them.
    ///
    /// # Errors
    /// As [`Queue::new`].
    #[cfg(any(feature = "sqlite", feature = "redis"))]
    pub(crate) fn stored(text: &str) -> Result<Self, BadName> {
        if text == CANARY_QUEUE { Ok(Self::canaries()) } else { Self::new(text) }
    }
}

impl Kind {
    /// The kind that stands for all that a process does not know, in metrics.
    pub(crate) fn other() -> Self {
        Self(Arc::from(OTHER))
    }
}

impl WorkerName {
    /// What a process is called that runs a job which it enqueues.
    #[cfg(feature = "worker")]
    pub(crate) fn caller() -> Self {
        Self(Arc::from(format!("caller-{}", std::process::id())))
    }
}

impl Default for Release {
    fn default() -> Self {
        Self(Arc::from(DEFAULT_RELEASE))
    }
}

impl Release {
    /// Whether this is the implicit release: a tier where it is active is unmanaged.
    #[must_use]
    pub fn is_implicit(&self) -> bool {
        &*self.0 == DEFAULT_RELEASE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn h02_bad_queue_names_are_refused_with_the_pattern() {
        let long = "q".repeat(65);
        for bad in ["", &long, "../x", "a{b}c", "a:b", "✉", "%00", "-leading", "UPPER", "a b", "a\0"] {
            let error = Queue::new(bad).unwrap_err().to_string();
            assert!(error.contains(PATTERN), "{error}");
        }
        for good in ["mail", "a", "0", "x.y_z-1", &"q".repeat(64)] {
            assert!(Queue::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn nobody_can_name_the_queue_of_canaries_but_a_store_knows_it() {
        assert!(Queue::new(CANARY_QUEUE).is_err());
        assert!(serde_json::from_str::<Queue>("\"~canary\"").is_err());
        #[cfg(any(feature = "sqlite", feature = "redis"))]
        assert!(Queue::stored(CANARY_QUEUE).unwrap().is_canaries() && Queue::stored("~other").is_err());
    }

    #[test]
    fn h03_control_characters_never_reach_the_terminal() {
        assert_eq!(escaped("a\x1b[2Jb\r\u{7}"), "a\\x1b[2Jb\\x0d\\x07");
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 80);
    }
}
