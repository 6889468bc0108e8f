//! Settling. Jobs that are done take the fast path: a script that checks the lease and writes a line for each. Everything else
//! changes a job's story, and is committed as such.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::link::Lane;
use super::moves::{Move, Sight, Source, Target, parked_key};
use super::record::{CHUNK, Lease, Story, unslot};
use super::scripts::{Args, Script};
use super::value::{Values, set, strange};
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::State;
use crate::job::record::Attempt;
use crate::names::{Queue, Tier};
use crate::store::digest::FAILED;
use crate::store::meaning::Consequence;
use crate::store::{Presence, Renewed, Settle, Settled, StoreError, Verdict};

/// A job whose settle others get in the way of so often (by wanting it cancelled) is left to its lease.
const TRIES: usize = 10;

/// Completed jobs of one queue that are written together.
#[derive(Default)]
struct Group<'a> {
    /// Their places in the call, and they, in the order of their numbers.
    items: Vec<(usize, &'a Settle)>,
}

impl RedisStore {
    pub(super) async fn settle_jobs(
        &self,
        tier: &Tier,
        items: &[Settle],
    ) -> Result<Vec<Settled>, StoreError> {
        let mut answers: Vec<Option<Settled>> = vec![None; items.len()];
        let mut todo: Vec<usize> = (0..items.len()).collect();
        while !todo.is_empty() {
            let mut seen = HashSet::with_capacity(todo.len());
            let (round, later): (Vec<usize>, Vec<usize>) = todo
                .into_iter()
                .partition(|&at| items.get(at).is_some_and(|item| seen.insert((item.nonce, item.id))));
            let mut by_lease: Vec<(Nonce, Vec<(usize, &Settle)>)> = Vec::new();
            let mut index: HashMap<Nonce, usize> = HashMap::new();
            for at in round {
                let Some(item) = items.get(at) else { continue };
                let n = *index.entry(item.nonce).or_insert_with(|| {
                    by_lease.push((item.nonce, Vec::new()));
                    by_lease.len() - 1
                });
                if let Some((_, list)) = by_lease.get_mut(n) {
                    list.push((at, item));
                }
            }
            for (nonce, list) in by_lease {
                self.settle_lease(tier, nonce, list, &mut answers).await?;
            }
            todo = later;
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| strange("settle", self.link.place()))).collect()
    }

    async fn settle_lease(
        &self,
        tier: &Tier,
        nonce: Nonce,
        items: Vec<(usize, &Settle)>,
        answers: &mut [Option<Settled>],
    ) -> Result<(), StoreError> {
        let (done, others): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|(_, item)| item.verdict == Verdict::Completed);
        let mut late = Vec::new();
        if !done.is_empty() {
            late = self.complete(tier, nonce, done, answers).await?;
        }
        if !others.is_empty() {
            late.extend(self.settle_others(tier, nonce, others, answers).await?);
        }
        self.answer_late(tier, nonce, &late, answers).await
    }

    /// Jobs that are done; returns those that the lease does not hold.
    async fn complete<'a>(
        &self,
        tier: &Tier,
        nonce: Nonce,
        mut items: Vec<(usize, &'a Settle)>,
        answers: &mut [Option<Settled>],
    ) -> Result<Vec<(usize, &'a Settle)>, StoreError> {
        let mut late = Vec::new();
        items.sort_by_key(|(_, item)| unslot(item.slot).2);
        while !items.is_empty() {
            let mut groups: BTreeMap<(Queue, bool, u16), Group<'a>> = BTreeMap::new();
            for (at, item) in std::mem::take(&mut items) {
                let (sid, keyed, _) = unslot(item.slot);
                let Some((queue, _)) = self.stream_if_known(tier, sid).await? else {
                    late.push((at, item)); // the store came back empty since the claim
                    continue;
                };
                // A batch tells its streams with one byte.
                groups.entry((queue, keyed, sid / 200)).or_default().items.push((at, item));
            }
            if groups.is_empty() {
                return Ok(late);
            }
            let mut args = Args::new().arg(*nonce.as_bytes());
            for ((queue, keyed, _), group) in &groups {
                args.push(queue.as_str());
                args.push(u8::from(*keyed).to_string());
                for blob in group.blobs() {
                    args.push(blob);
                }
            }
            let answer = self.link.script(Script::Complete, &prefix(tier), Lane::Work, args).await?;
            let mut values = Values::of(answer, "settle", self.link.place())?;
            if values.int()? == 0 {
                late.extend(groups.into_values().flat_map(|group| group.items));
                return Ok(late);
            }
            values.time()?;
            for group in groups.into_values() {
                match values.next() {
                    Some(deadpool_redis::redis::Value::Array(refused)) => {
                        let refused: HashSet<i64> = refused.iter().filter_map(super::value::int).collect();
                        for (n, entry) in group.items.into_iter().enumerate() {
                            let is_refused = i64::try_from(n).is_ok_and(|n| refused.contains(&n));
                            if is_refused { late.push(entry) } else { items.push(entry) }
                        }
                    }
                    Some(_) => {
                        for (at, _) in group.items {
                            set(answers, at, Settled::Ok);
                        }
                    }
                    None => return Err(strange("settle", self.link.place())),
                }
            }
            while values.left() > 0 {
                if let Some(queue) = values.text()?.and_then(|name| Queue::stored(&name).ok()) {
                    self.trim_keyed(tier, &queue, true).await?;
                }
            }
        }
        Ok(late)
    }

    /// Every verdict but "done"; returns those that the lease does not hold.
    async fn settle_others<'a>(
        &self,
        tier: &Tier,
        nonce: Nonce,
        mut items: Vec<(usize, &'a Settle)>,
        answers: &mut [Option<Settled>],
    ) -> Result<Vec<(usize, &'a Settle)>, StoreError> {
        let mut capability = None;
        for _ in 0..TRIES {
            let ids: Vec<JobId> = items.iter().map(|(_, item)| item.id).collect();
            let looked = self.look(tier, Some(nonce), &ids).await?;
            let Some(lease) = looked.lease else { return Ok(items) };
            let parks = items.iter().any(|(_, item)| matches!(item.verdict, Verdict::Park { .. }));
            if parks && capability.is_none() {
                capability = Some(self.capability_of(tier, &lease).await?);
            }
            let (mut moves, mut moving, mut late) = (Vec::new(), Vec::new(), Vec::new());
            for ((at, item), sight) in items.drain(..).zip(&looked.sights) {
                let by = capability.as_ref().and_then(Option::as_deref);
                let one = (sight.state() == Some(State::Running))
                    .then(|| settled(item, sight, &lease, by, looked.now))
                    .flatten();
                match one {
                    Some(one) => {
                        moves.push(one);
                        moving.push((at, item));
                    }
                    None => late.push((at, item)),
                }
            }
            // What was not done is looked at again: somebody wants it cancelled, or the lease is lost.
            for ((at, item), done) in moving.into_iter().zip(self.commit(tier, moves).await?) {
                if done { set(answers, at, Settled::Ok) } else { items.push((at, item)) }
            }
            if !late.is_empty() || items.is_empty() {
                items.extend(late);
                return Ok(items);
            }
            let held = self.held_by(tier, nonce).await?;
            if !items.iter().any(|(_, item)| held.contains(&item.id)) {
                return Ok(items);
            }
        }
        Err(self.contended("settle"))
    }

    /// What a lease holds now.
    async fn held_by(&self, tier: &Tier, nonce: Nonce) -> Result<HashSet<JobId>, StoreError> {
        let mut ask = deadpool_redis::redis::cmd("HGET");
        ask.arg(format!("{}leases", prefix(tier))).arg(nonce.as_bytes().as_slice());
        let answer = self.link.command("settle", Lane::Rest, &ask).await?;
        Ok(match answer {
            deadpool_redis::redis::Value::BulkString(bytes) => Lease::read(&bytes)
                .map_err(|error| super::value::damaged("settle", self.link.place(), &error))?
                .held
                .into_iter()
                .collect(),
            _ => HashSet::new(),
        })
    }

    /// The release and build of the worker that holds a lease.
    async fn capability_of(&self, tier: &Tier, lease: &Lease) -> Result<Option<String>, StoreError> {
        let Some(worker) = &lease.worker else { return Ok(None) };
        let mut ask = deadpool_redis::redis::cmd("HGET");
        ask.arg(format!("{}workers", prefix(tier))).arg(worker.as_str());
        let answer = self.link.command("settle", Lane::Rest, &ask).await?;
        let deadpool_redis::redis::Value::BulkString(bytes) = answer else { return Ok(None) };
        let (_, _, _, body) = super::record::read_presence(&bytes)
            .map_err(|error| super::value::damaged("settle", self.link.place(), &error))?;
        Ok(serde_json::from_slice::<Presence>(body).ok().map(|presence| presence.capability))
    }

    /// Settles whose lease does not hold the job: done before under the same nonce, or lost.
    async fn answer_late(
        &self,
        tier: &Tier,
        nonce: Nonce,
        late: &[(usize, &Settle)],
        answers: &mut [Option<Settled>],
    ) -> Result<(), StoreError> {
        if late.is_empty() {
            return Ok(());
        }
        let ids: Vec<JobId> = late.iter().map(|(_, item)| item.id).collect();
        let looked = self.look(tier, None, &ids).await?;
        let text = nonce.to_string();
        for ((at, _), sight) in late.iter().zip(&looked.sights) {
            let completed = sight.completed.as_ref().is_some_and(|completed| completed.nonce == nonce);
            let told = sight.job().and_then(|job| job.story.as_ref()).and_then(|story| story.nonce.as_ref());
            let same = completed || sight.completed.is_none() && told == Some(&text);
            set(answers, *at, if same { Settled::Already } else { Settled::Lost });
        }
        Ok(())
    }

    pub(super) async fn renew_leases(
        &self,
        tier: &Tier,
        leases: &[Nonce],
        lease: Duration,
    ) -> Result<Vec<Renewed>, StoreError> {
        let mut args = Args::new().number(lease.as_millis());
        leases.iter().for_each(|nonce| args.push(*nonce.as_bytes()));
        let answer = self.link.script(Script::Renew, &prefix(tier), Lane::Beat, args).await?;
        let mut values = Values::of(answer, "renew", self.link.place())?;
        let until = values.time()?.plus(lease);
        let mut answers = Vec::with_capacity(leases.len());
        for _ in leases {
            answers.push(match values.bytes()? {
                None => Renewed::Lost,
                Some(ids) => Renewed::Until {
                    until,
                    cancel: ids.chunks_exact(16).filter_map(JobId::from_slice).collect(),
                },
            });
        }
        Ok(answers)
    }
}

