//! Claiming: one script compares the activation and takes jobs. What it took and is too late, or cannot be read, is dealt with
//! here, under the lease.

use std::sync::Arc;

use super::control::Standing;
use super::link::Lane;
use super::moves::{Move, Sight, Source, Target, end_waiting};
use super::record::{Found, Stored};
use super::scripts::{Args, Script};
use super::value::Values;
use super::{RedisStore, prefix};
use crate::activation::{Decision, decide};
use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::State;
use crate::names::Tier;
use crate::store::{self, Actor, Batch, Claim, ClaimAsk, Claimed, ErrorKind, MAX_BATCH, StoreError};

impl RedisStore {
    pub(super) async fn claim_jobs(&self, ask: &ClaimAsk) -> Result<Claim, StoreError> {
        self.server.must_be_safe(self.link.place())?;
        loop {
            let mut values = self.try_claim(ask).await?;
            match values.int()? {
                // The jobs are taken: if their names cannot be read, nobody was told of them.
                0 => return self.batch(ask, values).await.map_err(StoreError::after_a_part),
                1 => {
                    let now = values.time()?;
                    let current = self.activation_from(values.bytes()?)?.map(Standing::into);
                    return Ok(Claim::NotActive { current, now, canaries: values.int()? == 1 });
                }
                2 => return Ok(Claim::Superseded),
                3 => {
                    let (now, body) = (values.time()?, values.bytes()?);
                    self.revert(ask, now, self.activation_from(body)?).await?;
                }
                _ => {
                    return Err(self.link.error(
                        "claim",
                        ErrorKind::Refused,
                        "a lease with this nonce exists already",
                    ));
                }
            }
        }
    }

    async fn try_claim(&self, ask: &ClaimAsk) -> Result<Values, StoreError> {
        let queues = match &ask.queues {
            None => "*".to_owned(),
            Some(queues) => queues.iter().fold(",".to_owned(), |all, queue| format!("{all}{queue},")),
        };
        let args = Args::new()
            .arg(ask.worker.as_str())
            .arg(*ask.incarnation.as_bytes())
            .arg(ask.release.as_str())
            .number(ask.generation)
            .number(ask.max.min(MAX_BATCH))
            .number(ask.lease.as_millis())
            .arg(*ask.nonce.as_bytes())
            .number(u8::from(ask.suspects))
            .number(fastrand::u32(1..1_000_000))
            .arg(queues)
            .number(u8::from(ask.lane == store::Lane::Canaries));
        let answer = self.link.script(Script::Claim, &prefix(&ask.tier), Lane::Work, args).await?;
        Values::of(answer, "claim", self.link.place())
    }

    /// The dead-man: this poll proves that the fallback lives. Whoever is second finds it done; and who extended or committed it in
    /// time was first.
    async fn revert(&self, ask: &ClaimAsk, now: Timestamp, seen: Option<Standing>) -> Result<(), StoreError> {
        let Some(seen) = seen else { return Ok(()) };
        let from = &seen.activation;
        if let Decision::Revert { to } = decide(from, &ask.release, ask.generation, now) {
            let by = Actor {
                who: format!("worker/{}", ask.worker),
                reason: Some(format!(
                    "generation {} ({}) was not confirmed in time",
                    from.generation, from.release
                )),
            };
            self.install(&ask.tier, Some(&seen), &to, None, Some((&by, "activation.reverted"))).await?;
        }
        Ok(())
    }

    async fn batch(&self, ask: &ClaimAsk, mut values: Values) -> Result<Claim, StoreError> {
        let now = values.time()?;
        let generation = u64::try_from(values.int()?).unwrap_or_default();
        let (suspect, mut more, canaries) = (values.int()? == 1, values.int()? == 1, values.int()? == 1);
        if let Some(identity) = values.bytes()?.filter(|identity| !identity.is_empty()) {
            self.streams.heard(&ask.tier, &identity);
        }
        let ids = values.bytes()?.unwrap_or_default();
        let (mut jobs, mut late) = (Vec::with_capacity(values.left()), Vec::new());
        for id in ids.chunks_exact(16).filter_map(JobId::from_slice) {
            let Some(bytes) = values.bytes()? else { continue };
            match Stored::read(&bytes) {
                Ok(job) if job.expires_at.is_some_and(|at| at <= now) => late.push((id, job)),
                Ok(job) => jobs.push(self.claimed(&ask.tier, id, job).await?),
                // It stays in the lease, and is rescued with it: a newer version may read it.
                Err(error) => tracing::error!(%id, %error, "a claimed job is damaged: it is not run"),
            }
        }
        if !late.is_empty() {
            more = true; // what waits behind it is next
            self.expire_held(&ask.tier, ask.nonce, late, now).await?;
        }
        let until = now.plus(ask.lease);
        let suspect = suspect && !jobs.is_empty();
        let mut batch = Batch { generation, nonce: ask.nonce, now, until, jobs, suspect, more, canaries };
        Ok(match ask.lane {
            store::Lane::Jobs => Claim::Active(batch),
            store::Lane::Canaries => {
                batch.canaries = more;
                Claim::Canaries(batch)
            }
        })
    }

    async fn claimed(&self, tier: &Tier, id: JobId, job: Stored) -> Result<Claimed, StoreError> {
        let (queue, kind) = self.stream(tier, job.sid).await?;
        let slot = job.slot();
        let (failures, crashes) = job.story.as_ref().map_or((0, 0), |story| (story.failures, story.crashes));
        Ok(Claimed {
            id,
            slot,
            kind,
            queue,
            version: job.version,
            failures,
            crashes,
            enqueued_at: job.enqueued_at,
            due_at: job.due_at(),
            expires_at: job.expires_at,
            extras: job.extras.map(Arc::new),
            args: job.args,
        })
    }

    /// What was claimed too late never runs.
    async fn expire_held(
        &self,
        tier: &Tier,
        nonce: Nonce,
        late: Vec<(JobId, Stored)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut moves = Vec::with_capacity(late.len());
        for (id, job) in late {
            let mut story = job.story();
            end_waiting(&mut story, State::Expired, now);
            let found = Some(Found::Job(Box::new(job)));
            let sight = Sight { id, found, completed: None, stands: false, wish: false };
            moves.extend(Move::new(
                &sight,
                &story,
                Source::Held(nonce, None),
                Target::Final,
                State::Running,
                None,
                now,
            ));
        }
        self.commit(tier, moves).await?;
        Ok(())
    }
}
