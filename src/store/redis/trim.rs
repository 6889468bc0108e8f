//! Retention of what a script cannot forget alone: jobs whose keys are remembered longer than they are.

use serde_json::json;

use super::insert::{holds, kept};
use super::link::Lane;
use super::moves::Sight;
use super::record::remembered;
use super::scripts::{Args, Script};
use super::value::int;
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::State;
use crate::names::{Queue, Tier};
use crate::store::digest::content_digest;
use crate::store::{KEEP_COMPLETED, KEEP_COMPLETED_PER_QUEUE, KEEP_KEYS, StoreError};

/// Most batches that one call trims.
const BATCHES: usize = 4;

impl RedisStore {
    /// Trims the oldest completed jobs of a queue if they have keys; by count or by age. Returns how many went.
    pub(super) async fn trim_keyed(
        &self,
        tier: &Tier,
        queue: &Queue,
        by_count: bool,
    ) -> Result<u64, StoreError> {
        let (op, prefix) = (Script::Forget.op(), prefix(tier));
        let mut gone = 0;
        for _ in 0..BATCHES {
            let mut ask = deadpool_redis::redis::pipe();
            ask.lindex(format!("{prefix}done:{queue}"), 0).hget(format!("{prefix}kept"), queue.as_str());
            let mut answers = self.link.pipeline(op, Lane::Rest, &ask).await?.into_iter();
            let Some(deadpool_redis::redis::Value::BulkString(batch)) = answers.next() else { break };
            let kept = answers.next().as_ref().and_then(int).unwrap_or_default();
            let Some(ids) = keyed(&batch) else { break };
            let looked = self.look(tier, None, &ids).await?;
            let done_at =
                batch.get(1..7).unwrap_or_default().iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
            let old = Timestamp::from_ms(done_at) < looked.now.minus(KEEP_COMPLETED);
            let over = kept > i64::try_from(KEEP_COMPLETED_PER_QUEUE).unwrap_or(i64::MAX);
            if !(old || by_count && over) {
                break;
            }
            match self.forget(tier, Some((queue, &batch)), &looked.sights, looked.now).await? {
                0 => break,
                n => gone += n,
            }
        }
        Ok(gone)
    }

    /// Deletes ended jobs and remembers their keys.
    pub(super) async fn forget(
        &self,
        tier: &Tier,
        batch: Option<(&Queue, &[u8])>,
        sights: &[Sight],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let prefix = prefix(tier);
        let keys: Vec<&str> = sights
            .iter()
            .filter_map(|sight| Some(sight.job()?.extras.as_ref()?.unique.as_ref()?.key.as_str()))
            .collect();
        let mut holders =
            self.fields(Script::Forget.op(), format!("{prefix}unique"), &keys).await?.into_iter();
        let mut args = match batch {
            Some((queue, batch)) => Args::new().arg(queue.as_str()).arg(batch),
            None => Args::new().arg("").arg(""),
        };
        for sight in sights {
            let Some(job) = sight.job() else { continue };
            let unique = job.extras.as_ref().and_then(|extras| extras.unique.as_ref());
            let holder = unique.and_then(|_| holders.next()).flatten();
            let Some(state) = sight.state().filter(|state| state.is_final()) else { continue };
            args.push(*sight.id.as_bytes());
            args.push(job.prefix.clone());
            let finished = sight.completed.as_ref().map(|completed| completed.finished_at);
            let until = finished.map(|at| at.plus(KEEP_KEYS)).filter(|until| *until > now);
            let named = job.extras.as_ref().is_some_and(|extras| extras.idempotency_key.is_some());
            match until.filter(|_| named && state == State::Completed) {
                Some(until) => {
                    let (queue, kind) = self.stream(tier, job.sid).await?;
                    args.push(remembered(&content_digest(&kind, &queue, &job.args), until));
                    args.push(until.ms().to_string());
                }
                None => {
                    args.push("");
                    args.push("");
                }
            }
            args.push(state.code().to_string());
            args.push(match (unique, holder) {
                (Some(unique), Some(text)) if holds(&text, sight.id) => {
                    let window = unique.window.filter(|_| unique.held_by(state, job.enqueued_at, now));
                    let until = window.map(|window| job.enqueued_at.plus(window));
                    let keep = until.map_or(String::new(), |until| kept(sight.id, state, until));
                    json!([unique.key, text, keep, until.map_or(0, Timestamp::ms)]).to_string()
                }
                _ => String::new(),
            });
        }
        let answer = self.link.script(Script::Forget, &prefix, Lane::Rest, args).await?;
        Ok(int(&answer).and_then(|n| u64::try_from(n).ok()).unwrap_or_default())
    }

    /// Ended jobs whose time is over.
    pub(super) async fn forget_final(&self, tier: &Tier, ids: &[JobId]) -> Result<u64, StoreError> {
        let looked = self.look_past_damage(tier, ids).await?;
        self.forget(tier, None, &looked.sights, looked.now).await
    }
}

/// The ids of a batch of completed jobs whose keys are remembered; see `complete.lua`.
fn keyed(batch: &[u8]) -> Option<Vec<JobId>> {
    if *batch.first()? != 1 {
        return None;
    }
    let streams = usize::from(*batch.get(7)?);
    let at = 8 + streams * 4;
    let chunks = usize::from(u16::from_be_bytes(batch.get(at..at + 2)?.try_into().ok()?));
    Some(batch.get(at + 2 + chunks * 8..)?.chunks_exact(16).filter_map(JobId::from_slice).collect())
}