impl Group<'_> {
    /// Ids, how long each ran, the lengths of the pieces that follow each other, and what a trim will need.
    fn blobs(&self) -> [Vec<u8>; 4] {
        let n = self.items.len();
        let (mut ids, mut rans) = (Vec::with_capacity(n * 16), Vec::with_capacity(n * 4));
        let mut pieces: Vec<u16> = Vec::new();
        let (mut streams, mut chunks): (BTreeMap<u16, u16>, BTreeMap<u64, u16>) =
            (BTreeMap::new(), BTreeMap::new());
        let mut before = None;
        for (_, item) in &self.items {
            let (sid, _, seq) = unslot(item.slot);
            ids.extend_from_slice(item.id.as_bytes());
            rans.extend_from_slice(&u32::try_from(item.ran.as_micros()).unwrap_or(u32::MAX).to_be_bytes());
            match pieces.last_mut() {
                Some(last) if before == Some(seq) => *last += 1,
                _ => pieces.push(1),
            }
            before = Some(seq + 1);
            *streams.entry(sid).or_default() += 1;
            *chunks.entry(seq / CHUNK).or_default() += 1;
        }
        let pieces = pieces.into_iter().flat_map(u16::to_be_bytes).collect();
        let mut trim = vec![u8::try_from(streams.len()).unwrap_or(u8::MAX)];
        for (sid, n) in streams {
            trim.extend_from_slice(&sid.to_be_bytes());
            trim.extend_from_slice(&n.to_be_bytes());
        }
        trim.extend_from_slice(&u16::try_from(chunks.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (chunk, n) in chunks {
            trim.extend_from_slice(chunk.to_be_bytes().get(2..).unwrap_or_default());
            trim.extend_from_slice(&n.to_be_bytes());
        }
        [ids, rans, pieces, trim]
    }
}

/// What a verdict makes of a job that its lease holds.
fn settled(
    item: &Settle,
    sight: &Sight,
    lease: &Lease,
    capability: Option<&str>,
    now: Timestamp,
) -> Option<Move> {
    let job = sight.job()?;
    let mut story = job.story();
    let verdict = if sight.wish { &Verdict::Cancelled } else { &item.verdict };
    let source = Source::Held(item.nonce, Some(sight.wish));
    story.nonce = Some(item.nonce.to_string());
    if *verdict == Verdict::Return {
        let target = if lease.suspect { Target::Suspect } else { Target::Back };
        return Move::new(sight, &story, source, target, State::Running, None, now);
    }
    let Consequence { state, outcome, error, run_at, costs } = verdict.consequence(now)?;
    story.tell(Attempt {
        at: now,
        outcome: outcome.into(),
        error,
        ran: (!item.ran.is_zero()).then_some(item.ran),
        worker: lease.worker.clone(),
        release: lease.release.clone(),
    });
    story.state = Some(state);
    story.run_at = run_at.map(Timestamp::ms);
    story.finished_at = state.is_final().then_some(now.ms());
    story.claimed_at = Some(lease.claimed_at.ms());
    story.ran_us = Some(u64::try_from(item.ran.as_micros()).unwrap_or(u64::MAX));
    (story.worker, story.release) = (lease.worker.clone(), lease.release.clone());
    story.failures += u32::from(costs);
    story.charged_at = None; // settled, it is no suspect any more
    park(&mut story, verdict, capability);
    let target = match (state, run_at) {
        (State::Parked, _) => Target::Parked(parked_key(job.sid, &story)),
        (_, Some(at)) => Target::Due(at),
        _ => Target::Final,
    };
    Move::new(sight, &story, source, target, State::Running, costs.then_some(FAILED), now)
}

fn park(story: &mut Story, verdict: &Verdict, capability: Option<&str>) {
    (story.parked, story.parked_by) = match verdict {
        Verdict::Park { why, .. } => (Some(*why), capability.map(str::to_owned)),
        _ => (None, None),
    };
}
