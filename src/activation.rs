//! Worker states, the activation record, and the one decision that every claim rests on. Pure: engines call
//! [`decide`] inside the atomic step that takes jobs (or mirror it, and are tested against it).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::names::Release;

/// What a worker process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Up, not yet proven: it registers, and a canary of its own must come back through the store.
    Starting,
    /// Up, warm, proven, not allowed to claim.
    Inactive,
    /// Claiming: the store's answer to its claim said so. Never self-declared.
    Active,
    /// Told to stop claiming, with an owner, a reason and an expiry.
    Quiet,
    /// Finishing what runs.
    Stopping,
    /// Gone.
    Stopped,
}

impl WorkerState {
    /// Every state, in order.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Inactive, Self::Active, Self::Quiet, Self::Stopping, Self::Stopped];

    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Inactive => "inactive",
            Self::Active => "active",
            Self::Quiet => "quiet",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Every legal move between worker states.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use WorkerState as W;
        matches!(
            (self, next),
            (W::Starting, W::Inactive | W::Quiet | W::Stopping | W::Stopped)
                | (W::Inactive, W::Active | W::Quiet | W::Stopping)
                | (W::Active, W::Inactive | W::Quiet | W::Stopping)
                | (W::Quiet, W::Inactive | W::Active | W::Stopping)
                | (W::Stopping, W::Stopped)
        )
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an activation stands, or reverts by itself unless confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Stands.
    Committed,
    /// Reverts to its fallback at `confirm_by`.
    Provisional,
}

impl Mode {
    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Provisional => "provisional",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The record that every claim of a tier is checked against, atomically, in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Rises with every activation, rollbacks included.
    pub generation: u64,
    /// The release that may claim.
    pub release: Release,
    /// Whether it stands.
    pub mode: Mode,
    /// When a provisional one reverts (store time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<Timestamp>,
    /// What it reverts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Release>,
    /// The deploy that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<String>,
    /// Since when (store time).
    pub since: Timestamp,
}

impl Activation {
    /// The same, standing: nothing reverts it by itself any more.
    #[must_use]
    pub fn committed(&self) -> Self {
        Self { mode: Mode::Committed, confirm_by: None, fallback: None, ..self.clone() }
    }
}

/// What a claim by (release, generation) may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Take jobs; this is the generation to claim with from now on.
    Serve {
        /// The current generation.
        generation: u64,
    },
    /// The dead-man fires: install this activation first (it names the claimer's release), record it in the ledger, and
    /// then serve.
    Revert {
        /// What to install.
        to: Activation,
    },
    /// Take nothing.
    NotActive,
}

/// The fence at claim (rule 2) and the dead-man (rule 4).
///
/// A claim under an old generation of the *active* release is served and told the new one; a claim that knows a newer
/// generation than the store is refused, for then it is the store that went back. A provisional activation past its
/// `confirm_by` is reverted by the first poll of a worker of its fallback: that poll proves that there is something to
/// go back to.
#[must_use]
pub fn decide(current: &Activation, release: &Release, generation: u64, now: Timestamp) -> Decision {
    let overdue = current.mode == Mode::Provisional && current.confirm_by.is_some_and(|by| now > by);
    if overdue && current.fallback.as_ref() == Some(release) {
        return Decision::Revert {
            to: Activation {
                generation: current.generation + 1,
                release: release.clone(),
                mode: Mode::Committed,
                confirm_by: None,
                fallback: None,
                deploy: current.deploy.clone(),
                since: now,
            },
        };
    }
    if current.release == *release && generation <= current.generation {
        Decision::Serve { generation: current.generation }
    } else {
        Decision::NotActive
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn activation(release: &str, generation: u64) -> Activation {
        Activation {
            generation,
            release: Release::new(release).unwrap(),
            mode: Mode::Committed,
            confirm_by: None,
            fallback: None,
            deploy: None,
            since: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn only_the_active_release_is_served() {
        let current = activation("r2", 7);
        let now = Timestamp::from_ms(10);
        let ask =
            |release: &str, generation| decide(&current, &Release::new(release).unwrap(), generation, now);
        assert_eq!(ask("r2", 7), Decision::Serve { generation: 7 });
        assert_eq!(ask("r2", 3), Decision::Serve { generation: 7 });
        assert_eq!(ask("r2", 8), Decision::NotActive);
        assert_eq!(ask("r1", 7), Decision::NotActive);
    }

    #[test]
    fn an_overdue_provisional_activation_reverts_at_the_fallbacks_poll_only() {
        let mut current = activation("r2", 7);
        current.mode = Mode::Provisional;
        current.confirm_by = Some(Timestamp::from_ms(100));
        current.fallback = Some(Release::new("r1").unwrap());
        let ask =
            |release: &str, at| decide(&current, &Release::new(release).unwrap(), 1, Timestamp::from_ms(at));
        assert_eq!(ask("r1", 100), Decision::NotActive);
        assert_eq!(ask("r2", 101), Decision::Serve { generation: 7 });
        match ask("r1", 101) {
            Decision::Revert { to } => {
                assert_eq!((to.generation, to.release.as_str(), to.mode), (8, "r1", Mode::Committed))
            }
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_stopped_worker_stays_stopped() {
        use WorkerState as W;
        for next in [W::Starting, W::Inactive, W::Active, W::Quiet, W::Stopping, W::Stopped] {
            assert!(!W::Stopped.may_become(next));
        }
    }
}
