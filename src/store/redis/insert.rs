//! Inserting jobs: idempotent by id, unique by key. A script stores a batch as a whole or not at all; what stands in its way
//! is answered here, and the rest is tried again.

use std::collections::HashSet;

use serde_json::json;

use super::link::Lane;
use super::moves::{Sight, hex};
use super::record::{Completed, Found, fresh, read};
use super::scripts::{Args, Script};
use super::value::{Values, damaged, set, strange};
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::new::Expiry;
use crate::job::{NewJob, State, Unique, When};
use crate::names::{Tier, WorkerName};
use crate::store::digest::{INSERTED, content_digest};
use crate::store::{Durability, ErrorKind, Insert, StoreError};

/// A batch that others get in the way of so often is given up.
const TRIES: usize = 50;

/// A value of `unique`: who holds a key, in a way that differs each time somebody takes it.
enum Holder {
    /// A job, for as long as it says.
    Job(JobId),
    /// A job that is gone, until a time.
    Gone(JobId, State, Timestamp),
}

fn holder(text: &str) -> Option<Holder> {
    let id = |hex: &str| u128::from_str_radix(hex, 16).ok().map(|n| JobId::from_bytes(n.to_be_bytes()));
    let mut parts = text.get(1..)?.split(':');
    let job = id(parts.next()?)?;
    if text.starts_with('L') {
        return Some(Holder::Job(job));
    }
    let state = State::from_code(parts.next()?.parse().ok()?)?;
    Some(Holder::Gone(job, state, Timestamp::from_ms(parts.next()?.parse().ok()?)))
}

/// How a key is kept whose job is gone.
pub(super) fn kept(id: JobId, state: State, until: Timestamp) -> String {
    format!("K{}:{}:{}", hex(id), state.code(), until.ms())
}

/// Whether a value of `unique` says that this job holds the key.
pub(super) fn holds(text: &str, id: JobId) -> bool {
    matches!(holder(text), Some(Holder::Job(job)) if job == id)
}

