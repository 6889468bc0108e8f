//! What operators tell workers, on the store's versioned records: written once for all engines. A worker reads them again
//! whenever the revision of the tier's controls has risen.
//!
//! | key in `Space::Control` | what it holds |
//! |---|---|
//! | `quiet/all`, `quiet/release/R`, `quiet/worker/W` | a [`Quieting`]; it vanishes by itself when it lapses |
//! | `order/W` | the last [`Order`] to one worker |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Actor, ErrorKind, KEEP_DEAD, MAX_BATCH, Quiet, Space, Store, StoreError, overwrite};
use crate::clock::Timestamp;
use crate::names::{Release, Tier, WorkerName};

/// A worker that comes back later than this does not obey an old order.
const KEEP_ORDER: Duration = Duration::from_secs(300);

/// Which workers are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All of the tier.
    All,
    /// All of a release.
    Release(Release),
    /// One.
    Worker(WorkerName),
}

impl Target {
    /// Whether it means this worker.
    #[must_use]
    pub fn means(&self, worker: &WorkerName, release: &Release) -> bool {
        match self {
            Self::All => true,
            Self::Release(named) => named == release,
            Self::Worker(named) => named == worker,
        }
    }

    fn key(&self) -> String {
        match self {
            Self::All => "quiet/all".to_owned(),
            Self::Release(release) => format!("quiet/release/{release}"),
            Self::Worker(worker) => format!("quiet/worker/{worker}"),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all workers"),
            Self::Release(release) => write!(f, "workers of release {release}"),
            Self::Worker(worker) => write!(f, "worker {worker}"),
        }
    }
}

/// Workers that shall not claim for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quieting {
    /// Who is meant.
    pub target: Target,
    /// Who wants it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Since when (store time).
    pub at: Timestamp,
    /// Until when (store time); `None`: until somebody resumes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What one worker is told to do, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Claim again, whoever quieted it before this.
    Resume,
    /// Stop, as by SIGTERM.
    Stop,
    /// Write down what runs now, under [`dump_key`].
    Dump,
}

impl Order {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Dump => "dump",
        }
    }
}

/// Everything that stands, each with its version: later ones have higher versions, whatever their key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Who shall be quiet.
    pub quietings: Vec<(u64, Quieting)>,
    /// What single workers were told last, and when (store time).
    pub orders: Vec<(u64, Timestamp, WorkerName, Order)>,
}

impl Orders {
    /// What quiets a worker: the latest of what means it, unless it was resumed after that.
    #[must_use]
    pub fn quiets(&self, worker: &WorkerName, release: &Release) -> Option<Quiet> {
        let meant = self.quietings.iter().filter(|(_, quieting)| quieting.target.means(worker, release));
        let (version, quieting) = meant.max_by_key(|(version, _)| *version)?;
        let resumed =
            self.order(worker).is_some_and(|(at, _, order)| order == Order::Resume && at > *version);
        (!resumed).then(|| Quiet {
            owner: quieting.owner.clone(),
            reason: quieting.reason.clone(),
            until: quieting.until,
        })
    }

    /// What a worker was told last: version, time, and what.
    #[must_use]
    pub fn order(&self, worker: &WorkerName) -> Option<(u64, Timestamp, Order)> {
        let mine = self.orders.iter().find(|(_, _, named, _)| named == worker)?;
        Some((mine.0, mine.1, mine.3))
    }
}

/// Reads everything that stands. What a newer version wrote and this one cannot read is left out, with a line in the log.
///
/// # Errors
/// When the store cannot answer.
pub async fn read(store: &dyn Store, tier: &Tier) -> Result<Orders, StoreError> {
    let mut found = Orders::default();
    let mut after: Option<String> = None;
    loop {
        let records = store.records(tier, Space::Control, after.as_deref(), MAX_BATCH).await?;
        let Some(last) = records.last() else { return Ok(found) };
        after = Some(last.key.clone());
        for record in &records {
            if record.key.starts_with("quiet/") {
                match serde_json::from_str(&record.value) {
                    Ok(quieting) => found.quietings.push((record.version, quieting)),
                    Err(error) => tracing::warn!(key = record.key, %error, "cannot read who shall be quiet"),
                }
            } else if let Some(worker) = record.key.strip_prefix("order/") {
                match (WorkerName::new(worker), serde_json::from_str(&record.value)) {
                    (Ok(worker), Ok(order)) => found.orders.push((record.version, record.at, worker, order)),
                    _ => tracing::warn!(key = record.key, "cannot read an order to a worker"),
                }
            }
        }
        if records.len() < MAX_BATCH {
            return Ok(found);
        }
    }
}

/// Quiets workers, for so long or until they are resumed; what stood for the same target is replaced.
///
/// # Errors
/// When the store cannot answer.
pub async fn quiet(
    store: &dyn Store,
    tier: &Tier,
    target: Target,
    span: Option<Duration>,
    by: &Actor,
) -> Result<Quieting, StoreError> {
    let at = store.census(tier).await?.now; // a store without room must be obeyed, too
    let reason = by.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
    let until = span.map(|span| at.plus(span));
    let quieting = Quieting { target, owner: by.who.clone(), reason, at, until };
    let value = text(store, &quieting)?;
    overwrite(store, tier, Space::Control, &quieting.target.key(), &value, span).await?;
    store.append(tier, "worker.quieted", by, &value).await?;
    Ok(quieting)
}

/// Ends what quiets a target, and tells these workers to resume, whatever else quiets them. Answers what stood.
///
/// # Errors
/// When the store cannot answer.
pub async fn resume(
    store: &dyn Store,
    tier: &Tier,
    target: &Target,
    workers: &[WorkerName],
    by: &Actor,
) -> Result<Option<Quieting>, StoreError> {
    let there = overwrite(store, tier, Space::Control, &target.key(), "", None).await?;
    let stood = there.and_then(|record| serde_json::from_str(&record.value).ok());
    for worker in workers {
        // It must outlive every quieting that it lifts.
        put_order(store, tier, worker, Order::Resume, KEEP_DEAD).await?;
    }
    let detail = serde_json::json!({ "target": target, "workers": workers, "stood": stood }).to_string();
    store.append(tier, "worker.resumed", by, &detail).await?;
    Ok(stood)
}

/// Tells one worker to do something.
///
/// # Errors
/// When the store cannot answer.
pub async fn order(
    store: &dyn Store,
    tier: &Tier,
    worker: &WorkerName,
    order: Order,
    by: &Actor,
) -> Result<(), StoreError> {
    put_order(store, tier, worker, order, KEEP_ORDER).await?;
    let detail = serde_json::json!({ "worker": worker, "order": order.as_str() }).to_string();
    store.append(tier, "worker.ordered", by, &detail).await?;
    Ok(())
}

/// Where a worker writes what runs now.
#[must_use]
pub fn dump_key(worker: &WorkerName) -> String {
    format!("dump/{worker}")
}

async fn put_order(
    store: &dyn Store,
    tier: &Tier,
    worker: &WorkerName,
    order: Order,
    keep: Duration,
) -> Result<(), StoreError> {
    let value = text(store, &order)?;
    overwrite(store, tier, Space::Control, &format!("order/{worker}"), &value, Some(keep)).await.map(drop)
}

fn text<T: Serialize>(store: &dyn Store, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::new("write", store.about().location, ErrorKind::Refused, error))
}
