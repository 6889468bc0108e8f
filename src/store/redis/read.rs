//! Reading: one job, pages in the order of insertion, counts.

use std::collections::{BTreeMap, HashMap};

use deadpool_redis::redis;

use super::link::Lane;
use super::moves::Sight;
use super::record::{CHUNK, Lease, Stored};
use super::scripts::{Args, Script};
use super::value::{Values, damaged, int};
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::{JobRecord, State};
use crate::names::{Kind, Queue, Tier};
use crate::store::look::{add, empty, wanted};
use crate::store::{Census, ErrorKind, MAX_BATCH, Page, PageAsk, QueueCensus, StoreError};

/// Most jobs that one page looks at; a page that found less goes on with its token.
const MAX_SCAN: u64 = 5_000;

impl RedisStore {
    pub(super) async fn get_job(&self, tier: &Tier, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let looked = self.look(tier, None, &[id]).await?;
        let Some(sight) = looked.sights.first() else { return Ok(None) };
        let Some(mut record) = self.told(tier, sight).await? else { return Ok(None) };
        self.tell_holders(tier, &mut [&mut record]).await?;
        Ok(Some(record))
    }

    /// A job as it was seen.
    async fn told(&self, tier: &Tier, sight: &Sight) -> Result<Option<JobRecord>, StoreError> {
        let (Some(job), Some(state)) = (sight.job(), sight.state()) else { return Ok(None) };
        let (queue, kind) = self.stream(tier, job.sid).await?;
        let mut record = record_of(sight.id, tier, queue, kind, job, state);
        if let Some(completed) = sight.completed.as_ref().filter(|_| state == State::Completed) {
            record.claimed_at = Some(completed.claimed_at);
            record.finished_at = Some(completed.finished_at);
            record.ran = Some(completed.ran).filter(|ran| !ran.is_zero());
            (record.worker, record.release) = (completed.worker.clone(), completed.release.clone());
        }
        Ok(Some(record))
    }

    /// Tells of running jobs who runs them. The records do not say it, the leases do; there are few of those.
    async fn tell_holders(&self, tier: &Tier, jobs: &mut [&mut JobRecord]) -> Result<(), StoreError> {
        let mut running: HashMap<JobId, &mut JobRecord> = jobs
            .iter_mut()
            .filter(|job| job.state == State::Running)
            .map(|job| (job.id, &mut **job))
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        for (_, lease) in self.leases(tier).await? {
            for id in &lease.held {
                let Some(job) = running.remove(id) else { continue };
                job.claimed_at = Some(lease.claimed_at);
                (job.worker, job.release) = (lease.worker.clone(), lease.release.clone());
                job.ran = None;
            }
        }
        Ok(())
    }

    /// Every lease of a tier.
    pub(super) async fn leases(&self, tier: &Tier) -> Result<Vec<(Vec<u8>, Lease)>, StoreError> {
        let mut ask = redis::cmd("HGETALL");
        ask.arg(format!("{}leases", prefix(tier)));
        let answer = self.link.command("read leases", Lane::Rest, &ask).await?;
        let mut values = flat(answer).into_iter();
        let mut leases = Vec::new();
        while let (Some(nonce), Some(lease)) = (values.next(), values.next()) {
            let lease =
                Lease::read(&lease).map_err(|error| damaged("read leases", self.link.place(), &error))?;
            leases.push((nonce, lease));
        }
        Ok(leases)
    }

