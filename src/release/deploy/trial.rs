//! The evidence of a deploy: what its workers' jobs and canaries showed, and the canaries that are sent to know more. It lives in
//! the process that leads; one that takes over judges by what the workers tell, and sends its own canaries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::lead::{Halt, Lead};
use crate::clock::instant;
use crate::health::tier::TierFacts;
use crate::ids::{JobId, Nonce};
use crate::job::{Args, NewJob};
use crate::names::{Kind, WorkerName};
use crate::release::evidence::observed::OWN;
use crate::release::evidence::{Canaries, History, Judge, Observed, Terms, Verdict};
use crate::release::records::{self, RecordError, ReleaseRecord};
use crate::store::{MAX_BATCH, Space, Store, StoreError};

/// A canary that is not back by then has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody runs it any more after this.
const EXPIRES: Duration = Duration::from_secs(30);

/// Where a canary was sent.
#[derive(Debug, Clone)]
struct Sent {
    kind: Kind,
    worker: WorkerName,
    at: Instant,
}

/// What its worker wrote down of a canary.
#[derive(Deserialize)]
struct Receipt {
    passed: bool,
    #[serde(default)]
    error: Option<String>,
}

/// The judge of a deploy, and the canaries under way.
#[derive(Debug)]
pub(super) struct Trial {
    judge: Judge,
    terms: Terms,
    under_way: BTreeMap<JobId, Sent>,
    counts: BTreeMap<(Kind, WorkerName), Canaries>,
}

impl Trial {
    /// By what is known before: what the release runs, and how the one that it replaces did.
    pub(super) async fn open(lead: &Lead<'_>, facts: &TierFacts) -> Result<Self, Halt> {
        let (store, deploy) = (lead.store, &lead.deploy);
        let workers = deploy.wishes.workers.unwrap_or(1) as usize;
        let mut terms = Terms::new(deploy.to.clone(), workers);
        match registered(lead).await? {
            Some(record) => {
                let kinds = &record.description.kinds;
                terms.kinds = kinds.iter().map(|kind| kind.name.clone()).collect();
                let declared = kinds.iter().filter(|kind| kind.canary);
                terms.with_canary = declared.map(|kind| kind.name.clone()).collect();
            }
            None => {
                let workers = super::members(facts, &deploy.to);
                terms.kinds = workers
                    .iter()
                    .flat_map(|seen| &seen.presence.kinds)
                    .map(|(kind, _)| kind.clone())
                    .collect();
            }
        }
        terms.with_canary.extend(Kind::new(OWN));
        terms.waived = deploy.wishes.waived.keys().cloned().collect();
        if let Some(stable) = deploy.replaced() {
            terms.past = History::read(store, &deploy.tier, stable).await?.kinds();
            terms.stable = Some(stable.clone());
        }
        let judge = Judge::new(terms.clone());
        Ok(Self { judge, terms, under_way: BTreeMap::new(), counts: BTreeMap::new() })
    }

    /// Looks, judges, and sends what is missing.
    pub(super) async fn look(
        &mut self,
        lead: &Lead<'_>,
        facts: &TierFacts,
        generation: u64,
        left: Duration,
    ) -> Result<Verdict, Halt> {
        self.collect(lead).await?;
        let mut observed = Observed::from_workers(&facts.workers, &self.terms, generation);
        for ((kind, worker), canaries) in &self.counts {
            let hands = observed.workers.get_mut(worker).or(observed.stable.get_mut(worker));
            if let Some(hands) = hands {
                hands.canaries.insert(kind.clone(), canaries.clone());
            }
        }
        observed.wanted = super::coverage::waiting(facts);
        observed.wanted.retain(|kind| !self.terms.waived.contains(kind)); // somebody said that it may wait
        let waits = |queue: &&crate::store::QueueCensus| queue.jobs(crate::job::State::Available) > 0;
        observed.queues = facts.queues.iter().filter(waits).map(|queue| queue.queue.clone()).collect();
        observed.left = left;
        let verdict = self.judge.look(&observed);
        let wanted = self.judge.wanted(&observed);
        self.send(lead, wanted.here.into_iter().chain(wanted.there)).await?;
        Ok(verdict)
    }

