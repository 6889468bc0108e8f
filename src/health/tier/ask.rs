//! What a gate is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::names::{Queue, Release, shown};

/// How many workers must be active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinActive {
    /// So many.
    Count(u32),
    /// So many of a hundred that are expected, rounded up.
    Percent(u8),
}

impl FromStr for MinActive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|p| (1..=100).contains(p)).map(Self::Percent),
            None => text.parse().ok().filter(|n| (1..=100_000).contains(n)).map(Self::Count),
        };
        parsed.ok_or_else(|| {
            format!("`{}` is no number of workers: expected such as `6` or `80%` (1 to 100%)", shown(text))
        })
    }
}

impl fmt::Display for MinActive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}

/// What a gate is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateAsk {
    /// Which release; never "the latest".
    pub release: Release,
    /// How many workers of it must be active.
    pub min_active: MinActive,
    /// How many workers of it there should be; without it, those that are there.
    pub expect: Option<u32>,
    /// Queues that must be served.
    pub queues: Vec<Queue>,
    /// Whether a provisional activation will do.
    pub allow_provisional: bool,
    /// The longest that the oldest job of a queue may wait; `None`: however long.
    pub slo: Option<Duration>,
    /// Queues for which it is another time.
    pub slos: BTreeMap<Queue, Duration>,
    /// The generation that the asker knew: a replacement up to then is not news to it.
    pub known: u64,
}

impl GateAsk {
    /// The default question about a release: all of its workers.
    #[must_use]
    pub const fn new(release: Release) -> Self {
        Self {
            release,
            min_active: MinActive::Percent(100),
            expect: None,
            queues: Vec::new(),
            allow_provisional: false,
            slo: None,
            slos: BTreeMap::new(),
            known: 0,
        }
    }
}