impl RedisStore {
    pub(super) async fn insert_jobs(&self, tier: &Tier, jobs: &[NewJob]) -> Result<Vec<Insert>, StoreError> {
        let mut answers: Vec<Option<Insert>> = vec![None; jobs.len()];
        let mut todo: Vec<usize> = (0..jobs.len()).collect();
        while !todo.is_empty() {
            // An id or a key that comes twice is for the next round: then the first one is there.
            let (mut ids, mut keys) = (HashSet::with_capacity(todo.len()), HashSet::new());
            let (round, later): (Vec<usize>, Vec<usize>) = todo.into_iter().partition(|&at| {
                jobs.get(at).is_some_and(|job| {
                    ids.insert(job.id)
                        && job.extras.unique.as_ref().is_none_or(|unique| keys.insert(&unique.key))
                })
            });
            if let Err(error) = self.round(tier, jobs, round, &mut answers).await {
                let stored = answers.iter().flatten().any(|answer| matches!(answer, Insert::Stored { .. }));
                return Err(if stored { error.after_a_part() } else { error });
            }
            todo = later;
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| strange("insert", self.link.place()))).collect()
    }

    /// Jobs of different ids and keys.
    async fn round(
        &self,
        tier: &Tier,
        jobs: &[NewJob],
        mut round: Vec<usize>,
        answers: &mut [Option<Insert>],
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let unique = self.keys(tier, jobs, &round, answers).await?;
            round.retain(|at| answers.get(*at).is_some_and(Option::is_none));
            if round.is_empty() {
                return Ok(());
            }
            let batch: Vec<&NewJob> = round.iter().filter_map(|at| jobs.get(*at)).collect();
            let (mut values, due, replicas) = self.try_insert(tier, &batch, &unique).await?;
            match values.int()? {
                1 => {
                    values.time()?;
                    let states = values.bytes()?.unwrap_or_default();
                    let durability = self.survives(replicas)?;
                    for (n, (at, job)) in round.iter().zip(batch).enumerate() {
                        let waits =
                            due.iter().position(|d| *d == n).and_then(|d| states.get(d)) == Some(&b'2');
                        let state = if waits { State::Scheduled } else { State::Available };
                        set(answers, *at, Insert::Stored { id: job.id, state, durability });
                    }
                    return Ok(());
                }
                0 => {
                    self.also_survives(tier).await?;
                    values.time()?;
                    while values.left() > 3 {
                        let n = usize::try_from(values.int()?).unwrap_or(usize::MAX);
                        let (record, completed) = (values.bytes()?, values.bytes()?);
                        let stands = values.bytes()?.is_some_and(|list| !list.is_empty());
                        let (Some(at), Some(job), Some(record)) = (round.get(n), batch.get(n), record) else {
                            continue;
                        };
                        let wrong = |error| damaged("insert", self.link.place(), &error);
                        let found = read(&record).map_err(wrong)?;
                        let completed =
                            completed.map(|bytes| Completed::read(&bytes)).transpose().map_err(wrong)?;
                        let sight = Sight { id: job.id, found: Some(found), completed, stands, wish: false };
                        if let Some(answer) = self.existing(tier, job, &sight).await? {
                            set(answers, *at, answer);
                        }
                    }
                }
                2 => {} // a key changed hands: look again
                _ => self.streams.heard(tier, b""),
            }
        }
        Err(self.contended("insert"))
    }

    /// The script; which of the batch have a time of their own; and how many replicas have it, if some are asked for.
    async fn try_insert(
        &self,
        tier: &Tier,
        batch: &[&NewJob],
        unique: &[(usize, String)],
    ) -> Result<(Values, Vec<usize>, u32), StoreError> {
        let (identity, sids) = self.numbers(tier, batch).await?;
        let (mut runs, mut due, mut expiry) = (Vec::<Run>::new(), Vec::new(), Vec::new());
        let mut counts: Vec<(u16, u8, i64)> = Vec::new();
        let mut add = |sid, code| match counts.iter_mut().find(|(s, c, _)| (*s, *c) == (sid, code)) {
            Some((_, _, n)) => *n += 1,
            None => counts.push((sid, code, 1)),
        };
        let (mut ids, mut bodies, mut waits) =
            (Vec::with_capacity(batch.len() * 16), Vec::with_capacity(batch.len()), Vec::new());
        for (n, (job, sid)) in batch.iter().zip(sids).enumerate() {
            ids.extend_from_slice(job.id.as_bytes());
            bodies.push(fresh(job, n, sid));
            add(sid, INSERTED);
            match job.when {
                When::Now => {
                    add(sid, State::Available.code());
                    Run::extend(&mut runs, job, n, sid);
                }
                When::After(delay) => {
                    due.push(json!([n, 1, super::record::delay_ms(delay), part(job), job.priority, sid]));
                    waits.push(n);
                }
                When::At(time) => {
                    due.push(json!([n, 0, time.ms(), part(job), job.priority, sid]));
                    waits.push(n);
                }
            }
            match job.expiry {
                None => {}
                Some(Expiry::After(span)) => expiry.push((n, 1, super::record::delay_ms(span))),
                Some(Expiry::At(time)) => expiry.push((n, 0, time.ms())),
            }
        }
        let keys: Vec<_> = unique
            .iter()
            .filter_map(|(n, expected)| {
                let job = batch.get(*n)?;
                Some(json!([job.extras.unique.as_ref()?.key, expected, hex(job.id)]))
            })
            .collect();
        let identity = String::from_utf8(identity).unwrap_or_default();
        let runs: Vec<_> =
            runs.iter().map(|run| json!([run.part, run.priority, run.first, run.count, run.sid])).collect();
        let plan = json!({
            "runs": runs, "counts": counts, "due": due, "expiry": expiry, "unique": keys, "identity": identity,
        });
        let mut args = Args::new().arg(ids).arg(plan.to_string());
        bodies.into_iter().for_each(|body| args.push(body));
        let prefix = prefix(tier);
        let (answer, replicas) = match self.server.wanted() {
            Some(Durability::Replica(wanted)) => {
                self.link.script_on_replicas(Script::Insert, &prefix, Lane::In, args, wanted).await?
            }
            _ => (self.link.script(Script::Insert, &prefix, Lane::In, args).await?, 0),
        };
        Ok((Values::of(answer, "insert", self.link.place())?, waits, replicas))
    }

    /// What an insert that so many replicas have survives. Fewer than were asked for is no success: the job is there, and
    /// nobody knows for how long.
    fn survives(&self, got: u32) -> Result<Durability, StoreError> {
        let Some(Durability::Replica(wanted)) = self.server.wanted() else {
            return Ok(self.server.durability());
        };
        if got >= wanted {
            return Ok(Durability::Replica(got));
        }
        let detail = format!("stored, but only {got} of {wanted} replicas have it after 1 s");
        Err(self
            .link
            .error("insert", ErrorKind::Timeout, detail)
            .hint("look at the replicas, or ask for less with `store.durability`"))
    }

    /// That a job is there already is a success only if the replicas have it as well. A write after it tells.
    async fn also_survives(&self, tier: &Tier) -> Result<(), StoreError> {
        if let Some(Durability::Replica(wanted)) = self.server.wanted() {
            let (prefix, nothing) = (prefix(tier), Args::new());
            let write = self.link.script_on_replicas(Script::Probe, &prefix, Lane::In, nothing, wanted);
            self.survives(write.await?.1)?;
        }
        Ok(())
    }

    /// The answer of the job that has the id already.
    async fn existing(&self, tier: &Tier, job: &NewJob, sight: &Sight) -> Result<Option<Insert>, StoreError> {
        let id = job.id;
        Ok(match &sight.found {
            None => None,
            Some(Found::Remembered(digest)) => {
                Some(if content_digest(&job.kind, &job.queue, &job.args) == *digest {
                    Insert::Existing { id, state: State::Completed }
                } else {
                    Insert::Conflict { id }
                })
            }
            Some(Found::Job(stored)) => {
                let (queue, kind) = self.stream(tier, stored.sid).await?;
                Some(if job.same_content(&kind, &queue, &stored.args) {
                    Insert::Existing { id, state: sight.state().unwrap_or(State::Available) }
                } else {
                    Insert::Conflict { id }
                })
            }
        })
    }

    /// Answers the jobs whose unique key another one holds. For those that may take their key: their place among the jobs that
    /// are left, and what the key's entry is now.
    async fn keys(
        &self,
        tier: &Tier,
        jobs: &[NewJob],
        round: &[usize],
        answers: &mut [Option<Insert>],
    ) -> Result<Vec<(usize, String)>, StoreError> {
        let with: Vec<(usize, &NewJob, &Unique)> = round
            .iter()
            .filter_map(|at| {
                let job = jobs.get(*at)?;
                answers.get(*at)?.is_none().then_some(())?;
                Some((*at, job, job.extras.unique.as_ref()?))
            })
            .collect();
        if with.is_empty() {
            return Ok(Vec::new());
        }
        let own: Vec<JobId> = with.iter().map(|(_, job, _)| job.id).collect();
        let own = self.look(tier, None, &own).await?;
        let names: Vec<&str> = with.iter().map(|(_, _, unique)| unique.key.as_str()).collect();
        let texts = self.fields("insert", format!("{}unique", prefix(tier)), &names).await?;
        let holders: Vec<Option<Holder>> =
            texts.iter().map(|text| text.as_deref().and_then(holder)).collect();
        let living: Vec<JobId> = holders
            .iter()
            .filter_map(|holder| match holder {
                Some(Holder::Job(id)) => Some(*id),
                _ => None,
            })
            .collect();
        let seen = self.look(tier, None, &living).await?;
        let mut free = HashSet::new();
        for (n, (at, job, unique)) in with.iter().enumerate() {
            // A job that was stored before answers for itself, whoever holds its key by now.
            let mut answer = match own.sights.get(n) {
                Some(sight) => self.existing(tier, job, sight).await?,
                None => None,
            };
            if answer.is_none() {
                answer = match holders.get(n) {
                    Some(Some(Holder::Gone(holder, state, until))) if *until > seen.now => {
                        Some(Insert::Held { holder: *holder, state: *state })
                    }
                    Some(Some(Holder::Job(holder))) => seen
                        .sights
                        .iter()
                        .find(|sight| sight.id == *holder)
                        .and_then(|sight| held_by(sight, unique, seen.now)),
                    _ => None,
                };
            }
            match answer {
                Some(answer) => set(answers, *at, answer),
                None => {
                    free.insert(*at);
                }
            }
        }
        let left = round.iter().filter(|at| answers.get(**at).is_some_and(Option::is_none)).enumerate();
        let texts: Vec<(usize, String)> =
            with.iter().map(|(at, ..)| *at).zip(texts.into_iter().map(Option::unwrap_or_default)).collect();
        Ok(left
            .filter_map(|(n, at)| {
                let (_, text) = texts.iter().find(|(of, _)| of == at)?;
                free.contains(at).then(|| (n, text.clone()))
            })
            .collect())
    }

    /// What stands in the way of a job that comes back and wants its unique key again: the entry that it must find, or `None`
    /// when another job holds the key.
    pub(super) async fn may_hold(
        &self,
        tier: &Tier,
        id: JobId,
        unique: &Unique,
    ) -> Result<Option<String>, StoreError> {
        let text = self
            .fields("change jobs", format!("{}unique", prefix(tier)), &[&unique.key])
            .await?
            .pop()
            .flatten();
        let Some(text) = text else { return Ok(Some(String::new())) };
        let free = match holder(&text) {
            Some(Holder::Job(holder)) if holder == id => true,
            Some(Holder::Job(holder)) => {
                let seen = self.look(tier, None, &[holder]).await?;
                seen.sights.first().and_then(|sight| held_by(sight, unique, seen.now)).is_none()
            }
            Some(Holder::Gone(_, _, until)) => until <= self.try_write(tier, Script::Probe).await?,
            None => true,
        };
        Ok(free.then_some(text))
    }
}

