//! The durable record of side effects, over the store's versioned records: begun before, sent after.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{KEEP_DEAD, Put, Record, Space, Store, overwrite};
use crate::ids::JobId;
use crate::job::handler::{Effect, Effects, JobError};
use crate::names::{Tier, WorkerName};

/// Longest key of an effect, in bytes.
const MAX_KEY: usize = 200;
/// A record that changes under us so often is not ours to write.
const TRIES: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Begun,
    Sent,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    state: Phase,
    /// Who wrote it, for a person who has to decide: a worker, or the caller that ran the job itself.
    worker: WorkerName,
}

/// [`Effects`] over a store.
pub(crate) struct StoreEffects {
    store: Arc<dyn Store>,
    tier: Tier,
    worker: WorkerName,
}

impl StoreEffects {
    pub(crate) fn new(store: &Arc<dyn Store>, tier: &Tier, worker: &WorkerName) -> Self {
        Self { store: Arc::clone(store), tier: tier.clone(), worker: worker.clone() }
    }

    fn text(&self, state: Phase) -> Result<String, JobError> {
        Ok(serde_json::to_string(&Entry { state, worker: self.worker.clone() })?)
    }

    async fn write(&self, key: &str, value: &str) -> Result<(), JobError> {
        overwrite(&*self.store, &self.tier, Space::Effect, key, value, Some(KEEP_DEAD)).await?;
        Ok(())
    }
}

#[async_trait]
impl Effects for StoreEffects {
    async fn begin(&self, job: JobId, key: &str) -> Result<Effect, JobError> {
        let (key, begun) = (full_key(job, key)?, self.text(Phase::Begun)?);
        for _ in 0..TRIES {
            match self.store.put(&self.tier, Space::Effect, &key, 0, &begun, Some(KEEP_DEAD)).await? {
                Put::Done(_) => return Ok(Effect::Fresh),
                Put::Raced(Some(record)) => return Ok(judge(&record)),
                Put::Raced(None) => {} // it went away just now
            }
        }
        Err(raced(&key))
    }

    async fn sent(&self, job: JobId, key: &str) -> Result<(), JobError> {
        self.write(&full_key(job, key)?, &self.text(Phase::Sent)?).await
    }

    async fn not_sent(&self, job: JobId, key: &str) -> Result<(), JobError> {
        self.write(&full_key(job, key)?, "").await
    }
}

/// What an earlier attempt left. A record that cannot be read says that something was begun, and no more.
fn judge(record: &Record) -> Effect {
    match serde_json::from_str::<Entry>(&record.value) {
        Ok(Entry { state: Phase::Sent, .. }) => Effect::Sent,
        Ok(_) | Err(_) => Effect::Unknown,
    }
}

fn full_key(job: JobId, key: &str) -> Result<String, JobError> {
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
        let given = crate::names::shown(key);
        return Err(format!(
            "effect key `{given}` is out of range: 1 to {MAX_KEY} bytes without control characters"
        )
        .into());
    }
    Ok(format!("{job}/{key}"))
}

fn raced(key: &str) -> JobError {
    format!("effect record `{}` changed {TRIES} times while it was written", crate::names::shown(key)).into()
}

impl fmt::Debug for StoreEffects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreEffects").field("tier", &self.tier).finish_non_exhaustive()
    }
}
