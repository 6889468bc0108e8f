//! Sweeping: a script tells what time has come for, and what becomes of it is decided here. Every pass is bounded.

use std::time::Duration;

use deadpool_redis::redis;

use super::link::Lane;
use super::moves::{Move, Sight, Source, Target, elsewhere, end_waiting};
use super::record::{Lease, Story};
use super::scripts::{Args, Script};
use super::value::{Values, damaged, int};
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::State;
use crate::job::record::Attempt;
use crate::names::{Queue, Tier};
use crate::store::digest::COMPLETED;
use crate::store::meaning::{charged, lost, quarantined};
use crate::store::{
    KEEP_CANARIES, KEEP_CANARIES_PER_TIER, KEEP_COMPLETED, KEEP_DEAD, MAX_BATCH, MAX_CRASHES, StoreError,
    SweepAsk, Swept,
};

/// Presence of workers that are gone is kept this long.
const KEEP_PRESENCE: Duration = Duration::from_secs(24 * 3600);

/// What a rescue must know of the tier.
struct Fleet {
    /// Jobs completed since the tier began.
    completed: u64,
    /// Other work is there.
    others: bool,
}

/// What becomes of a job whose worker was lost.
enum Fate {
    Back,
    Dead,
    Expired,
    Cancelled,
}

impl RedisStore {
    pub(super) async fn sweep_tier(&self, ask: &SweepAsk) -> Result<Swept, StoreError> {
        let tier = &ask.tier;
        let mut args = Args::new()
            .number(ask.lease.as_millis())
            .number(MAX_BATCH)
            .number(KEEP_COMPLETED.as_millis())
            .number(KEEP_DEAD.as_millis())
            .number(KEEP_PRESENCE.as_millis())
            .number(KEEP_CANARIES.as_millis())
            .number(KEEP_CANARIES_PER_TIER)
            .arg(ask.capability.as_str());
        ask.kinds.iter().for_each(|kind| args.push(kind.as_str()));
        let answer = self.link.script(Script::Sweep, &prefix(tier), Lane::Rest, args).await?;
        let mut values = Values::of(answer, "sweep", self.link.place())?;
        let now = values.time()?;
        let next = values.int()?;
        let (due, overdue, late) = (values.list()?.all()?, values.list()?.all()?, values.list()?.all()?);
        let (last, trims, parked) = (values.list()?.all()?, values.list()?.all()?, values.list()?.all()?);
        let mut swept =
            Swept { trimmed: u64::try_from(values.int()?).unwrap_or_default(), ..Swept::default() };
        let full = [&due, &late, &parked].iter().any(|ids| ids.len() >= MAX_BATCH) || last.len() >= 200;

        self.promote(tier, &ids(&due), &mut swept).await?;
        for nonce in overdue {
            let Ok(nonce) = <[u8; 16]>::try_from(nonce.as_slice()) else { continue };
            if swept.rescued + swept.quarantined >= MAX_BATCH as u64 {
                swept.more = true;
                break;
            }
            if let Some((seized, lease)) =
                self.seize(tier, Nonce::from_bytes(nonce), ask.lease, true, &mut swept).await?
            {
                self.rescue(tier, seized, lease, &mut swept).await?;
            }
        }
        let room = MAX_BATCH.saturating_sub(usize::try_from(swept.expired).unwrap_or(MAX_BATCH));
        swept.more |= late.len() > room;
        self.expire(tier, &ids(late.get(..room).unwrap_or(&late)), ask.lease, &mut swept).await?;
        self.unpark(tier, &ids(&parked), &mut swept).await?;
        if !last.is_empty() {
            swept.trimmed += self.forget_final(tier, &ids(&last)).await?;
        }
        for queue in trims {
            let queue = std::str::from_utf8(&queue).ok().and_then(|name| Queue::stored(name).ok());
            if let Some(queue) = queue {
                swept.trimmed += self.trim_keyed(tier, &queue, false).await?;
            }
        }
        swept.more |= full || swept.trimmed >= 200;
        swept.next_due = match (next, swept.more) {
            (_, true) => Some(Duration::ZERO),
            (-1, _) => None,
            (at, _) => Some(Timestamp::from_ms(at).since(now)),
        };
        Ok(swept)
    }