/// Whether a job holds a key at present.
fn held_by(sight: &Sight, unique: &Unique, now: Timestamp) -> Option<Insert> {
    let (job, state) = (sight.job()?, sight.state()?);
    let asked = job.extras.as_ref()?.unique.as_ref()?;
    (asked.key == unique.key && asked.held_by(state, job.enqueued_at, now))
        .then_some(Insert::Held { holder: sight.id, state })
}

fn part(job: &NewJob) -> String {
    match &job.extras.canary {
        None => format!("{}:{}", job.queue, job.priority),
        Some(worker) => format!("~{worker}:0"),
    }
}

/// Jobs of one part that follow each other.
struct Run {
    part: String,
    priority: i8,
    first: usize,
    count: usize,
    /// Their stream, or 65535 for several.
    sid: u16,
    of: (crate::names::Queue, i8, Option<WorkerName>),
}

impl Run {
    fn extend(runs: &mut Vec<Self>, job: &NewJob, n: usize, sid: u16) {
        match runs.last_mut() {
            Some(last)
                if last.first + last.count == n
                    && last.of.1 == job.priority
                    && last.of.0 == job.queue
                    && last.of.2 == job.extras.canary =>
            {
                last.count += 1;
                if last.sid != sid {
                    last.sid = u16::MAX;
                }
            }
            _ => runs.push(Self {
                part: part(job),
                priority: job.priority,
                first: n,
                count: 1,
                sid,
                of: (job.queue.clone(), job.priority, job.extras.canary.clone()),
            }),
        }
    }
}