    pub(super) async fn page_of(&self, tier: &Tier, ask: &PageAsk) -> Result<Page, StoreError> {
        let mut before = match &ask.token {
            None => u64::MAX,
            Some(token) => token.parse::<u64>().map_err(|_| {
                let given = crate::names::shown(token);
                self.link
                    .error("list jobs", ErrorKind::Refused, format!("`{given}` is not a page token"))
                    .hint("start again without one")
            })?,
        };
        let limit = ask.limit.clamp(1, MAX_BATCH);
        let (mut found, mut seen): (Vec<JobRecord>, u64) = (Vec::new(), 0);
        let mut ended = false;
        'chunks: while found.len() < limit && seen < MAX_SCAN && before > 0 {
            let Some((chunk, entries)) = self.chunk_before(tier, before).await? else {
                ended = true;
                break;
            };
            let first = chunk * CHUNK;
            let mut left: Vec<(u64, JobId)> = entries
                .chunks_exact(16)
                .enumerate()
                .filter_map(|(n, id)| Some((first + n as u64, JobId::from_slice(id)?)))
                .filter(|(seq, id)| *seq < before && id.as_bytes() != &[0; 16])
                .collect();
            while !left.is_empty() {
                let want = (2 * (limit - found.len())).clamp(32, 128);
                let some: Vec<(u64, JobId)> =
                    left.split_off(left.len().saturating_sub(want)).into_iter().rev().collect();
                let ids: Vec<JobId> = some.iter().map(|(_, id)| *id).collect();
                let looked = self.look(tier, None, &ids).await?;
                for ((seq, _), sight) in some.iter().zip(&looked.sights) {
                    (before, seen) = (*seq, seen + 1);
                    // An id that was used again stands where it was inserted last.
                    if sight.job().is_some_and(|job| job.seq == *seq)
                        && let Some(record) = self.told(tier, sight).await?
                        && wanted(&record, ask, looked.now)
                    {
                        found.push(record);
                        if found.len() == limit {
                            break 'chunks;
                        }
                    }
                }
                if seen >= MAX_SCAN {
                    break 'chunks;
                }
            }
            before = first;
        }
        let mut all: Vec<&mut JobRecord> = found.iter_mut().collect();
        self.tell_holders(tier, &mut all).await?;
        let next = (!ended && before > 0).then(|| before.to_string());
        Ok(Page { jobs: found, next })
    }

    /// The newest chunk of the log that has numbers below one.
    async fn chunk_before(&self, tier: &Tier, before: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let prefix = prefix(tier);
        let mut ask = redis::cmd("ZREVRANGEBYSCORE");
        let highest = (before - 1) / CHUNK;
        ask.arg(format!("{prefix}chunks")).arg(highest).arg("-inf").arg("LIMIT").arg(0).arg(1);
        let answer = self.link.command("list jobs", Lane::Rest, &ask).await?;
        let chunk = flat(answer)
            .pop()
            .and_then(|text| String::from_utf8(text).ok())
            .and_then(|text| text.parse::<u64>().ok());
        let Some(chunk) = chunk else { return Ok(None) };
        let mut get = redis::cmd("GET");
        get.arg(format!("{prefix}log:{chunk}"));
        Ok(Some((
            chunk,
            flat(self.link.command("list jobs", Lane::Rest, &get).await?).pop().unwrap_or_default(),
        )))
    }

    pub(super) async fn count_jobs(&self, tier: &Tier) -> Result<Census, StoreError> {
        let most = Args::new().number(MAX_BATCH);
        let answer = self.link.script(Script::Census, &prefix(tier), Lane::Rest, most).await?;
        let mut values = Values::of(answer, Script::Census.op(), self.link.place())?;
        let (now, identity) = (values.time()?, values.bytes()?.unwrap_or_default());
        let counters = pairs(values.next());
        self.remember(tier, &identity, values.next().unwrap_or(redis::Value::Array(Vec::new())))?;
        let (overdue, next_due) = (values.int()?, values.int()?);
        let mut queues: BTreeMap<Queue, QueueCensus> = BTreeMap::new();
        for (field, n) in counters {
            let Some((sid, code)) = field
                .split_once(':')
                .and_then(|(sid, code)| Some((sid.parse().ok()?, code.parse::<i64>().ok()?)))
            else {
                continue;
            };
            let (queue, kind) = self.stream(tier, sid).await?;
            if queue.is_canaries() {
                continue;
            }
            let entry = queues.entry(queue.clone()).or_insert_with(|| empty(queue));
            add(entry, kind, code, n.unsigned_abs());
        }
        while values.left() > 1 {
            let (part, record) = (values.text()?.unwrap_or_default(), values.bytes()?.unwrap_or_default());
            let job =
                Stored::read(&record).map_err(|error| damaged("count jobs", self.link.place(), &error))?;
            let queue = part.rsplit_once(':').and_then(|(queue, _)| Queue::new(queue).ok());
            let Some(entry) = queue.and_then(|queue| queues.get_mut(&queue)) else { continue };
            let waited = now.since(job.due_at());
            entry.oldest_wait = Some(entry.oldest_wait.map_or(waited, |oldest| oldest.max(waited)));
        }
        Ok(Census {
            queues: queues.into_values().collect(),
            overdue: overdue.unsigned_abs(),
            next_due: (next_due >= 0).then(|| Timestamp::from_ms(next_due)),
            now,
        })
    }
}

/// Every value of an answer, as bytes.
pub(super) fn flat(value: redis::Value) -> Vec<Vec<u8>> {
    match value {
        redis::Value::Array(values) => values.into_iter().flat_map(flat).collect(),
        redis::Value::Map(pairs) => {
            pairs.into_iter().flat_map(|(key, value)| [key, value]).flat_map(flat).collect()
        }
        redis::Value::BulkString(bytes) => vec![bytes],
        redis::Value::SimpleString(text) => vec![text.into_bytes()],
        _ => Vec::new(),
    }
}

/// Numbers by name.
pub(super) type Counters = HashMap<String, i64>;

/// A hash of numbers.
pub(super) fn pairs(value: Option<redis::Value>) -> Counters {
    let mut values = value.map(flat).unwrap_or_default().into_iter();
    let mut pairs = Counters::new();
    while let (Some(field), Some(n)) = (values.next(), values.next()) {
        if let (Ok(field), Some(n)) = (String::from_utf8(field), int(&redis::Value::BulkString(n))) {
            pairs.insert(field, n);
        }
    }
    pairs
}

fn record_of(id: JobId, tier: &Tier, queue: Queue, kind: Kind, job: &Stored, state: State) -> JobRecord {
    let story = job.story.clone().unwrap_or_default();
    JobRecord {
        id,
        tier: tier.clone(),
        kind,
        queue,
        state,
        args: job.args.clone(),
        version: job.version,
        priority: job.priority,
        failures: story.failures,
        crashes: story.crashes,
        enqueued_at: job.enqueued_at,
        run_at: story
            .run_at
            .map(Timestamp::from_ms)
            .filter(|_| matches!(state, State::Scheduled | State::Retryable)),
        expires_at: job.expires_at,
        claimed_at: story.claimed_at.map(Timestamp::from_ms),
        finished_at: story.finished_at.map(Timestamp::from_ms).filter(|_| state.is_final()),
        ran: story.ran_us.map(std::time::Duration::from_micros).filter(|ran| !ran.is_zero()),
        worker: story.worker,
        release: story.release,
        parked: story.parked,
        history: story.history,
        extras: job.extras.clone().unwrap_or_default(),
    }
}