    /// What came back since the last look, and what did not come back in time.
    async fn collect(&mut self, lead: &Lead<'_>) -> Result<(), Halt> {
        let Some(first) = self.under_way.keys().next() else { return Ok(()) };
        // Ids sort by time, so nothing that is older is read.
        let mut after = before(*first);
        loop {
            let page = lead.store.records(&lead.deploy.tier, Space::Receipt, Some(&after), MAX_BATCH).await?;
            for record in &page {
                let sent = record.key.parse::<JobId>().ok().and_then(|id| self.under_way.remove(&id));
                if let Some(sent) = sent {
                    let receipt: Option<Receipt> = serde_json::from_str(&record.value).ok();
                    let unreadable = || "its receipt cannot be read".to_owned();
                    let error = match receipt {
                        Some(Receipt { passed: true, .. }) => None,
                        Some(Receipt { error, .. }) => Some(error.unwrap_or_else(|| "it failed".to_owned())),
                        None => Some(unreadable()),
                    };
                    self.ended(sent, error);
                }
            }
            match page.last() {
                Some(last) if page.len() == MAX_BATCH => after.clone_from(&last.key),
                _ => break,
            }
        }
        let late: BTreeSet<JobId> = self
            .under_way
            .iter()
            .filter(|(_, sent)| sent.at.elapsed() >= PATIENCE)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(sent) = self.under_way.remove(&id) {
                self.ended(sent, Some(format!("its canary was not back within {} s", PATIENCE.as_secs())));
            }
        }
        Ok(())
    }

    fn ended(&mut self, sent: Sent, error: Option<String>) {
        let canaries = self.counts.entry((sent.kind, sent.worker)).or_default();
        match error {
            None => canaries.ended.count.ok += 1,
            Some(error) => {
                canaries.ended.count.failed += 1;
                canaries.ended.error = Some(error);
            }
        }
    }

    async fn send(
        &mut self,
        lead: &Lead<'_>,
        wanted: impl Iterator<Item = ((Kind, WorkerName), u64)>,
    ) -> Result<(), Halt> {
        let (mut jobs, at) = (Vec::new(), instant());
        for ((kind, worker), n) in wanted {
            for _ in 0..n {
                let job = canary(lead.store, &kind, &worker)?;
                let sent = Sent { kind: kind.clone(), worker: worker.clone(), at };
                self.under_way.insert(job.id, sent);
                self.counts.entry((kind.clone(), worker.clone())).or_default().sent += 1;
                jobs.push(job);
            }
        }
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            let batch: Vec<NewJob> = jobs.by_ref().take(MAX_BATCH).collect();
            // Those whose answer is lost come back, or are late.
            lead.store.insert(&lead.deploy.tier, batch).await?;
        }
        Ok(())
    }
}

/// What is on record of the release. One that nobody registered is judged by what its workers tell of themselves.
async fn registered(lead: &Lead<'_>) -> Result<Option<ReleaseRecord>, Halt> {
    match records::read(lead.store, &lead.deploy.tier, &lead.deploy.to).await {
        Ok(record) => Ok(record),
        Err(RecordError::Store(error)) => Err(error.into()),
        Err(other) => {
            let place = lead.store.about().location;
            Err(StoreError::new("read a release", place, crate::store::ErrorKind::Corrupt, other).into())
        }
    }
}

/// Its worker fills in the payload that the kind declares; the worker's own kind gives its argument back.
fn canary(store: &dyn Store, kind: &Kind, worker: &WorkerName) -> Result<NewJob, StoreError> {
    let args = match kind.as_str() {
        OWN => Args::of(&json!({ "nonce": Nonce::new().to_string() })),
        _ => Ok(Args::default()),
    };
    let args = args.map_err(|error| {
        StoreError::new("send a canary", store.about().location, crate::store::ErrorKind::Refused, error)
    })?;
    Ok(NewJob::canary(kind.clone(), args, worker, EXPIRES))
}

/// A key before that of an id, and after those of all earlier ones.
fn before(id: JobId) -> String {
    let mut key = id.to_string();
    key.pop();
    key
}
