//! What the rules of a tier look at, gathered from its store in a handful of reads.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::activation::Activation;
use crate::clock::Timestamp;
use crate::job::{JobRecord, Parked, State};
use crate::names::{Kind, Release, Tier};
use crate::store::{
    About, Actor, LedgerEntry, MAX_BATCH, PageAsk, Paused, QueueCensus, Seen, Space, Store, StoreError,
};

/// How far back the ledger is read for former activations. What is older is forgotten: a release that was active so
/// long ago, and of which nothing lives, is answered as unknown.
const LOOK_BACK: u64 = 4 * MAX_BATCH as u64;
/// An order to stop is behind a goodbye within this: the grace of a stop, and more.
const ORDERED: Duration = Duration::from_secs(900);
/// So many of the newest parked jobs are read: who judges asks again and again, so that has its bound.
const PARKED_READ: usize = 100;
/// Of so many kinds that cannot be read is asked whether one completed since.
const KINDS_ASKED: usize = 4;

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
    pub held: Vec<Paused>,
    /// What releases parked because they could not read it, by kind and release; of the newest parked jobs.
    pub unread: Vec<Unread>,
    /// Scheduled and retryable jobs that are due: a living worker makes them available at once.
    pub overdue: u64,
    /// When the first of all that are scheduled and retryable is due (store time).
    pub next_due: Option<Timestamp>,
    /// Who of the active release said goodbye last.
    pub gone: Option<Gone>,
    /// Changes of the activation, newest first.
    pub history: Vec<Change>,
    /// Whether the release that was asked for is on record.
    pub registered: bool,
}

/// A worker that said goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its name.
    pub worker: String,
    /// When (store time).
    pub at: Timestamp,
    /// Who ordered it through the store, if anybody did.
    pub by: Option<Actor>,
}

/// Jobs of one kind that a release could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The kind.
    pub kind: Kind,
    /// Who could not.
    pub release: Release,
    /// How many.
    pub jobs: u64,
    /// When the last one was parked (store time).
    pub last: Timestamp,
    /// What its worker said of it.
    pub reason: String,
    /// When a job of the kind last completed, whoever did it, if any such is still kept.
    pub completed: Option<Timestamp>,
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
        let activation = store.activation(tier).await?;
        let ledger = ledger_tail(store, tier, LOOK_BACK).await?;
        Ok(Self {
            tier: tier.clone(),
            now: written.unwrap_or(census.now),
            about: store.about(),
            unwritable,
            unread: Box::pin(unread(store, tier, &census.queues)).await?,
            gone: match &activation {
                Some(current) => Box::pin(gone(store, tier, &current.release, &ledger)).await?,
                None => None,
            },
            activation,
            overdue: census.overdue,
            next_due: census.next_due,
            workers: store.workers(tier).await?,
            queues: census.queues,
            held: store.pauses(tier).await?,
            history: ledger.iter().rev().filter_map(Change::read).collect(),
            registered,
        })
    }
}

impl TierFacts {
    /// Jobs that are not over and do not run, by kind; canaries left out.
    #[must_use]
    pub fn backlog(&self) -> BTreeMap<Kind, u64> {
        let mut all = BTreeMap::new();
        for (kind, states) in self.queues.iter().flat_map(|queue| &queue.kinds) {
            let waiting = [State::Available, State::Scheduled, State::Retryable, State::Parked];
            let jobs: u64 = waiting.iter().filter_map(|state| states.get(state)).sum();
            if jobs > 0 && !kind.as_str().starts_with("sluicegate.") {
                *all.entry(kind.clone()).or_default() += jobs;
            }
        }
        all
    }
}

/// What cannot be read, of the newest parked jobs. A tier without parked jobs is asked nothing.
async fn unread(store: &dyn Store, tier: &Tier, queues: &[QueueCensus]) -> Result<Vec<Unread>, StoreError> {
    if queues.iter().all(|queue| queue.jobs(State::Parked) == 0) {
        return Ok(Vec::new());
    }
    let page = |state, kind, limit| PageAsk { state: Some(state), kind, limit, ..PageAsk::default() };
    let parked = store.page(tier, page(State::Parked, None, PARKED_READ)).await?.jobs;
    let mut found = unread_of(&parked);
    found.truncate(KINDS_ASKED);
    for unread in &mut found {
        let completed = store.page(tier, page(State::Completed, Some(unread.kind.clone()), 1)).await?.jobs;
        unread.completed = completed.first().and_then(|job| job.finished_at);
    }
    Ok(found)
}

/// By kind and release, most jobs first.
fn unread_of(parked: &[JobRecord]) -> Vec<Unread> {
    let mut found: Vec<Unread> = Vec::new();
    for job in parked.iter().filter(|job| job.parked == Some(Parked::Undecodable)) {
        let Some(end) = job.history.last() else { continue };
        let Some(release) = &end.release else { continue };
        let (reason, last) = (end.error.clone().unwrap_or_default(), end.at);
        match found.iter_mut().find(|unread| unread.kind == job.kind && unread.release == *release) {
            Some(unread) => {
                unread.jobs += 1;
                if last > unread.last {
                    (unread.last, unread.reason) = (last, reason);
                }
            }
            None => found.push(Unread {
                kind: job.kind.clone(),
                release: release.clone(),
                jobs: 1,
                last,
                reason,
                completed: None,
            }),
        }
    }
    found.sort_by_key(|unread| std::cmp::Reverse(unread.jobs));
    found
}

/// Who of a release said goodbye last, and who wanted that.
async fn gone(
    store: &dyn Store,
    tier: &Tier,
    release: &Release,
    ledger: &[LedgerEntry],
) -> Result<Option<Gone>, StoreError> {
    #[derive(Deserialize)]
    struct Word {
        worker: String,
    }
    #[derive(Deserialize)]
    struct Ordered {
        worker: String,
        order: String,
    }
    let Some(record) = store.record(tier, Space::Drain, release.as_str()).await? else { return Ok(None) };
    let Ok(Word { worker }) = serde_json::from_str(&record.value) else { return Ok(None) };
    let stopped = |entry: &&LedgerEntry| {
        entry.event == "worker.ordered"
            && entry.at <= record.at
            && record.at.since(entry.at) < ORDERED
            && serde_json::from_str::<Ordered>(&entry.detail)
                .is_ok_and(|ordered| ordered.worker == worker && ordered.order == "stop")
    };
    let by = ledger.iter().rev().find(stopped).map(|entry| entry.by.clone());
    Ok(Some(Gone { worker, at: record.at, by }))
}

/// The last lines of the ledger, oldest first.
///
/// # Errors
/// When the store cannot be read.
pub async fn ledger_tail(store: &dyn Store, tier: &Tier, most: u64) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut after = store.ledger_end(tier).await?.saturating_sub(most);
    let mut entries = Vec::new();
    loop {
        let page = store.ledger(tier, after, MAX_BATCH).await?;
        let is_last = page.len() < MAX_BATCH;
        after = page.last().map_or(after, |last| last.seq);
        entries.extend(page);
        if is_last {
            return Ok(entries);
        }
    }
}
