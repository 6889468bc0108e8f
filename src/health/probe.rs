//! The questions, and what may be asked with them.

use std::borrow::Cow;
use std::time::Duration;

/// The question of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Would a restart help? Fails only then.
    Live,
    /// May this worker be given work? Fails whenever work would not move.
    Ready,
    /// Is it active, or warm, proven and standing by? Ready in all other respects: what starts a standby asks this, and
    /// must not call it broken.
    Staged,
    /// Has it registered and proved itself, once?
    Startup,
    /// Would a deploy count on it? Ready, with what the tier's gate asks of a worker besides: a canary that came back,
    /// and no kind that fails.
    Deploy,
}

impl Probe {
    /// Every question.
    pub const ALL: [Self; 5] = [Self::Live, Self::Ready, Self::Staged, Self::Startup, Self::Deploy];

    /// The path, without its slash.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
            Self::Staged => "readyz/staged",
            Self::Startup => "startupz",
            Self::Deploy => "health/deploy",
        }
    }

    /// The name of the group, as `health GROUP` takes it.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Staged => "staged",
            Self::Startup => "startup",
            Self::Deploy => "deploy",
        }
    }

    /// What it asks, in words.
    #[must_use]
    pub const fn question(self) -> &'static str {
        match self {
            Self::Live => "would a restart help?",
            Self::Ready => "may this worker be given work?",
            Self::Staged => "is this worker active, or proven and standing by?",
            Self::Startup => "has this worker registered and proved itself?",
            Self::Deploy => "may this worker replace the old one?",
        }
    }
}

/// What a probe was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The question.
    pub probe: Probe,
    /// Only this check of it.
    pub only: Option<&'static str>,
    /// Without these; names that are no checks change nothing.
    pub exclude: Vec<String>,
    /// The release that the asker expects.
    pub release: Option<String>,
}

impl From<Probe> for Ask {
    fn from(probe: Probe) -> Self {
        Self { probe, only: None, exclude: Vec::new(), release: None }
    }
}

impl Ask {
    pub(super) fn includes(&self, name: &str) -> bool {
        self.only.is_none_or(|only| only == name) && !self.exclude.iter().any(|other| other == name)
    }

    pub(super) fn path(&self) -> Cow<'static, str> {
        match self.only {
            None => Cow::Borrowed(self.probe.as_str()),
            Some(check) => Cow::Owned(format!("{}/{check}", self.probe.as_str())),
        }
    }
}

/// A job runtime that does not tick for so long is blocked.
pub const RUNTIME: Duration = Duration::from_secs(5);
/// Free slots and no answered claim for so long is trouble.
pub const CLAIM: Duration = Duration::from_secs(15);
/// A claim loop turns at least once a second; one that has not for so long is dead.
pub const LOOP: Duration = Duration::from_secs(7);
/// Jobs wait, slots are free, and nothing starts for so long.
pub const PROGRESS: Duration = Duration::from_secs(30);
/// A canary runs every ten seconds: three may be missed.
pub const CANARY: Duration = Duration::from_secs(35);
/// A store may be away for so long.
pub const STORE: Duration = Duration::from_secs(5);

/// Where "late" begins for one worker; a gate judges the whole tier by the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Age of the runtime's last tick.
    pub runtime: Duration,
    /// Age of the last answered claim.
    pub claim: Duration,
    /// Waiting jobs, free slots, and nothing started or ended.
    pub progress: Duration,
    /// How long a store may be away before this worker is not ready.
    pub store: Duration,
    /// Age of the last canary that came back.
    pub canary: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { runtime: RUNTIME, claim: CLAIM, progress: PROGRESS, store: STORE, canary: CANARY }
    }
}
