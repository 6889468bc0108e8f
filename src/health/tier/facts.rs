//! What the rules of a tier look at, gathered from its store in a handful of reads.

use serde::Deserialize;

use crate::activation::Activation;
use crate::clock::Timestamp;
use crate::names::{Queue, Release, Tier};
use crate::store::{About, Actor, LedgerEntry, MAX_BATCH, QueueCensus, Seen, Space, Store, StoreError};

/// How far back the ledger is read for former activations. What is older is forgotten: a release that was active so
/// long ago, and of which nothing lives, is answered as unknown.
const LOOK_BACK: u64 = 4 * MAX_BATCH as u64;

/// One tier at one moment.
#[derive(Debug, Clone)]
pub struct TierFacts {
    /// Which.
    pub tier: Tier,
    /// Store time.
    pub now: Timestamp,
    /// What the store says of itself.
    pub about: About,
    /// Why the store takes no writes, if it does not.
    pub unwritable: Option<StoreError>,
    /// The activation, if there is one.
    pub activation: Option<Activation>,
    /// The workers, of every release, living and stale.
    pub workers: Vec<Seen>,
    /// Jobs by queue, kind and state.
    pub queues: Vec<QueueCensus>,
    /// Queues that somebody holds back: what waits there waits rightly.
    pub held: Vec<Held>,
    /// Changes of the activation, newest first.
    pub history: Vec<Change>,
    /// Whether the release that was asked for is on record.
    pub registered: bool,
}

/// A queue that is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub queue: Queue,
    /// Who, and why.
    pub by: Actor,
    /// Until when (store time); `None`: until somebody lets it go.
    pub until: Option<Timestamp>,
}

/// One change of the activation, as the ledger tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was active before.
    pub from: Option<Activation>,
    /// What is since then.
    pub to: Activation,
    /// Who did it.
    pub by: Actor,
    /// When (store time).
    pub at: Timestamp,
    /// `activation.flipped`, `activation.committed` or `activation.reverted`.
    pub event: String,
}

impl Change {
    /// From a line of the ledger, if it tells of one.
    #[must_use]
    pub fn read(entry: &LedgerEntry) -> Option<Self> {
        #[derive(Deserialize)]
        struct Detail {
            from: Option<Activation>,
            to: Activation,
        }
        if !entry.event.starts_with("activation.") {
            return None;
        }
        let Detail { from, to } = serde_json::from_str(&entry.detail).ok()?;
        Some(Self { from, to, by: entry.by.clone(), at: entry.at, event: entry.event.clone() })
    }
}

impl TierFacts {
    /// Reads them.
    ///
    /// # Errors
    /// When the store cannot be read. One that can be read and not written is a fact, not an error.
    pub async fn gather(
        store: &dyn Store,
        tier: &Tier,
        release: Option<&Release>,
    ) -> Result<Self, StoreError> {
        use crate::store::ErrorKind as Kind;
        let (written, unwritable) = match store.probe(tier).await {
            Ok(now) => (Some(now), None),
            Err(error) if matches!(error.kind, Kind::Full | Kind::ReadOnly | Kind::Unsafe) => {
                (None, Some(error))
            }
            Err(error) => return Err(error),
        };
        let census = store.census(tier).await?;
        let registered = match release {
            Some(release) => store.record(tier, Space::Release, release.as_str()).await?.is_some(),
            None => false,
        };
        Ok(Self {
            tier: tier.clone(),
            now: written.unwrap_or(census.now),
            about: store.about(),
            unwritable,
            activation: store.activation(tier).await?,
            workers: store.workers(tier).await?,
            queues: census.queues,
            held: held(store, tier).await?,
            history: history(store, tier).await?,
            registered,
        })
    }
}

/// The queues that are held back.
async fn held(store: &dyn Store, tier: &Tier) -> Result<Vec<Held>, StoreError> {
    let pauses = store.pauses(tier).await?;
    Ok(pauses
        .into_iter()
        .map(|paused| Held { queue: paused.queue, by: paused.by, until: paused.until })
        .collect())
}

/// The last changes of the activation, newest first.
async fn history(store: &dyn Store, tier: &Tier) -> Result<Vec<Change>, StoreError> {
    let mut changes: Vec<Change> =
        ledger_tail(store, tier, LOOK_BACK).await?.iter().filter_map(Change::read).collect();
    changes.reverse();
    Ok(changes)
}

/// The last lines of the ledger, oldest first. The seam reads forward only, so its end is searched for: the sequence has
/// no gaps, so that takes some twenty small reads for a million lines, and one for a ledger that fits a page.
///
/// # Errors
/// When the store cannot be read.
pub async fn ledger_tail(store: &dyn Store, tier: &Tier, most: u64) -> Result<Vec<LedgerEntry>, StoreError> {
    let first = store.ledger(tier, 0, MAX_BATCH).await?;
    let page = MAX_BATCH as u64;
    let mut after = if (first.len() as u64) < page {
        (first.len() as u64).saturating_sub(most)
    } else {
        ledger_length(store, tier, page).await?.saturating_sub(most)
    };
    if after == 0 && (first.len() as u64) < page {
        return Ok(first);
    }
    let mut entries = Vec::new();
    loop {
        let page = store.ledger(tier, after, MAX_BATCH).await?;
        let Some(last) = page.last() else { return Ok(entries) };
        after = last.seq;
        entries.extend(page);
    }
}

/// How many lines the ledger has, when it has at least `known`.
async fn ledger_length(store: &dyn Store, tier: &Tier, known: u64) -> Result<u64, StoreError> {
    let (mut there, mut step) = (known, known);
    // Double the step until it is too far…
    while !store.ledger(tier, there + step - 1, 1).await?.is_empty() {
        (there, step) = (there + step, step * 2);
    }
    // …and halve what lies between.
    let mut not_there = there + step;
    while not_there - there > 1 {
        let middle = there + (not_there - there) / 2;
        if store.ledger(tier, middle - 1, 1).await?.is_empty() {
            not_there = middle;
        } else {
            there = middle;
        }
    }
    Ok(there)
}
