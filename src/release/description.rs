//! What a release runs, as its own program tells it.

use serde::{Deserialize, Serialize};

use crate::job::registry::Registry;
use crate::names::{Kind, Queue};

/// The version of descriptions that this program reads and writes.
pub const FORMAT: u32 = 1;

/// What a program runs: its own answer to `release describe --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// The kinds, by name.
    pub kinds: Vec<DescribedKind>,
    /// The queues it serves; `None` for all of the tier.
    #[serde(default)]
    pub queues: Option<Vec<Queue>>,
    /// Its schedules. No program has any yet.
    #[serde(default)]
    pub schedules: Vec<serde_json::Value>,
}

/// One kind that a release runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedKind {
    /// Its name.
    pub name: Kind,
    /// The newest version of its arguments that the release reads.
    pub version: u32,
    /// The queue its jobs wait in unless the caller names another.
    pub queue: Queue,
    /// Whether it declares a payload for canary jobs.
    #[serde(default)]
    pub canary: bool,
}

impl Description {
    /// What this very program runs.
    #[must_use]
    pub fn of(registry: &Registry, queues: Option<Vec<Queue>>) -> Self {
        let kinds = registry.infos().map(|info| DescribedKind {
            name: info.kind.clone(),
            version: info.version,
            queue: info.queue.clone(),
            canary: info.canary.is_some(),
        });
        Self { format: FORMAT, kinds: kinds.collect(), queues, schedules: Vec::new() }
    }

    /// The same, sorted.
    ///
    /// # Errors
    /// Says in words what contradicts itself, or that a newer version wrote it.
    pub fn checked(mut self) -> Result<Self, String> {
        if self.format != FORMAT {
            return Err(format!("its format is {}, this program reads {FORMAT}", self.format));
        }
        if self.kinds.is_empty() {
            return Err("it runs no kind of job".to_owned());
        }
        self.kinds.sort_by(|a, b| a.name.cmp(&b.name));
        let names = self.kinds.iter().map(|kind| &kind.name);
        if let Some((twice, _)) = names.clone().zip(names.skip(1)).find(|(one, next)| one == next) {
            return Err(format!("kind `{twice}` is there twice"));
        }
        if let Some(queues) = &mut self.queues {
            queues.sort();
            queues.dedup();
        }
        Ok(self)
    }
}