    /// What was scheduled or failed and is due now.
    async fn promote(&self, tier: &Tier, ids: &[JobId], swept: &mut Swept) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let looked = self.look_past_damage(tier, ids).await?;
        let mut moves = Vec::with_capacity(ids.len());
        for sight in &looked.sights {
            let Some(state @ (State::Scheduled | State::Retryable)) = sight.state() else { continue };
            moves.extend(available_or_late(sight, state, looked.now));
        }
        self.count_moves(tier, moves, &mut swept.promoted, &mut swept.expired).await
    }

    /// Parked jobs that the sweeper can run.
    async fn unpark(&self, tier: &Tier, ids: &[JobId], swept: &mut Swept) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let looked = self.look_past_damage(tier, ids).await?;
        let parked = looked.sights.iter().filter(|sight| sight.state() == Some(State::Parked));
        let moves = parked.filter_map(|sight| available_or_late(sight, State::Parked, looked.now)).collect();
        self.count_moves(tier, moves, &mut swept.unparked, &mut swept.expired).await
    }

    async fn count_moves(
        &self,
        tier: &Tier,
        moves: Vec<(Move, bool)>,
        made: &mut u64,
        expired: &mut u64,
    ) -> Result<(), StoreError> {
        let (moves, late): (Vec<Move>, Vec<bool>) = moves.into_iter().unzip();
        for (done, late) in self.commit(tier, moves).await?.into_iter().zip(late) {
            *(if late { &mut *expired } else { &mut *made }) += u64::from(done);
        }
        Ok(())
    }

    /// What waits and is too late. What runs is ended by its worker; it is looked at again a lease later.
    async fn expire(
        &self,
        tier: &Tier,
        ids: &[JobId],
        lease: Duration,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let looked = self.look_past_damage(tier, ids).await?;
        let (mut moves, mut later) = (Vec::new(), Args::new());
        for sight in &looked.sights {
            match (sight.state(), sight.job()) {
                (Some(State::Running), _) => {
                    later.push(*sight.id.as_bytes());
                    later.push(looked.now.plus(lease).ms().to_string());
                }
                (Some(state), Some(job)) if !state.is_final() => {
                    let mut story = job.story();
                    let source = if state == State::Available {
                        Source::Available
                    } else {
                        elsewhere(job.sid, &story)
                    };
                    end_waiting(&mut story, State::Expired, looked.now);
                    moves.extend(Move::new(sight, &story, source, Target::Final, state, None, looked.now));
                }
                _ => {
                    later.push(*sight.id.as_bytes());
                    later.push("");
                }
            }
        }
        if !later.is_empty() {
            self.link.script(Script::Defer, &prefix(tier), Lane::Rest, later).await?;
        }
        swept.expired += self.commit(tier, moves).await?.into_iter().filter(|done| *done).count() as u64;
        Ok(())
    }

    /// Takes a lease over, so that its lost worker cannot come back to it while its jobs are given away. Nobody else does the same,
    /// and if this process dies meanwhile, the next sweeper takes it over in turn.
    pub(super) async fn seize(
        &self,
        tier: &Tier,
        nonce: Nonce,
        lease: Duration,
        only_overdue: bool,
        swept: &mut Swept,
    ) -> Result<Option<(Nonce, Lease)>, StoreError> {
        let new = Nonce::new();
        let args = Args::new()
            .arg(*nonce.as_bytes())
            .arg(*new.as_bytes())
            .number(lease.as_millis())
            .number(u8::from(only_overdue))
            .number(MAX_BATCH.saturating_sub(usize::try_from(swept.rescued).unwrap_or(MAX_BATCH)));
        let op = Script::Seize.op();
        match self.link.script(Script::Seize, &prefix(tier), Lane::Rest, args).await? {
            redis::Value::BulkString(bytes) => {
                let lease = Lease::read(&bytes).map_err(|error| damaged(op, self.link.place(), &error))?;
                Ok(Some((new, lease)))
            }
            redis::Value::Int(_) => {
                swept.more = true; // a lease is rescued whole
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Gives back what a lost worker held. Which of its jobs killed it is not known, so all become suspects, and none is
    /// charged: a suspect is handed out alone, and is charged if it dies again. A canary ends with its worker, whom alone it was to
    /// prove.
    pub(super) async fn rescue(
        &self,
        tier: &Tier,
        nonce: Nonce,
        lease: Lease,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let fleet = self.fleet(tier).await?;
        let looked = self.look_past_damage(tier, &lease.held).await?;
        let lost = lease.worker.as_ref().map(lost);
        let (mut moves, mut fates) = (Vec::new(), Vec::new());
        for sight in &looked.sights {
            let Some(job) = sight.job() else { continue };
            let (now, mut story) = (looked.now, job.story());
            story.tell(Attempt {
                worker: lease.worker.clone(),
                release: lease.release.clone(),
                ..Attempt::outside(now, "crashed", lost.clone())
            });
            let mut target = Target::Suspect;
            let mut fate = Fate::Back;
            if sight.wish {
                end_waiting(&mut story, State::Cancelled, now);
                (target, fate) = (Target::Final, Fate::Cancelled);
            } else if job.is_canary() {
                end_waiting(&mut story, State::Expired, now);
                (target, fate) = (Target::Final, Fate::Expired);
            } else if lease.suspect {
                story.charged_at = Some(now.ms());
                if charge(&mut story, &fleet) {
                    quarantine(&mut story, now);
                    (target, fate) = (Target::Final, Fate::Dead);
                }
            }
            let source = Source::Held(nonce, None);
            if let Some(one) = Move::new(sight, &story, source, target, State::Running, None, now) {
                moves.push(one);
                fates.push(fate);
            }
        }
        for (done, fate) in self.commit(tier, moves).await?.into_iter().zip(fates) {
            match fate {
                Fate::Back => swept.rescued += u64::from(done),
                Fate::Dead => swept.quarantined += u64::from(done),
                Fate::Expired => swept.expired += u64::from(done),
                Fate::Cancelled => {}
            }
        }
        Ok(())
    }

    async fn fleet(&self, tier: &Tier) -> Result<Fleet, StoreError> {
        let prefix = prefix(tier);
        let mut ask = redis::pipe();
        ask.hgetall(format!("{prefix}c"));
        ask.cmd("EXISTS").arg(format!("{prefix}waiting")).arg(format!("{prefix}suspected"));
        let mut answers = self.link.pipeline("rescue", Lane::Rest, &ask).await?.into_iter();
        let counters = super::read::pairs(answers.next());
        let code = format!(":{COMPLETED}");
        let mut completed = 0;
        for (field, n) in &counters {
            let Some(sid) = field.strip_suffix(&code).and_then(|sid| sid.parse().ok()) else { continue };
            // Canaries go to workers that may not claim: they tell nothing of those that may.
            let queue = self.stream_if_known(tier, sid).await?.map(|(queue, _)| queue);
            if !queue.is_some_and(|queue| queue.is_canaries()) {
                completed += n.unsigned_abs();
            }
        }
        Ok(Fleet { completed, others: answers.next().as_ref().and_then(int).unwrap_or_default() > 0 })
    }
}

fn ids(bytes: &[Vec<u8>]) -> Vec<JobId> {
    bytes.iter().filter_map(|id| JobId::from_slice(id)).collect()
}

/// A job whose time has come: to the tail of its list, or expired.
fn available_or_late(sight: &Sight, from: State, now: Timestamp) -> Option<(Move, bool)> {
    let job = sight.job()?;
    let mut story = job.story();
    let source = elsewhere(job.sid, &story);
    let late = job.expires_at.is_some_and(|at| at <= now);
    let target = if late {
        end_waiting(&mut story, State::Expired, now);
        Target::Final
    } else {
        make_available(&mut story);
        if from == State::Parked {
            story.run_at = Some(now.ms()); // it could not run before now, whenever it was enqueued
        }
        Target::Tail
    };
    Some((Move::new(sight, &story, source, target, from, None, now)?, late))
}

/// It waits in a list again.
pub(super) fn make_available(story: &mut Story) {
    (story.state, story.finished_at) = (Some(State::Available), None);
    (story.parked, story.parked_by) = (None, None);
}

/// Charges a suspect that was lost alone; says whether that was once too often.
fn charge(story: &mut Story, fleet: &Fleet) -> bool {
    let Some(crashes) = charged(story.crashes, story.crash_mark, fleet.completed, fleet.others) else {
        return false;
    };
    (story.crashes, story.crash_mark) = (crashes, Some(fleet.completed));
    crashes >= MAX_CRASHES
}

fn quarantine(story: &mut Story, now: Timestamp) {
    story.tell(Attempt::outside(now, "quarantined", Some(quarantined())));
    (story.state, story.finished_at) = (Some(State::Dead), Some(now.ms()));
}
