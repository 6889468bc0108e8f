//! Whether the process that enqueues a job runs it itself, before the queue has its turn.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The deadline of a run in the caller, unless the kind says otherwise.
pub const BYPASS_DEADLINE: Duration = Duration::from_secs(1);
/// No kind may have its callers wait longer.
pub const MAX_BYPASS_DEADLINE: Duration = Duration::from_secs(10);

/// Whether the caller runs a job at once, within a short deadline, and queues what fails. It goes around the tier, and so
/// around its activation, pauses and limits. Only for kinds that are safe to repeat: when the store is away, or the caller
/// dies in between, nobody can know whether the job ran, and then it may run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bypass {
    /// A worker runs it.
    #[default]
    Never,
    /// The caller runs it when no worker that could take it is active, or the store is away.
    WhenInactive,
    /// The caller runs it first, whatever the tier does.
    First,
}

impl Bypass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Never, Self::WhenInactive, Self::First];

    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::WhenInactive => "when-inactive",
            Self::First => "first",
        }
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Bypass {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|bypass| bypass.as_str() == text).ok_or_else(|| {
            format!(
                "`{}` is no bypass: expected `never`, `when-inactive` or `first`",
                crate::names::shown(text)
            )
        })
    }
}
