//! Lets users watch their own pipeline go red. A simulation is one *presence* in the store, of the active release, that
//! says what a sick worker says. It claims nothing, serves no queue and knows no kind, so no real job can come near it;
//! while it lives a gate requires every worker that is there, so that it turns red whatever the asker wants; it says in its
//! name and its reason what it is; and it is gone when it ends, or, if its process is killed, as soon as it is stale.

use std::fmt;
use std::time::Duration;

use super::rules::STARTING;
use crate::activation::{Activation, WorkerState};
use crate::clock;
use crate::health::probe::CLAIM;
use crate::ids::Nonce;
use crate::names::{BadName, Tier, WorkerName};
use crate::store::{Beat, Presence, SIMULATED, Store, StoreError};

/// As often as real workers.
pub const BEAT: Duration = Duration::from_secs(3);

/// What ails the made-up worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Illness {
    /// It came up and does not become active: StatusPage, 2017.
    Inactive,
    /// Its slots hold jobs that ignore their cancellation.
    Stuck,
    /// It answers and claims nothing: Airflow's ping.
    NoClaims,
}

impl Illness {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inactive, Self::Stuck, Self::NoClaims];

    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Stuck => "stuck",
            Self::NoClaims => "no-claims",
        }
    }
}

impl fmt::Display for Illness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A made-up worker.
#[derive(Debug)]
pub struct Simulation {
    presence: Presence,
}

impl Simulation {
    /// Of the active release.
    ///
    /// # Errors
    /// Never in practice: the name is a good one.
    pub fn new(illness: Illness, activation: &Activation) -> Result<Self, BadName> {
        let name = WorkerName::new(&format!("{SIMULATED}{illness}"))?;
        let long = STARTING;
        let mut presence = Presence {
            joining: true,
            host: "simulated".to_owned(),
            generation: activation.generation,
            state: WorkerState::Active,
            state_age: long,
            reason: Some("made up by `doctor --simulate`".to_owned()),
            queues: Some(Vec::new()),
            claim_age: Some(Duration::ZERO),
            canary_age: Some(Duration::ZERO),
            ..Presence::new(name, Nonce::new(), activation.release.clone())
        };
        match illness {
            Illness::Inactive => presence.state = WorkerState::Inactive,
            Illness::Stuck => (presence.busy, presence.stuck) = (presence.slots, presence.slots),
            Illness::NoClaims => presence.claim_age = Some(CLAIM + long),
        }
        Ok(Self { presence })
    }

    /// Its name.
    #[must_use]
    pub const fn worker(&self) -> &WorkerName {
        &self.presence.worker
    }

    #[cfg(test)]
    pub(super) const fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Says that it lives.
    ///
    /// # Errors
    /// When the store does not hear it.
    pub async fn beat(&mut self, store: &dyn Store, tier: &Tier) -> Result<Beat, StoreError> {
        self.presence.clock = clock::wall();
        let heard = store.beat(tier, &self.presence).await?;
        self.presence.joining = false;
        Ok(heard)
    }

    /// Says goodbye: nothing of it is left.
    ///
    /// # Errors
    /// When the store does not hear it.
    pub async fn end(mut self, store: &dyn Store, tier: &Tier) -> Result<(), StoreError> {
        self.presence.state = WorkerState::Stopped;
        self.beat(store, tier).await.map(drop)
    }
}
